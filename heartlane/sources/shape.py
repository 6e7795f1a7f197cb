"""An item of a source as the fields of a ticket, within the contract's bounds.

Nothing is refused for its length: what is too long is cut, what is too short is filled up, and `notes` says so. The
text that was cut can be read at the source, to which the ticket leads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from heartlane.lanes import bounds
from heartlane.sources.model import Item
from heartlane.sources.roles import RoleRules
from heartlane.wire.fields import EXTERNAL_KEY_MAX, REQUEST_TYPE_MAX, TICKET_PRIORITY_MAX

PRIORITIES: Final = {
    "p0": "critical",
    "p1": "high",
    "p2": "medium",
    "p3": "low",
    "p4": "low",
    "critical": "critical",
    "urgent": "critical",
    "blocker": "critical",
    "highest": "critical",
    "high": "high",
    "major": "high",
    "medium": "medium",
    "normal": "medium",
    "low": "low",
    "minor": "low",
    "lowest": "low",
    "trivial": "low",
}
"""What labels and the sources' own priorities are called here."""
KINDS: Final = {
    "bug": "bug",
    "defect": "bug",
    "regression": "bug",
    "feature": "feature",
    "enhancement": "feature",
    "feature request": "feature",
    "documentation": "documentation",
    "docs": "documentation",
    "chore": "chore",
    "question": "question",
    "refactoring": "refactoring",
}
BLOCKING: Final = frozenset({"blocker", "blocking"})
PRIORITY_DEFAULT: Final = "medium"
KIND_DEFAULT: Final = "request"
_BEFORE: Final = re.compile(r"^(?:priority|prio|severity|type|kind)\s*[:/=_ -]+\s*")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_URL: Final = re.compile(r"https?://[^\x00-\x20\x7f-\xa0]+")


class Shaped(NamedTuple):
    """The fields that `PUT /api/projects/{id}/tickets` takes, and what had to be done to make them fit."""

    ref: str
    fields: dict[str, Any]
    notes: Sequence[str]


def shape(item: Item, rules: RoleRules, *, create: bool = True, milestone_id: str | None = None) -> Shaped:
    """An item as a ticket. `create`: whether it is made where there is none yet."""
    notes: list[str] = []
    url = item.url if item.url is not None and len(item.url) <= bounds.URL_MAX and _URL.fullmatch(item.url) else None
    whole_title = " ".join(_clean(item.title).split())
    labels = [_BEFORE.sub("", label.strip().lower()) for label in item.labels]
    fields: dict[str, Any] = {
        "title": _title(whole_title, item.ref, notes),
        "description": _description(item, whole_title, notes),
        "request_type": (item.request_type or _first(labels, KINDS) or KIND_DEFAULT)[:REQUEST_TYPE_MAX],
        "priority": _priority(item.priority, labels)[:TICKET_PRIORITY_MAX],
        "blocking": any(label in BLOCKING for label in labels) if item.blocking is None else item.blocking,
        "roles": list(item.roles or rules.roles_of(item.labels)),
        "status": "closed" if item.closed else "open",
        "create": create,
    }
    if url is not None:
        fields["external_url"] = url
    else:
        fields["external_key"] = (item.key or item.ref)[:EXTERNAL_KEY_MAX]
    if item.closed:
        fields["resolution_type"] = item.resolution or "completed"
    if milestone_id is not None:
        fields["milestone_id"] = milestone_id
    return Shaped(item.ref, fields, notes)


def _title(title: str, ref: str, notes: list[str]) -> str:
    if len(title) > bounds.TICKET_TITLE_MAX:
        notes.append(f"title cut from {len(title)} to {bounds.TICKET_TITLE_MAX} characters, whole in the description")
        return _cut(title, bounds.TICKET_TITLE_MAX - 1) + "…"
    if len(title) < bounds.TICKET_TITLE_MIN:
        notes.append(f"title filled up from {len(title)} characters")
        return f"{title or 'No title'} (ticket {ref})"[: bounds.TICKET_TITLE_MAX]
    return title


def _description(item: Item, title: str, notes: list[str]) -> str:
    text = _clean(item.text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if len(title) > bounds.TICKET_TITLE_MAX:
        text = f"{title}\n\n{text}".strip()
    where = item.url or item.ref
    if len(text) > bounds.TICKET_DESCRIPTION_MAX:
        notes.append(f"description cut from {len(text)} to {bounds.TICKET_DESCRIPTION_MAX} characters")
        rest = f"…\n\n(Cut here. The whole text: {where[: bounds.URL_MAX]})"
        return _cut(text, bounds.TICKET_DESCRIPTION_MAX - len(rest)) + rest
    if len(text) < bounds.TICKET_DESCRIPTION_MIN:
        notes.append("has no description" if not text else f"description filled up from {len(text)} characters")
        return f"{text or 'No description'}\n\n(From {where[: bounds.URL_MAX]})"
    return text


def _priority(said: str | None, labels: Sequence[str]) -> str:
    if said is not None:
        return PRIORITIES.get(said.strip().lower(), said.strip().lower() or PRIORITY_DEFAULT)
    return _first(labels, PRIORITIES) or PRIORITY_DEFAULT


def _first(labels: Sequence[str], names: dict[str, str]) -> str | None:
    return next((names[label] for label in labels if label in names), None)


def _cut(text: str, length: int) -> str:
    """At most `length` characters, between two words where there is room for that."""
    cut = text[:length]
    space = max(cut.rfind(" "), cut.rfind("\n"))
    return (cut[:space] if space > length * 3 // 4 else cut).rstrip()


def _clean(text: str) -> str:
    """Text without control characters (but tabs and line breaks), and without what UTF-8 can't carry."""
    return _CONTROLS.sub("", text).encode("utf-8", "replace").decode()
