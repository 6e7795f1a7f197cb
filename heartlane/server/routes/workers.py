"""Who holds what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from heartlane.server.bodies import worker_body
from heartlane.server.depends import Json, Server, Viewer
from heartlane.store.pages import cursor_text, page
from heartlane.store.runs import list_workers
from heartlane.wire.answers import WorkerList
from heartlane.wire.queries import WorkerQuery

router = APIRouter(prefix="/api/agents/workers", tags=["Workers"])


@router.get("", response_model=WorkerList, summary="List workers")
async def get_workers(principal: Viewer, context: Server, query: Annotated[WorkerQuery, Query()]) -> Json:
    """Those that hold lanes, by name: which lanes, since when, and when they were last heard."""
    if principal.project_id is not None and query.project_id not in (None, principal.project_id):
        return Json({"workers": [], "next_cursor": None})
    after = None if query.cursor is None else cursor_text("workers", query.cursor)
    now = await context.store.now()
    async with context.store.reading() as conn:
        found = await list_workers(
            conn,
            principal.account_id,
            query.project_id or principal.project_id,
            after=after,
            limit=query.limit + 1,
        )
    shown = page(found, query.limit, "workers", lambda worker: worker.worker_id)
    return Json({"workers": [worker_body(worker, now) for worker in shown.rows], "next_cursor": shown.next_cursor})
