"""Keeping a lane while time passes: renewals, the end of a lease, outages, sleep, and what an operator wants."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heartlane.client import LaneLost, keeping
from heartlane.client.lane import AsyncLane
from heartlane.client.lease import margin
from tests.client.faults import drop_answer, drop_request, hang, page, says
from tests.client.worker import Worker, until


async def one_run(worker: Worker) -> dict[str, Any]:
    (run,) = await worker.harness.approved(1)
    return run


async def asked(worker: Worker, reports: int) -> None:
    """So many reports have been sent."""
    await until(lambda: worker.transport.count("/events") == reports)


async def steer(worker: Worker, run: dict[str, Any], verb: str) -> None:
    response = await worker.harness.operator.post(f"/api/agents/runs/{run['id']}/{verb}")
    assert response.status_code == 200, response.text


# --- renewals ------------------------------------------------------------------------------------------------------


async def test_a_silent_body_keeps_its_lane(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=300) as lane:
        for _ in range(30):
            before = worker.transport.count("/events")
            await worker.let_pass(101)
            await asked(worker, before + 1)
            assert not lane.should_stop
        await lane.ship()
    assert (await worker.harness.read(run["id"]))["attempt"] == 1
    assert await worker.kinds(run) == ["claimed", "ship_complete"]


async def test_it_is_renewed_no_sooner_than_needed(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=300):
        before = worker.transport.count("/events")
        await worker.let_pass(75)
        await asyncio.sleep(0.05)
        assert worker.transport.count("/events") == before


async def test_two_of_three_renewals_get_lost(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=60) as lane:
        for _ in range(10):
            worker.transport.next("/events", drop_request, drop_answer)
            await worker.let_pass(20)
            await until(lambda: worker.transport.left == 0)
            await until(lambda: lane._keeper._tries == 0)
        assert not lane.should_stop
        await lane.ship()
    assert (await worker.harness.read(run["id"]))["attempt"] == 1


async def test_a_report_that_arrived_unheard_is_not_told_again_by_another_number(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=60) as lane:
        worker.transport.next("/events", drop_answer, page(413))
        for number in range(6):
            await lane.log(f"line {number}")
        await worker.let_pass(20)
        await until(lambda: worker.transport.left == 0)
        await until(lambda: lane._keeper._tries == 0)
        await lane.ship()
    events = await worker.harness.events(run["id"], type="log_line")
    assert [event["payload"]["line"] for event in events] == [f"line {number}" for number in range(6)]


# --- the lease runs out --------------------------------------------------------------------------------------------


async def test_a_lease_that_nobody_confirms_runs_out_before_the_servers(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=60) as lane:
        worker.transport.always("/events", drop_request)
        worker.sleep(60 - margin(60) - 2)
        await until(lambda: lane._keeper.last_error is not None)
        assert repr(lane).endswith("running>")
        worker.sleep(2.1)
        # By the clock, at once: nobody needs to have looked.
        assert (lane.lost, lane.should_stop) == (True, True)
        with pytest.raises(LaneLost, match="ran out before the server confirmed it") as lost:
            await lane.log("x")
        assert lost.value.code is None
        async with asyncio.timeout(10):
            await lane.lost_event.wait()
        assert lane.lost_reason is not None
        assert "All connection attempts failed" in str(lane.lost_reason)
        assert (await worker.harness.read(run["id"]))["state"] == "running"
        worker.transport.always("/events", None)
    assert lane.outcome == "lost"
    # Nobody works it any more, so that it needn't lie there until the server's own deadline.
    assert (await worker.harness.read(run["id"]))["state"] == "released"


async def test_a_body_that_waits_is_told_of_a_lost_lane(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=60) as lane:
        worker.transport.always("/events", hang)
        await lane.log("under way when it happens")
        flushing = asyncio.ensure_future(lane.flush())
        shipping = asyncio.ensure_future(lane.ship())
        await asyncio.sleep(0.05)
        worker.sleep(120)
        for waiting in (flushing, shipping):
            with pytest.raises(LaneLost):
                await waiting


async def test_an_outage_that_is_waited_for_costs_nothing(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=60, outage_seconds=3600) as lane:
        await lane.log("before")
        worker.transport.always("POST", drop_request)
        worker.sleep(100)
        # Past the lease, which may have run out: stand still.
        assert (lane.paused, lane.should_stop, lane.outcome) == (True, False, None)
        async with asyncio.timeout(10):
            await lane.pause_event.wait()
        telling = asyncio.ensure_future(lane.log("after"))
        standing = asyncio.ensure_future(lane.checkpoint())
        await asyncio.sleep(0.1)
        assert not telling.done()
        assert not standing.done()
        # No server ran either: its clock goes on when it does, and it gives every holder a lease to be heard again.
        await worker.harness.be_down_for(100)
        worker.transport.always("POST", None)
        await telling
        await standing
        assert not lane.paused
        assert not lane.pause_event.is_set()
        await lane.ship()
    assert (await worker.harness.read(run["id"]))["attempt"] == 1
    assert await worker.kinds(run) == ["claimed", "log_line", "log_line", "ship_complete"]


async def test_an_outage_in_which_another_took_over(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=60, outage_seconds=3600) as lane:
        worker.transport.always("POST", page(502))
        await worker.let_pass(70)
        await worker.harness.claim(run["id"], "another")
        telling = asyncio.ensure_future(lane.log("after"))
        await asyncio.sleep(0.05)
        worker.transport.always("POST", None)
        with pytest.raises(LaneLost) as lost:
            await telling
        assert lost.value.code == "CLAIM_HELD_BY_OTHER"
    assert (await worker.harness.read(run["id"]))["worker_id"] == "another"


async def test_an_outage_that_takes_too_long(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=60, outage_seconds=600) as lane:
        worker.transport.always("POST", says(503, "UNAVAILABLE", retryAfter=0.01))
        worker.sleep(650)
        assert repr(lane).endswith("running>")
        worker.sleep(10)
        assert lane.outcome == "lost"


async def test_a_machine_that_slept_asks_before_anything_else(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=300, outage_seconds=3600) as lane:
        before = worker.transport.count("/events")
        # Timers don't tell it: the next renewal is a minute and a half away.
        worker.sleep(3600)
        await until(lambda: worker.transport.count("/events") > before)
        await until(lambda: not lane.paused)
        await lane.ship()
    async with worker.lane(await one_run(worker), lease_seconds=300, outage_seconds=3600) as lane:
        run = {"id": str(lane.run.id)}
        # This time the server was awake, and has taken the lane back.
        await worker.harness.let_pass(3600)
        worker.sleep(3600)
        async with asyncio.timeout(10):
            await lane.lost_event.wait()
        assert lane.lost_reason is not None
        assert lane.lost_reason.code == "CLAIM_LOST"
    assert (await worker.harness.read(run["id"]))["attempt"] == 1


async def test_a_server_that_is_busy_is_asked_again_in_time(worker: Worker) -> None:
    """It asks for a minute of patience with half a minute left of the lease."""
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=60) as lane:
        worker.transport.next("/events", says(429, "RATE_LIMITED", retryAfter=60))
        await worker.let_pass(25)
        await until(lambda: worker.transport.left == 0)
        await worker.let_pass(15)
        await until(lambda: lane._keeper._tries == 0)
        await worker.let_pass(25)
        assert not lane.should_stop
        await lane.ship()


async def test_a_keeper_that_fails_says_so(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await one_run(worker)
    async with worker.lane(run) as lane:

        async def broken(*arguments: Any, **options: Any) -> Any:
            raise ZeroDivisionError

        monkeypatch.setattr(worker.client, "send_once", broken)
        await lane.log("x")
        with pytest.raises(LaneLost, match="isn't kept any more: ZeroDivisionError"):
            await lane.flush()
        monkeypatch.undo()


# --- what an operator wants ----------------------------------------------------------------------------------------


async def told(lane: AsyncLane) -> None:
    """Have the next report's answer: without its stream, a lane hears of nothing before."""
    await lane.log("still here")
    await lane.flush()


async def test_pause_and_resume_by_the_reports_directive(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run) as lane:
        await steer(worker, run, "pause")
        await told(lane)
        assert (lane.paused, lane.should_stop) == (True, False)
        assert lane.pause_event.is_set()
        standing = asyncio.ensure_future(lane.checkpoint())
        # A paused lane may still tell what it does.
        await told(lane)
        assert not standing.done()
        await steer(worker, run, "resume")
        await told(lane)
        await standing
        assert not lane.paused
        assert not lane.pause_event.is_set()


async def test_a_pause_is_heard_at_once_by_the_stream(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, follow=True) as lane:
        await until(lambda: len(worker.harness.context.streams) == 1)
        await steer(worker, run, "pause")
        async with asyncio.timeout(10):
            await lane.pause_event.wait()
        await steer(worker, run, "resume")
        await until(lambda: not lane.paused)
        await steer(worker, run, "cancel")
        async with asyncio.timeout(10):
            await lane.stop_event.wait()
        assert lane.lost_reason is not None
        assert lane.lost_reason.code == "RUN_FINISHED"
        with pytest.raises(LaneLost):
            await lane.checkpoint()
    await until(lambda: len(worker.harness.context.streams) == 0)


async def test_a_release_by_an_operator_is_heard_at_once(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, follow=True) as lane:
        await until(lambda: len(worker.harness.context.streams) == 1)
        await steer(worker, run, "release")
        async with asyncio.timeout(10):
            await lane.lost_event.wait()
        assert lane.lost_reason is not None
        assert lane.lost_reason.code == "CLAIM_LOST"


async def test_the_stream_alone_ends_nothing(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, follow=True) as lane:
        await until(lambda: len(worker.harness.context.streams) == 1)
        worker.transport.always("/events", drop_request)
        await steer(worker, run, "cancel")
        await asyncio.sleep(0.2)
        assert not lane.should_stop
        worker.transport.always("/events", None)
        async with asyncio.timeout(10):
            await lane.stop_event.wait()


NO_STREAM = {
    "no connection": drop_request,
    "a page": page(404),
    "401": says(401, "TOKEN_EXPIRED"),
    "503": says(503, "UNAVAILABLE", retryAfter=0.01),
}


@pytest.mark.parametrize("fault", NO_STREAM.values(), ids=NO_STREAM)
async def test_a_stream_that_cannot_be_had_is_tried_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    monkeypatch.setattr(keeping, "FOLLOW_AGAIN_SECONDS", 0.01)
    run = await one_run(worker)
    worker.transport.always("/stream", fault)
    async with worker.lane(run, follow=True) as lane:
        await until(lambda: worker.transport.count("/stream") > 3)
        assert not lane.should_stop
        worker.transport.always("/stream", None)
        await until(lambda: len(worker.harness.context.streams) == 1)
        await steer(worker, run, "pause")
        async with asyncio.timeout(10):
            await lane.pause_event.wait()
