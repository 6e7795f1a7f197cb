"""The group-commit ledger: whatever is committed together, each command gets what it would have got alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from sqlalchemy import select

from heartlane.lanes import rules
from heartlane.lanes.commands import Cancel, Claim, Pause, Release, Report, Resume, TakeBack
from heartlane.lanes.run import Event, Run
from heartlane.store.batch import Outcome
from heartlane.store.errors import Overloaded, StoreError, StoreUnavailable
from heartlane.store.ids import new_id
from heartlane.store.schema import runs
from tests.store.conftest import OpenStore
from tests.store.fleet import Fleet, code, done

LINE = Event("log_line", {"line": "12 tests passed"})
BATCH_SIZES = (1, 256)


@pytest.fixture(params=BATCH_SIZES, ids=lambda size: f"batches of {size}")
async def fleet(request: pytest.FixtureRequest, open_store: OpenStore) -> Fleet:
    """An account on a ledger that commits one command at a time, or many."""
    return await Fleet.found(await open_store(batch_size=request.param))


@pytest.fixture
def sizes(fleet: Fleet) -> list[int]:
    """The sizes of the batches that are committed from now on."""
    found: list[int] = []
    fleet.store.ledger.on_batch = lambda size, seconds: found.append(size)
    return found


async def at_once(*commands: Coroutine[Any, Any, Outcome]) -> list[Outcome | BaseException]:
    """What becomes of commands that come in together."""
    return await asyncio.gather(*commands, return_exceptions=True)


def report(*events: Event, worker_id: str = "w1", **fields: Any) -> Report:
    return Report(worker_id, events=events, **fields)


# --- what comes in together ---------------------------------------------------------------------------------------


async def test_commands_that_come_in_together_share_a_transaction(fleet: Fleet, sizes: list[int]) -> None:
    lanes = await fleet.lanes(20)
    await at_once(*(fleet.command(run, Claim("w1")) for run in lanes))
    assert sum(sizes) == 20
    assert len(sizes) in (1, 20)
    assert (len(sizes) == 1) == (fleet.store.ledger._batch_size > 1)


async def test_a_command_alone_is_not_waited_for(fleet: Fleet, sizes: list[int]) -> None:
    (run,) = await fleet.lanes()
    await fleet.claim(run)
    await fleet.report(run, LINE)
    assert sizes == [1, 1]


async def test_each_gets_its_own_answer(fleet: Fleet) -> None:
    lanes = await fleet.lanes(30)
    for run in lanes[::2]:
        await fleet.claim(run, "w1")
    outcomes = await at_once(*(fleet.command(run, report(LINE, phase=run.lane_key)) for run in lanes))
    for place, (run, outcome) in enumerate(zip(lanes, outcomes, strict=True)):
        assert isinstance(outcome, Outcome)
        if place % 2:
            assert code(outcome) == "NOT_CLAIMED"
            assert outcome.run == run == await fleet.read(run)
            assert await fleet.log(run) == []
        else:
            assert done(outcome).phase == run.lane_key
            assert outcome.run == await fleet.read(run)
            assert [event.type for event in await fleet.log(run)] == ["claimed", "log_line"]


async def test_many_commands_on_one_run_leave_a_log_without_gaps(fleet: Fleet) -> None:
    (run,) = await fleet.lanes()
    await fleet.claim(run)
    outcomes = await at_once(*(fleet.command(run, report(*[LINE] * (place % 4))) for place in range(40)))
    after = await fleet.read(run)
    assert after.event_count == 1 + sum(place % 4 for place in range(40))
    assert [event.seq for event in await fleet.log(run)] == list(range(1, after.event_count + 1))
    # Each saw the run as the ones before it had left it: no two that append share a count.
    counts = [done(outcome).event_count for outcome in outcomes if isinstance(outcome, Outcome)]
    assert len(counts) == 40
    assert len(set(counts)) == 31


async def test_of_two_that_claim_one_lane_together_one_gets_it(fleet: Fleet) -> None:
    lanes = await fleet.lanes(10)
    claims = [fleet.command(run, Claim(worker_id)) for run in lanes for worker_id in ("w1", "w2")]
    outcomes = await at_once(*claims)
    for run, first, second in zip(lanes, outcomes[::2], outcomes[1::2], strict=True):
        assert isinstance(first, Outcome)
        assert isinstance(second, Outcome)
        assert sorted([code(first) or "", code(second) or ""]) == ["", "CLAIM_HELD_BY_OTHER"]
        winner = first if code(first) is None else second
        assert (await fleet.read(run)).worker_id == done(winner).worker_id
        assert (await fleet.read(run)).attempt == 1


async def test_a_report_and_a_take_back_together_leave_one_of_two_worlds(fleet: Fleet) -> None:
    lanes = await fleet.lanes(10)
    for run in lanes:
        await fleet.claim(run, lease_seconds=10)
    fleet.store.clock.advance(10)
    commands = [fleet.command(run, each) for run in lanes for each in (report(LINE), TakeBack())]
    outcomes = await at_once(*commands)
    for run, reported in zip(lanes, outcomes[::2], strict=True):
        assert isinstance(reported, Outcome)
        kinds = [event.type for event in await fleet.log(run)]
        after = await fleet.read(run)
        if code(reported) is None:
            assert (after.state, after.worker_id, kinds) == ("running", "w1", ["claimed", "log_line"])
        else:
            assert code(reported) == "CLAIM_LOST"
            assert (after.state, after.worker_id, kinds) == ("queued", None, ["claimed", "lease_expired"])


async def test_a_run_of_another_account_or_project_isnt_there(fleet: Fleet) -> None:
    (run,) = await fleet.lanes()
    for reach in ({"account_id": new_id()}, {"account_id": fleet.account_id, "project_id": new_id()}):
        assert code(await fleet.command(run, Claim("w1"), **reach)) == "NOT_FOUND"
    missing = run._replace(id=new_id())
    assert code(await fleet.command(missing, Claim("w1"))) == "NOT_FOUND"
    assert await fleet.read(run) == run
    mine = {"account_id": fleet.account_id, "project_id": fleet.project_id}
    assert code(await fleet.command(run, Claim("w1"), **mine)) is None


# --- faults -------------------------------------------------------------------------------------------------------


async def neighbours_of(fleet: Fleet, fault: Any) -> tuple[Run, BaseException]:
    """Send a fault on one lane in the middle of good commands on others, which all have to go through."""
    lanes = await fleet.lanes(9)
    for run in lanes:
        await fleet.claim(run)
    guilty = await fleet.read(lanes[4])
    outcomes = await at_once(*(fleet.command(run, fault if run.id == guilty.id else report(LINE)) for run in lanes))
    for run, outcome in zip(lanes, outcomes, strict=True):
        if run.id == guilty.id:
            assert isinstance(outcome, BaseException)
            fault = outcome
        else:
            assert isinstance(outcome, Outcome)
            assert done(outcome).state == "running"
            assert outcome.run == await fleet.read(run)
            assert [event.type for event in await fleet.log(run)] == ["claimed", "log_line"]
    assert await fleet.read(guilty) == guilty
    assert [event.type for event in await fleet.log(guilty)] == ["claimed"]
    # The lane is none the worse for it.
    assert (await fleet.report(guilty, LINE)).event_count == 2
    assert [event.seq for event in await fleet.log(guilty)] == [1, 2]
    return guilty, fault


async def test_a_fault_in_the_rules_is_one_commands_own(
    fleet: Fleet, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_fault(run: Run, command: Any, now: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setitem(rules.TABLE[Pause], "claimed", at_fault)
    _, error = await neighbours_of(fleet, Pause())
    assert isinstance(error, ZeroDivisionError)
    assert fleet.store.ledger._batch_size == 1 or 9 in sizes, "the batch wasn't split for it"


async def test_an_event_that_cant_be_written_down_is_one_commands_own(fleet: Fleet) -> None:
    _, error = await neighbours_of(fleet, report(LINE, Event("action", {"of": object()}), phase="lost"))
    assert isinstance(error, TypeError)


async def test_a_batch_that_fails_as_a_whole_is_split(fleet: Fleet, sizes: list[int]) -> None:
    # A lone surrogate gets past the rules, but no driver can send it: the whole statement fails, with all rows in it.
    _, error = await neighbours_of(fleet, report(LINE, phase="\ud800"))
    assert not isinstance(error, StoreError), "a fault, and no reason to ask again later"
    # Nine claims, then eight reports one by one, then the guilty lane's last one.
    assert sizes[-9:] == [1] * 9


async def test_a_batch_is_undone_when_its_commit_fails(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = await fleet.lanes()
    await fleet.claim(run)
    before = await fleet.read(run)

    def at_fault(*arguments: Any) -> Any:
        raise ZeroDivisionError

    # After the rules have decided and before anything is committed.
    monkeypatch.setattr("heartlane.store.batch.Batch.writes", at_fault)
    with pytest.raises(ZeroDivisionError):
        await fleet.report(run, LINE)
    monkeypatch.undo()
    assert await fleet.read(run) == before
    assert len(await fleet.log(run)) == 1
    assert (await fleet.report(run, LINE)).event_count == 2


async def test_a_caller_that_goes_away_takes_nothing_with_it(fleet: Fleet) -> None:
    lanes = await fleet.lanes(3)
    calls = [asyncio.ensure_future(fleet.command(run, Claim("w1"))) for run in lanes]
    await asyncio.sleep(0)
    calls[1].cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert [done(outcome).state for outcome in outcomes if isinstance(outcome, Outcome)] == ["claimed"] * 2
    # What was accepted is done, whether or not anybody hears of it.
    await fleet.claim(lanes[1])
    assert [(await fleet.read(run)).state for run in lanes] == ["claimed"] * 3


# --- a queue that is full, and the end ----------------------------------------------------------------------------


async def held_up(fleet: Fleet, run: Run, waiting: int) -> list[asyncio.Task[Outcome]]:
    """Fill the ledger's queue with reports on a lane whose row is locked, until so many wait behind those under way."""
    calls: list[asyncio.Task[Outcome]] = []
    while fleet.store.ledger.waiting < waiting:
        calls.append(asyncio.ensure_future(fleet.command(run, report(LINE))))
        for _ in range(5):  # the committers take what they can before the next one comes
            await asyncio.sleep(0.001)
    return calls


async def test_a_full_queue_refuses_at_once_but_for_what_is_urgent(open_store: OpenStore) -> None:
    fleet = await Fleet.found(await open_store(queue_limit=3, batch_size=1))
    held, expired = await fleet.lanes(2)
    await fleet.claim(held)
    await fleet.claim(expired, lease_seconds=10)
    fleet.store.clock.advance(11)
    async with fleet.store.writing() as tx:
        # SQLite has one writer, and that is us; on PostgreSQL the row is locked.
        await tx.conn.execute(select(runs.c.id).where(runs.c.id == held.id).with_for_update())
        calls = await held_up(fleet, held, 3)
        with pytest.raises(Overloaded) as refused:
            await asyncio.wait_for(fleet.command(held, report(LINE)), 5)
        assert refused.value.retry_after > 0
        with pytest.raises(Overloaded):
            await fleet.claim_next()
        take_back = asyncio.ensure_future(fleet.command(expired, TakeBack(), urgent=True))
        await asyncio.sleep(0)
        assert fleet.store.ledger.waiting == 4
    assert {code(outcome) for outcome in await asyncio.gather(*calls)} == {None}
    assert done(await take_back).state == "queued"
    # It takes commands again, and what it refused it has not done.
    assert (await fleet.report(held, LINE)).event_count == 1 + len(calls) + 1


async def test_closing_commits_what_was_accepted_and_refuses_the_rest(open_store: OpenStore) -> None:
    store = await open_store(batch_size=4)
    fleet = await Fleet.found(store)
    lanes = await fleet.lanes(50)
    calls = [asyncio.ensure_future(fleet.command(run, Claim("w1"))) for run in lanes]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await fleet.command(lanes[0], Claim("w2"))
    outcomes = await asyncio.gather(*calls)
    await closing
    assert {code(outcome) for outcome in outcomes} == {None}
    again = Fleet(await open_store(), fleet.account_id, fleet.project_id)
    for run, outcome in zip(lanes, outcomes, strict=True):
        assert await again.read(run) == outcome.run


async def test_an_answer_is_durable_for_others_to_see(open_store: OpenStore) -> None:
    mine, others = await open_store(), await open_store()
    fleet = await Fleet.found(mine)
    (run,) = await fleet.lanes()
    claimed = await fleet.claim(run)
    assert await Fleet(others, fleet.account_id, fleet.project_id).read(run) == claimed


# --- every kind of command at once --------------------------------------------------------------------------------


async def test_a_mixed_batch_on_distinct_lanes(fleet: Fleet) -> None:
    lanes = await fleet.lanes(8)
    for run in lanes[:6]:
        await fleet.claim(run)
    commands: Sequence[Any] = [
        Pause(),
        Resume(),
        Cancel(),
        Release("w1", retry_after=60),
        report(Event("ship_complete", {"branch": "lane"})),
        report(phase="tests", seq=1),
        Claim("w2"),
        Cancel(),
    ]
    outcomes = await at_once(*(fleet.command(run, each) for run, each in zip(lanes, commands, strict=True)))
    states = [done(outcome).state for outcome in outcomes if isinstance(outcome, Outcome)]
    assert states == ["paused", "claimed", "failed", "released", "shipped", "running", "claimed", "failed"]
    for run, outcome in zip(lanes, outcomes, strict=True):
        assert isinstance(outcome, Outcome)
        assert outcome.run == await fleet.read(run)
