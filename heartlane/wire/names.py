"""Fixed names that travel: roles, states, types. Requests are held to them; to a client that reads they are open."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")

RoleName = Literal["frontend", "backend", "test", "design", "devops", "qa", "other"]
TicketRoleName = Literal["frontend", "backend", "test", "design", "devops", "qa", "other", "merged"]
RoleStateName = Literal["pending", "in_progress", "done", "skipped"]
StageName = Literal["backlog", "up_next", "in_progress", "validation", "live"]
StatusName = Literal["open", "closed"]
ResolutionName = Literal["completed", "already_done", "duplicate", "wont_fix", "no_longer_relevant", "cancelled"]
ImportStateName = Literal["running", "waiting", "done", "failed"]
SyncOutcomeName = Literal["created", "updated", "unchanged", "skipped"]
PlanStatusName = Literal["pending", "approved", "rejected"]
StateName = Literal["queued", "claimed", "running", "paused", "shipping", "shipped", "failed", "released"]
AttentionName = Literal["waiting_for_human", "stalled", "paused", "failed", "lease_running_out", "budget"]
DirectiveName = Literal["continue", "pause", "stop"]
WorkerStatusName = Literal["working", "silent", "waiting", "idle"]
WorkerEventName = Literal["heartbeat", "log_line", "phase_change", "action", "error", "ship_complete"]
EventName = Literal[
    "heartbeat",
    "log_line",
    "phase_change",
    "action",
    "error",
    "ship_complete",
    "claimed",
    "lease_expired",
    "released",
    "paused",
    "resumed",
    "cancelled",
    "retried",
    "budget_held",
    "budget_lifted",
    "pull_request",
]

TAKE_UNKNOWN_NAMES: Final = "heartlane.take_unknown_names"
"""Key of the validation context with which a client reads: names that it doesn't know come through as they are."""


class OpenName:
    """Metadata of a name in an answer: a newer server may know more, and an older client must not fail on them."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_wrap_validator_function(_known_or_any, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema)


def _known_or_any(
    value: Any, known: core_schema.ValidatorFunctionWrapHandler, info: core_schema.ValidationInfo[Any]
) -> Any:
    try:
        return known(value)
    except ValidationError:
        if isinstance(value, str) and info.context and info.context.get(TAKE_UNKNOWN_NAMES):
            return value
        raise


Open = Annotated[T, OpenName()]
"""`Open[StateName]`: one of these names or, for a client that reads, one that came later."""
