"""The stream of all work: what it tells, how it is resumed, and to whom."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from sqlalchemy import delete

from heartlane.server import catch_up, hub, sse
from heartlane.server.streams import Bounds
from heartlane.store import tokens
from heartlane.store.log import read_log
from heartlane.store.schema import events
from heartlane.wire.answers import EventObject, PlanObject, RunObject
from tests.harness import Harness, assert_error
from tests.streaming import Tap, Told, tapped

PATH = "/api/agents/stream"


def follow(
    harness: Harness, client: httpx.AsyncClient | None = None, last: str | None = None, **query: Any
) -> AbstractAsyncContextManager[Tap]:
    """A stream of all work with a client's token."""
    headers = dict((client or harness.viewer).headers)
    if last is not None:
        headers["last-event-id"] = last
    return tapped(harness.app, PATH, headers, **query)


def actions(*numbers: int) -> list[dict[str, Any]]:
    return [{"type": "action", "payload": {"n": number}} for number in numbers]


async def held_run(harness: Harness, project_id: str | None = None) -> dict[str, Any]:
    """A lane that w1 holds and works on."""
    (run,) = await harness.approved(1, project_id=project_id)
    run = await harness.claim(run["id"], lease_seconds=3600)
    await harness.report(run["id"])
    return run


def is_event(number: int) -> Any:
    return lambda told: told.event == "event" and told.data["payload"].get("n") == number


async def started(stream: Tap) -> Told:
    """The message with which a stream begins."""
    told = await stream.next()
    assert (told.event, told.data["reason"]) == ("reset", "start")
    assert told.id == told.data["cursor"]
    return told


async def test_it_begins_with_a_reset_and_tells_what_happens(harness: Harness) -> None:
    run = await held_run(harness)
    async with follow(harness) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].split(";")[0] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert (await stream.block()).text.startswith("retry: ")
        await started(stream)
        await stream.quiet(0.1)
        await harness.report(run["id"], events=actions(1, 2), phase="tests")
        for number in (1, 2):
            told = await stream.next()
            assert told.event == "event"
            assert told.data.pop("run_id") == run["id"]
            EventObject.model_validate(told.data, extra="forbid")
            assert told.data["payload"] == {"n": number}
            assert told.id is not None
        told = await stream.next()
        assert (told.event, told.id, told.data["phase"]) == ("run", None, "tests")
        RunObject.model_validate(told.data, extra="forbid")
        (listed,) = (await harness.viewer.get("/api/agents/runs")).json()["runs"]
        assert told.data == listed


async def test_plans_and_the_runs_they_make(harness: Harness) -> None:
    project = await harness.project()
    async with follow(harness, project_id=project["id"]) as stream:
        await started(stream)
        runs = await harness.approved(3, project_id=project["id"])
        told = await stream.next()
        assert told.event == "plan"
        while told.data["status"] == "pending":
            told = await stream.next()
        PlanObject.model_validate(told.data, extra="forbid")
        assert told.data["status"] == "approved"
        assert [(await stream.next()).data for _ in runs] == runs
        other = {"projectId": project["id"], "title": "No", "lanes": [{"laneKey": "a", "title": "A", "role": "qa"}]}
        plan = (await harness.operator.post("/api/agents/plan", json=other)).json()["plan"]
        await stream.until(lambda told: told.event == "plan" and told.data["id"] == plan["id"])
        await harness.operator.post(f"/api/agents/plans/{plan['id']}/reject", json={"reason": "no"})
        await stream.until(lambda told: told.event == "plan" and told.data["rejection_reason"] == "no")


async def test_resumed_within_a_report(harness: Harness) -> None:
    run = await held_run(harness)
    async with follow(harness) as stream:
        await started(stream)
        await harness.report(run["id"], events=actions(*range(9)))
        await stream.until(is_event(3))
        last = stream.last_id
    await harness.report(run["id"], events=actions(9, 10))
    async with follow(harness, last=last) as stream:
        await stream.until(is_event(10))
        assert [event["payload"]["n"] for event in stream.told_events()] == list(range(4, 11))
        assert all(told.event != "reset" for told in stream.all)
        assert any(told.event == "run" and told.data["event_count"] == 12 for told in stream.all)
        await harness.report(run["id"], events=actions(11))
        await stream.until(is_event(11))
        assert [event["payload"]["n"] for event in stream.told_events()] == list(range(4, 12))


async def test_what_changed_without_an_event_is_told_on_return(harness: Harness) -> None:
    run, ended = await held_run(harness), await held_run(harness)
    async with follow(harness) as stream:
        last = (await started(stream)).id
    await harness.report(run["id"], phase="review")
    await harness.report(ended["id"], events=[{"type": "ship_complete", "payload": {}}])
    (queued,) = await harness.approved(1)
    async with follow(harness, last=last) as stream:
        newest: dict[str, Any] = {}
        while len(newest) < 3:
            told = await stream.next()
            if told.event == "run":
                newest[told.data["id"]] = told.data
        assert newest[run["id"]]["phase"] == "review"
        assert newest[ended["id"]]["state"] == "shipped"
        assert newest[queued["id"]] == queued


async def test_who_sees_what(harness: Harness) -> None:
    mine, other = await harness.project(), await harness.project()
    run, foreign = await held_run(harness, mine["id"]), await held_run(harness, other["id"])
    limited = await harness.client("viewer", project_id=mine["id"])
    stranger = await harness.client("admin", account="another")
    async with (
        follow(harness, limited) as narrow,
        follow(harness, project_id=other["id"]) as one,
        follow(harness) as everything,
        follow(harness, stranger) as nothing,
    ):
        for stream in (narrow, one, everything, nothing):
            await started(stream)
        await harness.report(foreign["id"], events=actions(1))
        await harness.report(run["id"], events=actions(2))
        await everything.until(is_event(2))
        for stream, seen in ((narrow, run), (one, foreign)):
            await stream.until(lambda told: told.event == "event")
            await harness.report(seen["id"], events=actions(3))
            await stream.until(is_event(3))
            assert {event["run_id"] for event in stream.told_events()} == {seen["id"]}
            assert {told.data["id"] for told in stream.all if told.event == "run"} <= {seen["id"]}
        await nothing.quiet(0.2)
    for client in (limited, stranger):
        assert_error(await client.get(PATH, params={"project_id": other["id"]}), 404, "NOT_FOUND")


@pytest.mark.parametrize("bad", ["x", "-1", "", "1.", "1.5.2", str(10**19), "1 2"])
async def test_a_bad_place_to_go_on_from(harness: Harness, bad: str) -> None:
    body = assert_error(await harness.viewer.get(PATH, params={"after": bad}), 400, "INVALID_REQUEST")
    assert list(body["fieldErrors"]) == ["after"]
    body = assert_error(await harness.viewer.get(PATH, headers={"Last-Event-ID": bad}), 400, "INVALID_REQUEST")
    assert list(body["fieldErrors"]) == ["Last-Event-ID"]


async def test_a_revoked_token_ends_it(harness: Harness) -> None:
    token, secret = await tokens.create(harness.store, "to be revoked", "viewer", account="default")
    async with follow(harness, harness.client_with(secret)) as stream:
        await started(stream)
        began = asyncio.get_running_loop().time()
        await tokens.revoke(harness.store, token.id)
        told = await stream.until(lambda told: told.event == "end")
        assert told.data["code"] == "TOKEN_REVOKED"
        assert asyncio.get_running_loop().time() - began < 5


# --- what is asked for ---------------------------------------------------------------------------------------------


async def test_heartbeats_and_leases_only_where_they_are_asked_for(harness: Harness) -> None:
    run = await held_run(harness)
    harness.context.streams.poll_seconds = 0
    async with (
        follow(harness) as plain,
        follow(harness, heartbeats="true") as beats,
        follow(harness, leases="true") as leases,
    ):
        for stream in (plain, beats, leases):
            await started(stream)
        await harness.report(run["id"], events=[{"type": "heartbeat", "payload": {"n": 1}}, *actions(2)])
        told = await leases.until(lambda told: told.event == "leases")
        now = await harness.read(run["id"])
        assert told.data == [[run["id"], now["lease_expires_at"], now["last_heartbeat"]]]
        await beats.until(is_event(2))
        assert [event["type"] for event in beats.told_events()] == ["heartbeat", "action"]
        await plain.until(is_event(2))
        await harness.report(run["id"], lease_seconds=60)
        told = await leases.until(lambda told: told.event == "leases")
        assert told.data[0][1] == (await harness.read(run["id"]))["lease_expires_at"]
        await harness.report(run["id"], events=actions(3))
        await plain.until(is_event(3))
        assert [event["type"] for event in plain.told_events()] == ["action", "action"]
        assert all(told.event != "leases" for told in [*plain.all, *beats.all])


async def test_what_only_a_new_reader_wants_is_not_missed_by_a_look_under_way(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await held_run(harness)
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any, **named: Any) -> Any:
        looking.set()
        await go_on.wait()
        return await read_log(*arguments, **named)

    async with follow(harness) as plain:
        await started(plain)
        monkeypatch.setattr("heartlane.server.hub.read_log", slow)
        await harness.report(run["id"], events=actions(1))
        await looking.wait()  # this look doesn't ask for heartbeats, which nobody wants yet
        async with follow(harness, heartbeats="true") as beats:
            await started(beats)
            await harness.report(run["id"], events=[{"type": "heartbeat", "payload": {"n": 2}}, *actions(3)])
            go_on.set()
            await beats.until(is_event(3))
            assert [event["payload"]["n"] for event in beats.told_events()][-2:] == [2, 3]
            await plain.until(is_event(3))
            assert [event["payload"]["n"] for event in plain.told_events()] == [1, 3]


async def test_only_messages_and_events_of_some_kinds(harness: Harness) -> None:
    run = await held_run(harness)
    kinds: dict[str, Any] = {"message": ["event"], "type": ["error", "phase_change"]}
    async with follow(harness, **kinds) as some, follow(harness, message="plan") as plans:
        last = (await started(some)).id
        await started(plans)
        phase = {"type": "phase_change", "payload": {"phase": "tests"}}
        await harness.report(run["id"], events=[*actions(1), phase])
        assert (await some.next()).data["type"] == "phase_change"
        await harness.approved(1)
        assert (await plans.next()).event == "plan"
        await some.quiet(0.1)
    async with follow(harness, last=last, **kinds) as some:
        assert (await some.next()).data["type"] == "phase_change"
        await some.quiet(0.2)
    for name, value in (("message", "reset"), ("type", "x"), ("leases", "yes"), ("project_id", "x")):
        body = assert_error(await harness.viewer.get(PATH, params={name: value}), 400, "INVALID_REQUEST")
        assert next(iter(body["fieldErrors"])).startswith(name)


async def test_time_alone_changes_a_run(harness: Harness) -> None:
    await held_run(harness)
    harness.context.streams.poll_seconds = 0
    async with follow(harness) as stream:
        await started(stream)
        harness.store.clock.advance(1000)
        told = await stream.until(lambda told: told.event == "run" and told.data["stalled"])
        assert told.data["needs_attention"] == "stalled"


async def test_a_bare_renewal_is_no_news(harness: Harness) -> None:
    run = await held_run(harness)
    harness.context.streams.poll_seconds = 0
    async with follow(harness) as stream:
        await started(stream)
        for _ in range(3):
            await harness.report(run["id"], events=[{"type": "heartbeat"}])
        await stream.quiet(0.3)
        await harness.report(run["id"], phase="tests")
        assert (await stream.next()).data["phase"] == "tests"


async def test_the_head_alone_and_other_methods(harness: Harness) -> None:
    response = await harness.viewer.head(PATH)
    assert (response.status_code, response.content) == (200, b"")
    assert_error(await harness.viewer.post(PATH), 405, "METHOD_NOT_ALLOWED")
    assert_error(await harness.client_with(None).get(PATH), 401, "NOT_AUTHENTICATED")


# --- where it goes on ----------------------------------------------------------------------------------------------


async def test_a_backlog_of_thousands_comes_whole_and_in_order(harness: Harness) -> None:
    runs = [await held_run(harness) for _ in range(3)]
    async with follow(harness) as stream:
        last = (await started(stream)).id
    number = 0
    for turn in range(30):
        run = runs[turn % 3]
        assert (await harness.report(run["id"], events=actions(*range(number, number + 100)))).status_code == 200
        number += 100
    async with follow(harness, last=last) as stream:
        await stream.until(is_event(number - 1))
        assert [event["payload"]["n"] for event in stream.told_events()] == list(range(number))


@pytest.mark.parametrize("reason", ["too_old", "too_far", "unknown"])
async def test_what_cant_be_told_any_more_is_said(
    harness: Harness, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await held_run(harness)
    last = "1000000"
    if reason != "unknown":
        async with follow(harness) as stream:
            last = (await started(stream)).id or ""
    for number in range(3):
        await harness.report(run["id"], events=actions(number))
    if reason == "too_old":
        async with harness.store.writing() as tx:
            await tx.conn.execute(delete(events).where(events.c.position <= int(last) + 1))
    elif reason == "too_far":
        monkeypatch.setattr(catch_up, "ROWS_BEHIND_MAX", 1)
    async with follow(harness, last=last) as stream:
        told = await stream.next()
        assert (told.event, told.data["reason"], told.id) == ("reset", reason, told.data["cursor"])
        await harness.report(run["id"], events=actions(9))
        await stream.until(is_event(9))
        assert len(stream.told_events()) == 1


async def test_what_was_none_of_its_business_isnt_looked_through_again(harness: Harness) -> None:
    mine = await harness.project()
    run = await held_run(harness)
    harness.context.streams.keep_alive_seconds = 0.1
    async with follow(harness, project_id=mine["id"]) as stream:
        first = (await started(stream)).id
        await harness.report(run["id"], events=actions(1))

        async def moved() -> str:
            while (told := await stream.block()).id in (None, first):
                pass
            assert told.event is None
            return told.id or ""

        assert int(await moved()) > int(first or "")


async def test_nothing_is_missed_or_doubled_while_workers_report(harness: Harness) -> None:
    runs = [await held_run(harness) for _ in range(4)]
    collected: list[dict[str, Any]] = []

    async def report(run: dict[str, Any]) -> None:
        for number in range(25):
            await harness.report(run["id"], events=actions(*range(number % 4)), phase=f"p{number}")
        await harness.report(run["id"], events=[{"type": "ship_complete"}])

    async with follow(harness) as stream:
        last = (await started(stream)).id
    reporting = [asyncio.ensure_future(report(run)) for run in runs]
    while sum(event["type"] == "ship_complete" for event in collected) < len(runs):
        async with follow(harness, last=last) as stream:
            for _ in range(11):
                told = await stream.next()
                last = told.id or last
                if told.event == "event" and told.data["type"] == "ship_complete":
                    break
            collected += stream.told_events()
    await asyncio.gather(*reporting)
    for run in runs:
        logged = [{"run_id": run["id"], **event} for event in await harness.events(run["id"])]
        assert [event for event in collected if event["run_id"] == run["id"]] == logged[1:]


async def test_lost_announcements_lose_nothing_but_time(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await held_run(harness)
    harness.context.streams.poll_seconds = 0
    async with follow(harness) as stream:
        await started(stream)
        monkeypatch.setattr(harness.store.feed, "publish", lambda announcement: None)
        await harness.report(run["id"], events=actions(1))
        await stream.until(is_event(1))
        await harness.report(run["id"], phase="without an event")
        await stream.until(lambda told: told.event == "run" and told.data["phase"] == "without an event")
        (queued,) = await harness.approved(1)
        await stream.until(lambda told: told.event == "plan" and told.data["status"] == "approved")
        await stream.until(lambda told: told.event == "run" and told.data == queued)
        await harness.operator.post(f"/api/agents/runs/{run['id']}/cancel")
        await stream.until(lambda told: told.event == "run" and told.data["state"] == "failed")


# --- how little it costs -------------------------------------------------------------------------------------------


async def test_many_readers_are_one_query(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await held_run(harness)
    harness.context.streams.poll_seconds = 3600
    reads: list[int] = []

    async def counted(*arguments: Any, **options: Any) -> Any:
        rows = await read_log(*arguments, **options)
        reads.append(len(rows))
        return rows

    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(follow(harness)) for _ in range(40)]
        for stream in streams:
            await started(stream)
        monkeypatch.setattr(hub, "read_log", counted)
        await harness.report(run["id"], events=actions(1))
        for stream in streams:
            await stream.until(is_event(1))
        assert sum(reads) == 1
        await asyncio.sleep(0.1)
        assert harness.store._reader.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert len(harness.context.streams) == 0


async def test_a_slow_reader_costs_a_page_and_loses_nothing(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await held_run(harness)
    monkeypatch.setattr(hub, "LINE_BYTES_MAX", 128 * 1024)
    async with follow(harness) as slow, follow(harness) as quick:
        for stream in (slow, quick):
            await started(stream)
        slow.reads.clear()
        big, most = "x" * 10_000, 0
        for number in range(0, 200, 10):
            reported = [{"type": "action", "payload": {"n": n, "big": big}} for n in range(number, number + 10)]
            await harness.report(run["id"], events=reported)
            await quick.until(is_event(number + 9))
            (topic,) = harness.context.streams.hub._topics.values()
            most = max(most, sum(len(message.data) for message in topic._line), slow.held_bytes)
        assert 0 < most <= 128 * 1024 + 2 * len(big)
        slow.reads.set()
        await slow.until(is_event(199))
        for stream in (slow, quick):
            assert [event["payload"]["n"] for event in stream.told_events()] == list(range(200))


async def test_a_reader_that_takes_nothing_is_dropped_and_resumes(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await held_run(harness)
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.2)
    async with follow(harness) as stream:
        last = (await started(stream)).id
        stream.reads.clear()
        await harness.report(run["id"], events=actions(1))
        async with asyncio.timeout(10):
            await stream.ended.wait()
    async with follow(harness, last=last) as stream:
        await stream.until(is_event(1))


async def test_only_so_many_streams_of_one_token_and_in_all(harness: Harness) -> None:
    harness.context.streams.bounds = Bounds(total=2, each=1)
    other = await harness.client("viewer")
    async with follow(harness) as stream:
        await started(stream)
        body = assert_error(await harness.viewer.get(PATH), 429, "RATE_LIMITED")
        assert "token" in body["error"]
        body = assert_error(await other.get(PATH), 429, "RATE_LIMITED")
        assert "address" in body["error"]
        harness.context.streams.bounds = Bounds(total=1, each=9)
        assert_error(await other.get(PATH), 503, "UNAVAILABLE")
        assert len(harness.context.streams) == 1


async def test_it_ends_with_the_server(harness: Harness) -> None:
    async with follow(harness) as stream:
        await started(stream)
        harness.context.gate.close()
        told = await stream.until(lambda told: told.event == "end")
        assert (told.data["code"], told.id) == ("UNAVAILABLE", None)
        with pytest.raises(EOFError):
            await stream.block()
