"""Plans: made from tickets or lane by lane, approved into runs, or rejected."""

# ruff: noqa: FAST003 - the parameters of the path are aliased: PathId is `id`
from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query, Request

from heartlane.lanes import bounds
from heartlane.lanes.decisions import Refusal
from heartlane.lanes.planning import Lane, SelectedTicket, lanes_from_tickets, problems, tidy
from heartlane.lanes.tickets import lane_roles
from heartlane.server.auth import Principal
from heartlane.server.bodies import list_body, plan_body
from heartlane.server.depends import Json, Operator, PathId, Server, Viewer, actor_of, body_of, not_found, reach_of
from heartlane.server.errors import ApiError, Issue, invalid_request
from heartlane.store import plans
from heartlane.store.plans import Plan
from heartlane.store.projects import read_milestone, read_project
from heartlane.store.store import WriteTransaction
from heartlane.store.tickets import TicketRow, is_milestone_of, read_tickets
from heartlane.wire.answers import PlanAnswer, PlanList, PlanPrompts, PlanWithRuns
from heartlane.wire.queries import PlanQuery
from heartlane.wire.requests import PlanFromTicketsBody, PlanWithLanesBody, RejectBody, plan_model
from heartlane.wire.run_json import run_body

router = APIRouter(prefix="/api/agents", tags=["Plans"])


@router.post("/plan", status_code=201, response_model=PlanAnswer, summary="Create a plan")
async def create_plan(
    principal: Operator,
    context: Server,
    request: Request,
    body: Annotated[
        PlanFromTicketsBody | PlanWithLanesBody, body_of(PlanFromTicketsBody, PlanWithLanesBody, choose=plan_model)
    ],
) -> Json:
    """From tickets: one lane per role that any of them still wants. Or lane by lane, for people who have no tickets.

    The plan is `pending` until it is approved.
    """
    async with context.store.writing() as tx:
        if isinstance(body, PlanFromTicketsBody):
            plan = await _from_tickets(tx, principal, body)
        else:
            plan = await _with_lanes(tx, principal, body)
        await plans.record(tx, actor_of(request, principal), "plan.created", plan)
    return Json({"plan": plan_body(plan)}, status_code=201)


@router.get("/plans", response_model=PlanList, summary="List plans")
async def list_plans(principal: Viewer, context: Server, query: Annotated[PlanQuery, Query()]) -> Json:
    """Newest first, without their runs."""
    async with context.store.reading() as conn:
        page = await plans.list_plans(
            conn,
            reach_of(principal),
            project_id=query.project_id,
            status=query.status,
            cursor=query.cursor,
            limit=query.limit,
        )
    return Json(list_body("plans", page, plan_body))


@router.get("/plans/{id}", response_model=PlanWithRuns, summary="Read a plan")
async def read_plan(principal: Viewer, context: Server, plan_id: PathId) -> Json:
    """The plan and the runs it spawned; none before it is approved."""
    now = await context.store.now()
    async with context.store.reading() as conn:
        plan = await plans.read_plan(conn, plan_id, reach_of(principal))
        if plan is None:
            raise not_found("plan")
        runs = await plans.runs_of_plan(conn, plan_id)
    return Json({"plan": plan_body(plan), "runs": [run_body(run, now) for run in runs]})


@router.get("/plans/{id}/prompts", response_model=PlanPrompts, summary="Read what a plan asks for")
async def read_prompts(principal: Viewer, context: Server, plan_id: PathId) -> Json:
    """The prompts of its lanes, which no other answer about a plan carries, before it is approved and after."""
    async with context.store.reading() as conn:
        plan = await plans.read_plan(conn, plan_id, reach_of(principal))
        if plan is None:
            raise not_found("plan")
        prompts = await plans.read_prompts(conn, plan_id)
    return Json({"prompts": prompts})


@router.post("/plans/{id}/approve", response_model=PlanWithRuns, summary="Approve a plan")
async def approve_plan(principal: Operator, context: Server, request: Request, plan_id: PathId) -> Json:
    """One queued run per lane, in one step. Approving again answers the same runs. Takes no body."""
    async with context.store.writing() as tx:
        approved = await plans.approve_plan(tx, plan_id, reach_of(principal), actor_of(request, principal))
        now = tx.now
    if approved is None:
        raise not_found("plan")
    if isinstance(approved, Refusal):
        raise ApiError(approved.code, approved.error)
    plan, runs = approved
    return Json({"plan": plan_body(plan), "runs": [run_body(run, now) for run in runs]})


@router.post("/plans/{id}/reject", response_model=PlanAnswer, summary="Reject a plan")
async def reject_plan(
    principal: Operator,
    context: Server,
    request: Request,
    plan_id: PathId,
    body: Annotated[RejectBody, body_of(RejectBody)],
) -> Json:
    """A plan that is rejected already stays as it is."""
    async with context.store.writing() as tx:
        rejected = await plans.reject_plan(tx, plan_id, reach_of(principal), body.reason, actor_of(request, principal))
    if rejected is None:
        raise not_found("plan")
    if isinstance(rejected, Refusal):
        raise ApiError(rejected.code, rejected.error)
    return Json({"plan": plan_body(rejected)})


async def _from_tickets(tx: WriteTransaction, principal: Principal, body: PlanFromTicketsBody) -> Plan:
    milestone = await read_milestone(tx.conn, body.milestoneId, reach_of(principal))
    if milestone is None:
        raise not_found("milestone")
    rows = await read_tickets(tx.conn, milestone.project_id, list(dict.fromkeys(body.ticketIds)))
    selected: dict[str, SelectedTicket] = {}
    issues: list[Issue] = []
    for place, ticket_id in enumerate(body.ticketIds):
        row = rows.get(ticket_id)
        problem = _not_plannable(row)
        if row is None or problem is not None:
            issues.append(Issue(f"ticketIds.{place}", problem or "is not there"))
        else:
            selected[ticket_id] = SelectedTicket(
                row.id, row.title, row.description, row.priority, lane_roles(row.moving), row.suggested_resolution
            )
    if issues:
        raise invalid_request(issues)
    return await plans.create_plan(
        tx,
        account_id=principal.account_id,
        project_id=milestone.project_id,
        milestone_id=milestone.id,
        title=body.title or milestone.name,
        lanes=lanes_from_tickets(list(selected.values())),
    )


def _not_plannable(ticket: TicketRow | None) -> str | None:
    if ticket is None:
        return "is not a ticket of the milestone's project"
    if ticket.status == "closed":
        return "is a closed ticket"
    return None if lane_roles(ticket.moving) else "is a ticket whose roles are all done or skipped"


async def _with_lanes(tx: WriteTransaction, principal: Principal, body: PlanWithLanesBody) -> Plan:
    project = await read_project(tx.conn, body.projectId, reach_of(principal))
    if project is None:
        raise not_found("project")
    lanes = [
        Lane(
            key=lane.laneKey,
            title=lane.title,
            role=lane.role,
            ticket_ids=lane.ticketIds,
            labels=lane.labels,
            priority=lane.priority,
            prompt=lane.prompt,
            after=lane.after,
        )
        for lane in body.lanes
    ]
    issues = [Issue(*problem) for problem in problems(lanes)]
    issues.extend(await _unknown_tickets(tx, project.id, lanes))
    if body.milestoneId is not None and not await is_milestone_of(tx.conn, project.id, body.milestoneId):
        issues.append(Issue("milestoneId", "is not a milestone of the project"))
    if issues:
        raise invalid_request(issues)
    return await plans.create_plan(
        tx,
        account_id=principal.account_id,
        project_id=project.id,
        milestone_id=body.milestoneId,
        title=body.title,
        lanes=[tidy(lane) for lane in lanes],
    )


async def _unknown_tickets(tx: WriteTransaction, project_id: str, lanes: Iterable[Lane]) -> list[Issue]:
    places: dict[str, str] = {}
    for place, lane in enumerate(lanes):
        for index, ticket_id in enumerate(lane.ticket_ids):
            places.setdefault(ticket_id, f"lanes.{place}.ticketIds.{index}")
    if len(places) > bounds.TICKETS_PER_PLAN_MAX:
        return [Issue("lanes", f"must name at most {bounds.TICKETS_PER_PLAN_MAX} tickets, all together")]
    known = await read_tickets(tx.conn, project_id, list(places)) if places else {}
    return [
        Issue(path, "is not a ticket of the project") for ticket_id, path in places.items() if ticket_id not in known
    ]
