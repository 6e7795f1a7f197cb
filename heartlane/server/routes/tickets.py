"""Tickets of a project. Lanes move them along by themselves; here people do."""

# ruff: noqa: FAST003 - the parameters of the path are aliased: PathId is `id`
from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query

from heartlane.server.auth import Principal
from heartlane.server.bodies import list_body, ticket_body
from heartlane.server.context import Context
from heartlane.server.depends import Json, Operator, PathId, PathTicketId, Server, Viewer, body_of, not_found
from heartlane.server.errors import ApiError, Issue, invalid_request
from heartlane.server.routes.projects import find_project
from heartlane.store import tickets
from heartlane.store.store import WriteTransaction
from heartlane.store.tickets import Refused, TicketFilter, TicketRow
from heartlane.wire.answers import TicketAnswer, TicketList
from heartlane.wire.parse import dump_json
from heartlane.wire.queries import TicketQuery
from heartlane.wire.requests import CreateTicketBody, PatchTicketBody, TicketBatchBody

router = APIRouter(prefix="/api/projects/{id}/tickets", tags=["Tickets"])


@router.post("", status_code=201, response_model=TicketAnswer, summary="Create a ticket")
async def create_ticket(
    principal: Operator,
    context: Server,
    project_id: PathId,
    body: Annotated[CreateTicketBody, body_of(CreateTicketBody)],
) -> Json:
    """It begins `open`, in the stage `backlog`, with the extra role `merged`."""
    await find_project(context, principal, project_id)
    values = _columns(body.model_dump(exclude={"roles", "verified_existing"}))
    async with context.store.writing() as tx:
        await _check_milestone(tx, project_id, values)
        ticket = await tickets.create_ticket(
            tx, project_id, values, roles=body.roles, verified_existing=body.verified_existing
        )
    return Json({"ticket": ticket_body(ticket)}, status_code=201)


@router.get("", response_model=TicketList, summary="List tickets")
async def list_tickets(
    principal: Viewer, context: Server, project_id: PathId, query: Annotated[TicketQuery, Query()]
) -> Json:
    """Newest first."""
    await find_project(context, principal, project_id)
    wanted = TicketFilter(query.status, query.stage, query.milestone_id)
    async with context.store.reading() as conn:
        page = await tickets.list_tickets(conn, project_id, wanted, cursor=query.cursor, limit=query.limit)
    return Json(list_body("tickets", page, ticket_body))


@router.post("/batch", response_model=TicketList, summary="Move or close many tickets")
async def change_tickets(
    principal: Operator,
    context: Server,
    project_id: PathId,
    body: Annotated[TicketBatchBody, body_of(TicketBatchBody)],
) -> Json:
    """The same change for all of them or, where one of them refuses it, for none. Answers them in the order given."""
    changes = body.model_dump(exclude_unset=True, exclude={"ticket_ids"})
    changed = await _change(context, principal, project_id, list(dict.fromkeys(body.ticket_ids)), changes)
    places = {ticket_id: place for place, ticket_id in reversed(list(enumerate(body.ticket_ids)))}
    missing = [ticket_id for ticket_id in places if ticket_id not in changed]
    if missing:
        issues = [Issue(f"ticket_ids.{places[ticket_id]}", "is not a ticket of this project") for ticket_id in missing]
        raise invalid_request(sorted(issues, key=lambda issue: int(issue.path.rpartition(".")[2])))
    listed = [ticket_body(changed[ticket_id]) for ticket_id in dict.fromkeys(body.ticket_ids)]
    return Json({"tickets": listed, "next_cursor": None})


@router.get("/{ticketId}", response_model=TicketAnswer, summary="Read a ticket")
async def read_ticket(principal: Viewer, context: Server, project_id: PathId, ticket_id: PathTicketId) -> Json:
    """One ticket."""
    await find_project(context, principal, project_id)
    async with context.store.reading() as conn:
        ticket = await tickets.read_ticket(conn, project_id, ticket_id)
    if ticket is None:
        raise not_found("ticket")
    return Json({"ticket": ticket_body(ticket)})


@router.patch("/{ticketId}", response_model=TicketAnswer, summary="Change a ticket")
async def patch_ticket(
    principal: Operator,
    context: Server,
    project_id: PathId,
    ticket_id: PathTicketId,
    body: Annotated[PatchTicketBody, body_of(PatchTicketBody)],
) -> Json:
    """What is left out stays.

    Closing sets the stage `live`, and the other way round; it needs every role to be done or skipped. The last role
    that is settled closes the ticket; a role that is taken up again reopens it.
    """
    changed = await _change(context, principal, project_id, [ticket_id], body.model_dump(exclude_unset=True))
    if ticket_id not in changed:
        raise not_found("ticket")
    return Json({"ticket": ticket_body(changed[ticket_id])})


async def _change(
    context: Context, principal: Principal, project_id: str, ticket_ids: Sequence[str], changes: dict[str, Any]
) -> dict[str, TicketRow]:
    """The tickets after the change, by id, or those that the project has where one is missing and nothing changed."""
    await find_project(context, principal, project_id)
    columns = _columns(changes)
    async with context.store.writing() as tx:
        await _check_milestone(tx, project_id, columns)
        changed = await tickets.change_tickets(tx, project_id, ticket_ids, columns)
    if isinstance(changed, Refused):
        raise _refused(changed)
    return {row.id: row for row in changed if row is not None}


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    """Fields as columns: the evidence, any JSON, is kept as its text."""
    if "evidence" in values:
        evidence = values.pop("evidence")
        values["evidence_json"] = None if evidence is None else dump_json(evidence)
    return values


async def _check_milestone(tx: WriteTransaction, project_id: str, values: dict[str, Any]) -> None:
    milestone_id = values.get("milestone_id")
    if milestone_id is not None and not await tickets.is_milestone_of(tx.conn, project_id, milestone_id):
        raise invalid_request([Issue("milestone_id", "is not a milestone of this project")])


def _refused(refused: Refused) -> ApiError:
    """One answer for all refusals of a change: the 409 of tickets that are not ready, else the body is at fault."""
    incomplete = [refusal for _, refusal in refused.refusals if refusal.code != "INVALID_REQUEST"]
    if not incomplete:
        return invalid_request([Issue("resolution_type", "belongs to a close: the ticket stays open")])
    error = " ".join(refusal.error for refusal in incomplete[:10])
    if len(incomplete) > 10:
        error += f" And {len(incomplete) - 10} more."
    return ApiError(incomplete[0].code, error)
