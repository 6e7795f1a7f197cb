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


class OnRun(NamedTuple):
    """A command on one run, as seen by one account (and one project, for a token limited to it)."""

    run_id: str
    command: Command
    account_id: str | None = None
    project_id: str | None = None


class ClaimNext(NamedTuple):
    """Claim the highest-priority, then oldest claimable lane that fits.

    project_id  only this project's lanes, or None for the whole account
    roles       only these roles; empty for any
    labels      what the worker offers: a lane fits when every label it asks for is among these
    """

    worker_id: str
    lease_seconds: int | None
    account_id: str
    project_id: str | None = None
    roles: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}

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
    """

    run: Run | None
    decision: Decision | Refusal | None
    now: datetime


class Opening(NamedTuple):
    """Lanes of one kind that became claimable: whom to wake, and how many lanes there are."""

    account_id: str
    project_id: str
    role: str
    label_key: str
    lanes: int = 1


class Announcement(NamedTuple):
    """What a committed transaction tells the rest of the fleet: lanes to claim, and runs whose log has grown."""

    openings: Sequence[Opening] = ()
    run_ids: Sequence[str] = ()


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


class BatchTransaction(Protocol):
    """What an engine offers inside one open write transaction. Every method is required."""

    async def lock_runs(self, run_ids: Sequence[str], shipping_ids: Sequence[str]) -> LockedRuns:
        """Lock the named runs, and those blocked by `shipping_ids`, in id order."""

    async def label_keys(self, account_id: str) -> Sequence[str]:
        """Every label set that the account's lanes ever had."""

    async def lock_claimable(
        self, wanted: ClaimNext, label_keys: Sequence[str], count: int, now: datetime
    ) -> Sequence[Run]:
        """Lock up to `count` claimable lanes that fit, best first, passing over those that others hold locked."""

    async def lock_tickets(self, ticket_ids: Sequence[str]) -> Mapping[str, Ticket]:
        """Lock the named tickets in id order."""

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
        if run_id in self.before:
            self.columns[run_id] |= changes.keys()
        else:
            self.before[run_id] = run
            self.columns[run_id] = set(changes)
        self.runs[run_id] = after
        if decision.events:
            self.chunks.append(chunk(after, decision.events, run.worker_id or after.worker_id))
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
        numbers = {row.run_number for row in self.chunks}
        return Writes(
            self.now,
            rows,
            self.chunks,
            tickets,
            Announcement(
                [opening._replace(lanes=lanes) for opening, lanes in openings.items()],
                [run_id for run_id in self.columns if self.runs[run_id].number in numbers],
            ),
        )


def _may_ship(command: Command) -> bool:
    return isinstance(command, Report) and any(event.type == "ship_complete" for event in command.events)


async def run_batch(
    tx: BatchTransaction, entries: Sequence[OnRun | ClaimNext]
) -> tuple[list[Outcome | Exception], Announcement]:
    """Apply the entries in order inside `tx`; the outcomes, in the same order, hold once `tx` commits.

    An exception in one entry's rules is that entry's outcome alone. Errors of the storage are raised.
    """
    on_runs = [entry for entry in entries if isinstance(entry, OnRun)]
    locked = await tx.lock_runs(
        sorted({entry.run_id for entry in on_runs}),
        sorted({entry.run_id for entry in on_runs if _may_ship(entry.command)}),
    )
    batch = Batch(locked)
    outcomes: list[Outcome | Exception] = []
    candidates = await _claim_candidates(tx, batch, [entry for entry in entries if isinstance(entry, ClaimNext)])
    for entry in entries:
        try:
            outcomes.append(
                _apply_on_run(batch, entry) if isinstance(entry, OnRun) else _apply_claim(batch, entry, candidates)
            )
        except Exception as error:  # a fault of one command never touches its neighbours
            log.exception("command_failed", command=type(entry).__name__)
            outcomes.append(error)
    if not batch.columns:
        return outcomes, Announcement()
    writes = batch.writes(await _move_tickets(tx, batch))
    await tx.write(writes)
    return outcomes, writes.announcement


def _apply_on_run(batch: Batch, entry: OnRun) -> Outcome:
    run = batch.runs.get(entry.run_id)
    if (
        run is None
        or (entry.account_id is not None and run.billing_account_id != entry.account_id)
        or (entry.project_id is not None and run.project_id != entry.project_id)
    ):
        return Outcome(None, Refusal("NOT_FOUND", "There is no such run."), batch.now)
    return batch.apply(run, entry.command)


async def _claim_candidates(
    tx: BatchTransaction, batch: Batch, wanted: Sequence[ClaimNext]
) -> dict[tuple[Any, ...], list[str]]:
    """Lock as many lanes for each kind of claim as the batch has claims of that kind."""
    kinds: dict[tuple[Any, ...], list[ClaimNext]] = {}
    for claim in wanted:
        kinds.setdefault(_kind(claim), []).append(claim)
    found: dict[tuple[Any, ...], list[str]] = {}
    for kind, claims in kinds.items():
        first = claims[0]
        label_keys = [key for key in await tx.label_keys(first.account_id) if first.fits_labels(key)]
        lanes = await tx.lock_claimable(first, label_keys, len(claims), batch.now) if label_keys else ()
        for lane in lanes:
            batch.runs.setdefault(lane.id, lane)
        found[kind] = [lane.id for lane in lanes]
    return found


def _kind(claim: ClaimNext) -> tuple[Any, ...]:
    return (claim.account_id, claim.project_id, claim.roles, tuple(sorted(claim.labels.items())))


def _apply_claim(batch: Batch, claim: ClaimNext, candidates: Mapping[tuple[Any, ...], list[str]]) -> Outcome:
    queue = candidates[_kind(claim)]
    while queue:
        # A neighbour in this batch may have taken the lane meanwhile: the rules refuse it then, and the next is tried.
        run = batch.runs[queue.pop(0)]
        if run.state in CLAIMABLE_STATES:
            outcome = batch.apply(run, Claim(claim.worker_id, claim.lease_seconds))
            if isinstance(outcome.decision, Decision):
                return outcome
    return Outcome(None, None, batch.now)


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
