"""What a worker asks the server of a lane beside its claim. Without an answer it goes on with what it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from heartlane.worker.earlier import TELLING_TYPES, Earlier, what_is_left
from heartlane.worker.exchange import Exchange

EVENTS_AT_ONCE: Final = 200
EVENTS_READ_MAX: Final = 2_000
"""The end of a log that is looked at for what earlier attempts left."""


def earlier_attempts(exchange: Exchange, run: Mapping[str, Any]) -> Earlier:
    """What earlier attempts left, read from the run's log. Without an answer, what the run object says alone.

    run     the run object of this attempt's claim
    """
    if int(run["attempt"]) <= 1:
        return Earlier()
    events: list[Mapping[str, Any]] = []
    after: Any = max(0, int(run.get("event_count") or 0) - EVENTS_READ_MAX)
    while True:
        query = {"after": after, "limit": EVENTS_AT_ONCE, "type": list(TELLING_TYPES)}
        reply = exchange.get(f"/api/agents/runs/{run['id']}/events", query)
        events += reply.body.get("events", []) if reply.ok else []
        after = reply.body.get("next_cursor") if reply.ok else None
        if after is None:
            return what_is_left(run, events)


def default_branch(exchange: Exchange, run: Mapping[str, Any]) -> str | None:
    """Where the project's lanes begin; None where it doesn't say: the repository's own HEAD has to do."""
    project = exchange.get(f"/api/projects/{run.get('project_id')}").body.get("project")
    branch = project.get("default_branch") if isinstance(project, Mapping) else None
    return branch if isinstance(branch, str) else None
