"""Several servers on one PostgreSQL: row locks, the database's clock, and one notification a transaction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import pytest

from heartlane.lanes.commands import Cancel, Claim, Command, Pause, Release, Report, Resume, Retry
from heartlane.lanes.run import Event, Run
from heartlane.store.batch import Outcome
from heartlane.store.errors import StoreUnavailable
from heartlane.store.feed import CHANNEL
from heartlane.store.postgres import CLAIM_SLACK
from heartlane.store.store import Store
from tests.store.fleet import Fleet, done, eventually, heard_on, lane

LINE = Event("log_line", {"line": "12 tests passed"})
SHIP = Event("ship_complete", {"pr_url": "https://git.test/1"})


class Two(NamedTuple):
    """Two servers' stores on one database, with the same account."""

    one: Fleet
    other: Fleet
    url: str


@pytest.fixture
async def two(postgres_database_url: str) -> AsyncIterator[Two]:
    """Two stores on one PostgreSQL, both of which listen already."""
    url, stores = postgres_database_url, list[Store]()

    async def both_listen() -> bool:
        async with connected(url) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            count: int = await connection.fetchval(query)
        return count == 2

    try:
        for _ in range(2):
            stores.append(await Store.open(url))
        await eventually(both_listen)
        one = await Fleet.found(stores[0])
        yield Two(one, Fleet(stores[1], one.account_id, one.project_id), url)
    finally:
        for store in stores:
            await store.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of our own."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def locked(url: str, *lanes: Run) -> AsyncIterator[None]:
    """Rows that somebody else holds locked."""
    async with connected(url) as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM runs WHERE id = ANY($1) FOR UPDATE", [run.id for run in lanes])
        yield


async def cut(url: str, which: str = "application_name = 'heartlane'") -> int:
    """Cut the servers' connections to this database, as a restart of PostgreSQL would; how many there were."""
    async with connected(url) as connection:
        query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
        count: int = await connection.fetchval(f"{query} AND pid <> pg_backend_pid() AND {which}")
        return count


# --- claims -------------------------------------------------------------------------------------------------------


async def test_claimers_on_two_servers_get_each_lane_once(two: Two) -> None:
    await two.one.lanes([lane(str(number), random.choice(["backend", "qa"])) for number in range(200)])

    async def claim_all(fleet: Fleet, worker_id: str) -> list[Run]:
        found = []
        while (run := await fleet.claim_next(worker_id)) is not None:
            found.append(run)
        return found

    claimed = await asyncio.gather(
        *(claim_all(fleet, f"{server}-{number}") for server, fleet in enumerate(two[:2]) for number in range(20))
    )
    keys = [run.lane_key for runs in claimed for run in runs]
    assert len(keys) == 200
    assert len(set(keys)) == 200
    assert all(run.attempt == 1 for runs in claimed for run in runs)


async def test_a_claim_that_two_servers_get_is_one(two: Two) -> None:
    await two.one.lanes(60)

    async def claim(number: int) -> Run | None:
        fleet = two.one if number % 2 else two.other
        return await fleet.claim_next(f"w{number // 4}", one_at_a_time=True)

    claimed = await asyncio.gather(*(claim(number) for number in range(60)))
    held = {(run.worker_id, run.lane_key) for run in claimed if run is not None}
    assert None not in claimed
    assert len(held) == 15


async def test_a_lane_that_others_hold_locked_is_passed_over_and_not_waited_for(two: Two) -> None:
    first, second = await two.one.lanes([lane("first", priority=1), lane("second")])
    async with locked(two.url, first):
        run = await asyncio.wait_for(two.one.claim_next(), 5)
        assert run is not None
        assert run.id == second.id
        assert await asyncio.wait_for(two.one.claim_next(), 5) is None
    run = await two.one.claim_next()
    assert run is not None
    assert run.id == first.id


async def test_a_claim_looks_behind_however_many_that_are_locked(two: Two) -> None:
    lanes = await two.one.lanes(CLAIM_SLACK * 2 + 1)
    async with locked(two.url, *lanes[:-1]):
        run = await asyncio.wait_for(two.one.claim_next(), 5)
        assert run is not None
        assert run.id == lanes[-1].id


async def test_servers_that_work_on_the_same_lanes_never_stand_in_each_others_way(two: Two) -> None:
    """Locks are taken in one order: no deadlock, whatever comes together, and a log without gaps at the end."""
    tickets = [await two.one.ticket("backend", "qa") for _ in range(3)]
    names = [f"lane-{number}" for number in range(6)]
    before = {name: tuple(names[:place]) if place > 3 else () for place, name in enumerate(names)}
    lanes = await two.one.lanes([lane(name, ticket_ids=tickets, after=before[name]) for name in names])
    dice = random.Random(11)
    commands: list[Command] = [Claim("w1"), Report("w1", events=[LINE]), Report("w1", events=[LINE, SHIP, LINE])]
    commands += [Release("w1"), Pause(), Resume(), Cancel(), Retry(), Claim("w2"), Report("w2", phase="shipping")]

    async def keep_going(fleet: Fleet) -> list[Outcome]:
        return [
            outcome
            for _ in range(15)
            for outcome in await asyncio.gather(
                *(fleet.command(dice.choice(lanes), dice.choice(commands)) for _ in range(12)),
                fleet.command_next(f"w{dice.randrange(3)}"),
            )
        ]

    for outcomes in await asyncio.gather(*(keep_going(fleet) for fleet in two[:2])):
        assert len(outcomes) == 15 * 13
    for run in lanes:
        after = await two.one.read(run)
        assert [event.seq for event in await two.other.log(run)] == list(range(1, after.event_count + 1))
        assert after.attempt == sum(event.type == "claimed" for event in await two.one.log(run))


# --- notifications ------------------------------------------------------------------------------------------------


async def notified(url: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> list[str]:
    """The payloads that go out while the work is done, by a listener of our own."""
    heard: list[str] = []
    over = asyncio.Event()

    def hear(connection: Any, pid: int, channel: str, payload: object) -> None:
        over.set() if payload == "over" else heard.append(str(payload))

    async with connected(url) as listener, connected(url) as teller:
        await listener.add_listener(CHANNEL, hear)
        await work()
        await teller.execute("SELECT pg_notify($1, 'over')", CHANNEL)
        await asyncio.wait_for(over.wait(), 30)
    return heard


async def test_one_notification_for_each_committed_batch(two: Two) -> None:
    one = two.one
    lanes = await one.lanes(20)

    async def claims() -> None:
        await asyncio.gather(*(one.claim(run) for run in lanes))

    assert len(await notified(two.url, claims)) == 1
    await one.report(lanes[0])  # the first one changes its state
    # Of every column set, with events and without: three statements in one transaction.
    commands: list[Command] = [Report("w1"), Report("w1", events=[LINE]), Pause(), Release("w1"), Cancel()]

    async def mixed() -> None:
        await asyncio.gather(*(one.command(*each) for each in zip(lanes, commands, strict=False)))

    (payload,) = await notified(two.url, mixed)
    assert all(run.id in payload for run in lanes[1:5])
    assert lanes[0].id not in payload


async def test_a_heartbeat_or_a_refusal_notifies_nobody(two: Two) -> None:
    (run,) = await two.one.lanes()
    await two.one.claim(run)
    await two.one.report(run)

    async def quiet() -> None:
        for _ in range(3):
            await two.one.report(run)
        await two.one.command(run, Report("w2", events=[LINE]))
        await two.one.claim_next()

    assert await notified(two.url, quiet) == []


async def test_what_is_undone_notifies_nobody(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket_id = await two.one.ticket("backend")
    (run,) = await two.one.lanes([lane("a", ticket_ids=[ticket_id])])
    monkeypatch.setattr("heartlane.store.postgres.UPDATE_TICKET", "UPDATE nowhere SET id = $1")

    async def in_vain() -> None:
        with pytest.raises(asyncpg.PostgresError):
            await two.one.claim(run)

    assert await notified(two.url, in_vain) == []
    assert (await two.one.read(run)).state == "queued"


async def test_another_server_hears_of_it_and_oneself_once(two: Two) -> None:
    here, there = heard_on(two.one.store), heard_on(two.other.store)
    (run,) = await two.one.lanes()
    await two.one.claim(run)
    await two.one.command(run, Release("w1"))

    async def heard() -> bool:
        return len(there) == 3

    await eventually(heard)
    assert [[list(openings), list(run_ids)] for openings, run_ids, _ in there] == [
        [list(openings), list(run_ids)] for openings, run_ids, _ in here
    ]


# --- connections that break ---------------------------------------------------------------------------------------


async def test_a_restart_of_the_database_costs_no_command(two: Two) -> None:
    lanes = await two.one.lanes(3)
    await asyncio.gather(*(two.one.claim(run) for run in lanes))
    idle = list(two.one.store._engine._idle)  # type: ignore[union-attr]
    assert await cut(two.url) >= len(idle) > 0

    async def closed() -> bool:
        return all(connection.is_closed() for connection in idle)

    await eventually(closed)
    # Nothing was under way: the dead connections are replaced without anybody noticing.
    await two.one.report(lanes[0], LINE)
    assert (await two.one.read(lanes[0])).state == "running"
    async with two.one.store.writing() as tx:
        assert tx.now is not None


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("the underlying connection is closed"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_connection_that_closes_at_the_moment_of_its_use_is_replaced(two: Two, error: Exception) -> None:
    class Closing:
        ended = False

        async def execute(self, statement: str, timeout: float | None = None) -> None:
            raise error

        def terminate(self) -> None:
            self.ended = True

    connection, engine = Closing(), two.one.store._engine
    (run,) = await two.one.lanes()
    engine._idle.append(connection)  # type: ignore[union-attr]
    await two.one.claim(run)
    assert connection.ended


async def test_the_drivers_confusion_at_such_a_moment_is_an_outage(two: Two) -> None:
    async def confused() -> None:
        async with two.one.store.writing():
            raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")

    with pytest.raises(StoreUnavailable):
        await confused()


async def test_a_connection_cut_under_a_command_is_told_and_leaves_nothing_half_done(two: Two) -> None:
    (run,) = await two.one.lanes()
    claimed = await two.one.claim(run)
    async with locked(two.url, run):
        call = asyncio.ensure_future(two.one.command(run, Report("w1", events=[LINE], seq=1)))
        waits = "wait_event_type = 'Lock' AND application_name = 'heartlane'"

        async def found_and_cut() -> bool:
            return await cut(two.url, waits) > 0

        await eventually(found_and_cut)
        with pytest.raises(StoreUnavailable):
            await call
    assert await two.one.read(run) == claimed
    # The sidecar's retry goes through, on a new connection.
    assert (await two.one.report(run, LINE, seq=1)).event_count == 2


async def test_faults_dont_eat_up_connections(two: Two) -> None:
    lanes, phases = await two.one.lanes(2), ("\ud800", "tests")
    for run in lanes:
        await two.one.claim(run)

    async def count() -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        async with connected(two.url) as connection:
            found: int = await connection.fetchval(query)
        return found

    before = await count()
    for _ in range(10):
        calls = [two.one.command(run, Report("w1", phase=phase)) for run, phase in zip(lanes, phases, strict=True)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert not isinstance(outcomes[0], Outcome)
        assert isinstance(outcomes[1], Outcome)
    assert await count() <= before + 2


# --- time and space -----------------------------------------------------------------------------------------------


async def test_the_time_is_the_databases(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Wrong:
            return cls(2001, 1, 1, tzinfo=UTC)

    monkeypatch.setattr("heartlane.store.clock.datetime", Wrong)
    (run,) = await two.one.lanes()
    claimed = await two.one.claim(run, lease_seconds=60)
    async with connected(two.url) as connection:
        now = await connection.fetchval("SELECT clock_timestamp()")
    assert claimed.claimed_at is not None
    assert abs(now - claimed.claimed_at) < timedelta(seconds=60)
    assert abs(now - await two.one.store.now()) < timedelta(seconds=60)
    assert claimed.lease_expires_at == claimed.claimed_at + timedelta(seconds=60)


async def test_heartbeats_are_written_in_place(two: Two) -> None:
    lanes = await two.one.lanes(10)
    await asyncio.gather(*(two.one.claim(run) for run in lanes))
    await asyncio.gather(*(two.one.report(run) for run in lanes))
    async with connected(two.url) as connection:

        async def in_place(updates: int) -> int:
            """How many of so many updates rewrote their row in place, once all of them have been counted."""
            found = (0, 0)

            async def counted() -> bool:
                nonlocal found
                # A connection passes its figures on when it is idle for a while, or ends.
                await cut(two.url)
                await connection.execute("SELECT pg_stat_clear_snapshot()")
                query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'runs'"
                found = tuple(await connection.fetchrow(query))
                return found[0] >= updates

            await eventually(counted)
            assert found[0] == updates
            return found[1]

        before = await in_place(20)
        for _ in range(50):
            await asyncio.gather(*(two.one.report(run) for run in lanes))
        assert (await in_place(520) - before) / 500 > 0.9


async def test_a_claim_that_goes_through_is_answered_by_either_server(two: Two) -> None:
    (run,) = await two.one.lanes()
    await two.one.claim(run, "w1")
    assert done(await two.other.command(run, Report("w1", events=[LINE]))).state == "running"
    assert (await two.one.read(run)).event_count == 2
