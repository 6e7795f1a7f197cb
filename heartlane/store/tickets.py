"""Tickets: kept, listed, and moved by people's hands. (Lanes move them inside the ledger's transactions.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.decisions import Refusal
from heartlane.lanes.tickets import TICKET_COLUMNS, Ticket, amend, open_ticket
from heartlane.store.audit import record_entries
from heartlane.store.external import key_of_url
from heartlane.store.ids import new_id
from heartlane.store.pages import Page, cursor_id, page
from heartlane.store.schema import milestones, tickets
from heartlane.store.store import WriteTransaction
from heartlane.store.ticket_audit import By, ticket_entry

MOVES: Final = frozenset({"roles", "status", "stage", "resolution_type", "verified_existing"})
"""What the rules of `heartlane.lanes.tickets` decide; every other field is a plain column."""

KEYS_LOCK: Final = 0x7469_636B  # "tick"


class TicketRow(NamedTuple):
    """One row of `tickets`, whole. The moving columns are those of `heartlane.lanes.tickets.Ticket`."""

    id: str
    project_id: str
    milestone_id: str | None
    title: str
    description: str
    request_type: str
    priority: str
    blocking: bool
    roles_json: str
    stage: str
    status: str
    resolution_type: str | None
    pr_urls_json: str
    evidence_json: str | None
    suggested_resolution: str | None
    actor_role: str | None
    verified_existing: bool
    external_url: str | None
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    external_key: str | None = None
    external_said_json: str | None = None

    @property
    def moving(self) -> Ticket:
        """What the rules look at."""
        return Ticket._make(getattr(self, name) for name in TICKET_COLUMNS)


class TicketFilter(NamedTuple):
    """Which tickets of a project to list; None doesn't narrow."""

    status: str | None = None
    stage: str | None = None
    milestone_id: str | None = None


class Refused(NamedTuple):
    """Why a change of tickets can't be: one refusal for each ticket that stands against it, by its place."""

    refusals: Sequence[tuple[int, Refusal]]


class UrlTaken(Exception):
    """Another ticket of the project has this `external_url` already. `ticket_id` is that one's."""

    def __init__(self, ticket_id: str) -> None:
        super().__init__(f"is that of the ticket {ticket_id} already")
        self.ticket_id = ticket_id


async def create_ticket(
    tx: WriteTransaction,
    project_id: str,
    values: Mapping[str, Any],
    *,
    roles: Sequence[str],
    verified_existing: bool,
    by: By | None = None,
) -> tuple[TicketRow, bool]:
    """A new ticket of a project that the caller has looked up, and True. `values`: the plain columns, each one.

    Where the project has a ticket with the same `external_url`: that one as it is, and False.

    by      who makes it, for the audit log
    """
    url, key = values.get("external_url"), None
    if url is not None:
        key = key_of_url(url)
        await lock_keys(tx, project_id)
        known = await find_by_keys(tx.conn, project_id, [key])
        if known:
            return known[key], False
    moving = open_ticket(new_id(), roles, tx.now, verified_existing=verified_existing)
    row = TicketRow(project_id=project_id, created_at=tx.now, external_key=key, **moving._asdict(), **values)
    await tx.conn.execute(insert(tickets).values(row._asdict()))
    if by is not None:
        await record_entries(tx.conn, [ticket_entry(by, None, row._asdict(), tx.now)])
    return row, True


async def lock_keys(tx: WriteTransaction, project_id: str) -> None:
    """Be the only one, until the transaction ends, that gives tickets of this project their names elsewhere.

    A lock of its own on PostgreSQL, taken before any row: two imports at once would otherwise insert the same keys in
    different orders, and wait for each other. SQLite has one writer anyway.
    """
    if tx.conn.dialect.name == "postgresql":
        await tx.conn.execute(
            text("SELECT pg_advisory_xact_lock(:kind, hashtext(CAST(:project_id AS text)))"),
            {"kind": KEYS_LOCK, "project_id": project_id},
        )


async def find_by_keys(
    conn: AsyncConnection, project_id: str, keys: Sequence[str], *, lock: bool = False
) -> dict[str, TicketRow]:
    """Those of the project's tickets that have one of these keys, by key; with `lock`, their rows locked."""
    query = select(tickets).where(
        tickets.c.project_id == project_id, tickets.c.external_key.is_not(None), tickets.c.external_key.in_(keys)
    )
    query = query.order_by(tickets.c.id)
    result = await conn.execute(query.with_for_update() if lock else query)
    return {row.external_key: TicketRow._make(row) for row in result}


async def list_tickets(
    conn: AsyncConnection, project_id: str, wanted: TicketFilter, *, cursor: str | None, limit: int
) -> Page:
    """The tickets of a project that the caller has looked up, newest first. Raises BadCursor."""
    query = select(tickets).where(tickets.c.project_id == project_id)
    for name, value in wanted._asdict().items():
        if value is not None:
            query = query.where(tickets.c[name] == value)
    if cursor is not None:
        query = query.where(tickets.c.id < cursor_id("tickets", cursor))
    result = await conn.execute(query.order_by(tickets.c.id.desc()).limit(limit + 1))
    return page([TicketRow._make(row) for row in result], limit, "tickets", lambda ticket: ticket.id)


async def read_ticket(conn: AsyncConnection, project_id: str, ticket_id: str) -> TicketRow | None:
    """The ticket, or None where the project has none of this id."""
    found = await read_tickets(conn, project_id, [ticket_id])
    return found.get(ticket_id)


async def read_tickets(
    conn: AsyncConnection, project_id: str, ticket_ids: Sequence[str], *, lock: bool = False
) -> dict[str, TicketRow]:
    """Those of the named tickets that the project has, by id; with `lock`, their rows locked in id order."""
    query = select(tickets).where(tickets.c.project_id == project_id, tickets.c.id.in_(ticket_ids))
    query = query.order_by(tickets.c.id)
    result = await conn.execute(query.with_for_update() if lock else query)
    return {row.id: TicketRow._make(row) for row in result}


async def change_tickets(
    tx: WriteTransaction,
    project_id: str,
    ticket_ids: Sequence[str],
    changes: Mapping[str, Any],
    by: By | None = None,
) -> list[TicketRow | None] | Refused:
    """Make the same change to all named tickets or, where one of them can't be changed, to none.

    changes     field → value: those of MOVES go by the rules, any other is a column
    by          who changes them, for the audit log

    Answers the tickets as they are then, in the order asked for, None for one that the project doesn't have (then
    nothing was changed either). Raises UrlTaken for an `external_url` that another ticket has.
    """
    if "external_url" in changes:
        changes = {**changes, "external_key": await _own_key(tx, project_id, ticket_ids, changes["external_url"])}
    rows = await read_tickets(tx.conn, project_id, ticket_ids, lock=True)
    if any(ticket_id not in rows for ticket_id in ticket_ids):
        return [rows.get(ticket_id) for ticket_id in ticket_ids]
    moves = {name: value for name, value in changes.items() if name in MOVES}
    plain = {name: value for name, value in changes.items() if name not in MOVES}
    refusals: list[tuple[int, Refusal]] = []
    decided: dict[str, Mapping[str, Any]] = {}
    for place, ticket_id in enumerate(ticket_ids):
        decision = amend(rows[ticket_id].moving, tx.now, **moves)
        if isinstance(decision, Refusal):
            refusals.append((place, decision))
        elif decision or plain:
            decided[ticket_id] = {**plain, **decision, "updated_at": tx.now}
    if refusals:
        return Refused(refusals)
    before = dict(rows)
    for ticket_id, values in sorted(decided.items()):
        await tx.conn.execute(update(tickets).where(tickets.c.id == ticket_id).values(values))
        rows[ticket_id] = rows[ticket_id]._replace(**values)
    if by is not None:
        entries = [ticket_entry(by, before[each]._asdict(), rows[each]._asdict(), tx.now) for each in sorted(decided)]
        await record_entries(tx.conn, entries)
    return [rows[ticket_id] for ticket_id in ticket_ids]


async def _own_key(tx: WriteTransaction, project_id: str, ticket_ids: Sequence[str], url: str | None) -> str | None:
    if url is None:
        return None
    key = key_of_url(url)
    await lock_keys(tx, project_id)
    known = await find_by_keys(tx.conn, project_id, [key])
    if known and known[key].id not in ticket_ids:
        raise UrlTaken(known[key].id)
    return key


async def is_milestone_of(conn: AsyncConnection, project_id: str, milestone_id: str) -> bool:
    """Whether the milestone is one of the project's."""
    query = select(milestones.c.id).where(milestones.c.id == milestone_id, milestones.c.project_id == project_id)
    return (await conn.execute(query)).one_or_none() is not None
