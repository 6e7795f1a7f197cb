"""Milestones of a project."""

# ruff: noqa: FAST003 - the parameters of the path are aliased: PathId is `id`
from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from heartlane.server.bodies import list_body, milestone_body
from heartlane.server.depends import (
    Admin,
    Json,
    PathId,
    PathMilestoneId,
    Server,
    Viewer,
    body_of,
    by_of,
    not_found,
    reach_of,
)
from heartlane.server.routes.projects import find_project
from heartlane.store import projects
from heartlane.wire.answers import MilestoneAnswer, MilestoneList
from heartlane.wire.queries import MilestoneQuery
from heartlane.wire.requests import CreateMilestoneBody, PatchMilestoneBody

router = APIRouter(prefix="/api/projects/{id}/milestones", tags=["Milestones"])


@router.post("", status_code=201, response_model=MilestoneAnswer, summary="Create a milestone")
async def create_milestone(
    principal: Admin,
    context: Server,
    request: Request,
    project_id: PathId,
    body: Annotated[CreateMilestoneBody, body_of(CreateMilestoneBody)],
) -> Json:
    """It begins `open`."""
    await find_project(context, principal, project_id)
    async with context.store.writing() as tx:
        milestone = await projects.create_milestone(tx, project_id, body.model_dump(), by_of(request, principal))
    return Json({"milestone": milestone_body(milestone)}, status_code=201)


@router.get("", response_model=MilestoneList, summary="List milestones")
async def list_milestones(
    principal: Viewer, context: Server, project_id: PathId, query: Annotated[MilestoneQuery, Query()]
) -> Json:
    """Newest first."""
    await find_project(context, principal, project_id)
    async with context.store.reading() as conn:
        page = await projects.list_milestones(
            conn, project_id, status=query.status, cursor=query.cursor, limit=query.limit
        )
    return Json(list_body("milestones", page, milestone_body))


@router.get("/{milestoneId}", response_model=MilestoneAnswer, summary="Read a milestone")
async def read_milestone(principal: Viewer, context: Server, project_id: PathId, milestone_id: PathMilestoneId) -> Json:
    """One milestone."""
    async with context.store.reading() as conn:
        milestone = await projects.read_milestone(conn, milestone_id, reach_of(principal))
    if milestone is None or milestone.project_id != project_id:
        raise not_found("milestone")
    return Json({"milestone": milestone_body(milestone)})


@router.patch("/{milestoneId}", response_model=MilestoneAnswer, summary="Change a milestone")
async def patch_milestone(
    *,
    principal: Admin,
    context: Server,
    request: Request,
    project_id: PathId,
    milestone_id: PathMilestoneId,
    body: Annotated[PatchMilestoneBody, body_of(PatchMilestoneBody)],
) -> Json:
    """What is left out stays."""
    values = body.model_dump(exclude_unset=True)
    async with context.store.writing() as tx:
        milestone = await projects.read_milestone(tx.conn, milestone_id, reach_of(principal))
        if milestone is None or milestone.project_id != project_id:
            raise not_found("milestone")
        changed = await projects.patch_milestone(tx, milestone, values, by_of(request, principal))
    return Json({"milestone": milestone_body(changed)})
