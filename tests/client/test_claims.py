"""Claiming a lane: which, how long to wait for one, and that a lost answer never makes two of one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from heartlane.client import LaneLost, NoLane, Unreachable, claiming
from heartlane.client.errors import ClaimHeldByOther, Forbidden, InvalidRequest, LaneBlocked, NotFound
from heartlane.client.lane import AsyncLane
from tests.client.faults import drop_answer, drop_before_it_is_done, drop_request, hang, page, says
from tests.client.worker import Worker, until
from tests.harness import Harness


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that got lost can't be done as late as on a real network."""
    monkeypatch.setattr(claiming, "POLL_SECONDS", 0.4)
    monkeypatch.setattr(claiming, "LATE_SECONDS", 0.05)
    monkeypatch.setattr(claiming, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(claiming, "ERROR_SECONDS_MAX", 0.05)


async def claimed(worker: Worker, **options: Any) -> AsyncLane:
    """A lane that is held without a block around it."""
    return await worker.client.claim(follow=False, **options)


async def held(harness: Harness) -> list[str]:
    """Keys of the lanes that anybody holds."""
    found = (await harness.viewer.get("/api/agents/workers")).json()["workers"]
    return sorted(run["lane_key"] for each in found for run in each["runs"])


async def test_the_best_lane_that_fits(worker: Worker) -> None:
    lanes: list[dict[str, Any]] = [
        {"laneKey": "low", "title": "Low", "role": "backend"},
        {"laneKey": "high", "title": "High", "role": "backend", "priority": 5, "prompt": "Do it."},
        {"laneKey": "gpu", "title": "GPU", "role": "qa", "labels": {"gpu": "yes"}},
    ]
    runs = await worker.harness.approved(lanes)
    async with worker.lane(role="backend") as lane:
        assert (lane.run.lane_key, lane.prompt, lane.attempt, lane.worker_id) == ("high", "Do it.", 1, "w1")
        assert lane.outcome is None
        with pytest.raises(NoLane):
            await worker.client.claim(role="qa", follow=False)
        async with worker.lane(roles=["qa"], labels={"gpu": "yes"}, project_id=runs[0]["project_id"]) as other:
            # Two lanes at once have two names, so that each lane's claim can be told from the other's.
            assert (other.run.lane_key, other.worker_id) == ("gpu", "w1/2")
        async with worker.lane(runs[0]) as third:
            assert (third.run.lane_key, third.worker_id) == ("low", "w1/2")
    assert await held(worker.harness) == []


async def test_waiting_for_a_lane(worker: Worker) -> None:
    harness = worker.harness
    asking = asyncio.ensure_future(claimed(worker, role="backend", wait_seconds=30))
    await until(lambda: len(harness.context.waiters) == 1)
    await harness.approved(1)
    lane = await asking
    assert lane.run.lane_key == "lane-1"
    await lane.ship()
    await lane.leave()
    with pytest.raises(NoLane):
        await worker.client.claim(wait_seconds=0.2)


async def test_one_lane_after_another(worker: Worker) -> None:
    await worker.harness.approved(3)
    done = []
    async for lane in worker.client.claims(role="backend", wait_seconds=0.05, follow=False):
        async with lane:
            done.append(lane.run.lane_key)
            await lane.ship()
    assert done == ["lane-1", "lane-2", "lane-3"]
    assert [run.state async for run in worker.client.runs()] == ["shipped"] * 3


async def test_a_lane_that_is_not_entered_is_given_back(worker: Worker) -> None:
    await worker.harness.approved(1)
    seen = []
    async with aclosing(worker.client.claims(wait_seconds=0.05, follow=False)) as lanes:
        async for lane in lanes:
            seen.append(lane.attempt)
            if len(seen) == 3:
                break
    assert seen == [1, 2, 3]
    (run,) = [run async for run in worker.client.runs()]
    assert (run.state, run.failures) == ("released", 0)


async def test_what_the_server_refuses_is_raised(worker: Worker) -> None:
    runs = await worker.harness.approved(
        [
            {"laneKey": "a", "title": "A", "role": "backend"},
            {"laneKey": "b", "title": "B", "role": "backend", "after": ["a"]},
        ]
    )
    await worker.harness.claim(runs[0]["id"], "another")
    for run, error in ((runs[0], ClaimHeldByOther), (runs[1], LaneBlocked), ({"id": runs[0]["plan_id"]}, NotFound)):
        with pytest.raises(error):
            await worker.client.claim(run["id"])
    with pytest.raises(InvalidRequest):
        await worker.client.claim(lease_seconds=0)
    with pytest.raises(NotFound):
        await worker.client.claim(project_id=runs[0]["id"])
    worker.transport.next("/claim", says(403, "FORBIDDEN"))
    with pytest.raises(Forbidden):
        await worker.client.claim(wait_seconds=None)
    # Every name is free again.
    assert worker.client._workers.take() == "w1"


# --- answers that get lost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_lost_answer_claims_one_lane_not_two(worker: Worker, lost: int) -> None:
    await worker.harness.approved(3)
    worker.transport.next("/runs/claim", *[drop_answer] * lost)
    async with worker.lane(wait_seconds=5) as lane:
        assert (lane.run.lane_key, lane.attempt) == ("lane-1", 1)
        assert await held(worker.harness) == ["lane-1"]
        assert worker.transport.count("/runs/claim") == 1
        await lane.ship()
    assert await worker.kinds(lane.run.id) == ["claimed", "ship_complete"]


async def test_the_look_may_fail_too(worker: Worker) -> None:
    await worker.harness.approved(2)
    worker.transport.next("/runs/claim", drop_answer)
    worker.transport.next("GET /api/agents/runs", page(502), drop_answer, drop_request)
    worker.transport.next("POST /api/agents/runs/0", drop_answer)
    async with worker.lane(wait_seconds=5):
        assert await held(worker.harness) == ["lane-1"]


@pytest.mark.parametrize(
    "fault",
    [drop_before_it_is_done, page(504), page(502), says(503, "UNAVAILABLE", retryAfter=0.01), drop_request],
    ids=["cut off", "504", "502", "503", "no connection"],
)
async def test_a_claim_that_was_never_done_is_made_again(worker: Worker, fault: Any) -> None:
    await worker.harness.approved(2)
    worker.transport.next("/runs/claim", fault, fault)
    async with worker.lane(wait_seconds=5) as lane:
        assert lane.run.lane_key == "lane-1"
        assert await held(worker.harness) == ["lane-1"]
        assert worker.transport.count("/runs/claim") == 3


async def test_after_a_lost_answer_no_claim_is_made_while_the_lost_one_may_still_be_done(worker: Worker) -> None:
    """The request is on its way, stuck in a proxy: the server does it a while after the client has lost it."""
    await worker.harness.approved(2)
    late: list[asyncio.Task[Any]] = []

    async def stuck(request: Any, perform: Any) -> Any:
        async def later() -> None:
            await asyncio.sleep(0.3)
            await perform()

        late.append(asyncio.ensure_future(later()))
        return await drop_before_it_is_done(request, perform)

    worker.transport.next("/runs/claim", stuck)
    async with worker.lane(wait_seconds=1.0) as lane:
        assert lane.run.lane_key == "lane-1"
        await asyncio.gather(*late)
        assert await held(worker.harness) == ["lane-1"]
        assert worker.transport.count("/runs/claim") == 1


async def test_when_there_is_nothing_and_nobody_answers(worker: Worker) -> None:
    worker.transport.always("/runs/claim", drop_request)
    with pytest.raises(Unreachable):
        await worker.client.claim(wait_seconds=0.2)


async def test_a_claim_that_is_broken_off_leaves_no_lane_behind(worker: Worker) -> None:
    await worker.harness.approved(1)

    done = asyncio.Event()

    async def slow(request: Any, perform: Any) -> Any:
        await perform()
        done.set()
        return await hang(request, perform)

    worker.transport.next("/runs/claim", slow)
    asking = asyncio.ensure_future(claimed(worker, wait_seconds=5))
    await done.wait()
    assert await held(worker.harness) == ["lane-1"]
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    # Closing the client waits for what is under way.
    await worker.client.aclose()
    assert await held(worker.harness) == []
    (run,) = (await worker.harness.viewer.get("/api/agents/runs")).json()["runs"]
    assert (run["state"], run["failures"]) == ("released", 0)


async def test_a_claim_that_took_too_long_is_not_believed(worker: Worker) -> None:
    """The answer comes when the lease, counted from when it was asked for, is over."""
    await worker.harness.approved(1)

    async def slow(request: Any, perform: Any) -> Any:
        answer = await perform()
        worker.sleep(61)
        return answer

    worker.transport.next("/runs/claim", slow)
    worker.transport.always("/events", hang)
    lane = await worker.client.claim(lease_seconds=60, follow=False)
    assert lane.lost
    with pytest.raises(LaneLost):
        await lane.log("x")
    await lane.leave()
    assert lane.outcome == "lost"


async def test_an_attempt_that_was_let_go_without_an_answer_is_not_taken_up_again(worker: Worker) -> None:
    """A report of its is under way still, and arrives when the lane has been claimed again."""
    await worker.harness.approved(1)
    goes_on = asyncio.Event()
    late: list[asyncio.Task[Any]] = []

    async def stuck(request: Any, perform: Any) -> Any:
        async def later() -> None:
            await goes_on.wait()
            await perform()

        late.append(asyncio.ensure_future(later()))
        return await hang(request, perform)

    lane = await claimed(worker, lease_seconds=60)
    await lane.log("told")
    await lane.flush()
    worker.transport.next("/events", stuck)
    await lane.log("under way")
    await until(lambda: late)
    worker.sleep(61)
    await until(lambda: lane.lost)
    worker.transport.next("/release", drop_before_it_is_done)
    await lane.leave()
    async with worker.lane(wait_seconds=5) as again:
        assert (again.run.id, again.attempt) == (lane.run.id, 2)
        goes_on.set()
        await asyncio.gather(*late)
        await again.log("told again")
        await again.ship()
    lines = [event["payload"]["line"] for event in await worker.harness.events(str(lane.run.id), type="log_line")]
    assert lines == ["told", "told again"]
