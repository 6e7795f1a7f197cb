"""What the rules answer: a decision that goes through, or a refusal; and the words of every refusal.

Pure like the rules themselves. A refusal about a claim says who holds it and until when.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from heartlane.lanes.commands import Claim, Release, Report
from heartlane.lanes.run import Event, Run


class Decision(NamedTuple):
    """A command that goes through.

    changes     column → new value, for `Run._replace`; empty when nothing changes
    events      what to append to the run's log, in order
    duplicate   whether the report was a replay: the lease is renewed, nothing else changes
    """

    changes: dict[str, Any]
    events: Sequence[Event] = ()
    duplicate: bool = False


class Refusal(NamedTuple):
    """A command that changes nothing: a stable code, a sentence a person can act on, and the run as it is."""

    code: str
    error: str
    run: Run | None = None


def instant(moment: datetime | None) -> str:
    """A moment as a sentence says it: RFC 3339 in UTC, to the second."""
    return "an unknown time" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")[:19] + "Z"


def held_by_other(run: Run, command: Any, now: datetime) -> Refusal:
    """Somebody else holds the lane."""
    return Refusal(
        "CLAIM_HELD_BY_OTHER",
        f"This lane is held by worker {run.worker_id!r} until {instant(run.lease_expires_at)} "
        f"(attempt {run.attempt}); only its holder may act on it.",
        run,
    )


def not_held(run: Run, command: Report | Release, now: datetime) -> Refusal:
    """Nobody holds the lane: tell a past holder that it lost its claim, anybody else to claim first."""
    if command.worker_id is not None and (command.worker_id == run.last_worker_id or (command.attempt or 0) >= 1):
        return Refusal(
            "CLAIM_LOST",
            f"Worker {command.worker_id!r} no longer holds this lane: attempt {run.attempt} was taken back or "
            "released, and nobody holds it now. Stop the work, and claim a lane before you report again.",
            run,
        )
    return not_claimed(run, command, now)


def not_claimed(run: Run, command: Any, now: datetime) -> Refusal:
    """Nobody holds the lane, and this needs a holder."""
    return Refusal("NOT_CLAIMED", f"Nobody holds this lane; it is {run.state}. It has to be claimed first.", run)


def finished(run: Run, command: Any, now: datetime) -> Refusal:
    """The run has ended."""
    return Refusal(
        "RUN_FINISHED",
        f"This run ended {run.state} at {instant(run.finished_at)}; it takes no more reports or commands"
        + (" (an operator can retry it)." if run.state == "failed" else "."),
        run,
    )


def no_longer_queued(run: Run, command: Claim, now: datetime) -> Refusal:
    """The run has ended, so nobody can claim it."""
    return Refusal(
        "NO_LONGER_QUEUED", f"This lane is no longer queued: it ended {run.state} at {instant(run.finished_at)}.", run
    )
