"""The shape of every answer, for the OpenAPI document and for clients that want types.

The server builds its answers directly and doesn't run them through these models; the test suite validates what it
answers against them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, RootModel

from heartlane.wire.names import (
    AttentionName,
    DirectiveName,
    EventName,
    Open,
    PlanStatusName,
    ResolutionName,
    RoleName,
    RoleStateName,
    StageName,
    StateName,
    StatusName,
    TicketRoleName,
    WorkerStatusName,
)

_CONFIG: Final = ConfigDict(use_attribute_docstrings=True)


class Answer(BaseModel):
    """What every answer shares. More fields may be added to any answer; clients ignore those they don't know."""

    model_config = _CONFIG


# --- projects, milestones, tickets --------------------------------------------------------------------------------


class ProjectObject(Answer):
    """A project."""

    id: UUID
    billing_account_id: UUID
    name: str
    repo_url: str | None
    default_branch: str | None
    max_failures: int
    """After this many failures a lane ends `failed`."""
    stalled_after_seconds: int
    """A lane whose heartbeats arrive but nothing else for this long is `stalled`."""
    max_active: int | None
    """At most so many of its lanes are active (held by a worker) at once; null: without a cap."""
    max_active_by_role: dict[str, int]
    max_active_by_source: dict[str, int]
    created_at: datetime
    updated_at: datetime


class ProjectAnswer(Answer):
    """One project."""

    project: ProjectObject


class ProjectList(Answer):
    """Projects, newest first."""

    projects: list[ProjectObject]
    next_cursor: str | None


class MilestoneObject(Answer):
    """A milestone of a project."""

    id: UUID
    project_id: UUID
    name: str
    description: str | None
    status: Open[StatusName]
    due_at: datetime | None
    created_at: datetime
    updated_at: datetime


class MilestoneAnswer(Answer):
    """One milestone."""

    milestone: MilestoneObject


class MilestoneList(Answer):
    """Milestones, newest first."""

    milestones: list[MilestoneObject]
    next_cursor: str | None


class TicketObject(Answer):
    """A ticket: what is wanted, of which roles, and how far each of them is."""

    id: UUID
    project_id: UUID
    milestone_id: UUID | None
    title: str
    description: str
    request_type: str
    priority: str
    blocking: bool
    roles: dict[Open[TicketRoleName], Open[RoleStateName]]
    """Role → state; `merged` stands for the pull request's merge and gets no lane."""
    stage: Open[StageName]
    status: Open[StatusName]
    resolution_type: Open[ResolutionName] | None
    pr_urls: list[str]
    """The pull requests its lanes shipped, oldest first."""
    evidence: Annotated[Any, Field(json_schema_extra={"type": ["string", "array", "object", "null"]})]
    suggested_resolution: str | None
    actor_role: str | None
    verified_existing: bool
    external_url: str | None
    """Where it is elsewhere; no two tickets of a project have the same."""
    external_key: str | None
    """What its source calls it, where that has no address for it."""
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None


class TicketAnswer(Answer):
    """One ticket."""

    ticket: TicketObject


class TicketList(Answer):
    """Tickets, newest first."""

    tickets: list[TicketObject]
    next_cursor: str | None


# --- plans and runs -----------------------------------------------------------------------------------------------


class LaneObject(Answer):
    """One lane of a plan."""

    laneKey: str  # noqa: N815 - the published name
    title: str
    role: Open[RoleName]
    ticketIds: list[UUID]  # noqa: N815
    labels: dict[str, str]
    """What it asks of a worker."""
    priority: int
    after: list[str]
    """Keys of the lanes that must be shipped first."""


class PlanObject(Answer):
    """A plan."""

    id: UUID
    project_id: UUID
    billing_account_id: UUID
    milestone_id: UUID | None
    created_by_user_id: UUID | None
    title: str
    status: Open[PlanStatusName]
    source_ticket_ids: list[UUID]
    lanes: list[LaneObject]
    rejection_reason: str | None
    approved_at: datetime | None
    rejected_at: datetime | None
    created_at: datetime
    updated_at: datetime


class RunObject(Answer):
    """A run: one lane of an approved plan on its way."""

    id: UUID
    plan_id: UUID
    project_id: UUID
    billing_account_id: UUID
    milestone_id: UUID | None
    lane_key: str
    title: str
    role: Open[RoleName]
    ticket_ids: list[str]
    state: Open[StateName]
    phase: str | None
    worker_id: str | None
    """Holder of the claim; null until claimed. A run that ended keeps it for the record."""
    claimed_at: datetime | None
    lease_expires_at: datetime | None
    """Claim lease deadline; the lane is taken back when no heartbeat renews it."""
    last_heartbeat: datetime | None
    log_line: str | None
    error: str | None
    pr_url: str | None
    branch: str | None
    commit: str | None
    summary: str | None
    agent: str | None
    model: str | None
    input_tokens: int | None
    """Used by its attempts in all; null until an agent says it, like all of these."""
    output_tokens: int | None
    cached_tokens: int | None
    """Read from the provider's cache; within `input_tokens` or beside them, as the provider counts."""
    cost_usd: float | None
    attempt: int
    """The fencing number: 0 until claimed, +1 at every claim."""
    failures: int
    max_failures: int
    not_before: datetime | None
    """Not claimable earlier."""
    blocked_by: list[UUID]
    """Runs that must be `shipped` first."""
    needs_attention: Open[AttentionName] | None
    stalled: bool
    event_count: int
    labels: dict[str, str]
    priority: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class RunDetail(RunObject):
    """A run read alone, or just claimed."""

    prompt: str | None
    """What the worker is asked to do."""
    tickets: list[TicketObject]


class PlanAnswer(Answer):
    """One plan."""

    plan: PlanObject


class PlanWithRuns(Answer):
    """A plan and the runs it spawned, in the order of its lanes."""

    plan: PlanObject
    runs: list[RunObject]


class PlanPrompts(Answer):
    """What the lanes of a plan ask for."""

    prompts: dict[str, str]
    """Lane key → prompt; a lane without a prompt isn't in it."""


class PlanList(Answer):
    """Plans, newest first."""

    plans: list[PlanObject]
    next_cursor: str | None


class RunAnswer(Answer):
    """One run with its prompt and tickets."""

    run: RunDetail


class RunList(Answer):
    """Runs, newest first, without prompts."""

    runs: list[RunObject]
    next_cursor: str | None


class RunChanged(Answer):
    """The run as it is after a change."""

    ok: Literal[True]
    run: RunObject


class ReportAnswer(Answer):
    """Telemetry recorded; the updated run."""

    ok: Literal[True]
    run: RunObject
    directive: Open[DirectiveName]
    """What the operator wants of the worker."""
    duplicate: bool
    """Whether the report was a replay: the lease was renewed, nothing else changed."""
    server_time: datetime


class ClaimAnswer(Answer):
    """The claimed lane, or null where none fits."""

    ok: Literal[True]
    run: RunDetail | None
    last_seq: int
    """The last report `seq` applied in this attempt; 0 in a new one."""
    words: str | None = None
    """Without a lane: which caps and budgets keep lanes from being claimed, if any do."""
    server_time: datetime


class EventObject(Answer):
    """One event of a run's log."""

    seq: int
    """Its number in the run's log, without gaps from 1."""
    type: Open[EventName]
    payload: dict[str, Any]
    at: str | None
    """When it happened, by the worker's own clock, as sent."""
    recorded_at: datetime
    worker_id: str | None
    attempt: int


class WorkEvent(EventObject):
    """One event, as a stream of all work tells it."""

    run_id: UUID
    cursor: Annotated[str, Field(exclude=True)] = ""
    """What the stream can be resumed by, behind this event; not on the wire, where it is the message's `id`."""


class Reset(Answer):
    """A stream of all work says: load the lists now. What happens from here on follows."""

    reason: str
    """`start`, `too_old`, `too_far`, `unknown`; or one that came later."""
    cursor: str
    """What the stream can be resumed by, from here on."""


class Leases(RootModel[list[tuple[UUID, datetime | None, datetime | None]]]):
    """Renewed leases: run, `lease_expires_at`, `last_heartbeat` of each."""


class EventList(Answer):
    """Events of a run, by `seq`."""

    events: list[EventObject]
    next_cursor: str | None
    pruned_seq: int = 0
    """Events up to this `seq` were taken out of the log (`heartlane db prune`); 0: none were."""


class AskObject(Answer):
    """Which lanes a waiting worker asks for."""

    project_id: UUID | None
    """Of this project alone; null: of any that its token covers."""
    roles: list[Open[RoleName]]
    """Empty: of any."""
    labels: dict[str, str]
    """What it offers."""
    since: datetime
    """Since when it has asked without a break."""


class WorkerObject(Answer):
    """A worker that holds lanes, asks for one, or did either in the last day."""

    worker_id: str
    status: Open[WorkerStatusName]
    """`working`: holds lanes. `silent`: holds lanes, and two renewals of each are missing. `waiting`: asks for a lane.
    `idle`: does neither now."""
    since: datetime | None
    """When it claimed the longest held of its lanes."""
    last_heard: datetime | None
    asks: AskObject | None
    """With `waiting` alone."""
    runs: list[RunObject]
    """The lanes that it holds."""


class WorkerList(Answer):
    """Workers, by name."""

    workers: list[WorkerObject]
    next_cursor: str | None


# --- health and errors --------------------------------------------------------------------------------------------


class HealthAnswer(Answer):
    """The server is up."""

    status: Literal["ok"]
    version: str


class ReadyAnswer(Answer):
    """The server can work: it takes requests, and its database answers."""

    status: Literal["ready"]


class IssueObject(Answer):
    """One problem of a request."""

    path: str
    """Where, such as `events.3.type`; `body` for the whole body."""
    message: str


class ErrorAnswer(Answer):
    """What every error is answered with."""

    error: str
    """A sentence a person can act on."""
    code: str
    """Stable, for clients to branch on."""
    fieldErrors: dict[str, str] | None = None  # noqa: N815 - the published name
    """With 400: the first message for each field path."""
    issues: list[IssueObject] | None = None
    """With 400: every problem found."""
    retryAfter: float | None = None  # noqa: N815
    """With 429 and 503: seconds until a retry makes sense."""
    relinkGithub: bool | None = None  # noqa: N815
    """With 401: true if linking GitHub again may fix it."""
    run: RunObject | None = None
    """With 409 about a claim: the run as it is now."""
