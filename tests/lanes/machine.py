"""The state machine that puts lanes through every order of commands, and compares them with the model after each.

One machine for every way to reach lanes: the rules themselves (`test_stateful.py` beside this) and a server's HTTP on
each engine (`tests/server/test_stateful.py`). What differs is a `Lanes`: how a command gets there and is read back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.lanes.model import Answer, FleetModel, LaneModel

Told = tuple[str, Mapping[str, Any]]
"""An event's type and payload."""
Events = Sequence[Told]


class Spec(NamedTuple):
    """A lane to plan."""

    key: str
    priority: int
    after: Sequence[str]


class ReportSpec(NamedTuple):
    """A report to send, with the names of the contract."""

    worker_id: str
    events: Events = ()
    phase: str | None = None
    log_line: str | None = None
    lease_seconds: int | None = None
    attempt: int | None = None
    seq: int | None = None


class Reply(NamedTuple):
    """What came back: a refusal's code or None, whether it was a replay, and the run as it was answered.

    last_seq    what a claim answers beside the run; None for everything else
    """

    code: str | None
    run: Mapping[str, Any] | None
    duplicate: bool = False
    last_seq: int | None = None

    @property
    def answer(self) -> Answer:
        """As the model puts it."""
        return Answer(self.code, self.duplicate)


class LoggedEvent(NamedTuple):
    """One event as it was read back."""

    seq: int
    type: str
    payload: Mapping[str, Any]
    recorded_at: datetime
    worker_id: str | None
    attempt: int


class Lanes(ABC):
    """Real lanes, by their keys. Runs are mappings under the contract's names, with datetimes."""

    @abstractmethod
    def plan(self, specs: Sequence[Spec], max_failures: int, stalled_after: int) -> None:
        """New lanes, in this order, and no others from now on."""

    @property
    @abstractmethod
    def now(self) -> datetime:
        """The time, which stands still between two calls of `let_pass`."""

    @abstractmethod
    def let_pass(self, seconds: float, watched: str, resumed_at: datetime | None) -> None:
        """Let time pass as `FleetModel.let_pass` does; `resumed_at` is what came of it there."""

    @abstractmethod
    def take(self, key: str, worker_id: str, lease_seconds: int | None) -> Reply:
        """Claim one lane."""

    @abstractmethod
    def take_next(self, worker_id: str, lease_seconds: int | None) -> Reply:
        """Claim the best lane; no run where there is none."""

    @abstractmethod
    def reports(self, reports: Mapping[str, ReportSpec]) -> dict[str, Reply]:
        """Send a report to each of several lanes, at once where that is possible."""

    @abstractmethod
    def release(self, key: str, worker_id: str | None, **fields: Any) -> Reply:
        """Give a lane back, or (without a worker) take it from its holder."""

    @abstractmethod
    def steer(self, key: str, verb: str) -> Reply:
        """pause, resume, cancel or retry."""

    @abstractmethod
    def runs(self) -> dict[str, Mapping[str, Any]]:
        """Every lane as it is."""

    @abstractmethod
    def log(self, key: str, after: int) -> list[LoggedEvent]:
        """The lane's events from behind the number `after` on."""


KEYS = ("first", "second", "behind")
WORKERS = ("ann", "bob", "cat")
QUIET_EVENTS: Final[Events] = (
    ("heartbeat", {}),
    ("action", {"tool": "edit", "deep": [{"of": None}]}),
    ("log_line", {"line": "12 tests passed"}),
    ("log_line", {"message": "by another name"}),
    ("log_line", {"line": 12}),
    ("phase_change", {"phase": "tests"}),
    ("phase_change", {"phase": "shipping"}),
    ("phase_change", {"phase": "waiting", "for": "permission"}),
    ("phase_change", {"phase": None}),
    ("error", {"message": "a test failed"}),
    ("error", {"reason": "budget"}),
    ("error", {"reason": "stalled", "message": "no word from the agent"}),
)
ENDS: Final[Events] = (
    ("ship_complete", {}),
    ("ship_complete", {"pr_url": "https://git.test/1", "branch": "lane", "commit": "abc", "summary": "It works."}),
    ("error", {"fatal": True}),
    ("error", {"fatal": True, "message": "no more disk"}),
)

keys = st.sampled_from(KEYS)
places = st.integers(0, len(KEYS) - 1)
# Whoever holds the lane is named more often than any other: a walk of strangers' commands would meet refusals alone.
workers = st.sampled_from(["holder", "holder", "holder", "past", *WORKERS])
leases = st.sampled_from([None, 1, 60, 300, 3600])
attempts = st.sampled_from(["unsaid", "current", "current", "current", "past", "next"])
seqs = st.sampled_from(["unsaid", "next", "next", "next", "skipping", "last", "before"])
phases = st.sampled_from([None, None, "", "plan", "tests", "waiting", "shipping"])
log_lines = st.sampled_from([None, None, "reading", "writing"])
events = st.lists(st.sampled_from(QUIET_EVENTS), max_size=3)


class Sketch(NamedTuple):
    """A report before it is known whose it is: `attempt` and `seq` say which of a lane's numbers to send."""

    told: Events
    phase: str | None
    line: str | None
    lease: int | None
    attempt: str
    seq: str


sketches = st.builds(Sketch, events, phases, log_lines, leases, attempts, seqs)


def any_held(machine: LaneMachine) -> bool:
    """Whether somebody holds a lane."""
    return any(model.claim for model in machine.fleet.lanes.values())


def any_failed(machine: LaneMachine) -> bool:
    """Whether a lane has failed."""
    return any(model.state == "failed" for model in machine.fleet.lanes.values())


class LaneMachine(RuleBasedStateMachine):
    """Three lanes, of which the last waits for the first, three workers and an operator."""

    lanes: ClassVar[Lanes]

    def __init__(self) -> None:
        super().__init__()
        self.fleet = FleetModel([], self.lanes.now)
        self.before: dict[str, Mapping[str, Any]] = {}
        self.runs: dict[str, Mapping[str, Any]] = {}
        self.read: dict[str, int] = {}

    @initialize(
        priorities=st.tuples(*[st.integers(-1, 1)] * 3),
        max_failures=st.integers(1, 3),
        stalled_after=st.sampled_from([30, 900]),
        taken=st.lists(st.sampled_from(WORKERS), max_size=2),
        lease=leases,
    )
    def plan(
        self, priorities: Sequence[int], max_failures: int, stalled_after: int, taken: Sequence[str], lease: int | None
    ) -> None:
        """Lanes as an approved plan makes them, and perhaps a worker or two on them."""
        after = {"behind": ("first",)}
        specs = [Spec(key, priority, after.get(key, ())) for key, priority in zip(KEYS, priorities, strict=True)]
        self.lanes.plan(specs, max_failures, stalled_after)
        self.lanes.let_pass(1, "served", None)
        limits: dict[str, Any] = {"max_failures": max_failures, "stalled_after": stalled_after}
        models = [LaneModel(spec.key, priority=spec.priority, after=spec.after, **limits) for spec in specs]
        self.fleet = FleetModel(models, self.lanes.now)
        self.read = dict.fromkeys(KEYS, 0)
        self.runs = self.lanes.runs()
        self._look()
        for worker_id in taken:
            self._take_next(worker_id, lease)

    # --- workers --------------------------------------------------------------------------------------------------

    @rule(key=keys, worker=workers, lease=leases)
    def take(self, key: str, worker: str, lease: int | None) -> None:
        """A claim of one lane."""
        model = self.fleet.lanes[key]
        worker_id = self._worker(model, worker)
        expected = model.take(worker_id, lease, self.fleet.now)
        reply = self.lanes.take(key, worker_id, lease)
        self._compare({key: (reply, expected)})
        if expected.code is None:
            assert reply.last_seq == model.claims[-1].last_seq

    @rule(worker=st.sampled_from(WORKERS), lease=leases)
    def take_next(self, worker: str, lease: int | None) -> None:
        """A claim of the best lane."""
        self._take_next(worker, lease)

    def _take_next(self, worker_id: str, lease: int | None) -> None:
        model = self.fleet.take_next(worker_id, lease)
        reply = self.lanes.take_next(worker_id, lease)
        found = None if reply.run is None else reply.run["lane_key"]
        assert found == (None if model is None else model.key)
        self._compare({} if model is None else {model.key: (reply, Answer())})
        assert reply.last_seq == 0

    @precondition(any_held)
    @rule(place=places, sketch=sketches)
    def report(self, place: int, sketch: Sketch) -> None:
        """A report by a holder."""
        key = self._held(place)
        self._report({key: self._spec(key, "holder", sketch)})

    @rule(key=keys, worker=workers, sketch=sketches)
    def report_by_anybody(self, key: str, worker: str, sketch: Sketch) -> None:
        """A report by whoever, on whichever lane."""
        self._report({key: self._spec(key, worker, sketch)})

    @rule(worker=workers, sketch=sketches)
    def report_on_all(self, worker: str, sketch: Sketch) -> None:
        """Reports on every lane at once, which may share one transaction."""
        self._report({key: self._spec(key, worker, sketch) for key in KEYS})

    @precondition(any_held)
    @rule(place=places, end=st.sampled_from(ENDS), behind=events, sketch=sketches)
    def end(self, place: int, end: Told, behind: Events, sketch: Sketch) -> None:
        """A report of a holder's that ends the run, with more around it."""
        key = self._held(place)
        whole = sketch._replace(told=[*sketch.told, end, *behind], attempt="current")
        self._report({key: self._spec(key, "holder", whole)})

    def _report(self, reports: Mapping[str, ReportSpec]) -> None:
        expected = {}
        for key, report in reports.items():
            expected[key] = self.fleet.lanes[key].report(now=self.fleet.now, **report._asdict())
        self.fleet.unblock()
        replies = self.lanes.reports(reports)
        self._compare({key: (replies[key], expected[key]) for key in reports})

    def _spec(self, key: str, worker: str, sketch: Sketch) -> ReportSpec:
        model = self.fleet.lanes[key]
        return ReportSpec(
            self._worker(model, worker),
            sketch.told,
            sketch.phase,
            sketch.line,
            sketch.lease,
            self._attempt(model, sketch.attempt),
            self._seq(model, sketch.seq),
        )

    @precondition(any_held)
    @rule(
        place=places,
        worker=st.sampled_from(["holder", "holder", None]),
        attempt=attempts,
        retry_after=st.sampled_from([None, None, 0, 5, 90]),
        failed=st.booleans(),
    )
    def release(self, place: int, worker: str | None, attempt: str, retry_after: float | None, failed: bool) -> None:
        """A lane that somebody holds is given back, by its holder or an operator."""
        self._release(self._held(place), worker, attempt, retry_after=retry_after, failed=failed)

    @rule(key=keys, worker=st.one_of(workers, st.none()), attempt=attempts)
    def release_by_anybody(self, key: str, worker: str | None, attempt: str) -> None:
        """Whichever lane is given back by whoever."""
        self._release(key, worker, attempt)

    def _release(self, key: str, worker: str | None, attempt: str, **fields: Any) -> None:
        model = self.fleet.lanes[key]
        worker_id = None if worker is None else self._worker(model, worker)
        fields["attempt"] = self._attempt(model, attempt)
        expected = model.release(worker_id, self.fleet.now, **fields)
        self._compare({key: (self.lanes.release(key, worker_id, **fields), expected)})

    # --- the operator, and time -----------------------------------------------------------------------------------

    @rule(key=keys, verb=st.sampled_from(["pause", "pause", "resume", "resume", "retry", "cancel"]))
    def steer(self, key: str, verb: str) -> None:
        """An operator's word on whichever lane."""
        self._steer(key, verb)

    @precondition(any_failed)
    @rule(place=places)
    def retry(self, place: int) -> None:
        """An operator has a failed lane tried again."""
        failed = [key for key, model in self.fleet.lanes.items() if model.state == "failed"]
        self._steer(failed[place % len(failed)], "retry")

    def _steer(self, key: str, verb: str) -> None:
        expected = self.fleet.lanes[key].steer(verb, self.fleet.now)
        self._compare({key: (self.lanes.steer(key, verb), expected)})

    @rule(
        seconds=st.sampled_from([0.25, 1, 2, 4, 5, 20, 41, 59, 60, 90, 201, 299, 300, 301, 1000, 3600]),
        watched=st.sampled_from(["served", "served", "unseen"]),
    )
    def let_pass(self, seconds: float, watched: str) -> None:
        """Time passes: seen by a running server, or between two of its looks."""
        self._let_pass(seconds, watched)

    @precondition(any_held)
    @rule(seconds=st.sampled_from([1, 3, 4, 59, 60, 90, 300, 1000, 3600]))
    def outage(self, seconds: float) -> None:
        """Time passes without any server, and then there is one again."""
        self._let_pass(seconds, "down")

    def _let_pass(self, seconds: float, watched: str) -> None:
        self.fleet.let_pass(seconds, watched)
        self.lanes.let_pass(seconds, watched, self.fleet.resumed_at)
        self._look()

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def every_lane_is_as_the_model_says(self) -> None:
        """All that a run shows, and every event since the last look, without a gap in their numbers."""
        assert self.lanes.now == self.fleet.now
        for key, model in self.fleet.lanes.items():
            expected, run = model.view(self.fleet.now), self.runs[key]
            shown = {name: run[name] for name in expected}
            assert shown == expected, _differences(key, shown, expected)
            self._read_log(key, model, run["event_count"])

    @invariant()
    def claims_and_leases_go_together(self) -> None:
        """Said of the runs alone, without the model."""
        for key, run in self.runs.items():
            before = self.before[key]
            held = run["state"] in ("claimed", "running", "paused", "shipping")
            assert held == (run["lease_expires_at"] is not None), key
            assert not held or run["worker_id"] is not None, key
            assert run["state"] not in ("queued", "released") or run["worker_id"] is None, key
            assert run["attempt"] - before["attempt"] in (0, 1), key
            assert run["event_count"] >= before["event_count"], key
            if run["attempt"] == before["attempt"] and run["worker_id"] is not None:
                assert run["worker_id"] == before["worker_id"], f"{key} changed hands within an attempt"

    def teardown(self) -> None:
        """Every log once more, from its beginning."""
        self.read = dict.fromkeys(KEYS, 0)
        for key, model in self.fleet.lanes.items():
            self._read_log(key, model, len(model.log()))

    def _read_log(self, key: str, model: LaneModel, count: int) -> None:
        read = self.read[key]
        if count > read:
            found = self.lanes.log(key, read)
            assert [event.seq for event in found] == list(range(read + 1, count + 1)), key
            expected = model.log()[read:]
            for event, (kind, payload, at, worker_id, attempt) in zip(found, expected, strict=True):
                shown = (
                    {name: event.payload.get(name) for name in payload} if event.type in _SERVERS_OWN else event.payload
                )
                assert (event.type, shown) == (kind, payload), key
                assert (event.recorded_at, event.worker_id, event.attempt) == (at, worker_id, attempt), (key, kind)
            self.read[key] = count

    def _look(self) -> None:
        self.before, self.runs = self.runs, self.lanes.runs()

    def _compare(self, replies: Mapping[str, tuple[Reply, Answer]]) -> None:
        """Each lane that a command was about: what came back, what should have, and what a look shows."""
        self._look()
        for key, (reply, expected) in replies.items():
            assert reply.answer == expected, key
            assert reply.run is not None, key
            run = self.runs[key]
            assert {name: reply.run[name] for name in run} == run, f"{key} was answered otherwise than it is"
            if expected.code is not None:
                assert run == self.before[key], f"a refused command changed {key}"

    # --- whom and what a command is about -------------------------------------------------------------------------

    def _held(self, place: int) -> str:
        held = [key for key, model in self.fleet.lanes.items() if model.claim is not None]
        return held[place % len(held)]

    def _worker(self, model: LaneModel, who: str) -> str:
        if who == "holder":
            return model.holder or (model.claims[-1].worker_id if model.claims else WORKERS[0])
        if who == "past":
            past = [claim.worker_id for claim in model.claims if claim.worker_id != model.holder]
            return past[-1] if past else WORKERS[-1]
        return who

    def _attempt(self, model: LaneModel, which: str) -> int | None:
        return {"unsaid": None, "current": max(1, model.attempt), "past": max(1, model.attempt - 1)}.get(
            which, model.attempt + 1
        )

    def _seq(self, model: LaneModel, which: str) -> int | None:
        last = model.claims[-1].last_seq if model.claims else 0
        places = {"next": last + 1, "skipping": last + 3, "last": max(1, last), "before": max(1, last - 1)}
        return places.get(which)


TIMES = ("claimed_at", "lease_expires_at", "last_heartbeat", "not_before", "created_at", "updated_at", "finished_at")


def parsed(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run out of JSON, with datetimes."""
    return {
        name: datetime.fromisoformat(value) if name in TIMES and value is not None else value
        for name, value in run.items()
    }


_SERVERS_OWN = ("claimed", "lease_expired", "released", "paused", "resumed", "cancelled", "retried")


def _differences(key: str, shown: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    lines = [
        f"{name}: {shown[name]!r}, should be {expected[name]!r}" for name in expected if shown[name] != expected[name]
    ]
    return f"{key}: " + "; ".join(lines)
