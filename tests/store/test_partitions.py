"""PostgreSQL's partitions of the event log: made ahead, by whichever server comes first, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from heartlane.lanes.run import Event
from heartlane.server.metrics import Metrics
from heartlane.server.takeback import TakeBackLoop
from heartlane.store.partitions import WEEKS_AHEAD, ensure_partitions, week_of
from heartlane.store.store import Store
from tests.store.fleet import Fleet

LINE = Event("log_line", {"line": "12 tests passed"})
WEEK = 7 * 24 * 3600


@pytest.fixture
async def fleet(postgres_database_url: str) -> AsyncIterator[Fleet]:
    """An account on PostgreSQL."""
    store = await Store.open(postgres_database_url)
    yield await Fleet.found(store)
    await store.close()


@pytest.fixture
async def connection(postgres_database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection of our own."""
    connection = await asyncpg.connect(postgres_database_url)
    yield connection
    await connection.close()


async def partitions(connection: asyncpg.Connection[asyncpg.Record]) -> set[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'events'::regclass"
    )
    return {row["name"] for row in rows}


async def homes(connection: asyncpg.Connection[asyncpg.Record], run_number: int) -> list[str]:
    """The partition of each row of a run's log."""
    query = "SELECT tableoid::regclass::text AS name FROM events WHERE run_number = $1 ORDER BY last_seq"
    return [row["name"] for row in await connection.fetch(query, run_number)]


async def test_this_week_and_the_next_ones_are_made_once(
    fleet: Fleet, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    now = await fleet.store.now()
    made = await ensure_partitions(fleet.store, now)
    assert made == [f"events_{week_of(now) + timedelta(weeks=week):%Y%m%d}" for week in range(WEEKS_AHEAD + 1)]
    assert await partitions(connection) == {*made, "events_rest"}
    assert await ensure_partitions(fleet.store, now) == []
    (later,) = await ensure_partitions(fleet.store, now + timedelta(weeks=1))
    assert later == f"events_{week_of(now) + timedelta(weeks=WEEKS_AHEAD + 1):%Y%m%d}"


async def test_two_servers_that_make_them_at_once_dont_stumble(
    fleet: Fleet, postgres_database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    other = await Store.open(postgres_database_url)
    try:
        now = await other.now()
        await asyncio.gather(*(ensure_partitions(store, now) for store in (fleet.store, other) for _ in range(3)))
    finally:
        await other.close()
    assert len(await partitions(connection)) == WEEKS_AHEAD + 2


async def test_a_log_runs_on_through_the_weeks(fleet: Fleet, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    (run,) = await fleet.lanes()
    await fleet.claim(run, lease_seconds=3600)
    await ensure_partitions(fleet.store, await fleet.store.now())  # too late for the first row, which is in the rest
    for _ in range(3):
        fleet.store.clock.advance(WEEK)
        await fleet.report(run, LINE)
    first, *others = await homes(connection, run.number)
    assert first == "events_rest"
    assert len(set(others)) == 3
    assert "events_rest" not in others
    assert [event.seq for event in await fleet.log(run)] == [1, 2, 3, 4]


async def test_a_week_that_has_begun_in_the_rest_stays_there(
    fleet: Fleet, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    (run,) = await fleet.lanes()
    await fleet.claim(run)
    now = await fleet.store.now()
    made = await ensure_partitions(fleet.store, now)
    assert len(made) == WEEKS_AHEAD, "all but this week's"
    await fleet.report(run, LINE)
    assert await homes(connection, run.number) == ["events_rest"] * 2
    assert await ensure_partitions(fleet.store, now) == []


async def test_a_long_read_of_the_log_holds_nothing_up(
    fleet: Fleet, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    """A backup holds its lock for hours, and whoever waits for a stronger one stands in the way of every report."""
    await ensure_partitions(fleet.store, await fleet.store.now())
    held, expired = await fleet.lanes(2)
    await fleet.claim(held, lease_seconds=3600)
    await fleet.claim(expired, lease_seconds=1)
    loop = TakeBackLoop(fleet.store, Metrics(), 0.5)
    before = await partitions(connection)
    async with connection.transaction(readonly=True):
        await connection.execute("SELECT count(*) FROM events")
        fleet.store.clock.advance(WEEK)
        round_ = asyncio.ensure_future(loop.round())
        await asyncio.sleep(0.05)
        await asyncio.wait_for(fleet.report(held, LINE), 5)
        # A statement's own limit is ten seconds; and the round has to go on to what it is for.
        await asyncio.wait_for(round_, 5)
        fleet.store.clock.advance(2)
        await asyncio.wait_for(loop.round(), 5)
        assert (await fleet.read(expired)).state == "queued"
        assert await partitions(connection) == before
    assert len(await ensure_partitions(fleet.store, await fleet.store.now())) == 1
