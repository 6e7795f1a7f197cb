"""The request body of every route, with every bound of the contract.

Bodies are read by `parse_json` and then validated by these models; the OpenAPI document shows the same models. Unknown
fields are ignored, so that newer clients can talk to older servers. A field that may be left out is not sent as null,
except where its type says so (what a PATCH may clear).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NotRequired, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from heartlane.lanes import bounds
from heartlane.wire.fields import (
    EVIDENCE_MAX,
    ActorRole,
    Branch,
    Counter,
    ExternalKey,
    Id,
    Instant,
    Label,
    Labels,
    LaneKey,
    LanePriority,
    LeaseSeconds,
    LogLine,
    MaxActive,
    MaxActiveByRole,
    MaxActiveBySource,
    MaxFailures,
    MilestoneDescription,
    Moment,
    Name,
    Opt,
    Phase,
    PlanTitle,
    Prompt,
    Reason,
    RejectReason,
    RepoUrl,
    RequestType,
    RetryAfterSeconds,
    StalledAfterSeconds,
    SuggestedResolution,
    TicketDescription,
    TicketPriority,
    TicketTitle,
    Url,
    WaitSeconds,
    WorkerId,
)
from heartlane.wire.names import (
    ResolutionName,
    RoleName,
    RoleStateName,
    StageName,
    StatusName,
    TicketRoleName,
    WorkerEventName,
)

_CONFIG: Final = ConfigDict(strict=True, frozen=True, use_attribute_docstrings=True)


class RequestBody(BaseModel):
    """What every body shares: strict types, unknown fields ignored."""

    model_config = _CONFIG


# --- telemetry and claims -----------------------------------------------------------------------------------------


class EventBody(TypedDict):
    """One lifecycle event. A dictionary rather than a model: a report may carry a hundred."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    type: Annotated[WorkerEventName, Field(description="What happened.")]
    payload: NotRequired[Annotated[dict[str, Any], Field(description="Any JSON object, stored as sent.")]]
    at: NotRequired[Annotated[Instant, Field(description="When it happened, by the worker's clock.")]]


class ReportBody(RequestBody):
    """Worker telemetry: heartbeat, latest values and a batch of events."""

    worker_id: WorkerId
    """Who reports: the holder of the claim."""
    lease_seconds: Opt[LeaseSeconds] = None
    """The new lease lasts this long from now; left out: as long as at the claim."""
    phase: Opt[Phase] = None
    """Latest phase, shown on the board."""
    log_line: Opt[LogLine] = None
    """Latest log line, shown on the board."""
    events: Annotated[list[EventBody], Field(max_length=bounds.EVENTS_PER_REPORT_MAX)] = Field(default_factory=list)
    """Appended in order."""
    attempt: Opt[Counter] = None
    """Fencing: the attempt number that the claim returned."""
    seq: Opt[Counter] = None
    """The number of this report within its attempt; one not above the last applied is a replay."""


class ClaimNextBody(RequestBody):
    """A worker asks for the best lane that fits it."""

    worker_id: WorkerId
    """Who claims, unique per process."""
    lease_seconds: Opt[LeaseSeconds] = None
    """Length of the lease; left out: 300."""
    project_id: Opt[Id] = None
    """Only lanes of this project."""
    roles: Annotated[list[RoleName], Field(max_length=7)] = []
    """Only lanes of these roles; left out or empty: any."""
    labels: Labels = {}
    """What the worker offers: a lane fits when all the labels it asks for are among these."""
    wait_seconds: WaitSeconds = 0.0
    """How long to wait for a lane when there is none."""
    one_at_a_time: bool = False
    """The worker works one lane at a time: if it holds one already, that one is answered again (the same attempt, its
    lease renewed) in place of another. Such a claim is safe to send twice, and to retry when its answer was lost."""


class ClaimBody(RequestBody):
    """A worker asks for one certain lane, or renews the claim it has."""

    worker_id: WorkerId
    """Who claims, unique per process."""
    lease_seconds: Opt[LeaseSeconds] = None
    """Length of the lease; left out: 300, or as it was when the claim is renewed."""


class ReleaseBody(RequestBody):
    """The holder gives its lane back, or an operator (without `worker_id`) takes it."""

    worker_id: Opt[WorkerId] = None
    """The holder of the claim; left out by an operator."""
    attempt: Opt[Counter] = None
    """Fencing: the attempt number that the claim returned."""
    reason: Opt[Reason] = None
    """Why, for the run's log."""
    retry_after: Opt[RetryAfterSeconds] = None
    """Seconds until the lane can be claimed again; left out: at once."""
    failed: bool = False
    """Whether this counts as a failure of the lane."""


# --- projects and milestones --------------------------------------------------------------------------------------


class CreateProjectBody(RequestBody):
    """A new project."""

    name: Name
    repo_url: RepoUrl | None = None
    """Where its repository is."""
    default_branch: Branch | None = None
    max_failures: MaxFailures = bounds.MAX_FAILURES_DEFAULT
    """After this many failures a lane ends `failed`. Counts for lanes planned from now on."""
    stalled_after_seconds: StalledAfterSeconds = bounds.STALLED_AFTER_SECONDS_DEFAULT
    """A lane whose heartbeats arrive but nothing else for this long is `stalled`."""
    max_active: MaxActive | None = None
    """At most so many of its lanes are active (held by a worker) at once; null: without a cap."""
    max_active_by_role: MaxActiveByRole = Field({})
    """The same for lanes of a role: role → lanes."""
    max_active_by_source: MaxActiveBySource = Field({})
    """The same for lanes whose tickets come from one place: the host of the tickets' `external_url` → lanes."""


class PatchProjectBody(RequestBody):
    """Changes of a project; what is left out stays."""

    name: Opt[Name] = None
    repo_url: RepoUrl | None = None
    default_branch: Branch | None = None
    max_failures: Opt[MaxFailures] = None
    stalled_after_seconds: Opt[StalledAfterSeconds] = None
    max_active: MaxActive | None = None
    max_active_by_role: Opt[MaxActiveByRole] = None
    max_active_by_source: Opt[MaxActiveBySource] = None


class CreateMilestoneBody(RequestBody):
    """A new milestone of a project."""

    name: Name
    description: MilestoneDescription | None = None
    due_at: Moment | None = None


class PatchMilestoneBody(RequestBody):
    """Changes of a milestone; what is left out stays."""

    name: Opt[Name] = None
    description: MilestoneDescription | None = None
    status: Opt[StatusName] = None
    due_at: Moment | None = None


# --- tickets ------------------------------------------------------------------------------------------------------


def _checked_evidence(value: Any) -> Any:
    # The parser is the server's; who only checks a plan on a machine without it needs these models, and not that.
    from heartlane.wire.parse import dump_json  # noqa: PLC0415

    if value is not None and not isinstance(value, str | list | dict):
        raise PydanticCustomError("evidence_type", "must be a string, an array or an object")
    if len(dump_json(value)) > EVIDENCE_MAX:
        raise PydanticCustomError("evidence_too_long", f"must be at most {EVIDENCE_MAX} characters long as JSON")
    return value


Evidence = Annotated[
    Any,
    AfterValidator(_checked_evidence),
    WithJsonSchema({"type": ["string", "array", "object", "null"]}),
    Field(description=f"What shows the need: text, or any JSON array or object; {EVIDENCE_MAX} characters at most."),
]


class CreateTicketBody(RequestBody):
    """A new ticket: what is wanted, and of which roles."""

    title: TicketTitle
    description: TicketDescription
    request_type: RequestType
    """What kind of request it is, in your own words (`feature`, `bug`, …)."""
    priority: TicketPriority
    """How urgent it is; lanes planned from it go first for `high` and `critical`, last for `low`."""
    blocking: bool
    """Whether somebody can't go on without it."""
    roles: Annotated[list[RoleName], Field(max_length=7)] = []
    """Who has to work on it; empty: `other`."""
    evidence: Evidence = None
    suggested_resolution: SuggestedResolution | None = None
    actor_role: ActorRole | None = None
    """The role of whoever asks."""
    verified_existing: bool = False
    """It exists already and was verified: the roles `merged` and `test` are skipped."""
    milestone_id: Id | None = None
    external_url: Url | None = None
    """The same ticket elsewhere."""


class SyncedTicketBody(RequestBody):
    """A ticket as its source tells it."""

    external_url: Opt[Url] = None
    """Where it is; what it is known by. One of `external_url` and `external_key` is needed."""
    external_key: Opt[ExternalKey] = None
    """What it is called there, where it has no address."""
    title: TicketTitle
    description: TicketDescription
    request_type: RequestType
    priority: TicketPriority
    blocking: bool = False
    roles: Annotated[list[RoleName], Field(max_length=7)] = []
    """Who has to work on it; empty: `other`."""
    status: StatusName = "open"
    resolution_type: Opt[ResolutionName] = None
    """How it ended there; only with the status `closed`."""
    milestone_id: Opt[Id] = None
    create: bool = True
    """Whether it is made where the project has none yet; `false`: such a one is skipped."""

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.external_url is None and self.external_key is None:
            raise PydanticCustomError("external_name", "needs an external_url or an external_key")
        if self.resolution_type is not None and self.status != "closed":
            raise PydanticCustomError("resolution", "has a resolution_type, which belongs to the status closed alone")
        return self


class SyncTicketsBody(RequestBody):
    """Tickets of a source, one page of them: made or brought up to date, all of them or none."""

    tickets: Annotated[list[SyncedTicketBody], Field(min_length=1, max_length=bounds.TICKETS_PER_BATCH_MAX)]


class PatchTicketBody(RequestBody):
    """Changes of a ticket; what is left out stays."""

    title: Opt[TicketTitle] = None
    description: Opt[TicketDescription] = None
    request_type: Opt[RequestType] = None
    priority: Opt[TicketPriority] = None
    blocking: Opt[bool] = None
    roles: Opt[Annotated[dict[TicketRoleName, RoleStateName], Field(min_length=1)]] = None
    """Role → state; a role that the ticket doesn't have yet is added."""
    stage: Opt[StageName] = None
    """`live` closes the ticket, any other stage opens it."""
    status: Opt[StatusName] = None
    """`closed` sets the stage `live`; `open` takes a closed ticket to `up_next`."""
    resolution_type: Opt[ResolutionName] = None
    """How it ended; only with a close, or on a closed ticket."""
    evidence: Evidence = None
    suggested_resolution: SuggestedResolution | None = None
    actor_role: ActorRole | None = None
    verified_existing: Opt[bool] = None
    milestone_id: Id | None = None
    external_url: Url | None = None

    @model_validator(mode="after")
    def _status_fits_stage(self) -> Self:
        _check_status_and_stage(self.status, self.stage)
        return self


class TicketBatchBody(RequestBody):
    """The same change for many tickets: all of them, or none."""

    ticket_ids: Annotated[list[Id], Field(min_length=1, max_length=bounds.TICKETS_PER_BATCH_MAX)]
    stage: Opt[StageName] = None
    """Move them there; `live` closes."""
    status: Opt[StatusName] = None
    resolution_type: Opt[ResolutionName] = None
    """How they ended; only with a close."""
    milestone_id: Id | None = None

    @model_validator(mode="after")
    def _status_fits_stage(self) -> Self:
        _check_status_and_stage(self.status, self.stage)
        return self


def _check_status_and_stage(status: str | None, stage: str | None) -> None:
    if status is not None and stage is not None and (status == "closed") != (stage == "live"):
        raise PydanticCustomError(
            "status_and_stage", "has a status and a stage that contradict each other: closed goes with live alone"
        )


# --- GitHub -------------------------------------------------------------------------------------------------------


class GithubLinkBody(RequestBody):
    """How a project is linked with the repository at its `repo_url`. What is left out is not wanted."""

    label: Label | None = None
    """Issues with this label become tickets; null: all that are open."""
    roles: Annotated[dict[RoleName, Annotated[list[Label], Field(max_length=50)]], Field(max_length=7)] = {}
    """Role → labels that ask for it, `*` for anything. Labels that are called like a role count beside these."""
    milestone_id: Id | None = None
    """The milestone that new tickets get."""


# --- plans --------------------------------------------------------------------------------------------------------


class PlanFromTicketsBody(RequestBody):
    """A plan whose lanes are derived from tickets, one lane per role."""

    milestoneId: Id  # noqa: N815 - the published name
    ticketIds: Annotated[list[Id], Field(min_length=1, max_length=bounds.TICKETS_PER_PLAN_MAX)]  # noqa: N815
    """Tickets of the milestone's project."""
    title: Opt[PlanTitle] = None
    """Left out: the milestone's name."""


class LaneBody(RequestBody):
    """One lane of a plan, given directly."""

    laneKey: LaneKey  # noqa: N815
    """Its name within the plan."""
    title: PlanTitle
    """What it is about."""
    role: RoleName
    """Which kind of worker it is for."""
    ticketIds: Annotated[list[Id], Field(max_length=bounds.TICKETS_PER_PLAN_MAX)] = []  # noqa: N815
    """The tickets it works on."""
    labels: Labels = {}
    """What the lane asks of a worker."""
    priority: LanePriority = 0
    """Higher is claimed first."""
    prompt: Opt[Prompt] = None
    """What the worker is asked to do."""
    after: Annotated[list[LaneKey], Field(max_length=bounds.LANES_PER_PLAN_MAX)] = []
    """Keys of the lanes that must be shipped first."""


class PlanWithLanesBody(RequestBody):
    """A plan whose lanes are given directly."""

    projectId: Id  # noqa: N815
    title: PlanTitle
    lanes: Annotated[list[LaneBody], Field(min_length=1, max_length=bounds.LANES_PER_PLAN_MAX)]
    milestoneId: Opt[Id] = None  # noqa: N815


def plan_model(value: Any) -> type[PlanFromTicketsBody | PlanWithLanesBody]:
    """Which of the two kinds of plan a parsed body is meant to be, so that its problems are told in its own terms."""
    if isinstance(value, dict) and (
        "lanes" in value or ("projectId" in value and "ticketIds" not in value and "milestoneId" not in value)
    ):
        return PlanWithLanesBody
    return PlanFromTicketsBody


class RejectBody(RequestBody):
    """Why a plan is rejected."""

    reason: RejectReason
