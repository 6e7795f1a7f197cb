"""How the work goes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from heartlane.server.depends import Json, Server, Viewer, reach_of
from heartlane.server.routes.projects import find_project
from heartlane.store import overview
from heartlane.wire.overview import OverviewAnswer, OverviewQuery

router = APIRouter(prefix="/api/agents/overview", tags=["Overview"])


@router.get("", response_model=OverviewAnswer, summary="How the work goes")
async def read_overview(principal: Viewer, context: Server, query: Annotated[OverviewQuery, Query()]) -> Json:
    """Lanes, throughput, the time that phases take, failures, tokens and cost: of one project, or of all that the
    token can see. A day is a day of UTC."""
    if query.project_id is not None:
        await find_project(context, principal, query.project_id)
    async with context.store.reading() as conn:
        now = await context.store.now_on(conn)
        found = await overview.read_overview(conn, reach_of(principal), query.project_id, query.days, now)
    return Json({"overview": found})
