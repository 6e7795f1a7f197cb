"""Projects that are linked with GitHub: the link itself, the messages that were heard, and pull requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Table, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.decisions import Refusal
from heartlane.lanes.tickets import MERGED, SETTLED, amend
from heartlane.store.audit import Actor
from heartlane.store.external import digest
from heartlane.store.github_schema import github_deliveries, github_links, pull_requests
from heartlane.store.projects import Project, record
from heartlane.store.schema import projects, runs, tickets
from heartlane.store.store import WriteTransaction
from heartlane.store.tickets import read_tickets

REMEMBERED: Final = timedelta(days=7)
"""How long a message is known again; GitHub itself sends one again within three days at most."""
RUNS_OF_ONE_MAX: Final = 100


class Link(NamedTuple):
    """One row of `github_links`."""

    project_id: str
    label: str | None
    roles_json: str
    milestone_id: str | None
    import_json: str | None
    import_due_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Linked(NamedTuple):
    """A link and its project."""

    project: Project
    link: Link


async def put_link(
    tx: WriteTransaction,
    project: Project,
    *,
    label: str | None,
    roles: Mapping[Any, Sequence[str]],
    milestone_id: str | None,
    actor: Actor,
) -> Link:
    """Link a project, or change how it is linked."""
    before = await read_link(tx.conn, project.id)
    values: dict[str, Any] = {
        "label": label,
        "roles_json": json.dumps(roles, ensure_ascii=False),
        "milestone_id": milestone_id,
    }
    if before is None:
        after = Link(project.id, import_json=None, import_due_at=None, created_at=tx.now, updated_at=tx.now, **values)
        await tx.conn.execute(insert(github_links).values(after._asdict()))
    else:
        after = before._replace(updated_at=tx.now, **values)
        change = update(github_links).where(github_links.c.project_id == project.id)
        await tx.conn.execute(change.values(updated_at=tx.now, **values))
    details = {"before": None if before is None else _told(before), "after": _told(after)}
    await record(tx, actor, "github.linked", project, details)
    return after


async def remove_link(tx: WriteTransaction, project: Project, actor: Actor) -> bool:
    """End a link; whether there was one. Tickets stay."""
    result = await tx.conn.execute(delete(github_links).where(github_links.c.project_id == project.id))
    if result.rowcount:
        await record(tx, actor, "github.unlinked", project, {})
    return bool(result.rowcount)


async def read_link(conn: AsyncConnection, project_id: str) -> Link | None:
    """How the project is linked; None where it isn't."""
    row = (await conn.execute(select(github_links).where(github_links.c.project_id == project_id))).one_or_none()
    return None if row is None else Link._make(row)


async def linked_projects(conn: AsyncConnection) -> list[Linked]:
    """Every project that is linked."""
    query = select(*projects.c, *github_links.c).join(github_links, github_links.c.project_id == projects.c.id)
    width = len(projects.c)
    return [Linked(Project._make(row[:width]), Link._make(row[width:])) for row in await conn.execute(query)]


# --- imports ------------------------------------------------------------------------------------------------------


async def keep_import(tx: WriteTransaction, project_id: str, state: Mapping[str, Any], due_at: datetime | None) -> None:
    """Write down how an import stands, and when it goes on (None: it has ended)."""
    values = {"import_json": json.dumps(state, ensure_ascii=False), "import_due_at": due_at}
    await tx.conn.execute(update(github_links).where(github_links.c.project_id == project_id).values(values))


async def has_due_import(conn: AsyncConnection, now: datetime) -> bool:
    """Whether any import is due."""
    query = select(github_links.c.project_id).where(github_links.c.import_due_at <= now).limit(1)
    return (await conn.execute(query)).one_or_none() is not None


async def take_due_import(tx: WriteTransaction, until: datetime) -> Linked | None:
    """An import that is due, which is then nobody else's until that moment; None where there is none."""
    query = (
        select(github_links.c.project_id)
        .where(github_links.c.import_due_at <= tx.now)
        .order_by(github_links.c.import_due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    project_id = (await tx.conn.execute(query)).scalar_one_or_none()
    if project_id is None:
        return None
    change = update(github_links).where(github_links.c.project_id == project_id).values(import_due_at=until)
    await tx.conn.execute(change)
    link = await read_link(tx.conn, project_id)
    row = (await tx.conn.execute(select(projects).where(projects.c.id == project_id))).one()
    return None if link is None else Linked(Project._make(row), link)


# --- messages -----------------------------------------------------------------------------------------------------


async def was_heard(conn: AsyncConnection, delivery_id: str) -> bool:
    """Whether this message was heard before."""
    query = select(github_deliveries.c.delivery_id).where(github_deliveries.c.delivery_id == delivery_id)
    return (await conn.execute(query)).one_or_none() is not None


async def hear(tx: WriteTransaction, delivery_id: str) -> bool:
    """Remember a message; False where it was heard before, also by another server just now."""
    await tx.conn.execute(delete(github_deliveries).where(github_deliveries.c.received_at < tx.now - REMEMBERED))
    row = {"delivery_id": delivery_id, "received_at": tx.now}
    return await _insert_if_new(tx, github_deliveries, row)


# --- pull requests ------------------------------------------------------------------------------------------------


class Lane(NamedTuple):
    """A lane that has a pull request: its run, and its tickets."""

    run_id: str
    ticket_ids: Sequence[str]


async def lanes_of(conn: AsyncConnection, project_id: str, url: str) -> list[Lane]:
    """The lanes of a project whose pull request this is."""
    query = (
        select(runs.c.id, runs.c.ticket_ids_json)
        .where(runs.c.pr_url.is_not(None), runs.c.project_id == project_id)
        # One condition for each, as a hash index can't serve a list.
        .where(or_(runs.c.pr_url == url, runs.c.pr_url == url + "/"))
        .order_by(runs.c.number.desc())
        .limit(RUNS_OF_ONE_MAX)
    )
    return [Lane(run_id, json.loads(ids)) for run_id, ids in await conn.execute(query)]


async def note_pull_request(
    tx: WriteTransaction, project_id: str, url: str, state: str, ticket_ids: Iterable[str]
) -> list[str]:
    """Keep how a pull request stands; the ids of the tickets all of whose pull requests are merged by that.

    Their role `merged` is done then, and they close where every other role is settled too.
    """
    key = digest(url)
    found = pull_requests.c.project_id == project_id, pull_requests.c.url_key == key
    values = {"state": state, "updated_at": tx.now}
    result = await tx.conn.execute(update(pull_requests).where(*found).values(values))
    if not result.rowcount:
        row = {"project_id": project_id, "url_key": key, "url": url, **values}
        await _insert_if_new(tx, pull_requests, row)
    if state != "merged":
        return []
    settled = []
    for ticket in (await read_tickets(tx.conn, project_id, sorted(set(ticket_ids)), lock=True)).values():
        moving = ticket.moving
        urls = [each.rstrip("/") for each in moving.pr_urls]
        if moving.roles.get(MERGED, "done") in SETTLED:
            continue
        query = select(pull_requests.c.url_key).where(
            pull_requests.c.project_id == project_id,
            pull_requests.c.state == "merged",
            pull_requests.c.url_key.in_([digest(each) for each in urls]),
        )
        merged = set((await tx.conn.execute(query)).scalars())
        if not {digest(each) for each in urls} <= merged:
            continue
        changes = amend(moving, tx.now, roles={MERGED: "done"})
        if isinstance(changes, Refusal):
            continue
        await tx.conn.execute(update(tickets).where(tickets.c.id == ticket.id).values(changes))
        settled.append(ticket.id)
    return settled


async def _insert_if_new(tx: WriteTransaction, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row; False where there is one with its key, also one of a transaction that has just committed."""
    make = postgresql.insert if tx.conn.dialect.name == "postgresql" else sqlite.insert
    result = await tx.conn.execute(make(table).values(row).on_conflict_do_nothing())
    return bool(result.rowcount)


def _told(link: Link) -> dict[str, Any]:
    return {"label": link.label, "roles": json.loads(link.roles_json), "milestone_id": link.milestone_id}
