"""One by one or in one transaction, commands have the same effect: found out with many lists of commands."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from heartlane.lanes.commands import Cancel, Claim, Command, Pause, Release, Report, Resume, Retry, TakeBack
from heartlane.lanes.run import Event, Run
from heartlane.store.batch import ClaimNext, Outcome
from heartlane.store.store import Store
from tests.harness import StandingClock
from tests.store.fleet import Fleet, code, lane

T = TypeVar("T")

LANES = (
    lane("urgent", priority=5),
    lane("plain", "qa"),
    lane("labelled", "qa", labels={"os": "linux"}),
    lane("held"),
    lane("behind", "qa", after=("held",)),
)
ROLES = ((), ("qa",), ("backend",), ("backend", "qa"))
SHIP = Event("ship_complete", {"branch": "lane"})
LINE = Event("log_line", {"line": "12 tests passed"})

worker_ids = st.sampled_from(["w1", "w2", "w3"])
keys = st.sampled_from([each.key for each in LANES])


def on_a_lane(command: st.SearchStrategy[Command]) -> st.SearchStrategy[tuple[str, Command]]:
    return st.tuples(keys, command)


def report(worker_id: str, phase: str | None, seq: int | None, *events: Event) -> Report:
    return Report(worker_id, phase=phase, events=events, seq=seq)


seqs = st.sampled_from([None, 1, 2, 3])
reports = st.builds(report, worker_ids, st.sampled_from([None, "tests", "shipping"]), seqs, st.just(LINE))
claims = worker_ids.map(Claim)
claims_of_any = st.builds(
    lambda worker_id, roles, labels: (None, (worker_id, roles, labels)),
    worker_ids,
    st.sampled_from(ROLES),
    st.sampled_from([{}, {"os": "linux"}]),
)
# What leaves no lane free that wasn't; among these, claims of any lane.
taking = st.one_of(
    claims_of_any,
    claims_of_any,
    on_a_lane(claims),
    on_a_lane(reports),
    on_a_lane(st.sampled_from([Cancel(), Pause(), Resume()])),
)
# What may leave one free. Two that come in together have no order, so a claim of any lane may well have been before it.
giving = st.one_of(
    on_a_lane(reports),
    on_a_lane(claims),
    on_a_lane(worker_ids.map(lambda worker_id: Release(worker_id, failed=worker_id == "w2"))),
    on_a_lane(worker_ids.map(lambda worker_id: report(worker_id, None, None, LINE, SHIP, LINE))),
    on_a_lane(st.sampled_from([Release(), Retry(), TakeBack(), Cancel()])),
)


class Pair:
    """Two fleets with the same lanes, on one database with a clock that stands still."""

    def __init__(self, runner: asyncio.Runner, stores: tuple[Store, Store], clock: StandingClock) -> None:
        self.runner = runner
        self.stores = stores
        self.clock = clock

    async def both(self, commands: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """What the commands do to new lanes one by one, and at once."""
        alone, together = [await Fleet.found(store, max_failures=2) for store in self.stores]
        found: list[list[Any]] = []
        for fleet in (alone, together):
            runs = {run.lane_key: run for run in await fleet.lanes(LANES)}
            await fleet.claim(runs["held"], "w1", 300)
            if fleet is alone:
                outcomes = [await self._call(fleet, runs, *command) for command in commands]
            else:
                outcomes = await asyncio.gather(*(self._call(fleet, runs, *command) for command in commands))
            found.append(
                [
                    [self._seen(outcome) for outcome in outcomes],
                    {key: self._settled(await fleet.read(run)) for key, run in runs.items()},
                    {key: await fleet.log(run) for key, run in runs.items()},
                ]
            )
        return found[0], found[1]

    def _call(self, fleet: Fleet, runs: dict[str, Run], key: str | None, command: Any) -> Coroutine[Any, Any, Outcome]:
        if key is not None:
            return fleet.store.ledger.submit(runs[key].id, command)
        worker_id, roles, labels = command
        return fleet.store.ledger.claim_next(ClaimNext(worker_id, 60, fleet.account_id, None, roles, labels))

    def _seen(self, outcome: Outcome) -> Any:
        run = None if outcome.run is None else self._settled(outcome.run)
        return (code(outcome), run, getattr(outcome.decision, "duplicate", None))

    def _settled(self, run: Run) -> Run:
        """The run without what tells the two fleets apart."""
        return run._replace(number=0, id="", billing_account_id="", project_id="", plan_id="", blocked_by_json="")


@pytest.fixture
def pair(database_url: str) -> Iterator[Pair]:
    """The two fleets, on each engine."""
    clock = StandingClock()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stores = [runner.run(Store.open(database_url, clock=clock, batch_size=size)) for size in (1, 256)]
        yield Pair(runner, (stores[0], stores[1]), clock)
        for store in stores:
            runner.run(store.close())


def test_a_batch_does_what_its_commands_would_do_one_by_one(pair: Pair) -> None:
    @settings(max_examples=30)
    @given(taking=st.lists(taking, max_size=6), giving=st.lists(giving, max_size=4))
    def compare(taking: list[Any], giving: list[Any]) -> None:
        one_by_one, at_once = pair.runner.run(pair.both([*taking, *giving]))
        assert at_once == one_by_one

    compare()
