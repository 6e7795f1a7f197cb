"""Budgets of projects: every route as a function that builds a `Call`."""

from __future__ import annotations

from heartlane.client.call import Call, Id, get, given, part, post, put
from heartlane.wire.budgets import BudgetAnswer, BudgetObject, OnExceededName


def read_budget(project_id: Id) -> Call[BudgetObject]:
    """What a project may cost, what it has cost, and where it stands."""
    return get(_budget(project_id), BudgetAnswer, lambda answer: answer.budget)


def set_budget(
    project_id: Id,
    *,
    usd_per_day: float | None = None,
    usd_total: float | None = None,
    tokens_per_day: int | None = None,
    tokens_total: int | None = None,
    on_exceeded: OnExceededName = "pause",
) -> Call[BudgetObject]:
    """Set the project's ceilings, whole: one that isn't named is none."""
    body = given(
        usd_per_day=usd_per_day,
        usd_total=usd_total,
        tokens_per_day=tokens_per_day,
        tokens_total=tokens_total,
        on_exceeded=on_exceeded,
    )
    return put(_budget(project_id), BudgetAnswer, lambda answer: answer.budget, body)


def let_go_on(project_id: Id, *, hours: float | None = None) -> Call[BudgetObject]:
    """Let a project go on beyond its ceilings for so many hours; None: until the day (UTC) ends."""
    return post(f"{_budget(project_id)}/go-on", BudgetAnswer, lambda answer: answer.budget, given(hours=hours))


def _budget(project_id: Id) -> str:
    return f"/api/projects/{part(project_id)}/budget"
