"""Budgets: what a project may cost, what it has cost, and a person's word to go on."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request

from heartlane.lanes.usage import MICROS
from heartlane.server.depends import (
    Admin,
    Json,
    Operator,
    PathId,
    Server,
    Viewer,
    actor_of,
    body_of,
)
from heartlane.server.routes.projects import find_project
from heartlane.store import budgets
from heartlane.store.budgets import Standing
from heartlane.wire.budgets import BudgetAnswer, BudgetBody, GoOnBody

router = APIRouter(prefix="/api/projects/{id}/budget", tags=["Budgets"])


@router.get("", response_model=BudgetAnswer, summary="Read a budget")
async def read_budget(principal: Viewer, context: Server, project_id: PathId) -> Json:
    """What the project may cost and what it has cost; what was spent is counted without any ceiling, too."""
    await find_project(context, principal, project_id)
    async with context.store.reading() as conn:
        standing = await budgets.read_standing(conn, project_id, await context.store.now_on(conn))
    return Json({"budget": budget_body(project_id, standing)})


@router.put("", response_model=BudgetAnswer, summary="Set a budget")
async def put_budget(
    principal: Admin,
    context: Server,
    request: Request,
    project_id: PathId,
    body: Annotated[BudgetBody, body_of(BudgetBody)],
) -> Json:
    """Counts at once: for what is being worked, and for what was spent before."""
    ceilings = {
        "usd_day": _micros(body.usd_per_day),
        "usd_total": _micros(body.usd_total),
        "tokens_day": body.tokens_per_day,
        "tokens_total": body.tokens_total,
        "on_exceeded": body.on_exceeded,
    }
    project = await find_project(context, principal, project_id)
    standing = await budgets.put_budget(context.store, project, ceilings, actor_of(request, principal))
    return Json({"budget": budget_body(project_id, standing)})


@router.post("/go-on", response_model=BudgetAnswer, summary="Let a project go on")
async def go_on(
    principal: Operator,
    context: Server,
    request: Request,
    project_id: PathId,
    body: Annotated[GoOnBody, body_of(GoOnBody, optional=True)],
) -> Json:
    """Beyond its ceilings, for a while: lanes that stand still go on within a second, and new ones can be claimed."""
    project = await find_project(context, principal, project_id)
    standing = await budgets.let_go_on(context.store, project, body.hours, actor_of(request, principal))
    return Json({"budget": budget_body(project_id, standing)})


def _micros(usd: float | None) -> int | None:
    return None if usd is None else round(usd * MICROS)


def _usd(micros: int | None) -> float | None:
    return None if micros is None else micros / MICROS


def budget_body(project_id: str, standing: Standing) -> dict[str, Any]:
    """A budget as it is answered."""
    budget, verdict = standing
    return {
        "project_id": project_id,
        "usd_per_day": _usd(budget.usd_day),
        "usd_total": _usd(budget.usd_total),
        "tokens_per_day": budget.tokens_day,
        "tokens_total": budget.tokens_total,
        "on_exceeded": budget.on_exceeded,
        "state": verdict.state,
        "words": verdict.words,
        "changes_at": verdict.reopens_at,
        "waived_until": budget.waived_until,
        "spent": {
            "usd_today": _usd(budget.spent_usd_day),
            "usd_total": _usd(budget.spent_usd_total),
            "tokens_today": budget.spent_tokens_day,
            "tokens_total": budget.spent_tokens_total,
        },
    }
