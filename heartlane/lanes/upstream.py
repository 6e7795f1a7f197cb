"""Tickets that live elsewhere too: how what their source says moves them.

A source (an issue tracker, a file) says again and again how a ticket stands there. Kept beside the ticket is what it
said last. Only what it says *otherwise than before* changes anything here: so that what people changed here stays until
the source changes too, and a ticket that lanes have closed isn't opened again by an issue that nobody has closed yet.

    source             here
    new role           `pending`; one that was skipped is taken up again
    role gone          `skipped`, unless somebody works on it or it is done
    closed             its pending roles `skipped`, and so closed; while a lane works on it, it stays open until that
                       lane ends, and the source says so the next time
    opened again       its roles `pending` once more, and so open
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from heartlane.lanes.decisions import Refusal
from heartlane.lanes.tickets import MERGED, SETTLED, Ticket, amend

TEXTS: Final = ("title", "description", "request_type", "priority", "milestone_id")
"""The plain columns that a source has a say in."""


class Said(NamedTuple):
    """What a source says of a ticket. With `texts`, each text of TEXTS in a form that tells it from any other.

    roles               the roles that it asks for; none: `other`
    status              `open` or `closed`
    resolution_type     how it ended there, for a closed one
    """

    roles: tuple[str, ...]
    status: str
    resolution_type: str | None
    texts: Mapping[str, str | None]

    @property
    def asked(self) -> set[str]:
        """The roles that want a lane."""
        return (set(self.roles) - {MERGED}) or {"other"}


class Followed(NamedTuple):
    """What becomes of a ticket that a source spoke of.

    texts       which of TEXTS it gets anew
    changes     column → new value of what the rules of tickets decide; `updated_at` is among them where any is
    said        what is to be remembered as said
    """

    texts: tuple[str, ...]
    changes: dict[str, Any]
    said: Said


def follow(ticket: Ticket, before: Said | None, said: Said, now: datetime) -> Followed:
    """What changes of a ticket of which its source says `said` now, and said `before` last (None: was never heard)."""
    texts = tuple(name for name in TEXTS if before is None or before.texts.get(name) != said.texts[name])
    is_open = ticket.status == "open"
    closes = is_open and said.status == "closed" and (before is None or before.status != "closed")
    opens = not is_open and said.status == "open" and before is not None and before.status == "closed"
    asks = said.status == "open" and (is_open or before is not None)
    states = _roles_asked(ticket, before, said) if asks else dict(ticket.roles)
    if closes:
        states = _given_up(ticket, states, said.resolution_type)
        if not all(state in SETTLED for state in states.values()):
            said = said._replace(status="open")  # it is heard again once its lane has ended
    if opens:
        states = {role: "pending" if _begins_anew(ticket, role, said) else state for role, state in states.items()}
    roles = {role: state for role, state in states.items() if ticket.roles.get(role) != state}
    decision = amend(ticket, now, roles=roles) if roles else {}
    if closes and said.status == "closed":
        decision = amend(ticket, now, roles=roles, status="closed", resolution_type=said.resolution_type)
    if isinstance(decision, Refusal):  # what was settled above is settled: there is nothing left to refuse
        raise TypeError(decision.error)
    return Followed(texts, decision, said)


def _roles_asked(ticket: Ticket, before: Said | None, said: Said) -> dict[str, str]:
    """The ticket's roles with those that the source asks for anew, and without those that it no longer asks for."""
    earlier = set() if before is None else before.asked
    states = dict(ticket.roles)
    for role in said.asked - earlier:
        if states.get(role, "skipped") == "skipped" and not (role in states and before is None):
            states[role] = "pending"
    for role in earlier - said.asked:
        if states.get(role) == "pending":
            states[role] = "skipped"
    return states


def _given_up(ticket: Ticket, states: Mapping[str, str], resolution_type: str | None) -> dict[str, str]:
    """The roles of a ticket that is closed elsewhere: nothing is begun any more, and nobody is interrupted."""
    merged = "done" if resolution_type == "completed" and ticket.pr_urls else "skipped"
    ended = {"pending": "skipped"}
    return {
        role: merged if (role, state) == (MERGED, "pending") else ended.get(state, state)
        for role, state in states.items()
    }


def _begins_anew(ticket: Ticket, role: str, said: Said) -> bool:
    return role in said.asked or (role == MERGED and not ticket.verified_existing)
