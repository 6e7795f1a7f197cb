"""A batch of commands: what goes in, what comes out, and the rows between, as the commands so far have left them.

`heartlane.store.run_batch` says in which order a batch works; an engine offers what stands in `BatchTransaction`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import structlog

from heartlane.lanes.commands import Command, Unblock
from heartlane.lanes.decisions import Decision, Refusal
from heartlane.lanes.news import news_of
from heartlane.lanes.rules import decide, ticket_event
from heartlane.lanes.run import CLAIMABLE_STATES, EVENT_TYPE_BITS, MUTABLE_COLUMNS, Event, Run
from heartlane.lanes.tickets import Ticket
from heartlane.store.audit import Actor, Entry
from heartlane.store.gates import BudgetWrite, Gates, Limits, Probe
from heartlane.store.tallies import TALLIED, Tallies
from heartlane.store.telling import Happened
from heartlane.wire.parse import dump_json

log = structlog.get_logger(__name__)

RENEWAL_COLUMNS: Final = ("last_heartbeat", "lease_expires_at", "updated_at", "last_seq")
TELEMETRY_COLUMNS: Final = (
    *RENEWAL_COLUMNS,
    "state",
    "phase",
    "log_line",
    "progress_at",
    "waiting_for",
    "over_budget",
    "event_count",
    "phase_at",
)
COLUMN_SETS: Final = (RENEWAL_COLUMNS, TELEMETRY_COLUMNS, MUTABLE_COLUMNS)
"""A changed row is written with the narrowest of these that covers its changes: heartbeats write four columns."""
_COVERS: Final = tuple(frozenset(columns) for columns in COLUMN_SETS)
UNTOLD_COLUMNS: Final = frozenset((*RENEWAL_COLUMNS, "lease_seconds", "take_back_at", "progress_at"))
"""What changes with every renewal, and what nobody outside sees: no reason to wake those who follow a run."""


class OnRun(NamedTuple):
    """A command on one run, as seen by one account (and one project, for a token limited to it).

    actor       the person whose command it is, for the audit log; None: a worker's or the server's own
    """

    run_id: str
    command: Command
    account_id: str | None = None
    project_id: str | None = None
    actor: Actor | None = None


class ClaimNext(NamedTuple):
    """Claim the highest-priority, then oldest claimable lane that fits.

    project_id  only this project's lanes, or None for the whole account
    roles       only these roles; empty for any
    labels      what the worker offers: a lane fits when every label it asks for is among these
    one_at_a_time  a worker that holds a lane has that one again, in place of another
    """

    worker_id: str
    lease_seconds: int | None
    account_id: str
    project_id: str | None = None
    roles: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    one_at_a_time: bool = False

    def fits_labels(self, label_key: str) -> bool:
        """Whether the worker offers all that the label set asks for."""
        if not label_key:
            return True
        asked: dict[str, str] = json.loads(label_key)
        return all(self.labels.get(name) == value for name, value in asked.items())


class Outcome(NamedTuple):
    """What became of a command.

    run         the run after it (before it, for a refusal); None where there is none
    decision    what the rules said; a missing run is `Refusal("NOT_FOUND", …)`; None for a claim that found no lane
    now         the batch's time
    passed_over a claim found no lane, but some that others held locked just then; they may be free in a moment
    words       a claim found no lane: what caps and budgets keep from it, or None
    """

    run: Run | None
    decision: Decision | Refusal | None
    now: datetime
    passed_over: bool = False
    words: str | None = None


ANY_ROLE: Final = "*"
"""In an opening: lanes of any role may be claimable now, for a cap or a budget lets a project go on."""
OPENED_LANES: Final = 50
"""How many waiting claims such an opening wakes."""


class Opening(NamedTuple):
    """Lanes of one kind that became claimable: whom to wake, and how many lanes there are. `role` may be ANY_ROLE."""

    account_id: str
    project_id: str
    role: str
    label_key: str
    lanes: int = 1


class Announcement(NamedTuple):
    """What a committed transaction tells the rest of the fleet.

    openings    lanes to claim
    run_ids     runs that those who follow them want to look at: the log has grown, or more changed than the lease
    plan_ids    plans that were made, approved or rejected
    """

    openings: Sequence[Opening] = ()
    run_ids: Sequence[str] = ()
    plan_ids: Sequence[str] = ()

    @property
    def names_something(self) -> bool:
        """Whether it says where to look; one that names nothing means: anywhere."""
        return bool(self.openings or self.run_ids or self.plan_ids)


class Chunk(NamedTuple):
    """The events of one decision as one row: `body` is the JSON array, its last event has the number `last_seq`."""

    run_number: int
    last_seq: int
    size: int
    types: int
    worker_id: str | None
    attempt: int
    body: str


class Writes(NamedTuple):
    """Everything one batch writes, all of it stamped `now`. `happened` is what it has to tell outside."""

    now: datetime
    rows: Mapping[tuple[str, ...], Sequence[Run]]
    chunks: Sequence[Chunk]
    tickets: Sequence[Ticket]
    announcement: Announcement
    happened: Sequence[Happened] = ()
    tallies: Tallies | None = None
    budgets: Sequence[BudgetWrite] = ()


class LockedRuns(NamedTuple):
    """Rows under lock: the database's time, the runs by id, and for each lane that may ship who waits for it."""

    now: datetime
    runs: dict[str, Run]
    waiting: Mapping[str, Sequence[str]]


class Offer(NamedTuple):
    """Lanes under lock for a claim, best first, and whether there are more that others hold locked just now."""

    lanes: Sequence[Run]
    passed_over: bool = False


class Holder(NamedTuple):
    """A worker of an account, as one that may hold lanes."""

    account_id: str
    worker_id: str


class BatchTransaction(Protocol):
    """What an engine offers inside one open write transaction. Every method is required."""

    async def lock_holders(self, holders: Sequence[Holder]) -> Sequence[str]:
        """Ids of the runs that these workers hold. No other transaction that asks for one of them gets its answer
        before this one has ended. Called first, with the holders in order."""

    async def lock_runs(self, run_ids: Sequence[str], shipping_ids: Sequence[str]) -> LockedRuns:
        """Lock the named runs, and those blocked by `shipping_ids`, in id order."""

    async def label_keys(self, account_id: str) -> Sequence[str]:
        """Every label set that the account's lanes ever had."""

    async def lock_limits(self, account_ids: Sequence[str]) -> Sequence[Limits]:
        """Lock the projects of these accounts that have caps or budgets, in id order, and read what bounds them."""

    async def active(self, project_ids: Sequence[str]) -> Mapping[str, Mapping[tuple[str, str], int]]:
        """How many lanes of these projects are active now: project → (role, source) → lanes."""

    async def sources(self, account_id: str) -> Sequence[tuple[str, str]]:
        """Project and ticket source of every lane that the account ever had, each pair once."""

    async def lock_claimable(
        self, wanted: ClaimNext, label_keys: Sequence[str], count: int, now: datetime, probes: Sequence[Probe] | None
    ) -> Offer:
        """Lock up to `count` claimable lanes that fit, best first, passing over those that others hold locked.

        probes  only lanes of these kinds; None: of the account's every kind
        """

    async def lock_tickets(self, ticket_ids: Sequence[str]) -> Mapping[str, Ticket]:
        """Lock the named tickets in id order."""

    async def record(self, entries: Sequence[Entry]) -> None:
        """Append to the audit log."""

    async def write(self, writes: Writes) -> None:
        """Write the changed rows, the new events and what is to be told outside (`tell_of_runs`), and have the
        announcement go out with the commit."""


def chunk(run: Run, events: Sequence[Event], worker_id: str | None) -> Chunk:
    """The events as the log stores them; `run` is the row after they were counted."""
    types = 0
    for event in events:
        types |= EVENT_TYPE_BITS[event.type]
    return Chunk(run.number, run.event_count, len(events), types, worker_id, run.attempt, encode_events(events))


def encode_events(events: Sequence[Event]) -> str:
    """Events as a JSON array of {type, payload, at?}."""
    return dump_json(
        [
            {"type": e.type, "payload": e.payload}
            if e.at is None
            else {"type": e.type, "payload": e.payload, "at": e.at}
            for e in events
        ]
    )


class Batch:
    """The working state of one batch: rows as the commands so far have left them."""

    def __init__(self, locked: LockedRuns) -> None:
        self.now = locked.now
        self.runs = locked.runs
        self.waiting = locked.waiting
        self.before: dict[str, Run] = {}
        self.columns: dict[str, set[str]] = {}
        self.chunks: list[Chunk] = []
        self.ticket_moves: list[tuple[str, Run]] = []
        self.held: dict[Holder, list[str]] = {}
        self.entries: list[Entry] = []
        self.happened: list[Happened] = []
        self.gates = Gates((), {}, locked.now)
        self.tallies = Tallies(locked.now)

    def apply(self, run: Run, command: Command) -> Outcome:
        """Let the rules decide; keep what changes."""
        decision = decide(run, command, self.now)
        if isinstance(decision, Refusal):
            return Outcome(run, decision, self.now)
        changes = decision.changes
        if not changes and not decision.events:
            return Outcome(run, decision, self.now)
        if decision.events:
            changes["event_count"] = run.event_count + len(decision.events)
        after = run._replace(**changes)
        run_id = run.id
        # First what may fail, so that a command at fault leaves nothing behind.
        chunks = [chunk(after, decision.events, run.worker_id or after.worker_id)] if decision.events else []
        if run_id in self.before:
            self.columns[run_id] |= changes.keys()
        else:
            self.before[run_id] = run
            self.columns[run_id] = set(changes)
        self.runs[run_id] = after
        self.chunks += chunks
        if after.state != run.state or after.waiting_for != run.waiting_for:
            told = news_of(run, after, decision.events)
            self.happened += [Happened(news_type, run, after, event) for news_type, event in told]
        if not TALLIED.isdisjoint(changes):
            self.tallies.note(run, after, changes.keys(), decision.events[-1].type if decision.events else "")
        if after.state != run.state:
            self._moved(run, after)
        return Outcome(after, decision, self.now)

    def _moved(self, before: Run, after: Run) -> None:
        self.gates.moved(before, after)
        event = ticket_event(before, after)
        if event is not None and after.ticket_ids_json != "[]":
            self.ticket_moves.append((event, after))
        if after.state == "shipped":
            for run_id in self.waiting.get(after.id, ()):
                self.apply(self.runs[run_id], Unblock())

    def writes(self, tickets: Sequence[Ticket]) -> Writes:
        """All changed rows by the column set they need, and what to announce."""
        rows: dict[tuple[str, ...], list[Run]] = {}
        openings: dict[Opening, int] = {}
        for run_id, changed in self.columns.items():
            run = self.runs[run_id]
            for columns, covered in zip(COLUMN_SETS, _COVERS, strict=True):
                if changed <= covered:
                    rows.setdefault(columns, []).append(run)
                    break
            due = run.not_before is None or run.not_before <= self.now
            if run.state in CLAIMABLE_STATES and run.blockers_left == 0 and due:
                opening = Opening(run.billing_account_id, run.project_id, run.role, run.label_key)
                openings[opening] = openings.get(opening, 0) + 1
            if self.before[run_id].held and not run.held and self.gates.capped(run.project_id):
                openings[Opening(run.billing_account_id, run.project_id, ANY_ROLE, "")] = OPENED_LANES
        return Writes(
            self.now,
            rows,
            self.chunks,
            tickets,
            Announcement(
                [opening._replace(lanes=lanes) for opening, lanes in openings.items()],
                [run_id for run_id, changed in self.columns.items() if self._is_told(run_id, changed)],
            ),
            self.happened,
            self.tallies or None,
            self.gates.spend(self.tallies.spent),
        )

    def _is_told(self, run_id: str, changed: set[str]) -> bool:
        """Whether followers hear of it. By value: a worker may tell the phase it is in with every heartbeat."""
        before, after = self.before[run_id], self.runs[run_id]
        return any(getattr(before, name) != getattr(after, name) for name in changed - UNTOLD_COLUMNS)
