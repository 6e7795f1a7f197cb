"""A lane as the body of the work has it: what it tells, how it ends, and what a fault on the way does to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from heartlane.client import HeartlaneError, LaneLost, lane
from heartlane.client.errors import InvalidRequest
from heartlane.client.outbox import LINGER_SECONDS
from tests.client.faults import (
    drop_answer,
    drop_before_it_is_done,
    drop_request,
    hang,
    page,
    says,
)
from tests.client.worker import Worker, until


class Crash(Exception):
    """What a body's own fault looks like."""


async def one_run(worker: Worker, **project: Any) -> dict[str, Any]:
    (run,) = await worker.harness.approved(1, **project)
    return run


def payloads(events: list[dict[str, Any]], *kinds: str) -> list[Any]:
    return [event["payload"] for event in events if event["type"] in kinds]


# --- what is told --------------------------------------------------------------------------------------------------


async def test_everything_that_is_told_arrives_in_order(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run) as lane:
        await lane.phase("reading")
        await lane.log("Asked for: totals")
        await lane.action("edit", file="x.py", ok=True)
        await lane.error("a test failed", code=1)
        await lane.phase("waiting", waits_for="permission")
        await lane.flush()
        now = await worker.harness.read(run["id"])
        assert (now["phase"], now["log_line"], now["error"]) == ("waiting", "Asked for: totals", "a test failed")
        assert now["needs_attention"] == "waiting_for_human"
        assert (lane.run.phase, lane.run.prompt) == ("waiting", None)
        shipped = await lane.ship(pr_url="https://git.example/1", branch="b", commit="c", summary="Done.", tokens=7)
        assert (shipped.state, shipped.pr_url, lane.outcome) == ("shipped", "https://git.example/1", "shipped")
    events = await worker.harness.events(run["id"])
    assert [(event["type"], event["payload"]) for event in events[1:]] == [
        ("phase_change", {"phase": "reading"}),
        ("log_line", {"line": "Asked for: totals"}),
        ("action", {"tool": "edit", "file": "x.py", "ok": True}),
        ("error", {"message": "a test failed", "code": 1, "fatal": False}),
        ("phase_change", {"phase": "waiting", "for": "permission"}),
        (
            "ship_complete",
            {"pr_url": "https://git.example/1", "branch": "b", "commit": "c", "summary": "Done.", "tokens": 7},
        ),
    ]
    assert all(event["at"] is not None and event["attempt"] == 1 for event in events[1:])


async def test_what_is_told_is_sent_together(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run) as lane:
        before = worker.transport.count("/events")
        for number in range(99):
            await lane.log(f"line {number}")
        await asyncio.sleep(0.05)
        assert worker.transport.count("/events") == before
        await lane.log("line 99")
        await until(lambda: lane.run.event_count == 101)
        assert worker.transport.count("/events") == before + 1
        # One alone waits for others no longer than a second.
        await lane.log("alone")
        worker.sleep(LINGER_SECONDS)
        await until(lambda: lane.run.event_count == 102)
        assert worker.transport.count("/events") == before + 2
    assert len(payloads(await worker.harness.events(run["id"]), "log_line")) == 101


async def test_whatever_a_text_holds(worker: Worker) -> None:
    run = await one_run(worker)
    texts = ["ü\u202e\x1b[31m\r\n\t", "nul \0", "half a pair \ud800", "x" * 5000, ""]
    async with worker.lane(run) as lane:
        for text in texts:
            await lane.log(text)
            await lane.phase(text)
        with pytest.raises(TypeError):
            await lane.action("edit", file=object())
        with pytest.raises(ValueError, match="JSON"):
            await lane.action("edit", ratio=float("nan"))
        await lane.ship()
    found = [payload["line"] for payload in payloads(await worker.harness.events(run["id"]), "log_line")]
    assert found == [text.replace("\ud800", "?") for text in texts]


async def test_what_is_too_much_for_the_server_goes_without_its_details(worker: Worker) -> None:
    run = await one_run(worker)
    big = "x" * (5 * 1024 * 1024)
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    async with worker.lane(run) as lane:
        await lane.log("before")
        await lane.error("it broke", trace=big)
        await lane.action("shell", output=deep)
        await lane.log("after")
        await lane.ship(summary="Done.", log=big)
        assert lane.run.error == "it broke"
    events = await worker.harness.events(run["id"])
    assert [event["type"] for event in events[1:]] == ["log_line", "error", "action", "log_line", "ship_complete"]
    assert [set(event["payload"]) for event in events[2:]] == [
        {"message", "fatal", "left_out"},
        {"left_out"},
        {"line"},
        {"summary", "left_out"},
    ]


async def test_an_end_that_the_server_refuses_whatever_it_says_is_told_to_the_body(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run) as lane:
        worker.transport.always(f"{run['id']}/events", says(400, "INVALID_REQUEST"))
        with pytest.raises(InvalidRequest):
            await lane.ship()
        worker.transport.always(f"{run['id']}/events", None)
        await lane.release("can't ship")
    assert (await worker.harness.read(run["id"]))["state"] == "released"


async def test_whoever_tells_more_than_can_be_sent_waits(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartlane.client import outbox

    monkeypatch.setattr(outbox, "WAITING_EVENTS_MAX", 150)
    run = await one_run(worker)
    async with worker.lane(run) as lane:
        worker.transport.always("/events", drop_request)

        async def chatter() -> None:
            for number in range(400):
                await lane.log(f"line {number}")

        chatting = asyncio.ensure_future(chatter())
        await asyncio.sleep(0.1)
        assert len(lane._keeper.outbox) == 150
        worker.transport.always("/events", None)
        await chatting
        await lane.flush()
    lines = [payload["line"] for payload in payloads(await worker.harness.events(run["id"]), "log_line")]
    assert lines == [f"line {number}" for number in range(400)]


# --- faults on the way ---------------------------------------------------------------------------------------------

PASSING = {
    "no connection": drop_request,
    "cut off": drop_before_it_is_done,
    "answer lost": drop_answer,
    "404": says(404, "NOT_FOUND"),
    "401": says(401, "TOKEN_REVOKED"),
    "403": says(403, "FORBIDDEN"),
    "429": says(429, "RATE_LIMITED", retryAfter=0.01),
    "500": says(500, "INTERNAL_ERROR"),
    "503": says(503, "UNAVAILABLE", retryAfter=0.01),
    "a page 200": page(200, "<html>Welcome to the airport</html>"),
    "a page 404": page(404),
    "a page 409": page(409),
    "a page 502": page(502),
    "409 of something else": says(409, "PLAN_APPROVED"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
async def test_nothing_but_the_claims_own_codes_ends_a_lane(worker: Worker, fault: Any) -> None:
    run = await one_run(worker)
    async with worker.lane(run) as lane:
        worker.transport.next("/events", *[fault] * 5)
        await lane.log("once")
        await lane.flush()
        worker.transport.next("/events", *[fault] * 3)
        await lane.ship(summary="once")
        assert lane.outcome == "shipped"
    assert worker.transport.left == 0
    assert await worker.kinds(run) == ["claimed", "log_line", "ship_complete"]


async def test_a_minute_of_anything_but_an_answer_within_the_lease_costs_nothing(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=300) as lane:
        for fault in PASSING.values():
            worker.transport.always("/events", fault if fault is not drop_answer else drop_request)
            await lane.log("told meanwhile")
            for _ in range(6):
                await worker.let_pass(10)
                await asyncio.sleep(0.02)
            assert not lane.should_stop
            worker.transport.always("/events", None)
            await lane.flush()
        await lane.ship()
    assert await worker.kinds(run) == ["claimed", *["log_line"] * len(PASSING), "ship_complete"]


@pytest.mark.parametrize("code", ["CLAIM_HELD_BY_OTHER", "CLAIM_LOST", "NOT_CLAIMED", "STALE_ATTEMPT", "RUN_FINISHED"])
async def test_the_claims_own_codes_end_it_at_once(worker: Worker, code: str) -> None:
    run = await one_run(worker)
    async with worker.lane(run) as lane:
        worker.transport.always("/events", says(409, code))
        await lane.log("too late")
        with pytest.raises(LaneLost) as lost:
            await lane.flush()
        assert lost.value.code == code
        assert (lane.lost, lane.should_stop, lane.paused, lane.outcome) == (True, True, False, "lost")
        assert lane.lost_event.is_set()
        assert lane.stop_event.is_set()
        for telling in (lane.log("x"), lane.phase("x"), lane.ship(), lane.fail("x"), lane.release(), lane.checkpoint()):
            with pytest.raises(LaneLost):
                await telling
    assert worker.transport.count("/release") == 0


async def test_the_lane_that_another_has_taken_over_is_lost(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run, lease_seconds=60) as lane:
        # The worker's clock stands still: only the server's word can tell it.
        await worker.harness.let_pass(61)
        await worker.harness.claim(run["id"], "another")
        await lane.log("from the past")
        with pytest.raises(LaneLost) as lost:
            await lane.flush()
        assert lost.value.code == "CLAIM_HELD_BY_OTHER"
        assert "another" in str(lost.value)
        assert lane.run.worker_id == "another"
    now = await worker.harness.read(run["id"])
    assert (now["worker_id"], now["attempt"], now["state"]) == ("another", 2, "claimed")
    assert await worker.kinds(run) == ["claimed", "lease_expired", "claimed"]


# --- how it ends ---------------------------------------------------------------------------------------------------


async def test_a_lane_that_is_left_without_a_word_is_released(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run) as lane:
        await lane.log("half done")
    assert lane.outcome == "released"
    now = await worker.harness.read(run["id"])
    assert (now["state"], now["failures"]) == ("released", 0)
    events = await worker.harness.events(run["id"])
    assert [event["type"] for event in events] == ["claimed", "log_line", "released"]
    assert events[-1]["payload"]["reason"] == "the worker left the lane without shipping it"
    with pytest.raises(LaneLost, match="released"):
        await lane.log("afterwards")


async def test_a_crash_is_told_and_counted(worker: Worker) -> None:
    run = await one_run(worker)
    with pytest.raises(Crash):
        async with worker.lane(run) as lane:
            raise Crash("it broke")
    now = await worker.harness.read(run["id"])
    assert (now["state"], now["failures"], now["error"], lane.outcome) == (
        "released",
        1,
        "Crash: it broke",
        "released",
    )
    assert await worker.kinds(run) == ["claimed", "error", "released"]


async def test_a_crash_may_fail_the_lane(worker: Worker) -> None:
    run = await one_run(worker)
    with pytest.raises(Crash):
        async with worker.lane(run, on_error="fail") as lane:
            raise Crash("it broke")
    now = await worker.harness.read(run["id"])
    assert (now["state"], now["error"], lane.outcome) == ("failed", "Crash: it broke", "failed")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
async def test_an_interrupt_is_no_failure(worker: Worker, interrupt: type[BaseException]) -> None:
    run = await one_run(worker)
    held = await worker.client.claim(run["id"], follow=False)
    await held.__aexit__(interrupt, interrupt(), None)
    now = await worker.harness.read(run["id"])
    assert (now["state"], now["failures"], now["error"]) == ("released", 0, None)
    (payload,) = payloads(await worker.harness.events(run["id"]), "released")
    assert payload["reason"] == f"the worker was interrupted ({interrupt.__name__})"


async def test_a_body_that_is_cancelled_gives_its_lane_back(worker: Worker) -> None:
    run = await one_run(worker)
    inside = asyncio.Event()

    async def body() -> None:
        async with worker.lane(run):
            inside.set()
            await asyncio.Event().wait()

    working = asyncio.ensure_future(body())
    await inside.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert (await worker.harness.read(run["id"]))["state"] == "released"


async def test_fail_and_release_as_they_say(worker: Worker) -> None:
    runs = await worker.harness.approved(2)
    async with worker.lane(runs[0]) as lane:
        failed = await lane.fail("it can't be done", tried=3)
        assert (failed.state, failed.error, lane.outcome) == ("failed", "it can't be done", "failed")
    async with worker.lane(runs[1]) as lane:
        released = await lane.release("usage limit", retry_after=3600)
        assert (released.state, released.failures, lane.outcome) == ("released", 0, "released")
        assert released.not_before is not None
        with pytest.raises(LaneLost):
            await lane.ship()


async def test_a_release_whose_answer_is_lost_is_one_release(worker: Worker) -> None:
    run = await one_run(worker)
    worker.transport.next("/release", drop_answer, page(502), drop_request)
    async with worker.lane(run):
        pass
    assert await worker.kinds(run) == ["claimed", "released"]


async def test_leaving_waits_only_so_long_for_a_server_that_is_gone(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lane, "LEAVE_SECONDS", 0.2)
    run = await one_run(worker)
    async with worker.lane(run) as held:
        worker.transport.always("POST", hang)
        await held.log("never told")
        worker.transport.always("POST", drop_request)
    assert "released with 1 events untold" in caplog.text
    assert "without the server's word" in caplog.text
    assert (await worker.harness.read(run["id"]))["state"] == "running"


async def test_a_closed_client_lets_go_of_its_lanes(worker: Worker) -> None:
    runs = await worker.harness.approved(3)
    lanes = [await worker.client.claim(run["id"], follow=False) for run in runs]
    await worker.client.aclose()
    assert [held.outcome for held in lanes] == ["released"] * 3
    for run in runs:
        (payload,) = payloads(await worker.harness.events(run["id"]), "released")
        assert payload["reason"] == "the client was closed"


async def test_reports_are_as_the_contract_wants_them(worker: Worker) -> None:
    """Attempt always, a number on whatever must not count twice, one report under way at a time."""
    run = await one_run(worker)
    bodies: list[dict[str, Any]] = []
    under_way = 0

    async def watched(request: Any, perform: Any) -> Any:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        bodies.append(json.loads(request.content))
        await asyncio.sleep(0.002)
        answer = await perform()
        under_way -= 1
        return answer

    worker.transport.always("/events", watched)
    async with worker.lane(run, lease_seconds=77) as held:
        for number in range(250):
            await held.log(f"line {number}")
        await held.flush()
        await held.ship()
    assert all((body["worker_id"], body["attempt"], body["lease_seconds"]) == ("w1", 1, 77) for body in bodies)
    numbered = [body["seq"] for body in bodies if body.get("events")]
    assert numbered == list(range(1, len(numbered) + 1))
    assert all("seq" not in body for body in bodies if not body.get("events"))
    assert max(len(body.get("events", ())) for body in bodies) == 100


async def test_numbers_go_on_where_the_same_attempt_stopped(worker: Worker) -> None:
    run = await one_run(worker)
    held = await worker.client.claim(run["id"], follow=False)
    await held.log("one")
    await held.flush()
    await held._keeper.stop()
    # The same worker claims again, as after a crash of its own: the same attempt, and no event is taken for a replay.
    async with worker.lane(run, worker_id="w1") as again:
        assert again.attempt == 1
        await again.log("two")
        await again.ship()
    lines = payloads(await worker.harness.events(run["id"]), "log_line")
    assert lines == [{"line": "one"}, {"line": "two"}]
    held._keeper.end("released")
    await held.leave()


async def test_a_lane_tells_what_it_is(worker: Worker) -> None:
    run = await one_run(worker)
    async with worker.lane(run) as held:
        assert repr(held) == f"<AsyncLane 'lane-1' of run {run['id']}, attempt 1, running>"
        assert held.tickets == []
        with pytest.raises(HeartlaneError):
            raise LaneLost("for the family's sake")
