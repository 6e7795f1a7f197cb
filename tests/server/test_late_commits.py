"""The stream of all work on PostgreSQL, where servers commit side by side: what commits late is neither missed nor told
twice, and nothing waits for what will never come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from heartlane.server.settings import load_settings
from heartlane.store import horizon
from heartlane.store.horizon import Horizon
from heartlane.store.store import Store
from tests.harness import Harness
from tests.store.test_listener import cut
from tests.streaming import Tap, tapped

PATH = "/api/agents/stream"


@asynccontextmanager
async def server_on(url: str) -> AsyncIterator[Harness]:
    """A server on the database, that never looks by itself but when it is told to."""
    store = await Store.open(url)
    harness = await Harness.start(store, load_settings({"rate_limits": "off", "database": "sqlite:///unused"}))
    try:
        yield harness
    finally:
        await harness.close()
        await store.close()


@pytest.fixture
async def one(postgres_database_url: str) -> AsyncIterator[Harness]:
    """A server."""
    async with server_on(postgres_database_url) as harness:
        yield harness


class Held:
    """Another server's report, whose transaction has written its event and hasn't committed."""

    def __init__(self, connection: asyncpg.Connection[Any], transaction: Any) -> None:
        self._connection = connection
        self._transaction = transaction

    @classmethod
    async def open(cls, url: str, run: dict[str, Any], n: int) -> Held:
        """Write an event `n` of the run."""
        connection = await asyncpg.connect(url)
        transaction = connection.transaction()
        await transaction.start()
        number, count = await connection.fetchrow(
            "UPDATE runs SET event_count = event_count + 1 WHERE id = $1 RETURNING number, event_count", run["id"]
        )
        body = f'[{{"type":"action","payload":{{"n":{n}}}}}]'
        await connection.execute(
            'INSERT INTO events (run_number, last_seq, recorded_at, "count", types, worker_id, attempt, body) '
            "VALUES ($1, $2, clock_timestamp(), 1, 8, 'w1', 1, $3)",
            number,
            count,
            body,
        )
        return cls(connection, transaction)

    async def commit(self) -> None:
        """Let it be seen; nobody announces it."""
        await self._transaction.commit()
        await self._connection.close()

    async def roll_back(self) -> None:
        """Let it never have been."""
        await self._transaction.rollback()
        await self._connection.close()


async def held_runs(harness: Harness, count: int) -> list[dict[str, Any]]:
    """Lanes that w1 holds."""
    runs = await harness.approved(count)
    for run in runs:
        await harness.claim(run["id"], lease_seconds=3600)
    return runs


def follow(harness: Harness, last: str | None = None) -> Any:
    headers = dict(harness.viewer.headers) | ({} if last is None else {"last-event-id": last})
    return tapped(harness.app, PATH, headers, message="event")


def actions(*numbers: int) -> list[dict[str, Any]]:
    return [{"type": "action", "payload": {"n": number}} for number in numbers]


async def begun(stream: Tap) -> str:
    told = await stream.next()
    assert told.event == "reset"
    return str(told.id)


async def numbers(stream: Tap, count: int) -> list[int]:
    """The numbers of the next events."""
    return [(await stream.next()).data["payload"]["n"] for _ in range(count)]


async def test_what_commits_late_is_told_in_its_place(one: Harness, postgres_database_url: str) -> None:
    late, run = await held_runs(one, 2)
    async with follow(one) as stream:
        await begun(stream)
        held = await Held.open(postgres_database_url, late, 1)
        await one.report(run["id"], events=actions(2))
        await stream.quiet(0.3)
        await held.commit()
        assert await numbers(stream, 2) == [1, 2]
        await one.report(run["id"], events=actions(3))
        assert await numbers(stream, 1) == [3]


async def test_what_is_undone_holds_nobody_up(one: Harness, postgres_database_url: str) -> None:
    late, run = await held_runs(one, 2)
    async with follow(one) as stream:
        await begun(stream)
        held = await Held.open(postgres_database_url, late, 1)
        await one.report(run["id"], events=actions(2))
        await stream.quiet(0.2)
        await held.roll_back()
        assert await numbers(stream, 1) == [2]
        # A position that was given up before anybody looked.
        await (await Held.open(postgres_database_url, late, 1)).roll_back()
        await one.report(run["id"], events=actions(3))
        assert await numbers(stream, 1) == [3]


async def test_a_stream_that_begins_meanwhile_misses_nothing(one: Harness, postgres_database_url: str) -> None:
    late, run = await held_runs(one, 2)
    held = await Held.open(postgres_database_url, late, 1)
    await one.report(run["id"], events=actions(2))
    opening = follow(one)
    entering = asyncio.ensure_future(opening.__aenter__())
    await asyncio.sleep(0.3)
    assert not entering.done()
    await held.commit()
    stream = await entering
    await begun(stream)
    listed = [event["payload"] for run in (late, run) for event in await one.events(run["id"], type="action")]
    assert listed == [{"n": 1}, {"n": 2}], "whoever loads the lists now finds what was before"
    await one.report(run["id"], events=actions(3))
    assert await numbers(stream, 1) == [3]
    await opening.__aexit__(None, None, None)


async def test_a_transaction_that_writes_something_else_is_not_waited_for(
    one: Harness, postgres_database_url: str
) -> None:
    late, run = await held_runs(one, 2)
    other = await asyncpg.connect(postgres_database_url)
    writing = other.transaction()
    await writing.start()
    await other.execute("UPDATE projects SET name = 'Another'")
    async with follow(one) as stream:
        await begun(stream)
        await (await Held.open(postgres_database_url, late, 1)).roll_back()
        await one.report(run["id"], events=actions(2))
        assert await numbers(stream, 1) == [2]
    await writing.rollback()
    await other.close()


async def test_it_goes_on_at_another_server_ahead_or_behind(one: Harness, postgres_database_url: str) -> None:
    async with server_on(postgres_database_url) as other:
        late, run = await held_runs(one, 2)
        # Another reader keeps the other server following, stuck behind what commits late.
        async with follow(other) as behind:
            await begun(behind)
            async with follow(one) as stream:
                await begun(stream)
                await one.report(run["id"], events=actions(1, 2, 3))
                assert await numbers(stream, 2) == [1, 2]
                last = stream.last_id
            assert await numbers(behind, 3) == [1, 2, 3]
            async with follow(other, last) as stream:
                assert await numbers(stream, 1) == [3]
                held = await Held.open(postgres_database_url, late, 4)
                await one.report(run["id"], events=actions(5))
                await stream.quiet(0.2)
                await held.commit()
                assert await numbers(stream, 2) == [4, 5]
                last = stream.last_id
        async with follow(one, last) as stream:
            await one.report(run["id"], events=actions(6))
            assert await numbers(stream, 1) == [6]


async def test_what_happened_while_nobody_heard_is_told(one: Harness, postgres_database_url: str) -> None:
    async with server_on(postgres_database_url) as other:
        (run,) = await held_runs(one, 1)
        async with follow(other) as stream:
            await begun(stream)
            deaf = asyncio.ensure_future(cut(postgres_database_url, again_and_again=0.3))
            for number in range(5):
                await one.report(run["id"], events=actions(number))
                await asyncio.sleep(0.03)
            await deaf
            assert await numbers(stream, 5) == list(range(5))


async def none_writes(conn: Any) -> frozenset[str]:
    return frozenset()


async def takes_all(self: Horizon, conn: Any, rows: Any, after: int) -> Any:
    return rows


@pytest.mark.parametrize("switched_off", ["whole", "writing"])
async def test_without_the_horizon_these_tests_would_see_events_missed(
    one: Harness, postgres_database_url: str, monkeypatch: pytest.MonkeyPatch, switched_off: str
) -> None:
    """The first of them, with its order of commits, on a server whose horizon lets everything through."""
    if switched_off == "whole":
        monkeypatch.setattr(Horizon, "whole", takes_all)
    else:
        monkeypatch.setattr(horizon, "_writing", none_writes)
    late, run = await held_runs(one, 2)
    async with follow(one) as stream:
        await begun(stream)
        held = await Held.open(postgres_database_url, late, 1)
        await one.report(run["id"], events=actions(2))
        assert await numbers(stream, 1) == [2], "told although what comes before it isn't there yet"
        await held.commit()
        await one.report(run["id"], events=actions(3))
        assert await numbers(stream, 1) == [3], "and what committed late is never told"


async def test_without_the_horizon_a_stream_would_begin_behind_what_commits_late(
    one: Harness, postgres_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(horizon, "_writing", none_writes)
    late, run = await held_runs(one, 2)
    held = await Held.open(postgres_database_url, late, 1)
    await one.report(run["id"], events=actions(2))
    async with follow(one) as stream:
        await begun(stream)  # while the other's event can't be listed yet
        assert await one.events(late["id"], type="action") == []
        await held.commit()
        await one.report(run["id"], events=actions(3))
        assert await numbers(stream, 1) == [3], "neither listed nor told"
