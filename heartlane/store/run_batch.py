"""One batch of commands, from first lock to last write, inside one transaction of either engine.

The order is always: lock the runs that the batch names (and the lanes that wait for those that may ship), in id order;
let the rules decide each command on what the command before it left; lock and move the tickets; write everything. Runs
before tickets, each in id order: no two batches can wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from heartlane.lanes.commands import Claim, Command, Report
from heartlane.lanes.decisions import Decision, Refusal
from heartlane.lanes.run import CLAIMABLE_STATES, Role, Run
from heartlane.lanes.tickets import Ticket, advance
from heartlane.lanes.usage import usage_in
from heartlane.store.audit import Actor
from heartlane.store.batch import (
    Announcement,
    Batch,
    BatchTransaction,
    ClaimNext,
    Holder,
    Offer,
    OnRun,
    Outcome,
)
from heartlane.store.gates import Gates, Probe
from heartlane.store.run_audit import entry_of

log = structlog.get_logger(__name__)


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
    batch.gates = await _gates(tx, batch, entries)
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


def _may_spend(command: Report) -> bool:
    return any(usage_in(event.type, event.payload) is not None for event in command.events)


async def _gates(tx: BatchTransaction, batch: Batch, entries: Sequence[OnRun | ClaimNext]) -> Gates:
    """The gates that the batch's claims pass, and the budgets that its reports spend of; none where it does neither."""
    accounts: set[str] = set()
    claims = False
    for entry in entries:
        if isinstance(entry, ClaimNext):
            claims = True
            accounts.add(entry.account_id)
        elif (run := batch.runs.get(entry.run_id)) is not None:
            if isinstance(entry.command, Claim):
                claims = True
                accounts.add(run.billing_account_id)
            elif isinstance(entry.command, Report) and _may_spend(entry.command):
                accounts.add(run.billing_account_id)
    limits = await tx.lock_limits(sorted(accounts)) if accounts else ()
    capped = [one.project_id for one in limits if one.caps.any] if claims else []
    return Gates(limits, await tx.active(capped) if capped else {}, batch.now)


def _apply_on_run(batch: Batch, entry: OnRun) -> Outcome | Exception:
    run = batch.runs.get(entry.run_id)
    if (
        run is None
        or (entry.account_id is not None and run.billing_account_id != entry.account_id)
        or (entry.project_id is not None and run.project_id != entry.project_id)
    ):
        return Outcome(None, Refusal("NOT_FOUND", "There is no such run."), batch.now)
    if isinstance(entry.command, Claim) and run.state in CLAIMABLE_STATES and run.blockers_left == 0:
        closed = batch.gates.refusal(run)
        if closed is not None:
            return Outcome(run, Refusal("LANE_BLOCKED", closed, run), batch.now)
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
        self._sources: Sequence[tuple[str, str]] = ()
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
                if run.state in CLAIMABLE_STATES and self._batch.gates.refusal(run) is None:
                    return run
            if self._whole:
                return None
            await self._lock_more()

    async def _lock_more(self) -> None:
        batch, claim = self._batch, self._claim
        if self._label_keys is None:
            keys = await self._tx.label_keys(claim.account_id)
            self._label_keys = [key for key in keys if claim.fits_labels(key)]
            if claim.project_id is not None or batch.gates:
                self._sources = await self._tx.sources(claim.account_id)
        # The database still has the lanes as they were before the batch: those that it has taken come up once more.
        gone = self._offered | {run_id for run_id, run in batch.before.items() if run.state in CLAIMABLE_STATES}
        count = self.claims_left + len(gone)
        offer = Offer(())
        if self._label_keys:
            offer = await self._tx.lock_claimable(claim, self._label_keys, count, batch.now, self._probes())
        lanes, self.passed_over = offer
        for lane in lanes:
            batch.runs.setdefault(lane.id, lane)
        self._queue = [lane.id for lane in lanes if lane.id not in self._offered]
        self._offered.update(self._queue)
        self._whole = len(lanes) < count

    def _probes(self) -> list[Probe] | None:
        """The kinds of lanes to look for; None where nothing keeps the account's lanes apart."""
        gates, claim = self._batch.gates, self._claim
        roles = claim.roles or tuple(map(str, Role))
        if claim.project_id is None and not gates.shuts_any(self._sources, roles):
            return None
        return gates.probes(self._sources, roles, claim.project_id)

    def words(self) -> str | None:
        """What caps and budgets have to do with it that there is no lane."""
        claim = self._claim
        return self._batch.gates.words(self._sources, claim.roles or tuple(map(str, Role)), claim.project_id)


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
        return Outcome(None, None, batch.now, offers.passed_over, offers.words())
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
