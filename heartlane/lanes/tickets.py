"""The ticket's state machine: how each role of a ticket goes its way, and when the ticket closes.

A ticket asks one or more roles for work. Each role goes `pending` → `in_progress` → `done` or `skipped`, beside the
others; the extra role `merged` stands for the pull request's merge and gets no lane. Two kinds of hand move a ticket:
lanes, through `advance`, inside the transaction that changes the lane; and people, through `amend`.

What always holds: `closed` and stage `live` come and go together, and a closed ticket has every role settled
(done or skipped).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from heartlane.lanes.decisions import Refusal
from heartlane.lanes.run import Role

MERGED: Final = "merged"
TICKET_ROLES: Final = (*(str(role) for role in Role), MERGED)
"""The roles a ticket can have, in the order they are shown."""


class RoleState(StrEnum):
    """How far one role of a ticket is."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    SKIPPED = "skipped"


class Stage(StrEnum):
    """The ticket's column on the board; any to any. `live` is the closed tickets' one."""

    BACKLOG = "backlog"
    UP_NEXT = "up_next"
    IN_PROGRESS = "in_progress"
    VALIDATION = "validation"
    LIVE = "live"


class Status(StrEnum):
    """Whether the ticket still wants something."""

    OPEN = "open"
    CLOSED = "closed"


class Resolution(StrEnum):
    """How a closed ticket ended."""

    COMPLETED = "completed"
    ALREADY_DONE = "already_done"
    DUPLICATE = "duplicate"
    WONT_FIX = "wont_fix"
    NO_LONGER_RELEVANT = "no_longer_relevant"
    CANCELLED = "cancelled"


SETTLED: Final = frozenset({"done", "skipped"})
_BEFORE_WORK: Final = frozenset({"backlog", "up_next"})
_BEFORE_VALIDATION: Final = _BEFORE_WORK | {"in_progress"}
_SKIPPED_WHEN_VERIFIED: Final = ("test", MERGED)


class Ticket(NamedTuple):
    """The columns of a `tickets` row that move, as a frozen value; its texts never matter to the rules.

    roles_json          role → state, with `merged`, as JSON text
    pr_urls_json        the pull requests its lanes shipped, oldest first, as JSON text
    resolution_type     how it ended; None while it is open
    """

    id: str
    roles_json: str
    status: str
    stage: str
    resolution_type: str | None
    verified_existing: bool
    pr_urls_json: str
    closed_at: datetime | None
    updated_at: datetime

    @property
    def roles(self) -> dict[str, str]:
        """Role → state, `merged` among them."""
        roles: dict[str, str] = json.loads(self.roles_json)
        return roles

    @property
    def pr_urls(self) -> list[str]:
        """Addresses of the pull requests that lanes shipped for this ticket, oldest first."""
        urls: list[str] = json.loads(self.pr_urls_json)
        return urls


TICKET_COLUMNS: Final = Ticket._fields
"""The columns to read, in the order of `Ticket`."""


def initial_roles(roles: Iterable[str], *, verified_existing: bool) -> dict[str, str]:
    """The roles of a new ticket: those asked for (none: `other`), and `merged`, in the order of `TICKET_ROLES`.

    >>> initial_roles(["test", "backend"], verified_existing=False)
    {'backend': 'pending', 'test': 'pending', 'merged': 'pending'}
    >>> initial_roles([], verified_existing=True)
    {'other': 'pending', 'merged': 'skipped'}
    """
    asked = (set(roles) - {MERGED}) or {"other"}
    states = dict.fromkeys((role for role in TICKET_ROLES if role in asked or role == MERGED), "pending")
    return _skip_verified(states) if verified_existing else states


def open_ticket(
    ticket_id: str, roles: Iterable[str], now: datetime, *, stage: str = "backlog", verified_existing: bool = False
) -> Ticket:
    """A new ticket at `now`. One that is born with every role settled (verified, and only to be tested) is closed."""
    states = initial_roles(roles, verified_existing=verified_existing)
    ticket = Ticket(ticket_id, _dump(states), "open", stage, None, verified_existing, "[]", None, now)
    return ticket._replace(**_closing(ticket, states, None, now)) if _all_settled(states) else ticket


def lane_roles(ticket: Ticket) -> list[str]:
    """The roles that still want a lane: neither settled nor `merged`, in the order of `TICKET_ROLES`."""
    states = ticket.roles
    return [role for role in TICKET_ROLES if role != MERGED and states.get(role, "done") not in SETTLED]


def advance(ticket: Ticket, role: str, event: str, pr_url: str | None, now: datetime) -> dict[str, Any]:
    """What a lane's change does to one of its tickets: column → new value, empty when nothing changes.

    role        the lane's role; one that the ticket doesn't have moves nothing
    event       `claimed` (→ in_progress), `shipped` (→ done), `failed` or `released` (→ pending)
    pr_url      the lane's pull request, kept on the ticket when the lane ships

    A role that is settled already stays so: a person, or an earlier lane, has the last word.
    """
    changes: dict[str, Any] = {}
    states = ticket.roles
    state = states.get(role)
    if state is not None and state not in SETTLED:
        states[role] = {"claimed": "in_progress", "shipped": "done"}.get(event, "pending")
        if states[role] != state:
            changes["roles_json"] = _dump(states)
        if event == "claimed" and ticket.stage in _BEFORE_WORK:
            changes["stage"] = "in_progress"
        if event == "shipped":
            changes |= _after_work(ticket, states, now)
    if event == "shipped" and pr_url and pr_url not in (known := ticket.pr_urls):
        changes["pr_urls_json"] = _dump([*known, pr_url])
    if changes:
        changes["updated_at"] = now
    return changes


def amend(
    ticket: Ticket,
    now: datetime,
    *,
    roles: Mapping[str, str] | None = None,
    status: str | None = None,
    stage: str | None = None,
    resolution_type: str | None = None,
    verified_existing: bool | None = None,
) -> dict[str, Any] | Refusal:
    """What a person's change does to a ticket: column → new value, empty when nothing changes; or why it can't be.

    roles       role → state; a role the ticket doesn't have yet is added
    status      `closed` sets the stage `live`, `open` takes it out of there (to `up_next`, unless `stage` says more)
    stage       `live` closes, any other opens
    resolution_type  how it ended; only together with a close, or on a closed ticket

    Refused: a close before all roles are settled (ROLES_INCOMPLETE), and a resolution of a ticket that stays open, or
    `status` and `stage` that contradict each other (INVALID_REQUEST).
    """
    if status is not None and stage is not None and (status == "closed") != (stage == "live"):
        return Refusal("INVALID_REQUEST", "A closed ticket stands in the stage live and an open one in any other.")
    changes: dict[str, Any] = {}
    before = ticket.roles
    states = {role: state for role in TICKET_ROLES if (state := (before | dict(roles or {})).get(role)) is not None}
    if verified_existing is not None and verified_existing != ticket.verified_existing:
        changes["verified_existing"] = verified_existing
        ticket = ticket._replace(verified_existing=verified_existing)
        if verified_existing:
            states = _skip_verified(states)
    if states != before:
        changes["roles_json"] = _dump(states)

    wanted = status or (None if stage is None else "closed" if stage == "live" else "open")
    settled = _all_settled(states)
    if wanted is None:
        wanted = _status_by_roles(ticket, before, states, settled=settled)
    if wanted == "closed" and not settled:
        return _incomplete(ticket, states)
    if wanted == "closed" and ticket.status == "open":
        changes |= _closing(ticket, states, resolution_type, now)
    elif wanted == "closed":
        if resolution_type not in (None, ticket.resolution_type):
            changes["resolution_type"] = resolution_type
    else:
        if resolution_type is not None:
            return Refusal("INVALID_REQUEST", "Only a ticket that is closed, or is being closed, has a resolution.")
        changes |= _staying_open(ticket, states, stage)
    if changes:
        changes["updated_at"] = now
    return changes


def _status_by_roles(ticket: Ticket, before: dict[str, str], after: dict[str, str], *, settled: bool) -> str:
    """The status where nobody asked for one: the last role to be settled closes, a role taken up again reopens."""
    if after == before:
        return ticket.status
    return "closed" if settled else "open"


def _staying_open(ticket: Ticket, states: dict[str, str], stage: str | None) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if ticket.status == "closed":
        changes |= {"status": "open", "resolution_type": None, "closed_at": None}
        stage = stage or ("in_progress" if "in_progress" in states.values() else "up_next")
    if stage is not None and stage != ticket.stage:
        changes["stage"] = stage
    return changes


def _after_work(ticket: Ticket, states: dict[str, str], now: datetime) -> dict[str, Any]:
    """A role is done: with all settled the ticket closes; with only the merge left it is up for validation."""
    if _all_settled(states):
        return _closing(ticket, states, None, now)
    if ticket.stage in _BEFORE_VALIDATION and all(state in SETTLED for role, state in states.items() if role != MERGED):
        return {"stage": "validation"}
    return {}


def _closing(ticket: Ticket, states: dict[str, str], resolution_type: str | None, now: datetime) -> dict[str, Any]:
    if resolution_type is None:
        if "done" in states.values():
            resolution_type = "completed"
        else:
            resolution_type = "already_done" if ticket.verified_existing else "cancelled"
    return {"status": "closed", "stage": "live", "resolution_type": resolution_type, "closed_at": now}


def _incomplete(ticket: Ticket, states: dict[str, str]) -> Refusal:
    left = ", ".join(f"{role} ({state})" for role, state in states.items() if state not in SETTLED)
    return Refusal(
        "ROLES_INCOMPLETE",
        f"Ticket {ticket.id} can't be closed yet: {left} must be done or skipped first.",
    )


def _skip_verified(states: dict[str, str]) -> dict[str, str]:
    """What exists and is verified needs neither a test nor a merge."""
    return {
        role: "skipped" if role in _SKIPPED_WHEN_VERIFIED and state not in SETTLED else state
        for role, state in states.items()
    }


def _all_settled(states: Mapping[str, str]) -> bool:
    return all(state in SETTLED for state in states.values())


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
