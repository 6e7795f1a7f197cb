"""What people do to tickets and milestones, as the audit log tells it. (What lanes do to them is in the runs' logs.)"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from heartlane.store.audit import Actor, Entry, changes, make_entry, tame

CREATED: Final = {"ticket": "ticket.created", "milestone": "milestone.created"}
CHANGED: Final = {"ticket": "ticket.changed", "milestone": "milestone.changed"}
TEXT_MAX: Final = 500
"""Characters kept of a description or of evidence: the entry says what was changed, the ticket has all of it."""
LEFT_OUT: Final = frozenset(
    {"id", "project_id", "created_at", "updated_at", "closed_at", "external_key", "external_said_json"}
)
"""Columns that follow from others, or that nobody sets."""
LONG: Final = frozenset({"description", "evidence_json", "suggested_resolution"})


class By(NamedTuple):
    """Who does something, and in which account."""

    actor: Actor
    account_id: str


Columns = Mapping[str, Any]


def ticket_entry(by: By, before: Columns | None, after: Columns, now: datetime) -> Entry | None:
    """The entry of a ticket that was made (without `before`) or changed; None where nothing differs that people set."""
    return _entry(by, "ticket", before, after, now)


def milestone_entry(by: By, before: Columns | None, after: Columns, now: datetime) -> Entry | None:
    """The same of a milestone."""
    return _entry(by, "milestone", before, after, now)


def import_entry(by: By, project_id: str, outcomes: Iterable[tuple[str, str | None]], now: datetime) -> Entry | None:
    """One entry for all the tickets that were brought from elsewhere at once; None where that changed nothing.

    outcomes    what became of each, and its id
    """
    told: dict[str, list[str]] = {"created": [], "updated": []}
    for outcome, ticket_id in outcomes:
        if outcome in told and ticket_id is not None:
            told[outcome].append(ticket_id)
    if not any(told.values()):
        return None
    return make_entry(
        now,
        by.actor,
        "ticket.imported",
        account_id=by.account_id,
        project_id=project_id,
        object_type="project",
        object_id=project_id,
        details={**{name: len(ids) for name, ids in told.items()}, "ticket_ids": told},
    )


def _entry(by: By, kind: str, before: Columns | None, after: Columns, now: datetime) -> Entry | None:
    details: dict[str, Any] = {"after": _told(after)}
    if before is not None:
        differing = changes(before, after)
        details = {moment: _told(values) for moment, values in differing.items()}
        if not details["after"]:
            return None
    return make_entry(
        now,
        by.actor,
        (CREATED if before is None else CHANGED)[kind],
        account_id=by.account_id,
        project_id=after["project_id"],
        object_type=kind,
        object_id=after["id"],
        object_name=after["title" if kind == "ticket" else "name"],
        details=details,
    )


def _told(columns: Columns) -> dict[str, Any]:
    """Columns by the names that people set."""
    return {name.removesuffix("_json"): _plain(name, value) for name, value in columns.items() if name not in LEFT_OUT}


def _plain(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in LONG:
        return tame(value, TEXT_MAX)
    if name.endswith("_json"):
        return json.loads(value)
    return value.isoformat() if isinstance(value, datetime) else value
