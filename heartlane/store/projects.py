"""Projects and their milestones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.limits import Caps
from heartlane.store import audit
from heartlane.store.audit import Actor
from heartlane.store.batch import ANY_ROLE, OPENED_LANES, Opening
from heartlane.store.ids import new_id
from heartlane.store.pages import Page, Reach, cursor_id, page
from heartlane.store.schema import budgets, milestones, projects
from heartlane.store.store import WriteTransaction
from heartlane.store.ticket_audit import By, milestone_entry


class Project(NamedTuple):
    """One row of `projects`.

    max_failures            after this many failures a lane ends `failed`; counts for lanes planned from now on
    stalled_after_seconds   quiet time after which a lane is `stalled`; the same
    max_active*             caps on how many lanes are active at once (`heartlane.lanes.limits`)
    limited                 whether there is a cap or a budget
    """

    id: str
    billing_account_id: str
    name: str
    repo_url: str | None
    default_branch: str | None
    max_failures: int
    stalled_after_seconds: int
    created_at: datetime
    updated_at: datetime
    max_active: int | None
    max_active_by_role_json: str
    max_active_by_source_json: str
    limited: bool


UNLIMITED: Final[Mapping[str, Any]] = {
    "max_active": None,
    "max_active_by_role_json": "{}",
    "max_active_by_source_json": "{}",
    "limited": False,
}
"""What a project's limits are where nothing is said of them."""


class Milestone(NamedTuple):
    """One row of `milestones`. `status` is `open` or `closed`."""

    id: str
    project_id: str
    name: str
    description: str | None
    status: str
    due_at: datetime | None
    created_at: datetime
    updated_at: datetime


async def create_project(
    tx: WriteTransaction, account_id: str, values: Mapping[str, Any], actor: Actor | None = None
) -> Project:
    """A new project of the account; `values`: column → value. `actor`: who makes it, for the audit log."""
    project = Project(
        id=new_id(),
        billing_account_id=account_id,
        created_at=tx.now,
        updated_at=tx.now,
        **{**UNLIMITED, **values},
    )
    project = project._replace(limited=_caps(project).any)
    await tx.conn.execute(insert(projects).values(project._asdict()))
    if actor is not None:
        await record(tx, actor, "project.created", project, {"after": _told(values)})
    return project


async def list_projects(conn: AsyncConnection, reach: Reach, *, cursor: str | None, limit: int) -> Page:
    """The projects within reach, newest first. Raises BadCursor."""
    query = select(projects).where(reach.of_projects()).order_by(projects.c.id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(projects.c.id < cursor_id("projects", cursor))
    rows = [Project._make(row) for row in await conn.execute(query)]
    return page(rows, limit, "projects", lambda project: project.id)


async def read_project(conn: AsyncConnection, project_id: str, reach: Reach) -> Project | None:
    """The project, or None where there is none within reach."""
    query = select(projects).where(projects.c.id == project_id, reach.of_projects())
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else Project._make(row)


async def patch_project(
    tx: WriteTransaction, project_id: str, reach: Reach, values: Mapping[str, Any], actor: Actor | None = None
) -> Project | None:
    """Change the given columns. None where there is no such project within reach. `actor`: who, for the audit log."""
    mine = select(projects).where(projects.c.id == project_id, reach.of_projects()).with_for_update()
    row = (await tx.conn.execute(mine)).one_or_none()
    if row is None or not values:
        return None if row is None else Project._make(row)
    before = Project._make(row)
    after = before._replace(updated_at=tx.now, **values)
    bounded = await has_budget(tx.conn, project_id)
    after = after._replace(limited=bounded or _caps(after).any)
    if before.limited or after.limited:
        tx.announce([Opening(after.billing_account_id, after.id, ANY_ROLE, "", OPENED_LANES)])
    await tx.conn.execute(
        update(projects).where(projects.c.id == project_id).values(updated_at=tx.now, limited=after.limited, **values)
    )
    changes = audit.changes(_told(before._asdict()), _told(after._asdict()))
    if actor is not None and changes["after"]:
        await record(tx, actor, "project.changed", after, changes)
    return after


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as the audit log tells them: by the names that people set, without what follows from others."""
    return {
        name.removesuffix("_json"): json.loads(value) if name.endswith("_json") else value
        for name, value in values.items()
        if name != "limited"
    }


def _caps(project: Project) -> Caps:
    return Caps(
        project.max_active,
        json.loads(project.max_active_by_role_json),
        json.loads(project.max_active_by_source_json),
    )


async def has_budget(conn: AsyncConnection, project_id: str) -> bool:
    """Whether the project's budget has any ceiling."""
    ceilings = (budgets.c.usd_day, budgets.c.usd_total, budgets.c.tokens_day, budgets.c.tokens_total)
    query = select(budgets.c.project_id).where(
        budgets.c.project_id == project_id, or_(*(ceiling.is_not(None) for ceiling in ceilings))
    )
    return (await conn.execute(query)).one_or_none() is not None


async def set_limited(tx: WriteTransaction, project: Project, *, has_budget: bool) -> None:
    """Have claims look at the project's caps and budget, or pass it by."""
    limited = has_budget or _caps(project).any
    await tx.conn.execute(update(projects).where(projects.c.id == project.id).values(limited=limited))


async def record(tx: WriteTransaction, actor: Actor, action: str, project: Project, details: Mapping[str, Any]) -> None:
    """Write down who did what to the project, in the transaction that does it."""
    await audit.record(
        tx.conn,
        tx.now,
        actor,
        action,
        account_id=project.billing_account_id,
        project_id=project.id,
        object_type="project",
        object_id=project.id,
        object_name=project.name,
        details=details,
    )


async def create_milestone(
    tx: WriteTransaction, project_id: str, values: Mapping[str, Any], by: By | None = None
) -> Milestone:
    """A new, open milestone of a project that the caller has looked up; `values`: column → value.

    by      who makes it, for the audit log
    """
    milestone = Milestone(
        id=new_id(), project_id=project_id, status="open", created_at=tx.now, updated_at=tx.now, **values
    )
    await tx.conn.execute(insert(milestones).values(milestone._asdict()))
    if by is not None:
        await audit.record_entries(tx.conn, [milestone_entry(by, None, milestone._asdict(), tx.now)])
    return milestone


async def list_milestones(
    conn: AsyncConnection, project_id: str, *, status: str | None, cursor: str | None, limit: int
) -> Page:
    """The milestones of a project that the caller has looked up, newest first. Raises BadCursor."""
    query = select(milestones).where(milestones.c.project_id == project_id)
    if status is not None:
        query = query.where(milestones.c.status == status)
    if cursor is not None:
        query = query.where(milestones.c.id < cursor_id("milestones", cursor))
    result = await conn.execute(query.order_by(milestones.c.id.desc()).limit(limit + 1))
    return page([Milestone._make(row) for row in result], limit, "milestones", lambda milestone: milestone.id)


async def read_milestone(conn: AsyncConnection, milestone_id: str, reach: Reach) -> Milestone | None:
    """The milestone, or None where there is none within reach."""
    query = (
        select(milestones)
        .join(projects, projects.c.id == milestones.c.project_id)
        .where(milestones.c.id == milestone_id, reach.of_projects())
    )
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else Milestone._make(row)


async def patch_milestone(
    tx: WriteTransaction, milestone: Milestone, values: Mapping[str, Any], by: By | None = None
) -> Milestone:
    """Change the given columns of a milestone that the caller has looked up in this transaction. `by`: who does."""
    if not values:
        return milestone
    changes = {**values, "updated_at": tx.now}
    await tx.conn.execute(update(milestones).where(milestones.c.id == milestone.id).values(changes))
    after = milestone._replace(**changes)
    if by is not None:
        await audit.record_entries(tx.conn, [milestone_entry(by, milestone._asdict(), after._asdict(), tx.now)])
    return after
