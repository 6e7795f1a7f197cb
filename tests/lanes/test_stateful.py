"""Every order of commands, on the rules alone, against the model; and planted faults, each of which must be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from heartlane.lanes import bounds, effects, rules
from heartlane.lanes.commands import (
    Cancel,
    Claim,
    Command,
    Pause,
    Release,
    Report,
    Resume,
    Retry,
    Ripen,
    TakeBack,
    Unblock,
)
from heartlane.lanes.decisions import Decision, Refusal
from heartlane.lanes.run import CLAIMABLE_STATES, Event, Run
from heartlane.wire.run_json import run_body
from tests.lanes.machine import LaneMachine, Lanes, LoggedEvent, Reply, ReportSpec, Spec, keys
from tests.runs import NOW, queued

STEERS: Mapping[str, type[Pause | Resume | Cancel | Retry]] = {
    "pause": Pause,
    "resume": Resume,
    "cancel": Cancel,
    "retry": Retry,
}
GRACE = timedelta(seconds=bounds.GRACE_SECONDS_MAX)


@dataclass
class PureLanes(Lanes):
    """Runs in memory, changed by nothing but `decide`."""

    time: datetime = NOW
    held: dict[str, Run] = field(default_factory=dict)
    logs: dict[str, list[LoggedEvent]] = field(default_factory=dict)
    waiting: dict[str, list[str]] = field(default_factory=dict)
    resumed_at: datetime | None = None

    def plan(self, specs: Sequence[Spec], max_failures: int, stalled_after: int) -> None:
        self.held = {
            spec.key: queued(
                number=number,
                id=f"018f0000-0000-7000-8000-{number:012}",
                lane_key=spec.key,
                priority=spec.priority,
                max_failures=max_failures,
                stalled_after_seconds=stalled_after,
                blockers_left=len(spec.after),
            )
            for number, spec in enumerate(specs, start=1)
        }
        self.waiting = {spec.key: [other.key for other in specs if spec.key in other.after] for spec in specs}
        self.logs = {spec.key: [] for spec in specs}
        self.resumed_at = None

    @property
    def now(self) -> datetime:
        return self.time

    def let_pass(self, seconds: float, watched: str, resumed_at: datetime | None) -> None:
        self.time += timedelta(seconds=seconds)
        if watched == "unseen":
            return
        for key, run in self.held.items():
            if run.take_back_at is not None and run.take_back_at <= self.time:
                self.look(key, resumed_at)
            self._command(key, Ripen())

    def look(self, key: str, resumed_at: datetime | None) -> None:
        """A server's look at a lease, due or not."""
        self.resumed_at = max(filter(None, [self.resumed_at, resumed_at]), default=None)
        self._command(key, TakeBack(resumed_at))

    def take(self, key: str, worker_id: str, lease_seconds: int | None) -> Reply:
        reply = self._command(key, Claim(worker_id, lease_seconds))
        return reply if reply.code else reply._replace(last_seq=self.held[key].last_seq)

    def take_next(self, worker_id: str, lease_seconds: int | None) -> Reply:
        free = [run for run in self.held.values() if run.state in CLAIMABLE_STATES]
        for run in sorted(free, key=lambda run: (-run.priority, run.number)):
            reply = self.take(run.lane_key, worker_id, lease_seconds)
            if reply.code is None:
                return reply
        return Reply(None, None, last_seq=0)

    def reports(self, reports: Mapping[str, ReportSpec]) -> dict[str, Reply]:
        return {
            key: self._command(
                key,
                Report(
                    spec.worker_id,
                    spec.lease_seconds,
                    spec.phase,
                    spec.log_line,
                    [Event(kind, dict(payload)) for kind, payload in spec.events],
                    spec.attempt,
                    spec.seq,
                ),
            )
            for key, spec in reports.items()
        }

    def release(self, key: str, worker_id: str | None, **fields: Any) -> Reply:
        return self._command(key, Release(worker_id, **fields))

    def steer(self, key: str, verb: str) -> Reply:
        return self._command(key, STEERS[verb]())

    def runs(self) -> dict[str, Mapping[str, Any]]:
        for run in self.held.values():
            assert run.held == (run.take_back_at is not None)
            if run.take_back_at is not None and run.lease_expires_at is not None:
                # The take-back looks at this alone: never later than the deadline, or the grace after an outage.
                grace = NOW if self.resumed_at is None else self.resumed_at + GRACE
                assert run.take_back_at <= max(run.lease_expires_at, grace)
        return {key: self._shown(run) for key, run in self.held.items()}

    def log(self, key: str, after: int) -> list[LoggedEvent]:
        return self.logs[key][after:]

    def _shown(self, run: Run) -> dict[str, Any]:
        body = run_body(run, self.time)
        return {name: value for name, value in body.items() if not isinstance(value, orjson.Fragment)}

    def _command(self, key: str, command: Command) -> Reply:
        run = self.held[key]
        answer = rules.decide(run, command, self.time)
        if isinstance(answer, Refusal):
            return Reply(answer.code, self._shown(run))
        after = run._replace(event_count=run.event_count + len(answer.events), **answer.changes)
        self.held[key] = after
        for seq, event in enumerate(answer.events, start=run.event_count + 1):
            worker_id = run.worker_id or after.worker_id
            self.logs[key].append(LoggedEvent(seq, event.type, event.payload, self.time, worker_id, after.attempt))
        if after.state == "shipped" and run.state != "shipped":
            for other in self.waiting[key]:
                self._command(other, Unblock())
        return Reply(None, self._shown(after), answer.duplicate)


class PureMachine(LaneMachine):
    """With looks at leases that come at any time: another server's, or one that was held up on its way."""

    lanes: ClassVar[PureLanes] = PureLanes()

    @rule(key=keys, resumed=st.sampled_from(["never", "before", "now"]))
    def look(self, key: str, resumed: str) -> None:
        """A look at one lease, by a server that knows of no outage, of the last one, or finds that one ends now."""
        if resumed == "now":
            self.fleet.resumed_at = self.fleet.now
        resumed_at = None if resumed == "never" else self.fleet.resumed_at
        self.fleet.lanes[key].look(self.fleet.now, resumed_at)
        self.lanes.look(key, resumed_at)
        self._look()


QUICK = settings(max_examples=150, stateful_step_count=40)
DEEP = settings(max_examples=500, stateful_step_count=80)


def test_the_rules_keep_what_the_model_says() -> None:
    run_state_machine_as_test(PureMachine, settings=QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))  # the search remembers every walk: many short ones take less memory
def test_the_rules_keep_what_the_model_says_on_long_walks(part: int) -> None:
    run_state_machine_as_test(PureMachine, settings=DEEP)


# --- planted faults -----------------------------------------------------------------------------------------------
#
# A machine that has never failed proves nothing. Each of these changes one rule, as a slip of the pen might, and the
# machine has to notice.

Plant = Callable[[pytest.MonkeyPatch], None]
Answer = Decision | Refusal


def amended(rule: rules.Rule, amend: Callable[[Run, Any, Decision], Answer]) -> rules.Rule:
    """The rule, with what it decides changed; its refusals stand."""

    def amended_rule(run: Run, command: Any, now: datetime) -> Answer:
        answer = rule(run, command, now)
        return amend(run, command, answer) if isinstance(answer, Decision) else answer

    return amended_rule


def without(decision: Decision, *columns: str) -> Decision:
    changes = {name: value for name, value in decision.changes.items() if name not in columns}
    return decision._replace(changes=changes)


def in_states(command: type[Command], states: Sequence[str], change: Callable[[rules.Rule], rules.Rule]) -> Plant:
    """Put another rule in the place of those that decide the command in these states."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        row: Any = rules.TABLE[command]
        for state in states:
            patch.setitem(row, state, change(row[state]))

    return plant


FREE, HELD = ("queued", "released"), ("claimed", "running", "paused", "shipping")


def no_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "_fence", lambda run, command, now: None)


def no_attempt_in_the_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "_fence_attempt", lambda run, command, now: None)


def seq_moved(by: int) -> Callable[[rules.Rule], rules.Rule]:
    """Compare a report's `seq` with a number beside the last one applied."""

    def change(rule: rules.Rule) -> rules.Rule:
        return lambda run, command, now: rule(run._replace(last_seq=max(0, run.last_seq + by)), command, now)

    return change


def take_back_whatever_the_deadline(rule: rules.Rule) -> rules.Rule:
    return lambda run, command, now: rule(run, TakeBack(), max(now, run.lease_expires_at or now))


def no_grace(rule: rules.Rule) -> rules.Rule:
    return lambda run, command, now: rule(run, TakeBack(), now)


def claimable_before_its_time(rule: rules.Rule) -> rules.Rule:
    return lambda run, command, now: rule(run._replace(not_before=None), command, now)


def claimable_while_it_waits(rule: rules.Rule) -> rules.Rule:
    return lambda run, command, now: rule(run._replace(blockers_left=0), command, now)


def second_holder(rule: rules.Rule) -> rules.Rule:
    return rules.TABLE[Claim]["queued"]


def next_look_left(rule: rules.Rule) -> rules.Rule:
    def leave(run: Run, command: Any, answer: Decision) -> Answer:
        return answer if "finished_at" in answer.changes else without(answer, "take_back_at")

    return amended(rule, leave)


def dropping(*columns: str) -> Callable[[rules.Rule], rules.Rule]:
    return lambda rule: amended(rule, lambda run, command, answer: without(answer, *columns))


def replays_append(rule: rules.Rule) -> rules.Rule:
    def append(run: Run, command: Report, answer: Decision) -> Answer:
        return answer._replace(events=command.events) if answer.duplicate else answer

    return amended(rule, append)


def unfinished_lease(patch: pytest.MonkeyPatch) -> None:
    ends = effects.end

    def end(changes: dict[str, Any], state: str, now: datetime) -> None:
        lease = {name: changes[name] for name in ("lease_expires_at",) if name in changes}
        ends(changes, state, now)
        changes.update(lease)

    patch.setattr(effects, "end", end)


FAULTS: Mapping[str, Plant] = {
    "reports and releases pass without the fence": no_fence,
    "an old attempt of the same worker passes": no_attempt_in_the_fence,
    "the lane is taken back though its lease was renewed": in_states(TakeBack, HELD, take_back_whatever_the_deadline),
    "nobody has a grace after an outage": in_states(TakeBack, HELD, no_grace),
    "a report that was applied last is applied again": in_states(Report, HELD, seq_moved(-1)),
    "the next report counts as a replay": in_states(Report, HELD, seq_moved(+1)),
    "a replay appends its events again": in_states(Report, HELD, replays_append),
    "the number of a report isn't kept": in_states(Report, HELD, dropping("last_seq")),
    "a claim doesn't raise the attempt": in_states(Claim, FREE, dropping("attempt")),
    "a claim goes on with the last attempt's seq": in_states(Claim, FREE, dropping("last_seq")),
    "a claim takes a lane that is held": in_states(Claim, HELD, second_holder),
    "a claim leaves the last heartbeat": in_states(Claim, FREE, dropping("last_heartbeat")),
    "a lane is claimable while it waits for another": in_states(Claim, FREE, claimable_while_it_waits),
    "a lane is claimable before its time": in_states(Claim, FREE, claimable_before_its_time),
    "a renewal never brings the next look forward": in_states(Report, HELD, next_look_left),
    "a release leaves the holder": in_states(Release, HELD, dropping("worker_id")),
    "a lane that is taken back counts no failure": in_states(TakeBack, HELD, dropping("failures")),
    "a run that ends keeps its lease": unfinished_lease,
    "a retry keeps the failures": in_states(Retry, ("failed",), dropping("failures")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    # The first walk that fails is enough: it isn't made shorter, nor kept for the next time.
    search = settings(
        QUICK, max_examples=20_000, phases=[Phase.generate], database=None, report_multiple_bugs=False, print_blob=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(PureMachine, settings=search)
