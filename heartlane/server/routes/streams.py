"""The stream of all work: of a project, or of the account."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request

from heartlane.server.depends import Server, Viewer, not_found, opening_of, reach_of
from heartlane.server.errors import Issue, invalid_request
from heartlane.server.scope_topic import ALL_EVENTS, HEARTBEAT, LEASES, PLAN, RUN
from heartlane.server.streams import StreamResponse
from heartlane.server.work_reader import Following
from heartlane.store.log import Place
from heartlane.store.pages import Reach
from heartlane.store.projects import read_project
from heartlane.store.runs import bits_of
from heartlane.wire.fields import Opt
from heartlane.wire.queries import WorkStreamQuery

router = APIRouter(prefix="/api/agents", tags=["Streams"])


@router.get("/stream", status_code=200, response_class=StreamResponse, summary="Follow all work")
async def stream_work(
    *,
    principal: Viewer,
    context: Server,
    request: Request,
    query: Annotated[WorkStreamQuery, Query()],
    last_event_id: Annotated[
        Opt[str], Header(alias="Last-Event-ID", description="The `id` of the last message that had one.")
    ] = None,
) -> StreamResponse:
    """Server-Sent Events of a project or, without `project_id`, of everything that the token sees; without end.

    - `run`: a run after it changed, as lists have it. Changes within a moment are one message.
    - `event`: an event of a run's log, with its `run_id`. Once each, in the order of each run's `seq`.
    - `plan`: a plan that was made, approved or rejected.
    - `leases`, with `leases=true`: an array of `[run_id, lease_expires_at, last_heartbeat]`, every few seconds.
    - `reset`: load the lists now. What happens from here on follows; what was before was not told. A stream that
      isn't resumed begins with it. `reason`: `start`, `too_old`, `too_far` or `unknown`.
    - `end`: the last one, with what any route would answer now: the server shuts down, or the token is no longer good.

    `event` and `reset` have an `id`, and so has the sign of life that comes when nothing else has for 15 seconds. Sent
    back as `Last-Event-ID`, on any server, it resumes the stream: no event is missed or told twice, and whatever else
    changed meanwhile is told as it is now. Ids are opaque.
    """
    reach = reach_of(principal)
    if query.project_id is not None:
        if not principal.sees(principal.account_id, query.project_id):
            raise not_found("project")
        async with context.store.reading() as conn:
            if await read_project(conn, query.project_id, reach) is None:
                raise not_found("project")
        reach = Reach(principal.account_id, query.project_id)
    following = Following(_mask(query), _after(query.after, last_event_id))
    follow = context.streams.of_work(reach, opening_of(request), following)
    return StreamResponse(context.gate, follow)


def _after(after: str | None, last_event_id: str | None) -> Place | None:
    """Behind what the stream goes on: the later of the two, as a browser comes back to the address it began with."""
    places: list[Place] = []
    issues: list[Issue] = []
    for name, text in (("after", after), ("Last-Event-ID", last_event_id)):
        if text is None:
            continue
        place = Place.parse(text)
        if place is None:
            issues.append(Issue(name, "must be an id of this stream"))
        else:
            places.append(place)
    if issues:
        raise invalid_request(issues)
    return max(places, default=None)


def _mask(query: WorkStreamQuery) -> int:
    wanted = set(query.message) or {"run", "event", "plan"}
    mask = (RUN if "run" in wanted else 0) | (PLAN if "plan" in wanted else 0) | (LEASES if query.leases else 0)
    if "event" in wanted:
        mask |= bits_of(query.type) if query.type else ALL_EVENTS & ~HEARTBEAT
    return mask | (HEARTBEAT if query.heartbeats else 0)
