"""The server's own hand, round by round, with time that is moved: take-back, grace, ripening, and signs of life."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from heartlane.lanes.commands import Release, Report, TakeBack
from heartlane.lanes.run import Event, Run
from heartlane.server import takeback
from heartlane.server.metrics import Metrics
from heartlane.server.takeback import TakeBackLoop
from heartlane.store import control
from heartlane.store.control import GAP_SECONDS, sign_of_life, upcoming
from heartlane.store.errors import Overloaded, StoreUnavailable
from heartlane.store.schema import control as control_table
from heartlane.store.store import Store
from tests.harness import StandingClock
from tests.store.conftest import OpenStore
from tests.store.fleet import Fleet, code, eventually, lane

LINE = Event("log_line", {"line": "12 tests passed"})


class Server:
    """A server's loop over a store of its own, on a clock that it shares with the others."""

    def __init__(self, fleet: Fleet, clock: StandingClock) -> None:
        self.fleet = fleet
        self.store = fleet.store
        self.clock = clock
        self.metrics = Metrics()
        self.loop = TakeBackLoop(fleet.store, self.metrics, 0.5)

    async def let_pass(self, seconds: float) -> None:
        """Let time pass in which this server ran, by the second, as its own loop would look."""
        while seconds > 0:
            step = min(seconds, 1.0)
            self.clock.advance(step)
            seconds -= step
            await self.rounds()

    async def rounds(self) -> int:
        """Look until there is nothing left to do now; how many rounds that took."""
        count = 1
        while await self.loop.round() == 0.0:
            count += 1
        return count


@pytest.fixture
def clock() -> StandingClock:
    """The time of every server of a test."""
    return StandingClock()


@pytest.fixture
async def server(open_store: OpenStore, clock: StandingClock) -> Server:
    """A server that has just started."""
    server = Server(await Fleet.found(await open_store(clock=clock)), clock)
    await server.rounds()
    return server


async def another(server: Server, open_store: OpenStore, **options: Any) -> Server:
    """One more server on the same database and at the same time."""
    store = await open_store(clock=server.clock, **options)
    other = Server(Fleet(store, server.fleet.account_id, server.fleet.project_id), server.clock)
    # Out of the box the file of SQLite has one server, so that any that starts takes itself for the first.
    other.loop._first = False
    return other


async def states(server: Server, *lanes: Run) -> list[str]:
    return [(await server.fleet.read(run)).state for run in lanes]


# --- leases that run out ------------------------------------------------------------------------------------------


async def test_a_lease_that_runs_out_is_taken_back_at_its_deadline(server: Server) -> None:
    (run,) = await server.fleet.lanes()
    claimed = await server.fleet.claim(run, lease_seconds=60)
    await server.let_pass(59.5)
    assert await states(server, run) == ["claimed"]
    await server.let_pass(0.5)
    after = await server.fleet.read(run)
    assert (after.state, after.worker_id, after.failures, after.lease_expires_at) == ("queued", None, 1, None)
    event = (await server.fleet.log(run))[-1]
    assert event.type == "lease_expired"
    assert event.recorded_at == claimed.lease_expires_at
    assert event.payload["worker_id"] == "w1"


async def test_one_that_is_renewed_is_left_alone_and_looked_at_again(server: Server) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=60)
    for _ in range(4):
        await server.let_pass(40)
        await server.fleet.report(run)
    after = await server.fleet.read(run)
    assert (after.state, after.failures) == ("running", 0)
    # A renewal doesn't touch what the look goes by; the look itself moves it on.
    assert after.take_back_at is not None
    assert after.lease_expires_at is not None
    assert after.take_back_at <= after.lease_expires_at
    await server.let_pass(60)
    assert await states(server, run) == ["queued"]


async def test_a_shorter_lease_counts_from_now(server: Server) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=3600)
    await server.fleet.command(run, Report("w1", lease_seconds=5))
    await server.let_pass(5)
    assert await states(server, run) == ["queued"]


async def test_a_report_between_deadline_and_look_keeps_the_lane(server: Server) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=60)
    await server.let_pass(59)
    server.clock.advance(2)
    await server.fleet.report(run, LINE)
    await server.rounds()
    assert await states(server, run) == ["running"]
    assert "lease_expired" not in [event.type for event in await server.fleet.log(run)]


async def test_a_look_that_comes_late_is_decided_anew(server: Server) -> None:
    """What was due when it was looked up may have been renewed, or given back and claimed by another, since."""
    renewed, reclaimed = await server.fleet.lanes(2)
    for run in (renewed, reclaimed):
        await server.fleet.claim(run, lease_seconds=10)
    server.clock.advance(11)
    due = await control.due_for_take_back(server.store, server.clock.moment)
    assert set(due) == {renewed.id, reclaimed.id}
    await server.fleet.report(renewed)
    await server.fleet.command(reclaimed, Release("w1"))
    await server.fleet.claim(reclaimed, "w2", 10)
    for run_id in due:
        await server.store.ledger.submit(run_id, TakeBack())
    assert await states(server, renewed, reclaimed) == ["running", "claimed"]
    assert (await server.fleet.read(reclaimed)).worker_id == "w2"


async def test_a_past_holder_hears_of_it(server: Server) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=1)
    await server.let_pass(1)
    assert code(await server.fleet.command(run, Report("w1", events=[LINE]))) == "CLAIM_LOST"
    assert [event.type for event in await server.fleet.log(run)] == ["claimed", "lease_expired"]


async def test_many_at_once_are_taken_back_a_part_at_a_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (control, takeback):
        monkeypatch.setattr(module, "EXPIRED_AT_ONCE", 4)
    lanes = await server.fleet.lanes(10)
    await asyncio.gather(*(server.fleet.claim(run, lease_seconds=1) for run in lanes))
    server.clock.advance(2)
    assert await server.rounds() == 3, "four, four and two"
    assert await states(server, *lanes) == ["queued"] * 10
    assert server.metrics.registry.get_sample_value("heartlane_leases_taken_back_total") == 10


async def test_take_back_goes_on_when_the_queue_is_full(server: Server, open_store: OpenStore) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=1)
    await sign_of_life(server.store, first=False)
    full = await another(server, open_store, queue_limit=0)
    with pytest.raises(Overloaded):
        await full.fleet.report(run)
    await full.let_pass(1)
    assert await states(server, run) == ["queued"]


# --- two servers --------------------------------------------------------------------------------------------------


async def test_two_servers_take_a_lane_back_once(server: Server, open_store: OpenStore) -> None:
    other = await another(server, open_store)
    lanes = await server.fleet.lanes(20)
    await asyncio.gather(*(server.fleet.claim(run, lease_seconds=5) for run in lanes))
    await server.let_pass(4)
    server.clock.advance(1)
    await asyncio.gather(server.rounds(), other.rounds())
    for run in lanes:
        after = await server.fleet.read(run)
        assert (after.state, after.failures) == ("queued", 1)
        assert [event.type for event in await server.fleet.log(run)] == ["claimed", "lease_expired"]


# --- times without a server ---------------------------------------------------------------------------------------


async def test_after_an_outage_every_holder_has_one_lease_to_be_heard_again(server: Server) -> None:
    silent, heard = await server.fleet.lanes(2)
    for run in (silent, heard):
        await server.fleet.claim(run, lease_seconds=60)
    server.clock.advance(3600)
    await server.rounds()
    assert await states(server, silent, heard) == ["claimed", "claimed"]
    await server.fleet.report(heard)
    await server.let_pass(59)
    assert await states(server, silent, heard) == ["claimed", "running"]
    await server.let_pass(1)
    assert await states(server, silent, heard) == ["queued", "queued"], "a lease from when each was, or could be, heard"


async def test_the_grace_is_five_minutes_at_most(server: Server) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=3600)
    server.clock.advance(7200)
    await server.rounds()
    await server.let_pass(299)
    assert await states(server, run) == ["claimed"]
    await server.let_pass(1)
    assert await states(server, run) == ["queued"]


async def test_the_grace_counts_from_the_first_server_that_runs_again(server: Server, open_store: OpenStore) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=60)
    server.clock.advance(3600)
    resumed = await sign_of_life(server.store, first=False)
    assert resumed == server.clock.moment
    # Another one comes up half a minute later: it finds the first one's sign, and begins no grace of its own.
    await server.let_pass(30)
    other = await another(server, open_store)
    assert await sign_of_life(other.store, first=False) == resumed
    await server.let_pass(29)
    await other.rounds()
    assert await states(server, run) == ["claimed"]
    server.clock.advance(1)
    await other.rounds()
    assert await states(server, run) == ["queued"]


async def test_a_server_that_restarts_while_another_runs_gives_no_grace(server: Server, open_store: OpenStore) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=10)
    await server.let_pass(8)
    before = await sign_of_life(server.store, first=False)
    other = await another(server, open_store)
    assert await sign_of_life(other.store, first=False) == before
    await server.let_pass(2)
    assert await states(server, run) == ["queued"]


@pytest.mark.parametrize(("seconds", "resumed"), [(GAP_SECONDS, False), (GAP_SECONDS + 0.001, True)])
async def test_how_long_without_a_sign_is_an_outage(server: Server, seconds: float, resumed: bool) -> None:
    before = await sign_of_life(server.store, first=False)
    server.clock.advance(seconds)
    after = await sign_of_life(server.store, first=False)
    assert after == (server.clock.moment if resumed else before)


async def test_the_first_server_on_a_file_knows_that_none_ran(server: Server) -> None:
    """A SQLite file has one server at a time: however short the restart was, nobody could be heard meanwhile."""
    server.clock.advance(1)
    assert await sign_of_life(server.store, first=True) == server.clock.moment


async def test_signs_that_come_at_once_agree(server: Server, open_store: OpenStore) -> None:
    other = await another(server, open_store)
    server.clock.advance(60)
    signs = await asyncio.gather(*(sign_of_life(each.store, first=False) for each in (server, other) * 3))
    assert signs == [server.clock.moment] * 6


async def test_a_clock_that_goes_back_begins_no_grace_and_takes_nothing_back(server: Server) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=60)
    before = await sign_of_life(server.store, first=False)
    server.clock.advance(-30)
    await server.rounds()
    assert await sign_of_life(server.store, first=False) == before
    assert await states(server, run) == ["claimed"]
    assert await alive_at(server.store) == server.clock.moment, "the sign goes by the clock as it is"


async def alive_at(store: Store) -> datetime | None:
    async with store.reading() as conn:
        moment: datetime | None = (await conn.execute(select(control_table.c.alive_at))).scalar_one()
    return moment


# --- what is held back, and when to look again --------------------------------------------------------------------


async def test_what_is_held_back_ripens_at_its_moment(server: Server) -> None:
    early, late, cancelled = await server.fleet.lanes([lane("early"), lane("late"), lane("cancelled")])
    for run, seconds in ((early, 60), (late, 120)):
        await server.fleet.claim(run)
        await server.fleet.command(run, Release("w1", retry_after=seconds))
    await server.let_pass(60)
    assert (await server.fleet.read(early)).not_before is None
    assert (await server.fleet.read(late)).not_before is not None
    assert (await server.fleet.read(cancelled)).not_before is None
    await server.let_pass(60)
    assert (await server.fleet.read(late)).not_before is None


async def test_it_sleeps_until_something_is_due(server: Server) -> None:
    held, held_back = await server.fleet.lanes(2)
    assert 0.4 <= await server.loop.round() <= 0.5, "with nothing to do, as long as it was told"
    await server.fleet.claim(held, lease_seconds=1)
    server.clock.advance(0.9)
    assert await server.loop.round() == pytest.approx(0.1)
    await server.fleet.claim(held_back)
    await server.fleet.command(held_back, Release("w1", retry_after=0.05))
    assert await server.loop.round() == pytest.approx(0.05)
    found = await upcoming(server.store)
    assert found.now == server.clock.moment
    assert found.take_back_at == server.clock.moment + timedelta(seconds=0.1)
    assert found.not_before == server.clock.moment + timedelta(seconds=0.05)


async def test_it_says_that_it_runs_about_once_a_second(server: Server) -> None:
    first = server.clock.moment
    assert await alive_at(server.store) == first
    server.clock.advance(0.5)
    await server.rounds()
    assert await alive_at(server.store) == first
    server.clock.advance(0.5)
    await server.rounds()
    assert await alive_at(server.store) == server.clock.moment


# --- a loop that goes on ------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that tries again at once."""
    monkeypatch.setattr(takeback, "RETRY_SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [StoreUnavailable("away"), ZeroDivisionError()], ids=["outage", "fault"])
async def test_the_loop_outlives_what_goes_wrong(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (run,) = await server.fleet.lanes()
    await server.fleet.claim(run, lease_seconds=1)
    looks = 0

    async def away_three_times(store: Store) -> control.Upcoming:
        nonlocal looks
        looks += 1
        if looks <= 3:
            raise error
        return await upcoming(store)

    monkeypatch.setattr(takeback, "upcoming", away_three_times)
    server.clock.advance(2)
    async with server.store.writing() as tx:
        await tx.conn.execute(update(control_table).values(alive_at=tx.now))
    server.loop.start()

    async def taken_back() -> bool:
        return (await server.fleet.read(run)).state == "queued"

    await eventually(taken_back)
    await server.loop.close()
    assert looks >= 4
