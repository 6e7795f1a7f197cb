"""The overview as a function that builds a `Call`."""

from __future__ import annotations

from dataclasses import replace

from heartlane.client.call import Call, Id, get, query_of
from heartlane.wire.overview import OverviewAnswer, OverviewObject


def read_overview(*, project_id: Id | None = None, days: int | None = None) -> Call[OverviewObject]:
    """How the work went in the last so many days (14; today is one of them): of a project, or of all there are."""
    call = get("/api/agents/overview", OverviewAnswer, lambda answer: answer.overview)
    return replace(call, query=query_of(project_id=project_id, days=days))
