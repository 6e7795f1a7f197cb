"""Who did what: the audit log, which is only ever read here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from heartlane.server.bodies import list_body
from heartlane.server.depends import Json, Operator, Server, reach_of
from heartlane.store import audit
from heartlane.store.audit import AuditFilter, Entry
from heartlane.wire.people_answers import AuditList
from heartlane.wire.queries import AuditQuery

router = APIRouter(prefix="/api/audit", tags=["Audit"])


@router.get("", response_model=AuditList, summary="Who did what")
async def list_audit(principal: Operator, context: Server, query: Annotated[AuditQuery, Query()]) -> Json:
    """Newest first, unless asked otherwise; for a token that is limited to a project what was done there alone.

    An entry is written in the transaction of what it tells of, and never changed or deleted.
    """
    wanted = AuditFilter(query.project_id, query.action, query.actor, query.since, query.until)
    async with context.store.reading() as conn:
        page = await audit.list_entries(
            conn,
            reach_of(principal),
            wanted,
            oldest_first=query.oldest_first,
            cursor=query.cursor,
            limit=query.limit,
        )
    return Json(list_body("entries", page, entry_body))


def entry_body(entry: Entry) -> dict[str, Any]:
    """An entry as it is answered."""
    body = entry._asdict()
    del body["details_json"]
    return {**body, "details": audit.details_of(entry)}
