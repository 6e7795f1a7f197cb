"""What a person's command on a run leaves in the audit log: decided in the batch, written in its transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from heartlane.lanes.commands import Cancel, Command, Pause, Release, Resume, Retry
from heartlane.lanes.run import Run
from heartlane.store.audit import Actor, Entry, make_entry

ACTIONS: Final[dict[type, str]] = {
    Pause: "run.paused",
    Resume: "run.resumed",
    Cancel: "run.cancelled",
    Retry: "run.retried",
    Release: "run.released",
}
"""Command → what it is called. What workers do stands in the run's own log."""


def entry_of(actor: Actor, command: Command, before: Run, after: Run, now: datetime) -> Entry | None:
    """The entry of a command that changed a run; None for one that isn't an operator's."""
    action = ACTIONS.get(type(command))
    if action is None or (isinstance(command, Release) and command.worker_id is not None):
        return None
    details: dict[str, Any] = {
        "lane_key": before.lane_key,
        "plan_id": before.plan_id,
        "before": {"state": before.state},
        "after": {"state": after.state},
    }
    if before.worker_id is not None:
        details |= {"worker_id": before.worker_id, "attempt": before.attempt}
    if isinstance(command, Release):
        details |= {
            name: value
            for name, value in (
                ("reason", command.reason),
                ("retry_after", command.retry_after),
                ("failed", command.failed or None),
            )
            if value is not None
        }
    return make_entry(
        now,
        actor,
        action,
        account_id=before.billing_account_id,
        project_id=before.project_id,
        object_type="run",
        object_id=before.id,
        object_name=before.title,
        details=details,
    )
