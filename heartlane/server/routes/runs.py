"""Runs: read, and steered by an operator. (Reports and claims are the hot routes in front of FastAPI.)"""

# ruff: noqa: FAST003 - the parameters of the path are aliased: PathId is `id`
from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request

from heartlane.lanes.commands import Cancel, Command, Pause, Release, Resume, Retry
from heartlane.lanes.decisions import Refusal
from heartlane.lanes.run import Run
from heartlane.server.auth import Principal, require, require_worker
from heartlane.server.bodies import event_body
from heartlane.server.context import Context
from heartlane.server.depends import (
    Json,
    Operator,
    PathId,
    Server,
    Viewer,
    Worker,
    actor_of,
    body_of,
    not_found,
    opening_of,
)
from heartlane.server.hot import refuse
from heartlane.server.run_details import with_details
from heartlane.server.run_topics import RunRead
from heartlane.server.streams import StreamResponse
from heartlane.store.pages import cursor_number, page
from heartlane.store.runs import RunFilter, list_runs, pruned_seq, read_events, read_run
from heartlane.wire.answers import EventList, RunAnswer, RunChanged, RunList
from heartlane.wire.fields import Opt
from heartlane.wire.queries import EventQuery, RunQuery, Seq, StreamQuery
from heartlane.wire.requests import ReleaseBody
from heartlane.wire.run_json import run_body

router = APIRouter(prefix="/api/agents/runs", tags=["Runs"])


@router.get("", response_model=RunList, summary="List runs")
async def get_runs(principal: Viewer, context: Server, query: Annotated[RunQuery, Query()]) -> Json:
    """Newest first, without prompts."""
    if principal.project_id is not None and query.project_id not in (None, principal.project_id):
        return Json({"runs": [], "next_cursor": None})
    wanted = RunFilter(
        principal.account_id,
        query.project_id or principal.project_id,
        query.plan_id,
        tuple(dict.fromkeys(query.state)),
        query.role,
        query.worker_id,
        query.stalled,
    )
    after = None if query.cursor is None else cursor_number("runs", query.cursor)
    now = await context.store.now()
    async with context.store.reading() as conn:
        found = await list_runs(conn, wanted, after=after, limit=query.limit + 1, now=now)
    shown = page(found, query.limit, "runs", lambda run: run.number)
    return Json({"runs": [run_body(run, now) for run in shown.rows], "next_cursor": shown.next_cursor})


@router.get("/{id}", response_model=RunAnswer, summary="Read a run")
async def get_run(principal: Viewer, context: Server, run_id: PathId) -> Json:
    """With its prompt and its tickets."""
    run = await _find(context, principal, run_id)
    return Json({"run": await with_details(context.store, run, await context.store.now())})


@router.get("/{id}/events", response_model=EventList, summary="Read a run's events")
async def get_events(principal: Viewer, context: Server, run_id: PathId, query: Annotated[EventQuery, Query()]) -> Json:
    """By `seq`, oldest first. `next_cursor` goes into `after` (or `cursor`); null means that nothing follows yet."""
    run = await _find(context, principal, run_id)
    after = max(query.after or 0, query.cursor or 0)
    async with context.store.reading() as conn:
        events, seen = await read_events(conn, run, after=after, types=query.type, limit=query.limit)
        pruned = await pruned_seq(conn, run)
    cursor = str(seen) if seen < run.event_count else None
    return Json({"events": [event_body(event) for event in events], "next_cursor": cursor, "pruned_seq": pruned})


@router.get("/{id}/stream", status_code=200, response_class=StreamResponse, summary="Follow a run")
async def stream_run(
    *,
    principal: Viewer,
    context: Server,
    request: Request,
    run_id: PathId,
    query: Annotated[StreamQuery, Query()],
    last_event_id: Annotated[
        Opt[Seq], Header(alias="Last-Event-ID", description="The `id` of the last event that was received.")
    ] = None,
) -> StreamResponse:
    """Server-Sent Events, without end.

    First comes `event: run`, whose data is the run as it is now; it comes again after each change of the run. Every
    event of the run's log has its type as `event`, its `seq` as `id` and itself as data, as the events route gives it;
    without `after` and `Last-Event-ID` from the first on. A connection that broke off is resumed by `Last-Event-ID`, on
    any server, and nothing is missed or told twice. A comment comes when nothing else has for 15 seconds.

    When the server shuts down, or the token is no longer good, the last event is `event: end`, whose data is what any
    route would answer with now. A client that doesn't read for 30 seconds is left, and can resume.
    """
    began_at = asyncio.get_running_loop().time()
    run = await _find(context, principal, run_id)
    follow = context.streams.of_run(
        RunRead(run, await context.store.now(), began_at),
        opening_of(request),
        after=max(query.after or 0, last_event_id or 0),
        heartbeats=query.heartbeats,
    )
    return StreamResponse(context.gate, follow)


@router.post("/{id}/release", response_model=RunChanged, summary="Release a lane")
async def release_run(
    principal: Worker,
    context: Server,
    request: Request,
    run_id: PathId,
    body: Annotated[ReleaseBody, body_of(ReleaseBody, optional=True)],
) -> Json:
    """By its holder (`worker_id`), or by an operator without `worker_id`: the lane is claimable again.

    It is so at once, or after `retry_after` seconds. With `failed` it counts as a failure of the lane.
    """
    by = None
    if body.worker_id is None:
        require(principal, "operator")
        by = principal.name
    else:
        require_worker(principal, body.worker_id)
    command = Release(body.worker_id, body.attempt, body.reason, body.retry_after, body.failed, by)
    return await _command(context, request, principal, run_id, command)


@router.post("/{id}/pause", response_model=RunChanged, summary="Pause a lane")
async def pause_run(principal: Operator, context: Server, request: Request, run_id: PathId) -> Json:
    """The holder keeps its claim, and hears `directive: pause` with its next report. Takes no body."""
    return await _command(context, request, principal, run_id, Pause(principal.name))


@router.post("/{id}/resume", response_model=RunChanged, summary="Resume a paused lane")
async def resume_run(principal: Operator, context: Server, request: Request, run_id: PathId) -> Json:
    """The holder hears `directive: continue` with its next report. Takes no body."""
    return await _command(context, request, principal, run_id, Resume(principal.name))


@router.post("/{id}/cancel", response_model=RunChanged, summary="Cancel a run")
async def cancel_run(principal: Operator, context: Server, request: Request, run_id: PathId) -> Json:
    """The run ends `failed`; its holder is told to stop. Takes no body."""
    return await _command(context, request, principal, run_id, Cancel(principal.name))


@router.post("/{id}/retry", response_model=RunChanged, summary="Retry a failed run")
async def retry_run(principal: Operator, context: Server, request: Request, run_id: PathId) -> Json:
    """A failed run is queued again, with its failures at 0; `attempt` never goes back. Takes no body."""
    return await _command(context, request, principal, run_id, Retry(principal.name))


async def _find(context: Context, principal: Principal, run_id: str) -> Run:
    async with context.store.reading() as conn:
        run = await read_run(conn, run_id, principal.account_id, principal.project_id)
    if run is None:
        raise not_found("run")
    return run


async def _command(context: Context, request: Request, principal: Principal, run_id: str, command: Command) -> Json:
    outcome = await context.store.ledger.submit(
        run_id,
        command,
        account_id=principal.account_id,
        project_id=principal.project_id,
        actor=actor_of(request, principal),
    )
    if outcome.run is None or isinstance(outcome.decision, Refusal):
        raise refuse(outcome)
    return Json({"ok": True, "run": run_body(outcome.run, outcome.now)})
