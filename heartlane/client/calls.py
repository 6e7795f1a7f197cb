"""Every route that workers and their operators call, as a function that builds a `Call`.

Ids are strings or UUIDs; what is left out (None) is not sent. (Projects, milestones and tickets: `project_calls`.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heartlane.client.call import (
    ANSWER_SECONDS,
    Call,
    Id,
    Page,
    get,
    given,
    listing,
    part,
    post,
    query_of,
    whole,
)
from heartlane.wire import answers
from heartlane.wire.answers import (
    ClaimAnswer,
    EventObject,
    PlanObject,
    PlanWithRuns,
    ReportAnswer,
    RunDetail,
    RunObject,
    WorkerObject,
)
from heartlane.wire.names import EventName, PlanStatusName, RoleName, StateName

# --- telemetry and claims -----------------------------------------------------------------------------------------


def report(
    run_id: Id,
    worker_id: str,
    *,
    attempt: int | None = None,
    seq: int | None = None,
    lease_seconds: int | None = None,
    phase: str | None = None,
    log_line: str | None = None,
    events: Sequence[Mapping[str, Any]] = (),
) -> Call[ReportAnswer]:
    """Report on a lane, as its holder: renews the lease, and tells what happened. With `seq` it can't count twice."""
    body = given(
        worker_id=worker_id,
        attempt=attempt,
        seq=seq,
        lease_seconds=lease_seconds,
        phase=phase,
        log_line=log_line,
        events=list(events) or None,
    )
    return raw_report(run_id, body, repeatable=seq is not None or not events)


def raw_report(
    run_id: Id, body: Mapping[str, Any] | bytes, *, repeatable: bool, seconds: float = ANSWER_SECONDS
) -> Call[ReportAnswer]:
    """A report whose body is ready."""
    path = f"/api/agents/runs/{part(run_id)}/events"
    return Call("POST", path, ReportAnswer, whole(ReportAnswer), body=body, repeatable=repeatable, seconds=seconds)


def claim_next(
    worker_id: str,
    *,
    lease_seconds: int | None = None,
    project_id: Id | None = None,
    roles: Iterable[RoleName] = (),
    labels: Mapping[str, str] | None = None,
    wait_seconds: float = 0,
    one_at_a_time: bool = False,
) -> Call[ClaimAnswer]:
    """Claim the best lane that fits; `run` is None when there is none.

    one_at_a_time   if this worker holds a lane already, that one is answered again. Without it a claim that was sent
                    again blindly might take a second lane, so that it isn't.
    """
    body = given(
        worker_id=worker_id,
        lease_seconds=lease_seconds,
        project_id=project_id,
        roles=list(roles) or None,
        labels=dict(labels) if labels else None,
        wait_seconds=wait_seconds or None,
        one_at_a_time=one_at_a_time or None,
    )
    seconds = ANSWER_SECONDS + wait_seconds
    path = "/api/agents/runs/claim"
    return Call("POST", path, ClaimAnswer, whole(ClaimAnswer), body=body, repeatable=one_at_a_time, seconds=seconds)


def claim_run(run_id: Id, worker_id: str, *, lease_seconds: int | None = None) -> Call[ClaimAnswer]:
    """Claim one certain lane, or renew the claim on it: then it is the same attempt."""
    body = given(worker_id=worker_id, lease_seconds=lease_seconds)
    return post(f"/api/agents/runs/{part(run_id)}/claim", ClaimAnswer, whole(ClaimAnswer), body, repeatable=True)


def release_run(
    run_id: Id,
    *,
    worker_id: str | None = None,
    attempt: int | None = None,
    reason: str | None = None,
    retry_after: float | None = None,
    failed: bool = False,
) -> Call[RunObject]:
    """Give a lane back, as its holder; or take it, as an operator without `worker_id`. `failed` counts a failure."""
    body = given(
        worker_id=worker_id, attempt=attempt, reason=reason, retry_after=retry_after, failed=True if failed else None
    )
    # The server knows a holder's second release of the same attempt as such.
    repeatable = worker_id is not None and attempt is not None
    return _steer(run_id, "release", body, repeatable=repeatable)


def pause_run(run_id: Id) -> Call[RunObject]:
    """Ask the holder of a lane to stand still, as an operator."""
    return _steer(run_id, "pause", None, repeatable=True)


def resume_run(run_id: Id) -> Call[RunObject]:
    """Let a paused lane go on, as an operator."""
    return _steer(run_id, "resume", None, repeatable=True)


def cancel_run(run_id: Id) -> Call[RunObject]:
    """End a run as failed, as an operator; its holder is told to stop."""
    return _steer(run_id, "cancel", None, repeatable=False)


def retry_run(run_id: Id) -> Call[RunObject]:
    """Put a failed run back into the queue, as an operator."""
    return _steer(run_id, "retry", None, repeatable=False)


# --- runs and workers ---------------------------------------------------------------------------------------------


def runs(
    *,
    project_id: Id | None = None,
    plan_id: Id | None = None,
    state: StateName | Sequence[StateName] = (),
    role: RoleName | None = None,
    worker_id: str | None = None,
    stalled: bool | None = None,
    limit: int | None = None,
) -> Call[Page[RunObject]]:
    """Runs, newest first, without their prompts."""
    states = (state,) if isinstance(state, str) else tuple(state)
    query = query_of(
        project_id=project_id, plan_id=plan_id, role=role, worker_id=worker_id, stalled=stalled, limit=limit
    )
    query += tuple(("state", name) for name in states)
    return listing("/api/agents/runs", answers.RunList, lambda answer: answer.runs, query)


def read_run(run_id: Id) -> Call[RunDetail]:
    """One run, with its prompt and tickets."""
    return get(f"/api/agents/runs/{part(run_id)}", answers.RunAnswer, lambda answer: answer.run)


def events(
    run_id: Id, *, after: int | None = None, type: EventName | Sequence[EventName] = (), limit: int | None = None
) -> Call[Page[EventObject]]:
    """Events of a run by `seq`, those behind `after`, of these types (none given: all)."""
    types = (type,) if isinstance(type, str) else tuple(type)
    query = query_of(after=after, limit=limit) + tuple(("type", name) for name in types)
    path = f"/api/agents/runs/{part(run_id)}/events"
    return listing(path, answers.EventList, lambda answer: answer.events, query)


def stream_path(run_id: Id) -> str:
    """Where a run's stream is. (What it tells is no answer, and is read by `heartlane.client.following`.)"""
    return f"/api/agents/runs/{part(run_id)}/stream"


def workers(
    *, project_id: Id | None = None, holding: bool | None = None, limit: int | None = None
) -> Call[Page[WorkerObject]]:
    """Workers that hold lanes, ask for one, or did either in the last day, by name.

    holding     True: only those that hold lanes; False: only all others
    """
    query = query_of(project_id=project_id, holding=holding, limit=limit)
    return listing("/api/agents/workers", answers.WorkerList, lambda answer: answer.workers, query)


# --- plans --------------------------------------------------------------------------------------------------------


def create_plan(
    project_id: Id, title: str, lanes: Sequence[Mapping[str, Any]], *, milestone_id: Id | None = None
) -> Call[PlanObject]:
    """A pending plan, lane by lane: each has `laneKey`, `title`, `role`, and may have `ticketIds`, `labels`,
    `priority`, `prompt` and `after`."""
    body = given(projectId=project_id, title=title, lanes=[dict(lane) for lane in lanes], milestoneId=milestone_id)
    return post("/api/agents/plan", answers.PlanAnswer, lambda answer: answer.plan, body)


def plan_tickets(milestone_id: Id, ticket_ids: Sequence[Id], *, title: str | None = None) -> Call[PlanObject]:
    """A pending plan whose lanes are derived from a milestone's tickets, one lane a role."""
    body = given(milestoneId=milestone_id, ticketIds=list(ticket_ids), title=title)
    return post("/api/agents/plan", answers.PlanAnswer, lambda answer: answer.plan, body)


def plans(
    *, project_id: Id | None = None, status: PlanStatusName | None = None, limit: int | None = None
) -> Call[Page[PlanObject]]:
    """Plans, newest first."""
    query = query_of(project_id=project_id, status=status, limit=limit)
    return listing("/api/agents/plans", answers.PlanList, lambda answer: answer.plans, query)


def read_plan(plan_id: Id) -> Call[PlanWithRuns]:
    """A plan and its runs."""
    return get(f"/api/agents/plans/{part(plan_id)}", PlanWithRuns, whole(PlanWithRuns))


def read_prompts(plan_id: Id) -> Call[dict[str, str]]:
    """What the lanes of a plan ask for: lane key → prompt."""
    return get(f"/api/agents/plans/{part(plan_id)}/prompts", answers.PlanPrompts, lambda answer: answer.prompts)


def approve_plan(plan_id: Id) -> Call[PlanWithRuns]:
    """Approve a plan: one queued run a lane. Approving it again gives the same runs."""
    path = f"/api/agents/plans/{part(plan_id)}/approve"
    return post(path, PlanWithRuns, whole(PlanWithRuns), None, repeatable=True)


def reject_plan(plan_id: Id, reason: str) -> Call[PlanObject]:
    """Reject a plan. Rejecting it again changes nothing."""
    path = f"/api/agents/plans/{part(plan_id)}/reject"
    return post(path, answers.PlanAnswer, lambda answer: answer.plan, {"reason": reason}, repeatable=True)


# --- the server itself --------------------------------------------------------------------------------------------


def health() -> Call[answers.HealthAnswer]:
    """Whether the server is alive, and its version. Needs no token."""
    return get("/healthz", answers.HealthAnswer, whole(answers.HealthAnswer))


def ready() -> Call[answers.ReadyAnswer]:
    """Whether the server can work. Needs no token. Raises Unavailable."""
    return get("/readyz", answers.ReadyAnswer, whole(answers.ReadyAnswer))


def metrics() -> Call[str]:
    """The server's figures, in Prometheus' text format. Needs no token."""
    return Call("GET", "/metrics", None, str, repeatable=True)


def openapi() -> Call[dict[str, Any]]:
    """The server's own OpenAPI document. Needs no token."""
    return Call("GET", "/openapi.json", None, json.loads, repeatable=True)


def _steer(run_id: Id, verb: str, body: Mapping[str, Any] | None, *, repeatable: bool) -> Call[RunObject]:
    path = f"/api/agents/runs/{part(run_id)}/{verb}"
    return post(path, answers.RunChanged, lambda answer: answer.run, body, repeatable=repeatable)
