"""Looks at everything that becomes durable and at every answer, and says at once when a promise is broken.

It believes nothing that the product says of itself: what was committed is read from the rows, and what an answer says
is compared with that. Each look costs the same however many lanes there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from heartlane.lanes.commands import Cancel, Release, Report
from heartlane.lanes.decisions import Decision
from heartlane.lanes.run import Run
from heartlane.store.batch import ClaimNext, OnRun, Outcome
from heartlane.store.columns import from_micros
from heartlane.wire.answers import ClaimAnswer, ReportAnswer
from tests.simulation.disk import Commit, Row
from tests.simulation.folding import ENDED, HELD, Broken, Folded

if TYPE_CHECKING:
    from tests.simulation.world import World

TAKE_BACK_SECONDS: Final = 2.0
"""What the contract says: a lease that ran out is taken back within this."""
GRACE_SECONDS_MAX: Final = 300.0
SHOWN: Final = ("phase", "log_line", "failures", "pr_url", "branch", "commit", "summary")


class Lane:
    """One lane: its row as it is on the disk, what its log makes of it, and how far each teller's events got."""

    __slots__ = ("folded", "run", "told")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.folded = Folded(run.max_failures)
        self.told: dict[int, int] = {}


class Checker:
    """All lanes of the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lanes: dict[int, Lane] = {}
        self.numbers: dict[str, int] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._entries = 0
        self.events = 0
        self.held_by: dict[str, dict[int, None]] = {}

    # --- what becomes durable -------------------------------------------------------------------------------------

    def committed(self, commit: Commit) -> None:
        """One transaction is on the disk. Raises Broken."""
        before = {run.number: self._before(run) for run in commit.runs}
        appended: dict[int, list[Row]] = {}
        for row in commit.rows:
            if row.run_number not in before:
                raise Broken("the row is what its log says", f"events of lane {row.run_number} without its row")
            appended.setdefault(row.run_number, []).append(row)
        for run in commit.runs:
            lane = self.lanes[run.number]
            for row in appended.get(run.number, ()):
                self._append(lane, before[run.number], run, row)
            self._compare(lane, before[run.number], run)
            lane.run = run

    def _before(self, run: Run) -> Run:
        lane = self.lanes.get(run.number)
        if lane is None:
            self.lanes[run.number] = lane = Lane(run)
            self.numbers[run.id] = run.number
        return lane.run

    def _append(self, lane: Lane, before: Run, run: Run, row: Row) -> None:
        folded = lane.folded
        events = orjson.loads(row.body)
        self.events += len(events)
        if row.last_seq != folded.count + len(events) or row.count != len(events):
            raise Broken("events once and in order", f"{run.lane_key}: row {row.last_seq} after {folded.count}")
        folded.begin_chunk()
        for event in events:
            kind, payload = event["type"], event["payload"]
            if kind == "claimed":
                self._check_claim(lane, before, row)
            elif kind == "lease_expired":
                self._check_take_back(lane, before, payload, row)
            folded.take_in(kind, payload, row.worker_id, row.attempt)
            if "tag" in payload:
                told = lane.told.get(payload["tag"], 0)
                if payload["n"] != told + 1:
                    what = "twice" if payload["n"] <= told else "before those in front of it"
                    raise Broken("events once and in order", f"{run.lane_key}: event {payload['n']} {what}")
                lane.told[payload["tag"]] = told + 1

    def _check_claim(self, lane: Lane, before: Run, row: Row) -> None:
        recorded_at = from_micros(row.recorded_at)
        if before.not_before is not None and before.not_before > recorded_at and lane.folded.state == before.state:
            raise Broken("held back until its time", f"{before.lane_key} claimed before {before.not_before}")
        for blocker_id in orjson.loads(before.blocked_by_json):
            if self.lanes[self.numbers[blocker_id]].folded.state != "shipped":
                raise Broken("blocked until the others are shipped", before.lane_key)

    def _check_take_back(self, lane: Lane, before: Run, payload: Mapping[str, Any], row: Row) -> None:
        recorded_at = from_micros(row.recorded_at)
        deadlines = [datetime.fromisoformat(payload["deadline"])]
        if before.lease_expires_at is not None and before.attempt == row.attempt:
            deadlines.append(before.lease_expires_at)
        if max(deadlines) > recorded_at:
            raise Broken("a lease that holds is not taken back", f"{lane.run.lane_key} until {max(deadlines)}")
        worker = self._world.worker_named(payload["worker_id"])
        if worker is not None and worker.holds(lane.run.id, payload["attempt"]):
            raise Broken("at most one holder", f"{lane.run.lane_key} taken back while {worker.process.name} works it")

    def _compare(self, lane: Lane, before: Run, run: Run) -> None:
        folded = lane.folded
        if folded.state == "claimed" and run.state == "running":
            folded.state = "running"  # the first report may be a bare renewal, which leaves no event
        if (run.state, run.attempt, run.event_count) != (folded.state, folded.attempt, folded.count):
            said = f"{run.state} attempt {run.attempt} with {run.event_count} events"
            log = f"{folded.state} attempt {folded.attempt} with {folded.count}"
            raise Broken("the row is what its log says", f"{run.lane_key}: {said}; the log: {log}")
        if run.worker_id != (folded.holder if run.state not in ("queued", "released") else None):
            raise Broken("at most one holder", f"{run.lane_key}: row {run.worker_id}, log {folded.holder}")
        for name in SHOWN:
            if getattr(run, name) != getattr(folded, name):
                said = f"{name} {getattr(run, name)!r}, the log: {getattr(folded, name)!r}"
                raise Broken("the row is what its log says", f"{run.lane_key}: {said}")
        if folded.error is not None and run.state != "failed" and run.error != folded.error:
            raise Broken("the row is what its log says", f"{run.lane_key}: error {run.error!r}, {folded.error!r}")
        held = run.state in HELD
        if held != (run.lease_expires_at is not None) or held != (run.take_back_at is not None):
            raise Broken("held is with a deadline", f"{run.lane_key}: {run.state} until {run.lease_expires_at}")
        if before.state in ENDED and run.state == before.state and run.last_heartbeat != before.last_heartbeat:
            raise Broken("an end is an end", f"{run.lane_key} was renewed when it was {run.state}")
        if held:
            self._keep(lane, before, run)

    def _keep(self, lane: Lane, before: Run, run: Run) -> None:
        deadline = self._world.seconds_of(run.lease_expires_at)
        if run.lease_expires_at != before.lease_expires_at:
            heapq.heappush(self._deadlines, (deadline, run.number))
        renewed = run.attempt == before.attempt and run.last_heartbeat != before.last_heartbeat
        # A claim by the holder that was late leaves it, where it asks for less than was granted since.
        short = deadline < self._world.seconds_of(run.last_heartbeat) + run.lease_seconds
        if renewed and short and run.lease_expires_at == before.lease_expires_at:
            raise Broken("a renewal moves the deadline", f"{run.lane_key} stays at {run.lease_expires_at}")

    # --- what the ledger says of it -------------------------------------------------------------------------------

    def applied(self, entries: Sequence[OnRun | ClaimNext], outcomes: Sequence[Outcome | Exception]) -> None:
        """A batch was committed with these outcomes. Raises Broken."""
        last: dict[str, Run] = {}
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(outcome, Exception) or outcome.run is None or not isinstance(outcome.decision, Decision):
                continue
            run = outcome.run
            last[run.id] = run
            if isinstance(entry, OnRun):
                self._check_command(entry, outcome.decision, run)
            elif entry.one_at_a_time and run.worker_id != entry.worker_id:
                raise Broken("at most one holder", f"{entry.worker_id} got {run.lane_key}, which {run.worker_id} holds")
        for run in last.values():
            durable = self.lanes[self.numbers[run.id]].run
            if durable != run and durable._replace(blockers_left=0, updated_at=None) != run._replace(
                blockers_left=0, updated_at=None
            ):
                names = [name for name in run._fields if getattr(run, name) != getattr(durable, name)]
                raise Broken("what is answered is on the disk", f"{run.lane_key}: {', '.join(names)}")

    def _check_command(self, entry: OnRun, decision: Decision, run: Run) -> None:
        command = entry.command
        if isinstance(command, Report) and (
            command.worker_id != run.worker_id or command.attempt not in (None, run.attempt)
        ):
            said = f"{command.worker_id} reports as attempt {command.attempt}; {run.worker_id} holds {run.attempt}"
            raise Broken("a past holder changes nothing", f"{run.lane_key}: {said}")
        if isinstance(command, Release) and command.attempt not in (None, run.attempt) and decision.changes:
            raise Broken("a past holder changes nothing", f"{run.lane_key}: released as attempt {command.attempt}")
        if isinstance(command, Cancel):
            if run.state != "failed":
                raise Broken("a cancel ends the lane", f"{run.lane_key} is {run.state}")
            worker = self._world.worker_named(run.worker_id or "")
            if worker is not None and worker.holds(run.id, run.attempt):
                self._later(run.lease_seconds + 1.0, lambda: self._must_have_stopped(worker, run))

    def _must_have_stopped(self, worker: Any, run: Run) -> None:
        if worker.holds(run.id, run.attempt):
            raise Broken("a cancel ends the lane", f"{worker.process.name} still works {run.lane_key}")

    # --- what clients are told ------------------------------------------------------------------------------------

    def report_answered(self, sent: Mapping[str, Any], answer: ReportAnswer) -> None:
        """A report got a 200. Raises Broken."""
        run = answer.run
        lane = self.lanes[self.numbers[str(run.id)]]
        if lane.folded.takers.get(sent["attempt"]) != sent["worker_id"]:
            raise Broken("what is answered is on the disk", f"{run.lane_key}: no attempt {sent['attempt']} of that")
        if run.worker_id != sent["worker_id"] or run.attempt != sent["attempt"]:
            raise Broken("a past holder changes nothing", f"{run.lane_key}: {sent['worker_id']} was answered 200")
        if run.event_count > lane.folded.count:
            raise Broken("what is answered is on the disk", f"{run.lane_key}: {run.event_count} events answered")
        if run.state == "paused" and answer.directive != "pause":
            raise Broken("a pause is told", f"{run.lane_key}: directive {answer.directive}")

    def claim_answered(self, sent: Mapping[str, Any], answer: ClaimAnswer) -> None:
        """A claim got a lane. Raises Broken."""
        run = answer.run
        if run is None:
            return
        lane = self.lanes[self.numbers[str(run.id)]]
        if lane.folded.takers.get(run.attempt) != sent["worker_id"]:
            raise Broken("what is answered is on the disk", f"{run.lane_key}: attempt {run.attempt} was never claimed")

    def confirmed(self, run_id: Any, tag: int, number: int) -> None:
        """A client takes it that the server has its events up to that number. Raises Broken."""
        told = self.lanes[self.numbers[str(run_id)]].told.get(tag, 0)
        if number > told:
            raise Broken("acknowledged events are there", f"{number} events of teller {tag} confirmed, {told} there")

    # --- what time brings -----------------------------------------------------------------------------------------

    def _later(self, seconds: float, look: Callable[[], None]) -> None:
        self._entries += 1
        heapq.heappush(self._due, (self._world.loop.now + seconds, self._entries, look))

    def look_at_time(self, now: float) -> None:
        """After every step: whatever is due by now. Raises Broken."""
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
        if not self._world.servers:
            return  # nobody is there to take anything back
        while self._deadlines and self._deadlines[0][0] + TAKE_BACK_SECONDS < now:
            deadline, number = heapq.heappop(self._deadlines)
            run = self.lanes[number].run
            if run.state not in HELD or self._world.seconds_of(run.lease_expires_at) > deadline:
                continue  # renewed, or held no more
            until = self._excused(run, deadline)
            if until + TAKE_BACK_SECONDS < now:
                late = now - until
                raise Broken("an expired lease is taken back in time", f"{run.lane_key} is {late:.1f} s over it")
            heapq.heappush(self._deadlines, (until, number))

    def _excused(self, run: Run, deadline: float) -> float:
        """When the take-back's time began to count: at the deadline, or when the servers could do it again."""
        heard = self._world.seconds_of(run.last_heartbeat)
        resumed = self._world.served_since
        lease = min(self._world.seconds_of(run.lease_expires_at) - heard, GRACE_SECONDS_MAX)
        return max(deadline, self._world.excused_until, resumed + lease if heard < resumed else 0.0)

    def audit(self) -> None:
        """Once more from the disk itself: all rows and the whole log. Raises Broken."""
        for run in self._world.disk.all_runs():
            if self.lanes[run.number].run != run:
                raise Broken("the row is what its log says", f"{run.lane_key} changed without a commit")
        counts = self._world.disk.event_counts()
        for number, lane in self.lanes.items():
            if counts.get(number, 0) != lane.folded.count:
                raise Broken("acknowledged events are there", f"{lane.run.lane_key}: {counts.get(number, 0)}")
