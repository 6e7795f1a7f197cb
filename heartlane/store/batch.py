"""One batch of commands, applied in one transaction: the part of the ledger that both engines share.

The order of a batch is always: lock the runs it names (and the lanes that wait for those that may ship), in id order;
let the rules decide each command on what the command before it left; lock and move the tickets; write everything.
Runs before tickets, each in id order: no two batches can wait for each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

import structlog

from heartlane.lanes.commands import Claim, Command, Report, Unblock
from heartlane.lanes.decisions import Decision, Refusal
from heartlane.lanes.rules import decide, ticket_event
from heartlane.lanes.run import CLAIMABLE_STATES, EVENT_TYPE_BITS, MUTABLE_COLUMNS, Event, Run
from heartlane.lanes.tickets import Ticket, advance
from heartlane.store.audit import Actor, Entry
from heartlane.store.run_audit import entry_of
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
    """

    run: Run | None
    decision: Decision | Refusal | None
    now: datetime
    passed_over: bool = False


class Opening(NamedTuple):
    """Lanes of one kind that became claimable: whom to wake, and how many lanes there are."""

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
    """Everything one batch writes, all of it stamped `now`."""

    now: datetime
    rows: Mapping[tuple[str, ...], Sequence[Run]]
    chunks: Sequence[Chunk]
    tickets: Sequence[Ticket]
    announcement: Announcement


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

    async def lock_claimable(self, wanted: ClaimNext, label_keys: Sequence[str], count: int, now: datetime) -> Offer:
        """Lock up to `count` claimable lanes that fit, best first, passing over those that others hold locked."""

    async def lock_tickets(self, ticket_ids: Sequence[str]) -> Mapping[str, Ticket]:
        """Lock the named tickets in id order."""

    async def record(self, entries: Sequence[Entry]) -> None:
        """Append to the audit log."""

    async def write(self, writes: Writes) -> None:
        """Write the changed rows and the new events, and have the announcement go out with the commit."""


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
        if after.state != run.state:
            self._moved(run, after)
        return Outcome(after, decision, self.now)

    def _moved(self, before: Run, after: Run) -> None:
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
        return Writes(
            self.now,
            rows,
            self.chunks,
            tickets,
            Announcement(
                [opening._replace(lanes=lanes) for opening, lanes in openings.items()],
                [run_id for run_id, changed in self.columns.items() if self._is_told(run_id, changed)],
            ),
        )

    def _is_told(self, run_id: str, changed: set[str]) -> bool:
        """Whether followers hear of it. By value: a worker may tell the phase it is in with every heartbeat."""
        before, after = self.before[run_id], self.runs[run_id]
        return any(getattr(before, name) != getattr(after, name) for name in changed - UNTOLD_COLUMNS)


def _may_ship(command: Command) -> bool:
    return isinstance(command, Report) and any(event.type == "ship_complete" for event in command.events)


async def run_batch(
    tx: BatchTransaction, entries: Sequence[OnRun | ClaimNext]
) -> tuple[list[Outcome | Exception], Announcement]:
    """Apply the entries in order inside `tx`; the outcomes, in the same order, hold once `tx` commits.

    An exception in one entry's rules is that entry's outcome alone. Errors of the storage are raised.
    """
    on_runs = [entry for entry in entries if isinstance(entry, OnRun)]
    holders = sorted({_holder(entry) for entry in entries if isinstance(entry, ClaimNext) and entry.one_at_a_time})
    held = await tx.lock_holders(holders) if holders else ()
    locked = await tx.lock_runs(
        sorted({entry.run_id for entry in on_runs} | set(held)),
        sorted({entry.run_id for entry in on_runs if _may_ship(entry.command)}),
    )
    batch = Batch(locked)
    for run_id in held:
        run = batch.runs[run_id]
        batch.held.setdefault(Holder(run.billing_account_id, run.worker_id or ""), []).append(run_id)
    offers = _offers(tx, batch, entries)
    outcomes: list[Outcome | Exception] = []
    for entry in entries:
        if isinstance(entry, OnRun):
            outcomes.append(_apply_on_run(batch, entry))
        else:
            outcomes.append(await _apply_claim(batch, entry, offers[_kind(entry)]))
    if not batch.columns:
        return outcomes, Announcement()
    writes = batch.writes(await _move_tickets(tx, batch))
    await tx.write(writes)
    if batch.entries:
        await tx.record(batch.entries)
    return outcomes, writes.announcement


def _apply_on_run(batch: Batch, entry: OnRun) -> Outcome | Exception:
    run = batch.runs.get(entry.run_id)
    if (
        run is None
        or (entry.account_id is not None and run.billing_account_id != entry.account_id)
        or (entry.project_id is not None and run.project_id != entry.project_id)
    ):
        return Outcome(None, Refusal("NOT_FOUND", "There is no such run."), batch.now)
    outcome = _guarded(batch, run, entry.command)
    if entry.actor is not None and isinstance(outcome, Outcome):
        _note_actor(batch, entry.actor, entry.command, run, outcome)
    return outcome


def _note_actor(batch: Batch, actor: Actor, command: Command, before: Run, outcome: Outcome) -> None:
    """Have a person's command recorded if it changed something: a refused one leaves nothing."""
    after, decision = outcome.run, outcome.decision
    if after is not None and isinstance(decision, Decision) and (decision.changes or decision.events):
        entry = entry_of(actor, command, before, after, batch.now)
        if entry is not None:
            batch.entries.append(entry)


def _guarded(batch: Batch, run: Run, command: Command) -> Outcome | Exception:
    """What became of the command; a fault of it is its own outcome, and never touches its neighbours."""
    try:
        return batch.apply(run, command)
    except Exception as error:
        log.exception("command_failed", command=type(command).__name__)
        return error


class _Offers:
    """The lanes that the claims of one kind in a batch may choose from: locked, best first.

    As many are locked as there are claims; more only where neighbours in the batch have taken some of them, so that no
    claim goes away empty-handed while there is a lane for it, and no lane is withheld from other servers.
    """

    def __init__(self, tx: BatchTransaction, batch: Batch, claim: ClaimNext) -> None:
        self._tx = tx
        self._batch = batch
        self._claim = claim
        self._label_keys: list[str] | None = None
        self._queue: list[str] = []
        self._offered: set[str] = set()
        self._whole = False
        self.claims_left = 1
        self.passed_over = False

    async def next(self) -> Run | None:
        """The best lane that nobody in this batch has taken yet; None where there is none."""
        while True:
            while self._queue:
                run = self._batch.runs[self._queue.pop(0)]
                if run.state in CLAIMABLE_STATES:
                    return run
            if self._whole:
                return None
            await self._lock_more()

    async def _lock_more(self) -> None:
        batch, claim = self._batch, self._claim
        if self._label_keys is None:
            keys = await self._tx.label_keys(claim.account_id)
            self._label_keys = [key for key in keys if claim.fits_labels(key)]
        # The database still has the lanes as they were before the batch: those that it has taken come up once more.
        gone = self._offered | {run_id for run_id, run in batch.before.items() if run.state in CLAIMABLE_STATES}
        count = self.claims_left + len(gone)
        offer = Offer(())
        if self._label_keys:
            offer = await self._tx.lock_claimable(claim, self._label_keys, count, batch.now)
        lanes, self.passed_over = offer
        for lane in lanes:
            batch.runs.setdefault(lane.id, lane)
        self._queue = [lane.id for lane in lanes if lane.id not in self._offered]
        self._offered.update(self._queue)
        self._whole = len(lanes) < count


def _offers(tx: BatchTransaction, batch: Batch, entries: Sequence[OnRun | ClaimNext]) -> dict[tuple[Any, ...], _Offers]:
    """The offers for each kind of claim in the batch. Nothing is locked before the first claim asks."""
    offers: dict[tuple[Any, ...], _Offers] = {}
    for entry in entries:
        if isinstance(entry, ClaimNext):
            kind = _kind(entry)
            if kind in offers:
                offers[kind].claims_left += 1
            else:
                offers[kind] = _Offers(tx, batch, entry)
    return offers


def _kind(claim: ClaimNext) -> tuple[Any, ...]:
    return (claim.account_id, claim.project_id, claim.roles, tuple(sorted(claim.labels.items())))


def _holder(claim: ClaimNext) -> Holder:
    return Holder(claim.account_id, claim.worker_id)


def _held_already(batch: Batch, claim: ClaimNext) -> Run | None:
    """The lane that the worker has as it is: one that it never reported on before any other."""
    runs = [batch.runs[run_id] for run_id in batch.held.get(_holder(claim), ())]
    held = [
        run
        for run in runs
        if run.held and run.worker_id == claim.worker_id and claim.project_id in (None, run.project_id)
    ]
    return min(held, key=lambda run: (run.state != "claimed", run.number), default=None)


async def _apply_claim(batch: Batch, claim: ClaimNext, offers: _Offers) -> Outcome | Exception:
    try:
        if claim.one_at_a_time and (held := _held_already(batch, claim)) is not None:
            return _guarded(batch, held, Claim(claim.worker_id, claim.lease_seconds))
        while (run := await offers.next()) is not None:
            outcome = _guarded(batch, run, Claim(claim.worker_id, claim.lease_seconds))
            if isinstance(outcome, Exception) or isinstance(outcome.decision, Decision):
                batch.held.setdefault(_holder(claim), []).append(run.id)
                return outcome
        return Outcome(None, None, batch.now, offers.passed_over)
    finally:
        offers.claims_left -= 1


async def _move_tickets(tx: BatchTransaction, batch: Batch) -> list[Ticket]:
    if not batch.ticket_moves:
        return []
    ids = sorted({ticket_id for _, run in batch.ticket_moves for ticket_id in run.ticket_ids})
    tickets = dict(await tx.lock_tickets(ids))
    changed: dict[str, Ticket] = {}
    for event, run in batch.ticket_moves:
        for ticket_id in run.ticket_ids:
            ticket = tickets.get(ticket_id)
            if ticket is not None:
                changes = advance(ticket, run.role, event, run.pr_url, batch.now)
                if changes:
                    tickets[ticket_id] = changed[ticket_id] = ticket._replace(**changes)
    return list(changed.values())
