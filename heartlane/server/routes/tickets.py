"""Tickets of a project. Lanes move them along by themselves; here people do."""

# ruff: noqa: FAST003 - the parameters of the path are aliased: PathId is `id`
from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from heartlane.server.auth import Principal
from heartlane.server.bodies import list_body, synced_body, ticket_body
from heartlane.server.context import Context
from heartlane.server.depends import Json, Operator, PathId, PathTicketId, Server, Viewer, body_of, by_of, not_found
from heartlane.server.errors import ApiError, Issue, invalid_request
from heartlane.server.routes.projects import find_project
from heartlane.store import ticket_sync, tickets
from heartlane.store.store import WriteTransaction
from heartlane.store.ticket_audit import By
from heartlane.store.ticket_sync import Told, told_of
from heartlane.store.tickets import Refused, TicketFilter, TicketRow, UrlTaken
from heartlane.wire.answers import TicketAnswer, TicketList
from heartlane.wire.github_answers import SyncedTickets
from heartlane.wire.parse import dump_json
from heartlane.wire.queries import TicketQuery
from heartlane.wire.requests import CreateTicketBody, PatchTicketBody, SyncTicketsBody, TicketBatchBody

router = APIRouter(prefix="/api/projects/{id}/tickets", tags=["Tickets"])


@router.post(
    "",
    status_code=201,
    response_model=TicketAnswer,
    responses={200: {"model": TicketAnswer, "description": "The project's ticket with this `external_url`."}},
    summary="Create a ticket",
)
async def create_ticket(
    principal: Operator,
    context: Server,
    request: Request,
    project_id: PathId,
    body: Annotated[CreateTicketBody, body_of(CreateTicketBody)],
) -> Json:
    """It begins `open`, in the stage `backlog`, with the extra role `merged`.

    An `external_url` names one ticket of a project: where there is one already, it is answered as it is, with 200.
    """
    await find_project(context, principal, project_id)
    values = _columns(body.model_dump(exclude={"roles", "verified_existing"}))
    async with context.store.writing() as tx:
        await check_milestone(tx, project_id, values)
        ticket, is_new = await tickets.create_ticket(
            tx,
            project_id,
            values,
            roles=body.roles,
            verified_existing=body.verified_existing,
            by=by_of(request, principal),
        )
    return Json({"ticket": ticket_body(ticket)}, status_code=201 if is_new else 200)


@router.put("", response_model=SyncedTickets, summary="Bring tickets from elsewhere")
async def sync_tickets(
    principal: Operator,
    context: Server,
    request: Request,
    project_id: PathId,
    body: Annotated[SyncTicketsBody, body_of(SyncTicketsBody)],
) -> Json:
    """Makes tickets that are new, and brings those up to date that are known by their `external_url` (or
    `external_key`): all of them or none. Sending the same again changes nothing.

    What people changed here stays until the source says something else than it said last. A role that the source
    takes away is skipped, one that it adds is pending. What is closed there is closed here, once no lane works on it.
    """
    await find_project(context, principal, project_id)
    told = [told_of(ticket.model_dump()) for ticket in body.tickets]
    _refuse_told_twice(told)
    async with context.store.writing() as tx:
        await _check_milestones(tx, project_id, told)
        results = await ticket_sync.sync_tickets(tx, project_id, told, by_of(request, principal))
    return Json({"results": [synced_body(result) for result in results]})


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
    request: Request,
    project_id: PathId,
    body: Annotated[TicketBatchBody, body_of(TicketBatchBody)],
) -> Json:
    """The same change for all of them or, where one of them refuses it, for none. Answers them in the order given."""
    changes = body.model_dump(exclude_unset=True, exclude={"ticket_ids"})
    ids = list(dict.fromkeys(body.ticket_ids))
    changed = await _change(context, principal, project_id, ids, changes, by=by_of(request, principal))
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
    *,
    principal: Operator,
    context: Server,
    request: Request,
    project_id: PathId,
    ticket_id: PathTicketId,
    body: Annotated[PatchTicketBody, body_of(PatchTicketBody)],
) -> Json:
    """What is left out stays.

    Closing sets the stage `live`, and the other way round; it needs every role to be done or skipped. The last role
    that is settled closes the ticket; a role that is taken up again reopens it.
    """
    values = body.model_dump(exclude_unset=True)
    changed = await _change(context, principal, project_id, [ticket_id], values, by=by_of(request, principal))
    if ticket_id not in changed:
        raise not_found("ticket")
    return Json({"ticket": ticket_body(changed[ticket_id])})


async def _change(
    context: Context,
    principal: Principal,
    project_id: str,
    ticket_ids: Sequence[str],
    changes: dict[str, Any],
    *,
    by: By,
) -> dict[str, TicketRow]:
    """The tickets after the change, by id, or those that the project has where one is missing and nothing changed."""
    await find_project(context, principal, project_id)
    columns = _columns(changes)
    async with context.store.writing() as tx:
        await check_milestone(tx, project_id, columns)
        try:
            changed = await tickets.change_tickets(tx, project_id, ticket_ids, columns, by)
        except UrlTaken as taken:
            raise invalid_request([Issue("external_url", str(taken))]) from None
    if isinstance(changed, Refused):
        raise _refused(changed)
    return {row.id: row for row in changed if row is not None}


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    """Fields as columns: the evidence, any JSON, is kept as its text."""
    if "evidence" in values:
        evidence = values.pop("evidence")
        values["evidence_json"] = None if evidence is None else dump_json(evidence)
    return values


async def check_milestone(tx: WriteTransaction, project_id: str, values: dict[str, Any]) -> None:
    """Raise the 400 of a `milestone_id` that is no milestone of the project."""
    milestone_id = values.get("milestone_id")
    if milestone_id is not None and not await tickets.is_milestone_of(tx.conn, project_id, milestone_id):
        raise invalid_request([Issue("milestone_id", "is not a milestone of this project")])


async def _check_milestones(tx: WriteTransaction, project_id: str, told: Sequence[Told]) -> None:
    asked = {each.milestone_id for each in told if each.milestone_id is not None}
    strange = {each for each in asked if not await tickets.is_milestone_of(tx.conn, project_id, each)}
    issues = [
        Issue(f"tickets.{place}.milestone_id", "is not a milestone of this project")
        for place, each in enumerate(told)
        if each.milestone_id in strange
    ]
    if issues:
        raise invalid_request(issues)


def _refuse_told_twice(told: Sequence[Told]) -> None:
    first: dict[str, int] = {}
    issues = []
    for place, each in enumerate(told):
        other = first.setdefault(each.key, place)
        if other != place:
            name = "external_key" if each.external_url is None else "external_url"
            issues.append(Issue(f"tickets.{place}.{name}", f"must be unique: tickets.{other} has it too"))
    if issues:
        raise invalid_request(issues)


def _refused(refused: Refused) -> ApiError:
    """One answer for all refusals of a change: the 409 of tickets that are not ready, else the body is at fault."""
    incomplete = [refusal for _, refusal in refused.refusals if refusal.code != "INVALID_REQUEST"]
    if not incomplete:
        return invalid_request([Issue("resolution_type", "belongs to a close: the ticket stays open")])
    error = " ".join(refusal.error for refusal in incomplete[:10])
    if len(incomplete) > 10:
        error += f" And {len(incomplete) - 10} more."
    return ApiError(incomplete[0].code, error)
