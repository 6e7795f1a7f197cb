"""Who works, who waits for a lane, who is silent."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from heartlane.server.bodies import worker_body
from heartlane.server.depends import Json, Server, Viewer
from heartlane.store.pages import Reach, cursor_text, page
from heartlane.store.workers import WorkerFilter, list_workers
from heartlane.wire.answers import WorkerList
from heartlane.wire.queries import WorkerQuery

router = APIRouter(prefix="/api/agents/workers", tags=["Workers"])


@router.get("", response_model=WorkerList, summary="List workers")
async def get_workers(principal: Viewer, context: Server, query: Annotated[WorkerQuery, Query()]) -> Json:
    """Those that hold lanes, and which; those that ask for one, and for which; those that did either in the last day.

    A worker counts as waiting while its claim waits, and for a minute after it: it asks again. The list knows of it
    some seconds late.
    """
    if principal.project_id is not None and query.project_id not in (None, principal.project_id):
        return Json({"workers": [], "next_cursor": None})
    after = None if query.cursor is None else cursor_text("workers", query.cursor)
    now = await context.store.now()
    async with context.store.reading() as conn:
        found = await list_workers(
            conn,
            Reach(principal.account_id, principal.project_id),
            WorkerFilter(query.project_id, query.holding),
            after=after,
            limit=query.limit + 1,
            now=now,
        )
    shown = page(found, query.limit, "workers", lambda worker: worker.worker_id)
    return Json({"workers": [worker_body(worker, now) for worker in shown.rows], "next_cursor": shown.next_cursor})
