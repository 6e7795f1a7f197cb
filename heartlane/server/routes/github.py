"""Projects that are linked with GitHub: the link, imports by the server itself, and what GitHub's webhooks tell."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request

from heartlane.server.context import Context
from heartlane.server.depends import (
    Admin,
    Json,
    Operator,
    PathId,
    Server,
    Viewer,
    actor_of,
    body_of,
    not_found,
    object_from,
    read_raw,
)
from heartlane.server.errors import ApiError, Issue, invalid_request
from heartlane.server.github_hooks import hear, is_signed
from heartlane.server.importer import import_body
from heartlane.server.routes.projects import find_project
from heartlane.server.routes.tickets import check_milestone
from heartlane.sources.repository import repository_of
from heartlane.store import github
from heartlane.store.github import Linked
from heartlane.store.projects import Project
from heartlane.wire.github_answers import GithubHeardAnswer, GithubLinkAnswer
from heartlane.wire.github_examples import REQUESTS
from heartlane.wire.requests import GithubLinkBody

router = APIRouter(tags=["GitHub"])

LINK_PATH: Final = "/api/projects/{id}/github"
HOOK_PATH: Final = "/api/hooks/github"
DELIVERY_MAX: Final = 100
HOOK_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "description": "A message as GitHub sends it."},
                "examples": {
                    title.lower().replace(" ", "_"): {"summary": title, "value": value}
                    for title, value in REQUESTS["hear_github"].items()
                },
            }
        },
    }
}


@router.get(LINK_PATH, response_model=GithubLinkAnswer, summary="Read a project's link with GitHub")
async def read_github_link(principal: Viewer, context: Server, project_id: PathId) -> Json:
    """How it is linked, and how its last import stands. 404 where it isn't."""
    project = await find_project(context, principal, project_id)
    return Json({"github": link_body(context, await _find_link(context, project))})


@router.put(LINK_PATH, response_model=GithubLinkAnswer, summary="Link a project with GitHub")
async def put_github_link(
    principal: Admin,
    context: Server,
    request: Request,
    project_id: PathId,
    body: Annotated[GithubLinkBody, body_of(GithubLinkBody)],
) -> Json:
    """From then on GitHub's webhooks about the repository at the project's `repo_url` count, and it can be imported."""
    project = await find_project(context, principal, project_id)
    context.importer.repository(project)
    async with context.store.writing() as tx:
        await check_milestone(tx, project_id, body.model_dump())
        link = await github.put_link(
            tx,
            project,
            label=body.label,
            roles=body.roles,
            milestone_id=body.milestone_id,
            actor=actor_of(request, principal),
        )
    return Json({"github": link_body(context, Linked(project, link))})


@router.delete(LINK_PATH, response_model=GithubLinkAnswer, summary="End a project's link with GitHub")
async def delete_github_link(principal: Admin, context: Server, request: Request, project_id: PathId) -> Json:
    """Its tickets stay. Answers the link as it was."""
    project = await find_project(context, principal, project_id)
    linked = await _find_link(context, project)
    async with context.store.writing() as tx:
        await github.remove_link(tx, project, actor_of(request, principal))
    return Json({"github": link_body(context, linked)})


@router.post(LINK_PATH + "/import", response_model=GithubLinkAnswer, summary="Import a project's issues from GitHub")
async def import_github(principal: Operator, context: Server, project_id: PathId) -> Json:
    """Reads the first page at once, and the others in the background: `last_import` says how it stands. Again is safe.

    Where GitHub refuses the server's token, or shows no such repository to it, this is 401 `GITHUB_LINK_BROKEN`.
    """
    project = await find_project(context, principal, project_id)
    await context.importer.begin(await _find_link(context, project))
    return Json({"github": link_body(context, await _find_link(context, project))})


@router.post(
    HOOK_PATH,
    response_model=GithubHeardAnswer,
    responses={202: {"model": GithubHeardAnswer, "description": "Heard; nothing follows from it."}},
    summary="Hear what GitHub tells",
    openapi_extra=HOOK_BODY,
)
async def hear_github(context: Server, request: Request) -> Json:
    """For GitHub's webhooks, sent as `application/json`. Believed by `X-Hub-Signature-256`, no token; a delivery that
    comes again (`X-GitHub-Delivery`) changes nothing.

    `issues` make tickets and change them; `pull_request` is noted on the lanes whose `pr_url` it is.
    """
    secrets = context.settings.github_secrets()
    raw = await read_raw(request)
    if not secrets:
        raise ApiError(
            "NOT_FOUND", "This server takes no webhooks of GitHub's: HEARTLANE_GITHUB_WEBHOOK_SECRET is not set."
        )
    if not is_signed(raw, request.headers.get("x-hub-signature-256", ""), secrets):
        raise ApiError("NOT_AUTHENTICATED", "The signature (X-Hub-Signature-256) is not that of this server's secret.")
    delivery, event = _header(request, "X-GitHub-Delivery"), _header(request, "X-GitHub-Event")
    heard = await hear(context, delivery, event, object_from(raw))
    return Json({"ok": True, **heard._asdict()}, status_code=200 if heard.ignored is None else 202)


def link_body(context: Context, linked: Linked) -> dict[str, Any]:
    """A link, as it is answered."""
    project, link = linked
    repository = repository_of(project.repo_url)
    return {
        "project_id": project.id,
        "repository": None if repository is None else repository.name,
        "label": link.label,
        "roles": json.loads(link.roles_json),
        "milestone_id": link.milestone_id,
        "hears": bool(context.settings.github_secrets()),
        "last_import": import_body(link),
        "created_at": link.created_at,
        "updated_at": link.updated_at,
    }


async def _find_link(context: Context, project: Project) -> Linked:
    async with context.store.reading() as conn:
        link = await github.read_link(conn, project.id)
    if link is None:
        raise not_found("link with GitHub")
    return Linked(project, link)


def _header(request: Request, name: str) -> str:
    value = request.headers.get(name.lower(), "")
    if not 1 <= len(value) <= DELIVERY_MAX or not value.isprintable():
        raise invalid_request([Issue(name, f"must be a header of 1 to {DELIVERY_MAX} characters")])
    return value
