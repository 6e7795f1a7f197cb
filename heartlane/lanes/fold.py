"""What a run must look like by its log alone: every row of the log is decided again, by the same rules. Pure.

Reports without events renew leases and set the phase and the line that were sent beside them, and leave nothing in the
log. So what they set is not compared, and `claimed`, `running` and `shipping` count as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from heartlane.lanes.commands import (
    Cancel,
    Claim,
    Command,
    Hold,
    Lift,
    NotePullRequest,
    Pause,
    Release,
    Report,
    Resume,
    Retry,
    TakeBack,
)
from heartlane.lanes.decisions import Refusal
from heartlane.lanes.rules import decide
from heartlane.lanes.run import FIXED_COLUMNS, WORKER_EVENT_TYPES, Event, Run

COMPARED: Final = (
    *("worker_id", "last_worker_id", "attempt", "claimed_at", "failures", "error", "finished_at", "event_count"),
    *("pr_url", "branch", "commit", "summary"),
)
"""Columns that the log says to the letter."""
LATER: Final = ("failure_reason", "agent", "model", "input_tokens", "output_tokens", "cached_tokens", "cost_micros")
"""The same, where they are set: they came after the first schema, and older rows don't have them."""
WORKING: Final = frozenset({"claimed", "running", "shipping"})


class Fold:
    """Follows one run through its log, from the first event on.

    run     what it must look like so far
    """

    def __init__(self, run: Run) -> None:
        self.run = Run(**{name: getattr(run, name) for name in FIXED_COLUMNS})

    def add(self, events: Sequence[Event], worker_id: str | None, recorded_at: datetime) -> str | None:
        """The next row of the log; what is wrong with it, or None."""
        run = self.run
        kind = events[0].type
        payload = events[0].payload
        if kind in WORKER_EVENT_TYPES:
            command: Command | None = Report(worker_id or "", events=events)
        else:
            command = _command(kind, payload)
        if command is None:  # of a later version
            self.run = run._replace(event_count=run.event_count + len(events))
            return None
        if isinstance(command, Claim):
            run = run._replace(not_before=None, blockers_left=0)
        elif isinstance(command, TakeBack):
            run = run._replace(lease_expires_at=None, last_heartbeat=_moment(payload.get("last_heard")))
        decision = decide(run, command, recorded_at)
        if isinstance(decision, Refusal):
            return f"{kind} can't follow upon a run that is {run.state}"
        if not decision.events:
            return f"{kind} has no effect upon a run that is {run.state}"
        count = run.event_count + len(events)
        self.run = run._replace(**{**decision.changes, "event_count": count})
        if isinstance(command, Claim) and self.run.attempt != payload.get("attempt"):
            return f"attempt {payload.get('attempt')} was claimed where {self.run.attempt} had to follow"
        return None

    def differences(self, run: Run) -> list[str]:
        """What a run's row says otherwise than its log, in words."""
        told = self.run
        found = []
        if _group(run.state) != _group(told.state):
            found.append(f"state is {run.state}, by the log {told.state}")
        for name in (*COMPARED, *LATER):
            stored, folded = getattr(run, name), getattr(told, name)
            if stored != folded and (name in COMPARED or stored is not None):
                found.append(f"{name} is {_shown(stored)}, by the log {_shown(folded)}")
        return found


def _group(state: str) -> str:
    return "working" if state in WORKING else state


def _shown(value: Any) -> str:
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _command(kind: str, payload: dict[str, Any]) -> Command | None:
    """What the server's own event came from."""
    by = payload.get("by")
    match kind:
        case "claimed":
            return Claim(payload["worker_id"], payload["lease_seconds"])
        case "lease_expired":
            return TakeBack()
        case "released" if by == "budget":
            return Hold("stop", payload.get("reason") or "")
        case "released":
            worker_id = None if "by" in payload else payload.get("worker_id")
            failed = bool(payload.get("failed"))
            attempt, reason, later = payload.get("attempt"), payload.get("reason"), payload.get("retry_after")
            return Release(worker_id, attempt, reason, later, failed, by)
        case "budget_held":
            return Hold("pause", payload.get("reason") or "")
        case "budget_lifted":
            return Lift()
        case "pull_request":
            return NotePullRequest(payload.get("url") or "", payload.get("state") or "")
    simple: dict[str, Callable[[str | None], Command]]
    simple = {"paused": Pause, "resumed": Resume, "cancelled": Cancel, "retried": Retry}
    return simple[kind](by) if kind in simple else None
