"""Notices: what a person should know, and what each project wants to be told."""

# ruff: noqa: FAST003 - the parameters of the path are aliased: PathId is `id`
from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from heartlane.server.bodies import list_body
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
    reach_of,
)
from heartlane.server.routes.projects import find_project
from heartlane.store import audit, notices
from heartlane.store.notices import NoticeRow, notice_data
from heartlane.wire.news import NoticeAnswer, NoticeList, NoticeQuery, NoticeRulesAnswer, NoticeRulesBody

router = APIRouter(tags=["Notices"])


@router.get("/api/agents/notices", response_model=NoticeList, summary="List notices")
async def list_notices(principal: Viewer, context: Server, query: Annotated[NoticeQuery, Query()]) -> Json:
    """Newest first. What is closed stays for ninety days."""
    async with context.store.reading() as conn:
        page = await notices.list_notices(
            conn,
            reach_of(principal),
            project_id=query.project_id,
            is_open=query.open,
            kind=query.kind,
            cursor=query.cursor,
            limit=query.limit,
        )
    return Json(list_body("notices", page, notice_body))


@router.post("/api/agents/notices/{id}/dismiss", response_model=NoticeAnswer, summary="Dismiss a notice")
async def dismiss_notice(principal: Operator, context: Server, request: Request, notice_id: PathId) -> Json:
    """It is not told again. One that is closed already stays as it is. Takes no body."""
    async with context.store.writing() as tx:
        notice = await notices.dismiss_notice(tx, notice_id, reach_of(principal), principal.name)
        if notice is not None and notice.closed_at == tx.now:
            await audit.record(
                tx.conn,
                tx.now,
                actor_of(request, principal),
                "notice.dismissed",
                account_id=notice.billing_account_id,
                project_id=notice.project_id,
                object_type="notice",
                object_id=notice.id,
                object_name=notice.text,
            )
    if notice is None:
        raise not_found("notice")
    return Json({"notice": notice_body(notice)})


@router.get("/api/projects/{id}/notice-rules", response_model=NoticeRulesAnswer, summary="Read the rules of notices")
async def read_notice_rules(principal: Viewer, context: Server, project_id: PathId) -> Json:
    """What is told about the project, defaults included."""
    await find_project(context, principal, project_id)
    async with context.store.reading() as conn:
        rules = await notices.read_rules(conn, project_id)
    return Json({"notice_rules": rules})


@router.put("/api/projects/{id}/notice-rules", response_model=NoticeRulesAnswer, summary="Set the rules of notices")
async def write_notice_rules(
    principal: Admin,
    context: Server,
    request: Request,
    project_id: PathId,
    body: Annotated[NoticeRulesBody, body_of(NoticeRulesBody)],
) -> Json:
    """All of them: a kind that is left out is as by default. They count for notices to come."""
    project = await find_project(context, principal, project_id)
    wanted = body.model_dump(exclude_unset=True)
    async with context.store.writing() as tx:
        before = await notices.read_rules(tx.conn, project_id)
        rules = await notices.write_rules(tx, project_id, wanted)
        await audit.record(
            tx.conn,
            tx.now,
            actor_of(request, principal),
            "notice_rules.changed",
            account_id=principal.account_id,
            project_id=project_id,
            object_type="project",
            object_id=project_id,
            object_name=project.name,
            details=audit.changes(before, rules),
        )
    return Json({"notice_rules": rules})


def notice_body(notice: NoticeRow) -> dict[str, Any]:
    """A notice as it is answered."""
    return notice_data(notice._asdict())
