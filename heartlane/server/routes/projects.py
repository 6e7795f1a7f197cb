"""Projects."""

# ruff: noqa: FAST003 - the parameters of the path are aliased: PathId is `id`
from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from heartlane.server.auth import Principal
from heartlane.server.bodies import list_body, project_body
from heartlane.server.context import Context
from heartlane.server.depends import Admin, Json, PathId, Server, Viewer, actor_of, body_of, not_found, reach_of
from heartlane.server.errors import ApiError
from heartlane.store import projects
from heartlane.store.projects import Project
from heartlane.wire.answers import ProjectAnswer, ProjectList
from heartlane.wire.queries import PageQuery
from heartlane.wire.requests import CreateProjectBody, PatchProjectBody

router = APIRouter(prefix="/api/projects", tags=["Projects"])


def columns_of(values: dict[str, Any]) -> dict[str, Any]:
    """A body's values as columns: caps by name are kept as JSON."""
    for name in ("max_active_by_role", "max_active_by_source"):
        if name in values:
            values[f"{name}_json"] = json.dumps(values.pop(name), sort_keys=True, separators=(",", ":"))
    return values


async def find_project(context: Context, principal: Principal, project_id: str) -> Project:
    """The project. Raises the 404 of one that the caller can't see."""
    async with context.store.reading() as conn:
        project = await projects.read_project(conn, project_id, reach_of(principal))
    if project is None:
        raise not_found("project")
    return project


@router.post("", status_code=201, response_model=ProjectAnswer, summary="Create a project")
async def create_project(
    principal: Admin, context: Server, request: Request, body: Annotated[CreateProjectBody, body_of(CreateProjectBody)]
) -> Json:
    """A token that is limited to one project can't create another."""
    if principal.project_id is not None:
        raise ApiError("FORBIDDEN", f"The token {principal.name!r} is limited to one project and can't create others.")
    async with context.store.writing() as tx:
        project = await projects.create_project(
            tx, principal.account_id, columns_of(body.model_dump()), actor_of(request, principal)
        )
    return Json({"project": project_body(project)}, status_code=201)


@router.get("", response_model=ProjectList, summary="List projects")
async def list_projects(principal: Viewer, context: Server, query: Annotated[PageQuery, Query()]) -> Json:
    """Those the token can see, newest first."""
    async with context.store.reading() as conn:
        page = await projects.list_projects(conn, reach_of(principal), cursor=query.cursor, limit=query.limit)
    return Json(list_body("projects", page, project_body))


@router.get("/{id}", response_model=ProjectAnswer, summary="Read a project")
async def read_project(principal: Viewer, context: Server, project_id: PathId) -> Json:
    """One project."""
    return Json({"project": project_body(await find_project(context, principal, project_id))})


@router.patch("/{id}", response_model=ProjectAnswer, summary="Change a project")
async def patch_project(
    principal: Admin,
    context: Server,
    request: Request,
    project_id: PathId,
    body: Annotated[PatchProjectBody, body_of(PatchProjectBody)],
) -> Json:
    """What is left out stays. Caps count at once, other settings for lanes that are approved from now on."""
    async with context.store.writing() as tx:
        project = await projects.patch_project(
            tx,
            project_id,
            reach_of(principal),
            columns_of(body.model_dump(exclude_unset=True)),
            actor_of(request, principal),
        )
    if project is None:
        raise not_found("project")
    return Json({"project": project_body(project)})
