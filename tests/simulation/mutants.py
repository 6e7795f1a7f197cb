"""Plausible mistakes, planted into the real modules one at a time: each has to be noticed, and by the right promise.

A mutant changes a function or a constant of the product for as long as its block lasts. `caught_by` names the promises
(`Broken.check`) of which one has to be found broken.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from heartlane.client import lease
from heartlane.client.keeping import Keeper
from heartlane.client.outbox import Outbox
from heartlane.lanes import rules
from heartlane.lanes.commands import Cancel, Claim, Release, Report, TakeBack, Unblock
from heartlane.lanes.decisions import Decision
from heartlane.lanes.run import HELD_STATES, MUTABLE_COLUMNS
from heartlane.server import telemetry
from heartlane.store import batch
from heartlane.store.batch import Batch
from heartlane.store.errors import StoreUnavailable
from heartlane.store.ledger import Applied
from heartlane.store.run_batch import run_batch
from heartlane.store.sqlite import SqliteBatch, SqliteEngine, _drive

HOLDER: Final = "at most one holder"
FENCE: Final = "a past holder changes nothing"
ONCE: Final = "events once and in order"
KEPT: Final = "acknowledged events are there"
DISK: Final = "what is answered is on the disk"
FOLD: Final = "the row is what its log says"
END: Final = "an end is an end"
IN_TIME: Final = "an expired lease is taken back in time"
DEADLINE: Final = "held is with a deadline"
CANCEL: Final = "a cancel ends the lane"
EARLY: Final = "a lease that holds is not taken back"


class Mutant(NamedTuple):
    """One mistake.

    what        what the code does wrongly
    caught_by   the promises it breaks
    plant       has the mistake in place for the length of a block
    """

    what: str
    caught_by: tuple[str, ...]
    plant: Callable[[], Any]


MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(name: str, what: str, *caught_by: str) -> Callable[[Callable[[], Iterator[None]]], None]:
    """Register a block as a mutant."""

    def register(block: Callable[[], Iterator[None]]) -> None:
        MUTANTS[name] = Mutant(what, caught_by, contextmanager(block))

    return register


@contextmanager
def rule(command: type[Any], states: Sequence[str], other: Any) -> Iterator[None]:
    """Another function decides this command in these states."""
    with patch.dict(rules.TABLE[command], dict.fromkeys(states, other)):
        yield


def decided(change: Callable[[Any, Any, Any], Any], original: Any) -> Any:
    """The rule with what it decides changed before anybody sees it."""

    def other(run: Any, command: Any, now: Any) -> Any:
        answer = original(run, command, now)
        return change(run, command, answer) if isinstance(answer, Decision) else answer

    return other


HELD: Final = tuple(sorted(HELD_STATES))
ENDED: Final = ("shipped", "failed")


@mutant("renewal-without-fence", "a report without events is not checked for its sender", FENCE)
def _() -> Iterator[None]:
    fence = rules._fence
    with patch.object(
        rules, "_fence", lambda run, command, now: fence(run, command, now) if getattr(command, "events", 1) else None
    ):
        yield


@mutant("report-without-fence", "whoever reports, it counts", FENCE, ONCE)
def _() -> Iterator[None]:
    with patch.object(rules, "_fence", lambda run, command, now: None):
        yield


@mutant("attempt-not-compared", "a report or release of an earlier attempt of the same worker counts", FENCE, ONCE)
def _() -> Iterator[None]:
    with patch.object(rules, "_fence_attempt", lambda run, command, now: None):
        yield


@mutant("claim-over-a-holder", "a claim takes a lane that somebody holds", HOLDER)
def _() -> Iterator[None]:
    with rule(Claim, HELD, rules._take):
        yield


@mutant("attempt-not-raised", "a new claim has the number of the one before", "every claim is another attempt")
def _() -> Iterator[None]:
    def change(run: Any, command: Any, answer: Any) -> Any:
        event = answer.events[0]
        same = max(1, run.attempt)
        answer.changes["attempt"] = same
        return answer._replace(events=(event._replace(payload={**event.payload, "attempt": same}),))

    with rule(Claim, ("queued", "released"), decided(change, rules._take)):
        yield


@mutant("take-back-without-look", "the take-back doesn't look at the deadline again", EARLY, HOLDER)
def _() -> Iterator[None]:
    take_back = rules._take_back

    def other(run: Any, command: Any, now: Any) -> Any:
        return take_back(run._replace(lease_expires_at=min(run.lease_expires_at, now)), command, now)

    with rule(TakeBack, HELD, other):
        yield


@mutant("take-back-put-off", "a lease that was renewed is looked at again a whole lease later", IN_TIME)
def _() -> Iterator[None]:
    def change(run: Any, command: Any, answer: Any) -> Any:
        if "take_back_at" in answer.changes and not answer.events:
            answer.changes["take_back_at"] += run.lease_expires_at - run.last_heartbeat
        return answer

    with rule(TakeBack, HELD, decided(change, rules._take_back)):
        yield


@mutant("take-back-uncounted", "a lease that ran out is no failure of the lane", FOLD)
def _() -> Iterator[None]:
    def change(run: Any, command: Any, answer: Any) -> Any:
        answer.changes.pop("failures", None)
        return answer

    with rule(TakeBack, HELD, decided(change, rules._take_back)):
        yield


@mutant("renewal-keeps-deadline", "a report is heard but doesn't move the deadline", "a renewal moves the deadline")
def _() -> Iterator[None]:
    def change(run: Any, command: Any, answer: Any) -> Any:
        answer.changes.pop("lease_expires_at", None)
        return answer

    with rule(Report, HELD, decided(change, rules._report)):
        yield


@mutant("seq-below", "a report with the number of the last one is applied once more", ONCE)
def _() -> Iterator[None]:
    report = rules._report
    with rule(Report, HELD, lambda run, command, now: report(run._replace(last_seq=run.last_seq - 1), command, now)):
        yield


@mutant("seq-above", "the report behind the last one counts as a replay of it", KEPT, ONCE)
def _() -> Iterator[None]:
    report = rules._report
    with rule(Report, HELD, lambda run, command, now: report(run._replace(last_seq=run.last_seq + 1), command, now)):
        yield


@mutant("end-overwritten", "a run that has ended takes reports as any other", END, FENCE, DEADLINE)
def _() -> Iterator[None]:
    with rule(Report, ENDED, rules._report):
        yield


@mutant("cancel-overwritten", "a cancel of a lane that somebody holds is only written down", FOLD, CANCEL)
def _() -> Iterator[None]:
    def change(run: Any, command: Any, answer: Any) -> Any:
        kept = {name: answer.changes[name] for name in ("error", "updated_at")}
        return answer._replace(changes=kept)

    with rule(Cancel, HELD, decided(change, rules._cancel)):
        yield


@mutant(
    "stale-row-in-batch",
    "a command sees the run as it was before its batch, not as its neighbours left it",
    FOLD,
    DISK,
    ONCE,
    HOLDER,
    END,
)
def _() -> Iterator[None]:
    apply = Batch.apply
    with patch.object(Batch, "apply", lambda self, run, command: apply(self, self.before.get(run.id, run), command)):
        yield


@mutant("pause-untold", "reports are answered `continue` whatever the operator wants", "a pause is told")
def _() -> Iterator[None]:
    with patch.object(telemetry, "directive", lambda run, *, replay=False: "continue"):
        yield


@mutant("release-unfenced", "whoever releases, the lane is free", FENCE)
def _() -> Iterator[None]:
    release = rules._release
    with rule(
        Release,
        HELD,
        lambda run, command, now: release(run, command._replace(attempt=None, worker_id=run.worker_id), now),
    ):
        yield


@mutant("too-narrow-write", "more columns have changed than are written", DISK, FOLD)
def _() -> Iterator[None]:
    with patch.object(batch, "_COVERS", (batch._COVERS[0], frozenset(MUTABLE_COLUMNS), frozenset(MUTABLE_COLUMNS))):
        yield


@mutant(
    "failed-unblocks", "a lane that failed lets those go on that wait for it", "blocked until the others are shipped"
)
def _() -> Iterator[None]:
    moved = Batch._moved
    lock_runs = SqliteBatch.lock_runs

    def other(self: Any, before: Any, after: Any) -> None:
        moved(self, before, after)
        if after.state == "failed":
            for run_id in self.waiting.get(after.id, ()):
                self.apply(self.runs[run_id], Unblock())

    async def lock(self: Any, run_ids: Any, shipping_ids: Any) -> Any:
        return await lock_runs(self, run_ids, run_ids)

    with patch.object(Batch, "_moved", other), patch.object(SqliteBatch, "lock_runs", lock):
        yield


@mutant("commit-unchecked", "a COMMIT that failed is answered as if it had gone through", DISK, KEPT)
def _() -> Iterator[None]:
    def apply(self: Any, entries: Any) -> Any:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        tx = SqliteBatch(connection, self._clock.host_time(), self._audience)
        try:
            outcomes, announcement = _drive(run_batch(tx, entries))
        except sqlite3.OperationalError as error:
            connection.execute("ROLLBACK")
            raise StoreUnavailable("SQLite can't write now.") from error
        try:
            connection.execute("COMMIT")
        except sqlite3.OperationalError:
            connection.execute("ROLLBACK")
        return Applied(outcomes, announcement, tx.told)

    with patch.object(SqliteEngine, "_apply", apply):
        yield


@mutant("answer-before-commit", "a batch is answered when it is written, and committed a little later", DISK, KEPT)
def _() -> Iterator[None]:
    def apply(self: Any, entries: Any) -> Any:
        connection = self._connection
        if connection.in_transaction:
            connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        tx = SqliteBatch(connection, self._clock.host_time(), self._audience)
        outcomes, announcement = _drive(run_batch(tx, entries))
        return Applied(outcomes, announcement, tx.told)

    with patch.object(SqliteEngine, "_apply", apply):
        yield


@mutant("lease-from-receipt", "a worker counts its lease from when the answer came", HOLDER)
def _() -> Iterator[None]:
    answered = Keeper._answered
    with patch.object(
        Keeper,
        "_answered",
        lambda self, report, answer, sent_at: answered(self, report, answer, self._sender.clock()),
    ):
        yield


@mutant("lease-never-ends", "a worker that hears nothing believes that it holds the lane still", HOLDER, CANCEL)
def _() -> Iterator[None]:
    with patch.object(lease.Lease, "standing", lambda self, now: lease.Standing.HELD):
        yield


@mutant("resent-anew", "a report without an answer is sent again under a new number", ONCE)
def _() -> Iterator[None]:
    unanswered = Keeper._unanswered

    def other(self: Any, report: Any, error: Any) -> None:
        unanswered(self, report, error)
        self.outbox.pending = None

    with patch.object(Keeper, "_unanswered", other):
        yield


@mutant("settled-unheard", "a report without an answer counts as applied", KEPT, ONCE)
def _() -> Iterator[None]:
    unanswered = Keeper._unanswered

    def other(self: Any, report: Any, error: Any) -> None:
        unanswered(self, report, error)
        self.outbox.settle()
        self._notify()

    with patch.object(Keeper, "_unanswered", other):
        yield


@mutant("all-settled", "an answer confirms events that were told while it was under way", KEPT, ONCE)
def _() -> Iterator[None]:
    def settle(self: Any) -> None:
        if self.pending is not None:
            while self._waiting:
                self.confirmed = self._drop().number
            self.pending = None

    with patch.object(Outbox, "settle", settle):
        yield


__all__ = ["MUTANTS", "Mutant"]
