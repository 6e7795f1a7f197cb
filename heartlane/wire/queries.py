"""The query parameters of every list: strings on the wire, strict in what they may say. Unknown ones are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from heartlane.lanes import bounds
from heartlane.wire.fields import Id, Matching, Moment, Name, Opt, WorkerId
from heartlane.wire.names import EventName, PlanStatusName, RoleName, StageName, StateName, StatusName

CURSOR_MAX: Final = 1_200


class Digits:
    """Metadata of an integer that comes as text: plain digits, without sign, spaces or underscores."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        digits = core_schema.custom_error_schema(
            core_schema.str_schema(pattern=r"^[0-9]{1,19}$"),
            custom_error_type="digits",
            custom_error_message="must be an integer, in digits alone",
        )
        return core_schema.chain_schema([digits, core_schema.int_schema(), handler(source)])

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        steps = schema["steps"] if schema["type"] == "chain" else [schema]
        return handler(steps[-1])


class TrueOrFalse:
    """Metadata of a boolean that comes as text: `true` or `false`, no other spelling."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.chain_schema([core_schema.literal_schema(["true", "false"]), handler(source)])

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "boolean"}


Limit = Annotated[int, Field(ge=1, le=bounds.PAGE_SIZE_MAX), Digits()]
Seq = Annotated[int, Field(ge=0, le=bounds.COUNTER_MAX), Digits()]
Flag = Annotated[bool, Field(strict=False), TrueOrFalse()]
Cursor = Annotated[
    str,
    Field(min_length=1, max_length=CURSOR_MAX),
    Matching(
        r"^[A-Za-z0-9_-]+$", "must be the next_cursor of this list's page before", {"pattern": "^[A-Za-z0-9_-]+$"}
    ),
]


ActionName = Annotated[
    str,
    Field(min_length=1, max_length=100),
    Matching(
        r"^[a-z_]+(\.[a-z_]+)?$",
        "must be an action such as run.paused, or its first part",
        {"pattern": r"^[a-z_]+(\.[a-z_]+)?$"},
    ),
]


class PageQuery(BaseModel):
    """What every list takes."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    cursor: Opt[Cursor] = None
    """`next_cursor` of the page before."""
    limit: Limit = bounds.PAGE_SIZE_DEFAULT
    """Most items on a page."""


class MilestoneQuery(PageQuery):
    """Which milestones."""

    status: Opt[StatusName] = None


class TicketQuery(PageQuery):
    """Which tickets."""

    status: Opt[StatusName] = None
    stage: Opt[StageName] = None
    milestone_id: Opt[Id] = None


class PlanQuery(PageQuery):
    """Which plans."""

    project_id: Opt[Id] = None
    status: Opt[PlanStatusName] = None


class RunQuery(PageQuery):
    """Which runs."""

    project_id: Opt[Id] = None
    plan_id: Opt[Id] = None
    state: list[StateName] = []
    """May be repeated: runs in any of these states."""
    role: Opt[RoleName] = None
    worker_id: Opt[WorkerId] = None
    """Runs that this worker holds, or held when they ended."""
    stalled: Opt[Flag] = None
    """`true`: only stalled runs; `false`: only others."""


class EventQuery(BaseModel):
    """Which events of a run."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    after: Opt[Seq] = None
    """Only events with a higher `seq`."""
    cursor: Opt[Seq] = None
    """`next_cursor` of the page before; the same as `after`."""
    type: list[EventName] = []
    """May be repeated: events of any of these types."""
    limit: Limit = bounds.PAGE_SIZE_DEFAULT
    """Most events on a page."""


class StreamQuery(BaseModel):
    """What a run's stream tells."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    after: Opt[Seq] = None
    """Only events with a higher `seq`. A `Last-Event-ID` that is higher counts instead."""
    heartbeats: Flag = False
    """`true`: events of the type `heartbeat` too, and the run again when its lease was renewed, a few seconds late."""


Place = Annotated[
    str,
    Field(min_length=1, max_length=CURSOR_MAX),
    Matching(r"^[0-9]{1,18}([.][0-9]{1,6})?$", "must be an id of this stream", {"pattern": "^[0-9.]+$"}),
]
MessageName = Literal["run", "event", "plan"]


class WorkStreamQuery(BaseModel):
    """What a project's or an account's stream tells."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    project_id: Opt[Id] = None
    """Only this project's work; left out: everything that the token sees."""
    after: Opt[Place] = None
    """Go on behind this `id` of the stream. A `Last-Event-ID` that is later counts instead."""
    message: list[MessageName] = []
    """May be repeated: only messages of these kinds; left out: all three."""
    type: list[EventName] = []
    """May be repeated: of the events only those of these types."""
    heartbeats: Flag = False
    """`true`: events of the type `heartbeat` too."""
    leases: Flag = False
    """`true`: renewed leases, gathered, every few seconds."""


class WorkerQuery(PageQuery):
    """Which workers."""

    project_id: Opt[Id] = None
    """Those that hold lanes of this project, or would take one."""
    holding: Opt[Flag] = None
    """`true`: only those that hold lanes; `false`: only those that don't."""


class SessionQuery(PageQuery):
    """Which sessions."""

    all: Flag = False
    """`true`: those that are over, too."""


class AuditQuery(PageQuery):
    """Which entries of the audit log."""

    project_id: Opt[Id] = None
    action: Opt[ActionName] = None
    """An action, such as `run.paused`; or its first part, such as `run`, for all of that kind."""
    actor: Opt[Name] = None
    """The name or the id of a token, or a name of the command line."""
    since: Opt[Moment] = None
    """From this moment on."""
    until: Opt[Moment] = None
    """Before this moment."""
    oldest_first: Flag = False
    """`true`: from the oldest entry on."""
