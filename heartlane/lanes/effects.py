"""What a worker's events do to the run besides being appended. Pure, and used by `heartlane.lanes.rules` alone.

An effect changes the columns of a decision in the making: `changes` holds what the events before it, and the report
itself, have changed so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from heartlane.lanes import bounds
from heartlane.lanes.run import FINISHED_STATES, Run
from heartlane.lanes.usage import Usage, decode, encode, highest, name_in, plus, read_usage


def text_of(value: Any, longest: int) -> str | None:
    """A payload's string as a column can hold it: cut to `longest` characters, without NUL. None for anything else."""
    return value.replace("\0", "")[:longest] if isinstance(value, str) else None


def set_phase(changes: dict[str, Any], state: str, phase: str, waits_for: str | None) -> None:
    changes["phase"] = phase
    if state in FINISHED_STATES:
        return
    changes["waiting_for"] = (waits_for or "person") if phase == "waiting" else None
    if state != "paused":
        changes["state"] = "shipping" if phase == "shipping" else "running"


def _on_phase_change(changes: dict[str, Any], state: str, payload: Mapping[str, Any], now: datetime) -> None:
    phase = text_of(payload.get("phase"), bounds.PHASE_MAX)
    if phase is not None:
        changes["over_budget"] = False
        set_phase(changes, state, phase, text_of(payload.get("for"), bounds.PHASE_MAX))


def _on_log_line(changes: dict[str, Any], state: str, payload: Mapping[str, Any], now: datetime) -> None:
    line = text_of(payload.get("line"), bounds.LOG_LINE_MAX)
    if line is None:
        line = text_of(payload.get("message"), bounds.LOG_LINE_MAX)
    if line is not None:
        changes["log_line"] = line


def _on_action(changes: dict[str, Any], state: str, payload: Mapping[str, Any], now: datetime) -> None:
    changes["waiting_for"] = None
    changes["over_budget"] = False


def _on_error(changes: dict[str, Any], state: str, payload: Mapping[str, Any], now: datetime) -> None:
    message = text_of(payload.get("message"), bounds.ERROR_MAX)
    if message is not None:
        changes["error"] = message
    reason = text_of(payload.get("reason"), bounds.FAILURE_REASON_MAX)
    if reason is not None:
        changes["failure_reason"] = reason
    if reason == "budget":
        changes["over_budget"] = True
    if payload.get("fatal") is True:
        if message is None:
            changes["error"] = "The worker reported a fatal error without a message."
        end(changes, "failed", now)


def _on_ship_complete(changes: dict[str, Any], state: str, payload: Mapping[str, Any], now: datetime) -> None:
    for field, longest in SHIP_FIELDS.items():
        value = text_of(payload.get(field), longest)
        if value is not None:
            changes[field] = value
    end(changes, "shipped", now)


def end(changes: dict[str, Any], state: str, now: datetime) -> None:
    changes.update(state=state, lease_expires_at=None, take_back_at=None, waiting_for=None, finished_at=now)
    changes["budget_hold"] = None


SHIP_FIELDS: Final = {
    "pr_url": bounds.PR_URL_MAX,
    "branch": bounds.BRANCH_MAX,
    "commit": bounds.COMMIT_MAX,
    "summary": bounds.SUMMARY_MAX,
}

EFFECTS: Final[Mapping[str, Callable[[dict[str, Any], str, Mapping[str, Any], datetime], None]]] = {
    "phase_change": _on_phase_change,
    "log_line": _on_log_line,
    "action": _on_action,
    "error": _on_error,
    "ship_complete": _on_ship_complete,
}
"""What an event does to the run besides being appended; `heartbeat` does nothing."""


def note_usage(run: Run, changes: dict[str, Any], said: Mapping[str, Any]) -> None:
    """Count what the attempt has used so far on the run, and by whom. Nothing changes where nothing is new."""
    for name in ("agent", "model"):
        value = name_in(said, name)
        if value is not None and value != changes.get(name, getattr(run, name)):
            changes[name] = value
    old = decode(changes.get("attempt_usage_json", run.attempt_usage_json))
    new = highest(old, read_usage(said))
    if new != old:
        total = plus(Usage(*(changes.get(name, getattr(run, name)) for name in Usage._fields)), old, new)
        changes.update(total._asdict(), attempt_usage_json=encode(new))
