"""A run's event stream: what it tells, from where, to whom, and when it ends."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from sqlalchemy import delete

from heartlane.server import run_topics, sse
from heartlane.server.streams import Bounds
from heartlane.store import tokens
from heartlane.store.feed import EVERYTHING
from heartlane.store.runs import read_events
from heartlane.store.schema import runs
from heartlane.wire.answers import ErrorAnswer, EventObject, RunObject
from tests.harness import Harness, assert_error
from tests.streaming import Stream, Tap, Told, tapped


def follow(
    harness: Harness,
    run: dict[str, Any],
    client: httpx.AsyncClient | None = None,
    last: str | None = None,
    **query: Any,
) -> AbstractAsyncContextManager[Tap]:
    """A stream of the run with a client's token."""
    headers = dict((client or harness.viewer).headers)
    if last is not None:
        headers["last-event-id"] = last
    return tapped(harness.app, f"/api/agents/runs/{run['id']}/stream", headers, **query)


async def steer(harness: Harness, run: dict[str, Any], verb: str) -> None:
    response = await harness.operator.post(f"/api/agents/runs/{run['id']}/{verb}")
    assert response.status_code == 200, response.text


async def one_run(harness: Harness, **claim: Any) -> dict[str, Any]:
    """A lane that w1 holds."""
    (run,) = await harness.approved(1)
    return await harness.claim(run["id"], lease_seconds=3600, **claim)


def actions(*numbers: int) -> list[dict[str, Any]]:
    return [{"type": "action", "payload": {"n": number}} for number in numbers]


# --- what is told --------------------------------------------------------------------------------------------------


async def test_first_the_run_then_its_log_then_what_happens(harness: Harness) -> None:
    run = await one_run(harness)
    await harness.report(run["id"], events=actions(1, 2))
    async with follow(harness, run) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].split(";")[0] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert "content-length" not in stream.headers
        assert (await stream.block()).text.startswith("retry: ")
        first = await stream.next()
        assert (first.event, first.id) == ("run", None)
        RunObject.model_validate(first.data, extra="forbid")
        now = await harness.read(run["id"])
        assert first.data == {name: now[name] for name in first.data}
        await stream.until_seq(3)
        await stream.quiet(0.1)

        await harness.report(run["id"], events=[{"type": "log_line", "payload": {"line": "on it\nstill \r on it"}}])
        told = await stream.next()
        assert (told.event, told.id) == ("log_line", "4")
        EventObject.model_validate(told.data, extra="forbid")
        changed = await stream.next()
        assert (changed.event, changed.data["log_line"]) == ("run", "on it\nstill \r on it")
        assert stream.events() == await harness.events(run["id"])


async def test_each_event_has_its_type(harness: Harness) -> None:
    run = await one_run(harness)
    async with follow(harness, run) as stream:
        await steer(harness, run, "pause")
        await stream.until_state("paused")
        await steer(harness, run, "resume")
        await stream.until_state("running")
        await harness.report(run["id"], events=[{"type": "ship_complete", "payload": {}}])
        await stream.until_state("shipped")
        kinds = [told.event for told in stream.all if told.id is not None]
        assert kinds == ["claimed", "paused", "resumed", "ship_complete"]
        assert kinds == [event["type"] for event in stream.events()]


async def test_changes_without_events_are_told(harness: Harness) -> None:
    lanes = await harness.approved(
        [
            {"laneKey": "a", "title": "A", "role": "backend"},
            {"laneKey": "b", "title": "B", "role": "backend", "after": ["a"]},
        ]
    )
    harness.context.streams.poll_seconds = 3600
    run = await harness.claim(lanes[0]["id"], lease_seconds=3600)
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        await harness.report(run["id"])
        assert (await stream.next()).data["state"] == "running"
        await harness.report(run["id"], phase="tests")
        assert (await stream.next()).data["phase"] == "tests"
        await harness.report(run["id"], log_line="42 passed")
        assert (await stream.next()).data["log_line"] == "42 passed"
        # The same again is no change.
        await harness.report(run["id"], phase="tests", log_line="42 passed")
        await stream.quiet(0.2)


async def test_a_renewal_is_told_to_those_who_want_heartbeats(harness: Harness) -> None:
    run = await one_run(harness)
    await harness.report(run["id"])
    harness.context.streams.poll_seconds = 0
    async with follow(harness, run) as without, follow(harness, run, heartbeats="true") as stream:
        for each in (stream, without):
            await each.until_seq(1)
        await harness.report(run["id"], events=[{"type": "heartbeat", "payload": {"n": 1}}])
        assert (await stream.next()).data["payload"] == {"n": 1}
        before = (await stream.next()).data
        await harness.report(run["id"])
        renewed = (await stream.next()).data
        assert renewed["lease_expires_at"] > before["lease_expires_at"]
        await harness.report(run["id"], events=actions(1))
        seen = (await without.next()).data
        assert (seen["seq"], seen["type"]) == (3, "action")
        assert [told.event for told in without.all if told.id is not None] == ["claimed", "action"]


async def test_time_alone_changes_a_run(harness: Harness) -> None:
    run = await one_run(harness)
    await harness.report(run["id"])
    harness.context.streams.poll_seconds = 0
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        harness.store.clock.advance(1000)
        told = await stream.next()
        assert (told.event, told.data["stalled"], told.data["needs_attention"]) == ("run", True, "stalled")


# --- from where ----------------------------------------------------------------------------------------------------


async def test_resumed_by_the_last_id(harness: Harness) -> None:
    run = await one_run(harness)
    await harness.report(run["id"], events=actions(*range(9)))
    for query in ({"last": "4"}, {"after": 4}, {"last": "4", "after": 2}, {"last": "2", "after": 4}):
        async with follow(harness, run, **query) as stream:
            assert (await stream.next()).event == "run"
            await stream.until_seq(10)
            assert [event["seq"] for event in stream.events()] == [5, 6, 7, 8, 9, 10]
    async with follow(harness, run, last="10") as stream:
        assert (await stream.next()).event == "run"
        await stream.quiet(0.1)
        await harness.report(run["id"], events=actions(9))
        assert (await stream.next()).id == "11"


async def test_a_long_log_comes_whole_and_in_order(harness: Harness) -> None:
    run = await one_run(harness)
    big = "x" * 3_000
    for start in range(0, 500, 100):
        events = [{"type": "action", "payload": {"n": n, "big": big}} for n in range(start, start + 100)]
        assert (await harness.report(run["id"], events=events)).status_code == 200
    async with follow(harness, run) as stream, follow(harness, run, heartbeats="true") as other:
        for each in (stream, other):
            await each.until_seq(501)
            assert [event["seq"] for event in each.events()] == list(range(1, 502))
        assert stream.events() == await harness.events(run["id"])


async def test_heartbeats_in_between_are_passed_over(harness: Harness) -> None:
    run = await one_run(harness)
    for number in range(5):
        await harness.report(run["id"], events=[{"type": "heartbeat"}] * 100)
        await harness.report(run["id"], events=actions(number))
    async with follow(harness, run, after=1) as stream:
        await stream.until_seq(506)
        assert [event["payload"] for event in stream.events()] == [{"n": n} for n in range(5)]


async def test_nothing_is_missed_or_doubled_while_a_worker_reports(harness: Harness) -> None:
    run = await one_run(harness)
    collected: list[dict[str, Any]] = []

    async def report() -> None:
        for number in range(60):
            await harness.report(run["id"], events=actions(*range(number % 4)), phase=f"p{number}")
        await harness.report(run["id"], events=[{"type": "ship_complete"}])

    reporting = asyncio.ensure_future(report())
    last = None
    while not collected or collected[-1]["type"] != "ship_complete":
        async with follow(harness, run, last=last) as stream:
            for _ in range(7):
                told = await stream.next()
                if told.id is not None:
                    last = told.id
                if told.event == "ship_complete":
                    break
            collected += stream.events()
    await reporting
    assert collected == await harness.events(run["id"])


async def test_a_lost_announcement_loses_nothing_but_time(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await one_run(harness)
    harness.context.streams.poll_seconds = 0
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        monkeypatch.setattr(harness.store.feed, "publish", lambda announcement: None)
        await harness.report(run["id"], events=actions(1))
        assert (await stream.next()).id == "2"


async def test_whoever_heard_that_anything_may_have_happened_looks(harness: Harness) -> None:
    run = await one_run(harness)
    harness.context.streams.poll_seconds = 3600
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        harness.store.clock.advance(1000)
        harness.store.feed.publish(EVERYTHING)
        assert (await stream.next()).data["stalled"] is True


# --- how little it costs -------------------------------------------------------------------------------------------


async def test_many_streams_of_a_run_are_one_query(harness: Harness) -> None:
    run = await one_run(harness)
    looks: list[int] = []
    look = harness.context.streams.runs._look

    async def counted(topics: Any) -> None:
        looks.append(len(topics))
        await look(topics)

    harness.context.streams.poll_seconds = 3600
    async with asyncio.TaskGroup() as group:
        everybody = asyncio.Barrier(41)

        async def read() -> list[dict[str, Any]]:
            async with follow(harness, run) as stream:
                await stream.until_seq(1)
                await everybody.wait()
                await stream.until_seq(2)
                return stream.events()

        readers = [group.create_task(read()) for _ in range(40)]
        await everybody.wait()
        harness.context.streams.runs._look = counted  # type: ignore[method-assign]
        await harness.report(run["id"], events=actions(1))
    assert all([event["seq"] for event in reader.result()] == [1, 2] for reader in readers)
    assert sum(looks) <= 2
    assert len(harness.context.streams) == 0


async def test_a_waiting_stream_holds_no_connection(harness: Harness) -> None:
    run = await one_run(harness)
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        await stream.quiet(0.3)
        assert harness.store._reader.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_a_slow_reader_costs_a_page_and_loses_nothing(harness: Harness) -> None:
    run = await one_run(harness)
    async with follow(harness, run) as slow, follow(harness, run) as quick:
        for each in (slow, quick):
            await each.until_seq(1)
        slow.reads.clear()
        big = "x" * 10_000
        most = 0
        for number in range(20):
            events = [{"type": "action", "payload": {"n": number, "big": big}}] * 20
            await harness.report(run["id"], events=events)
            await quick.until_seq(1 + 20 * (number + 1))
            (topic,) = harness.context.streams.runs._topics.values()
            kept = sum(len(each.data) for each in topic.recent._frames)
            most = max(most, kept, slow.held_bytes)
        assert 0 < most <= sse.RECENT_BYTES_MAX + 2 * len(big)
        slow.reads.set()
        await slow.until_seq(401)
        assert slow.events() == quick.events() == await harness.events(run["id"])


async def test_a_reader_that_takes_nothing_is_dropped(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await one_run(harness)
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.2)
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        stream.reads.clear()
        await harness.report(run["id"], events=actions(1))
        async with asyncio.timeout(10):
            await stream.ended.wait()
        assert len(harness.context.streams) == 0
    async with follow(harness, run, last="1") as stream:
        assert (await stream.until_seq(2)).data["payload"] == {"n": 1}


async def test_signs_of_life(harness: Harness) -> None:
    run = await one_run(harness)
    harness.context.streams.keep_alive_seconds = 0.1
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        for _ in range(2):
            assert (await stream.block()).text == ": keep-alive"


async def test_only_so_many_streams(harness: Harness) -> None:
    run = await one_run(harness)
    harness.context.streams.bounds = Bounds(total=1, each=9)
    async with follow(harness, run) as stream:
        await stream.next()
        assert_error(await harness.viewer.get(f"/api/agents/runs/{run['id']}/stream"), 503, "UNAVAILABLE")
    metrics = await harness.viewer.get("/metrics")
    assert "heartlane_streams 0.0" in metrics.text


# --- to whom, and its end ------------------------------------------------------------------------------------------


async def test_who_may_not_see_the_run_gets_the_plain_error(harness: Harness) -> None:
    run = await one_run(harness)
    path = f"/api/agents/runs/{run['id']}/stream"
    assert_error(await harness.client_with(None).get(path), 401, "NOT_AUTHENTICATED")
    other = await harness.project()
    for client in (
        await harness.client("admin", account="another"),
        await harness.client("viewer", project_id=other["id"]),
    ):
        assert_error(await client.get(path), 404, "NOT_FOUND")
    body = assert_error(await harness.viewer.get("/api/agents/runs/x/stream"), 400, "INVALID_REQUEST")
    assert list(body["fieldErrors"]) == ["id"]


@pytest.mark.parametrize("bad", ["x", "-1", "", "1.5", str(2**63), "1 "])
async def test_a_bad_place_to_go_on_from(harness: Harness, bad: str) -> None:
    run = await one_run(harness)
    path = f"/api/agents/runs/{run['id']}/stream"
    body = assert_error(await harness.viewer.get(path, params={"after": bad}), 400, "INVALID_REQUEST")
    assert list(body["fieldErrors"]) == ["after"]
    if bad == bad.strip():
        body = assert_error(await harness.viewer.get(path, headers={"Last-Event-ID": bad}), 400, "INVALID_REQUEST")
        assert list(body["fieldErrors"]) == ["Last-Event-ID"]
    assert_error(await harness.viewer.get(path, params={"heartbeats": "yes"}), 400, "INVALID_REQUEST")


async def test_the_head_alone(harness: Harness) -> None:
    run = await one_run(harness)
    response = await harness.viewer.head(f"/api/agents/runs/{run['id']}/stream")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/event-stream")
    response = await harness.viewer.options(f"/api/agents/runs/{run['id']}/stream")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"


async def last_words(stream: Stream) -> Told:
    """The last event of a stream that ends by itself."""
    told = await stream.until(lambda told: told.event == "end")
    with pytest.raises(EOFError):
        await stream.block()
    ErrorAnswer.model_validate(told.data, extra="forbid")
    assert told.id is None
    return told


async def test_a_revoked_token_ends_its_streams_and_no_others(harness: Harness) -> None:
    run = await one_run(harness)
    token, secret = await tokens.create(harness.store, "to be revoked", "viewer", account="default")
    other = await harness.client("viewer")
    async with follow(harness, run, harness.client_with(secret)) as stream, follow(harness, run, other) as stays:
        await stream.until_seq(1)
        await stays.until_seq(1)
        began = asyncio.get_running_loop().time()
        await tokens.revoke(harness.store, token.id)
        told = await last_words(stream)
        assert told.data["code"] == "TOKEN_REVOKED"
        assert asyncio.get_running_loop().time() - began < 5  # 1.5 s when nothing else keeps the machine busy
        await harness.report(run["id"], events=actions(1))
        assert (await stays.next()).id == "2"


async def test_nothing_is_told_while_a_token_cannot_be_looked_up(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await one_run(harness)
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        find = tokens.find_by_secret

        async def hang(*arguments: Any) -> Any:
            await asyncio.sleep(3600)

        monkeypatch.setattr(tokens, "find_by_secret", hang)
        await asyncio.sleep(2.2)
        (reader,) = next(iter(harness.context.streams.runs._topics.values())).readers
        harness.context.auth._known.clear()
        assert reader.trusted_until < asyncio.get_running_loop().time()
        await harness.store.ledger.submit(run["id"], _pause())
        await stream.quiet(0.5)
        monkeypatch.setattr(tokens, "find_by_secret", find)
        assert (await stream.next()).event == "paused"


def _pause() -> Any:
    from heartlane.lanes.commands import Pause

    return Pause("anna")


async def test_a_server_that_shuts_down_ends_its_streams(harness: Harness) -> None:
    run = await one_run(harness)
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        gate = harness.context.gate
        assert gate.inside == 0
        gate.close()
        assert await gate.emptied(1)
        told = await last_words(stream)
        assert told.data["code"] == "UNAVAILABLE"
        assert told.data["retryAfter"] > 0
    assert gate.inside == 0


async def test_no_look_and_no_read_outlives_the_store(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await one_run(harness)
    await harness.report(run["id"], events=actions(1))
    looking, reading = asyncio.Event(), asyncio.Event()
    may_read = asyncio.Event()

    async def look(*arguments: Any) -> Any:
        looking.set()
        await asyncio.Event().wait()

    async def read(*arguments: Any, **options: Any) -> Any:
        reading.set()
        await may_read.wait()
        return await read_events(*arguments, **options)

    monkeypatch.setattr(run_topics, "read_runs", look)
    monkeypatch.setattr(run_topics, "read_events", read)
    pool = harness.store._reader.pool
    async with follow(harness, run) as stream:
        await looking.wait()
        await reading.wait()
        assert pool.checkedout() == 2  # type: ignore[attr-defined]
        closing = asyncio.ensure_future(harness.context.streams.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        may_read.set()
        await closing
        assert pool.checkedout() == 0  # type: ignore[attr-defined]
        # Whoever is still connected is told nothing more.
        await stream.until_seq(2)
        await harness.report(run["id"], events=actions(2))
        await stream.quiet(0.1)


async def test_a_run_that_is_deleted_ends_its_streams(harness: Harness) -> None:
    run = await one_run(harness)
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        async with harness.store.writing() as tx:
            await tx.conn.execute(delete(runs).where(runs.c.id == run["id"]))
        harness.store.feed.publish(EVERYTHING)
        assert (await last_words(stream)).data["code"] == "NOT_FOUND"


async def test_a_reader_that_leaves_is_forgotten(harness: Harness) -> None:
    run = await one_run(harness)
    async with follow(harness, run) as stream:
        await stream.until_seq(1)
        assert len(harness.context.streams) == 1
    assert len(harness.context.streams) == 0
    assert harness.context.gate.inside == 0
