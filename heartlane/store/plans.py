"""Plans: kept, listed, approved into queued runs, or rejected."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes import bounds
from heartlane.lanes.decisions import Refusal
from heartlane.lanes.planning import Lane, Source, initial_runs
from heartlane.lanes.run import Run
from heartlane.store import audit
from heartlane.store.audit import Actor
from heartlane.store.batch import Opening
from heartlane.store.ids import new_id
from heartlane.store.outbox import News, tell
from heartlane.store.pages import Page, Reach, cursor_id, page
from heartlane.store.rows import TransactionRows
from heartlane.store.schema import label_sets, lane_sources, plans, projects, run_blockers, run_prompts, runs, tickets
from heartlane.store.store import WriteTransaction


class Plan(NamedTuple):
    """One row of `plans`, without the lanes' prompts. `lanes_json` is the array as it is answered."""

    id: str
    billing_account_id: str
    project_id: str
    milestone_id: str | None
    created_by_user_id: str | None
    title: str
    status: str
    source_ticket_ids_json: str
    lanes_json: str
    rejection_reason: str | None
    approved_at: datetime | None
    rejected_at: datetime | None
    created_at: datetime
    updated_at: datetime


PLAN_COLUMNS: Final = tuple(plans.c[name] for name in Plan._fields)
"""All but the prompts."""


async def create_plan(
    tx: WriteTransaction,
    *,
    account_id: str,
    project_id: str,
    milestone_id: str | None,
    title: str,
    lanes: Sequence[Lane],
) -> Plan:
    """A new, pending plan with lanes that have no problems."""
    sources = list(dict.fromkeys(ticket_id for lane in lanes for ticket_id in lane.ticket_ids))
    plan = Plan(
        id=new_id(),
        billing_account_id=account_id,
        project_id=project_id,
        milestone_id=milestone_id,
        created_by_user_id=None,
        title=title,
        status="pending",
        source_ticket_ids_json=_dump(sources),
        lanes_json=_dump([_lane_body(lane) for lane in lanes]),
        rejection_reason=None,
        approved_at=None,
        rejected_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    prompts = {lane.key: lane.prompt for lane in lanes if lane.prompt is not None}
    await tx.conn.execute(insert(plans).values(**plan._asdict(), prompts_json=_dump(prompts)))
    tx.announce(plan_ids=[plan.id])
    await _tell(tx, "plan.created", plan)
    return plan


async def list_plans(
    conn: AsyncConnection,
    reach: Reach,
    *,
    project_id: str | None,
    status: str | None,
    cursor: str | None,
    limit: int,
) -> Page:
    """The plans within reach, newest first. Raises BadCursor."""
    query = select(*PLAN_COLUMNS).where(*_within(reach))
    if project_id is not None:
        query = query.where(plans.c.project_id == project_id)
    if status is not None:
        query = query.where(plans.c.status == status)
    if cursor is not None:
        query = query.where(plans.c.id < cursor_id("plans", cursor))
    result = await conn.execute(query.order_by(plans.c.id.desc()).limit(limit + 1))
    return page([Plan._make(row) for row in result], limit, "plans", lambda plan: plan.id)


async def read_plan(conn: AsyncConnection, plan_id: str, reach: Reach) -> Plan | None:
    """The plan, or None where there is none within reach."""
    row = (await conn.execute(select(*PLAN_COLUMNS).where(plans.c.id == plan_id, *_within(reach)))).one_or_none()
    return None if row is None else Plan._make(row)


async def read_prompts(conn: AsyncConnection, plan_id: str) -> dict[str, str]:
    """What the lanes of a plan that is there ask for, by their keys; a lane without a prompt has none."""
    kept: dict[str, str] = json.loads(
        (await conn.execute(select(plans.c.prompts_json).where(plans.c.id == plan_id))).scalar_one()
    )
    return kept


async def runs_of_plan(conn: AsyncConnection, plan_id: str) -> list[Run]:
    """The plan's runs, in the order of its lanes."""
    return [
        Run._make(row)
        for row in await conn.execute(select(runs).where(runs.c.plan_id == plan_id).order_by(runs.c.number))
    ]


async def approve_plan(
    tx: WriteTransaction, plan_id: str, reach: Reach, actor: Actor | None = None
) -> tuple[Plan, list[Run]] | Refusal | None:
    """Approve a pending plan: one queued run per lane. Approving again answers the same runs.

    actor: who approves it, for the audit log.
    Refused for a rejected plan (PLAN_REJECTED); None where there is no such plan within reach.
    """
    plan = await _lock_plan(tx.conn, plan_id, reach)
    if plan is None:
        return None
    if plan.status == "rejected":
        return Refusal("PLAN_REJECTED", f"This plan was rejected at {_when(plan.rejected_at)}; create a new one.")
    if plan.status == "pending":
        await _queue_runs(tx, plan)
        plan = await _set(tx, plan, {"status": "approved", "approved_at": tx.now})
        if actor is not None:
            await record(tx, actor, "plan.approved", plan)
        await _tell(tx, "plan.approved", plan)
    return plan, await runs_of_plan(tx.conn, plan_id)


async def reject_plan(
    tx: WriteTransaction, plan_id: str, reach: Reach, reason: str, actor: Actor | None = None
) -> Plan | Refusal | None:
    """Reject a pending plan. A plan that is rejected already stays as it is, with its first reason.

    actor: who rejects it, for the audit log.
    Refused for an approved plan (PLAN_APPROVED); None where there is no such plan within reach.
    """
    plan = await _lock_plan(tx.conn, plan_id, reach)
    if plan is None or plan.status == "rejected":
        return plan
    if plan.status == "approved":
        approved = f"This plan was approved at {_when(plan.approved_at)}"
        return Refusal("PLAN_APPROVED", f"{approved}; cancel its runs one by one if they should not go on.")
    plan = await _set(tx, plan, {"status": "rejected", "rejected_at": tx.now, "rejection_reason": reason})
    if actor is not None:
        await record(tx, actor, "plan.rejected", plan)
    await _tell(tx, "plan.rejected", plan)
    return plan


async def record(tx: WriteTransaction, actor: Actor, action: str, plan: Plan) -> None:
    """Note in the audit log what a person did with a plan."""
    details: dict[str, Any] = {"lanes": len(json.loads(plan.lanes_json))}
    if plan.rejection_reason is not None:
        details["reason"] = plan.rejection_reason
    await audit.record(
        tx.conn,
        tx.now,
        actor,
        action,
        account_id=plan.billing_account_id,
        project_id=plan.project_id,
        object_type="plan",
        object_id=plan.id,
        object_name=plan.title,
        details=details,
    )


def _within(reach: Reach) -> list[Any]:
    mine = [plans.c.billing_account_id == reach.account_id]
    if reach.project_id is not None:
        mine.append(plans.c.project_id == reach.project_id)
    return mine


async def _lock_plan(conn: AsyncConnection, plan_id: str, reach: Reach) -> Plan | None:
    query = select(*PLAN_COLUMNS).where(plans.c.id == plan_id, *_within(reach)).with_for_update()
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else Plan._make(row)


async def _set(tx: WriteTransaction, plan: Plan, values: Mapping[str, Any]) -> Plan:
    values = {**values, "updated_at": tx.now}
    await tx.conn.execute(update(plans).where(plans.c.id == plan.id).values(values))
    tx.announce(plan_ids=[plan.id])
    return plan._replace(**values)


async def _tell(tx: WriteTransaction, news_type: str, plan: Plan) -> None:
    """Have the project's webhooks hear of it. A plan may have thousands of lanes, so that they are only counted."""
    shown = plan._asdict()
    lanes = json.loads(shown.pop("lanes_json"))
    tickets = json.loads(shown.pop("source_ticket_ids_json"))
    data = {"plan": {**shown, "lane_count": len(lanes), "ticket_count": len(tickets)}}
    told = await tell(TransactionRows(tx.conn), [News(news_type, plan.project_id, data)], tx.now)
    tx.told = tx.told or told


async def _queue_runs(tx: WriteTransaction, plan: Plan) -> None:
    conn = tx.conn
    limits = (
        await conn.execute(
            select(projects.c.max_failures, projects.c.stalled_after_seconds).where(projects.c.id == plan.project_id)
        )
    ).one()
    source = Source(plan.billing_account_id, plan.project_id, plan.id, plan.milestone_id, *limits)
    lanes = [_lane(body) for body in json.loads(plan.lanes_json)]
    run_ids = {lane.key: new_id() for lane in lanes}
    new_runs = initial_runs(source, lanes, run_ids, await _hosts(conn, lanes), tx.now)
    rows = [run._asdict() for run in new_runs]
    for row in rows:
        del row["number"]
    await conn.execute(insert(runs), rows)

    prompts = await read_prompts(conn, plan.id)
    if prompts:
        await conn.execute(
            insert(run_prompts), [{"run_id": run_ids[key], "prompt": prompt} for key, prompt in prompts.items()]
        )
    waits = [{"blocker_id": run_ids[name], "run_id": run_ids[lane.key]} for lane in lanes for name in lane.after]
    if waits:
        await conn.execute(insert(run_blockers), waits)
    await _note_labels(conn, plan.billing_account_id, {run.label_key for run in new_runs})
    await _note_sources(conn, plan, {run.source for run in new_runs})

    openings = Counter((run.role, run.label_key) for run in new_runs if run.blockers_left == 0)
    tx.announce(
        [
            Opening(plan.billing_account_id, plan.project_id, role, label_key, count)
            for (role, label_key), count in openings.items()
        ]
    )


async def _note_labels(conn: AsyncConnection, account_id: str, label_keys: set[str]) -> None:
    """Remember which label sets the account's lanes ask for; in order, so that two approvals never cross."""
    make = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    rows = [{"billing_account_id": account_id, "label_key": key} for key in sorted(label_keys)]
    await conn.execute(make(label_sets).on_conflict_do_nothing(), rows)


async def _hosts(conn: AsyncConnection, lanes: Sequence[Lane]) -> dict[str, str]:
    """The host of each ticket's address, for tickets that have one."""
    ids = sorted({ticket_id for lane in lanes for ticket_id in lane.ticket_ids})
    if not ids:
        return {}
    query = select(tickets.c.id, tickets.c.external_url).where(tickets.c.id.in_(ids))
    hosts = {row[0]: host_of(row[1]) for row in await conn.execute(query) if row[1]}
    return {ticket_id: host for ticket_id, host in hosts.items() if host}


def host_of(url: str) -> str:
    """The host of an address, in lower case; "" where it has none.

    >>> host_of("https://GitHub.com/shop/web/issues/7"), host_of("https://[broken")
    ('github.com', '')
    """
    try:
        return (urlsplit(url).hostname or "")[: bounds.SOURCE_MAX]
    except ValueError:
        return ""


async def _note_sources(conn: AsyncConnection, plan: Plan, sources: set[str]) -> None:
    """Remember where the project's tickets come from; in order, as above."""
    make = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    rows = [
        {"billing_account_id": plan.billing_account_id, "project_id": plan.project_id, "source": source}
        for source in sorted(sources)
    ]
    await conn.execute(make(lane_sources).on_conflict_do_nothing(), rows)


def _lane_body(lane: Lane) -> dict[str, Any]:
    return {
        "laneKey": lane.key,
        "title": lane.title,
        "role": lane.role,
        "ticketIds": list(lane.ticket_ids),
        "labels": dict(lane.labels),
        "priority": lane.priority,
        "after": list(lane.after),
    }


def _lane(body: Mapping[str, Any]) -> Lane:
    return Lane(
        key=body["laneKey"],
        title=body["title"],
        role=body["role"],
        ticket_ids=body["ticketIds"],
        labels=body["labels"],
        priority=body["priority"],
        after=body["after"],
    )


def _when(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
