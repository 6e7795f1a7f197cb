"""Tickets as their source has them: made where they are new, brought up to date where they are known.

The whole page that a source gave is one transaction; importing it twice is the same as once, and two imports of the
same page at the same moment are one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import insert, update

from heartlane.lanes.tickets import open_ticket
from heartlane.lanes.upstream import TEXTS, Said, follow
from heartlane.store.audit import record_entries
from heartlane.store.external import digest, key_of_name, key_of_url
from heartlane.store.ids import new_id
from heartlane.store.schema import tickets
from heartlane.store.store import WriteTransaction
from heartlane.store.ticket_audit import By, import_entry
from heartlane.store.tickets import TicketRow, find_by_keys, lock_keys

Outcome = Literal["created", "updated", "unchanged", "skipped"]


class Told(NamedTuple):
    """One ticket as its source tells it.

    external_url, external_key  what it is called there; one of the two at least, the address goes before
    create                      whether it is made where the project has none yet
    """

    external_url: str | None
    external_key: str | None
    title: str
    description: str
    request_type: str
    priority: str
    blocking: bool
    roles: tuple[str, ...]
    status: str
    resolution_type: str | None
    milestone_id: str | None
    create: bool

    @property
    def key(self) -> str:
        """Its key within the project. Raises ValueError for a ticket that is called nothing."""
        if self.external_url is not None:
            return key_of_url(self.external_url)
        if self.external_key is None:
            raise ValueError("a ticket from elsewhere has an address or a key")
        return key_of_name(self.external_key)

    @property
    def said(self) -> Said:
        """What the source says of it."""
        texts = {name: getattr(self, name) for name in TEXTS}
        return Said(self.roles, self.status, self.resolution_type, {**texts, "description": digest(self.description)})


def told_of(fields: Mapping[str, Any]) -> Told:
    """The fields of a ticket as `PUT /api/projects/{id}/tickets` takes them; what may be left out there may be here."""
    left_out = {"external_url": None, "external_key": None, "resolution_type": None, "milestone_id": None}
    return Told(**{**left_out, **fields, "roles": tuple(fields["roles"])})


class Synced(NamedTuple):
    """What became of a ticket, and how it is now; None where it was skipped."""

    outcome: Outcome
    ticket: TicketRow | None


async def sync_tickets(
    tx: WriteTransaction, project_id: str, told: Sequence[Told], by: By | None = None
) -> list[Synced]:
    """Make or change what a source tells of a project that the caller has looked up; the outcomes, in the same order.

    No two of `told` have the same key, and milestones are the project's.

    by      the person who brings them, for the audit log; None: the server by itself
    """
    await lock_keys(tx, project_id)
    known = await find_by_keys(tx.conn, project_id, [each.key for each in told], lock=True)
    results: list[Synced] = []
    for each in told:
        row = known.get(each.key)
        if row is not None:
            results.append(await _update(tx, row, each))
        elif each.create:
            results.append(Synced("created", _new(tx, project_id, each)))
        else:
            results.append(Synced("skipped", None))
    made = [result.ticket._asdict() for result in results if result.ticket is not None and result.outcome == "created"]
    if made:
        await tx.conn.execute(insert(tickets), made)
    if by is not None:
        outcomes = [(each.outcome, None if each.ticket is None else each.ticket.id) for each in results]
        await record_entries(tx.conn, [import_entry(by, project_id, outcomes, tx.now)])
    return results


def _new(tx: WriteTransaction, project_id: str, told: Told) -> TicketRow:
    moving = open_ticket(new_id(), told.roles, tx.now)
    followed = follow(moving, None, told.said, tx.now)
    return TicketRow(
        project_id=project_id,
        milestone_id=told.milestone_id,
        title=told.title,
        description=told.description,
        request_type=told.request_type,
        priority=told.priority,
        blocking=told.blocking,
        evidence_json=None,
        suggested_resolution=None,
        actor_role=None,
        external_url=told.external_url,
        created_at=tx.now,
        external_key=told.key,
        external_said_json=_dump(followed.said),
        **(moving._asdict() | followed.changes),
    )


async def _update(tx: WriteTransaction, row: TicketRow, told: Told) -> Synced:
    followed = follow(row.moving, _load(row.external_said_json), told.said, tx.now)
    changes: dict[str, Any] = {
        name: new
        for name in followed.texts
        if (new := getattr(told, name)) is not None and new != getattr(row, name)  # one without a milestone clears none
    }
    changes |= followed.changes
    visible = bool(changes)
    if visible:
        changes["updated_at"] = tx.now
    said = _dump(followed.said)
    if said != row.external_said_json:
        changes["external_said_json"] = said
    if changes:
        await tx.conn.execute(update(tickets).where(tickets.c.id == row.id).values(changes))
    return Synced("updated" if visible else "unchanged", row._replace(**changes))


def _dump(said: Said) -> str:
    fields = {**said._asdict(), "roles": sorted(said.roles)}
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def _load(text: str | None) -> Said | None:
    if text is None:
        return None
    fields: Mapping[str, Any] = json.loads(text)
    return Said(tuple(fields["roles"]), fields["status"], fields["resolution_type"], fields["texts"])
