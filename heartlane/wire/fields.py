"""The kinds of fields that request bodies are made of, each with its bounds, for `heartlane.wire.requests`.

All checks run inside pydantic's core: a Python function per field would cost more than the rest of a heartbeat's
validation. Everything is strict: no "5" for 5, no true for 1, no 5.0 for an integer.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from heartlane.lanes import bounds
from heartlane.wire.names import RoleName

T = TypeVar("T")

REQUEST_TYPE_MAX: Final = 100
TICKET_PRIORITY_MAX: Final = 50
ACTOR_ROLE_MAX: Final = 200
EXTERNAL_KEY_MAX: Final = 200
LABEL_MAX: Final = 200
SUGGESTED_RESOLUTION_MAX: Final = 5_000
MILESTONE_DESCRIPTION_MAX: Final = 5_000
EVIDENCE_MAX: Final = 20_000
"""Characters of a ticket's evidence as JSON text."""


class Matching:
    """Metadata of a string field: it must match `pattern`, and a refusal says so by `message`, in plain words."""

    def __init__(self, pattern: str, message: str, json_schema: Mapping[str, Any]) -> None:
        self._check = core_schema.custom_error_schema(
            core_schema.str_schema(pattern=pattern),
            custom_error_type="string_form",
            custom_error_message=message,
        )
        self._json_schema = json_schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.chain_schema([handler(source), self._check])

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | dict(self._json_schema)


class LeftOut:
    """Metadata of a field that may be left out but not sent as null: the type without its None."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


Opt = Annotated[T | None, LeftOut()]
"""`Opt[X] = None`: a field that may be left out, but is never null on the wire."""

_YEAR_MIN: Final = 1970
_YEAR_MAX: Final = 2999
_YEAR: Final = r"(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})"
_LEAP_YEAR: Final = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_MONTH_AND_DAY: Final = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
)
RFC3339_PATTERN: Final = (
    rf"^(?:{_YEAR}-{_MONTH_AND_DAY}|{_LEAP_YEAR}-02-29)[Tt](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{{1,18}})?"
    r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)$"
).replace(r"\d", "[0-9]")
"""RFC 3339 from year 1 on, the 29th of February in leap years only. Not leap seconds, which few readers can take."""
UUID_PATTERN: Final = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"

NO_NUL: Final = Matching(r"^[^\x00]*$", "must not contain NUL characters", {"pattern": r"^[^\u0000]*$"})
"""PostgreSQL's text can't hold NUL, so that no stored string may have one, on either engine."""
_UUID_FORM: Final = Matching(UUID_PATTERN, "must be a UUID", {"format": "uuid"})
_RFC3339_FORM: Final = Matching(
    RFC3339_PATTERN,
    "must be an RFC 3339 date-time with its offset, such as 2026-01-02T03:04:05Z",
    {"format": "date-time"},
)
_URL_FORM: Final = Matching(
    r"^https?://[^\x00-\x20\x7f-\xa0]+$",
    "must be an address that begins with http:// or https://",
    {"pattern": r"^https?://[^\u0000-\u0020\u007f-\u00a0]+$"},
)
_REPO_FORM: Final = Matching(
    r"^[^\x00-\x20\x7f-\xa0]+$",
    "must be an address without spaces or control characters",
    {"pattern": r"^[^\u0000-\u0020\u007f-\u00a0]+$"},
)


class AsMoment:
    """Metadata of a datetime that comes as RFC 3339 text."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = handler.generate_schema(Instant)
        return core_schema.chain_schema([text, core_schema.no_info_plain_validator_function(_to_utc)])

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "date-time", "pattern": "^(?:19[7-9][0-9]|2[0-9]{3})-"}


def _to_utc(text: str) -> datetime:
    # 3.11's fromisoformat reads every form that the pattern lets through, once in upper case.
    moment = datetime.fromisoformat(text.upper())
    if not _YEAR_MIN <= moment.year <= _YEAR_MAX:
        raise PydanticCustomError("moment_range", f"must lie in the years {_YEAR_MIN} to {_YEAR_MAX}")
    return moment.astimezone(UTC)


Id = Annotated[str, StringConstraints(to_lower=True), _UUID_FORM]
"""A UUID in any case; lower case from here on."""
Instant = Annotated[str, _RFC3339_FORM]
"""A moment with its offset, kept as it was sent."""
Moment = Annotated[datetime, AsMoment()]
"""A moment as an aware UTC datetime, of the years 1970 to 2999."""
Name = Annotated[str, Field(min_length=1, max_length=bounds.NAME_MAX), NO_NUL]
Url = Annotated[str, Field(max_length=bounds.URL_MAX), _URL_FORM]
"""An address that people follow: http or https only, so that no page ever links to a script."""
RepoUrl = Annotated[str, Field(min_length=1, max_length=bounds.URL_MAX), _REPO_FORM]
"""Where a repository is, in any way that Git knows (`https://…`, `git@host:path`)."""
Branch = Annotated[str, Field(min_length=1, max_length=bounds.BRANCH_MAX), NO_NUL]

WorkerId = Annotated[str, Field(min_length=1, max_length=bounds.WORKER_ID_MAX), NO_NUL]
Phase = Annotated[str, Field(max_length=bounds.PHASE_MAX), NO_NUL]
LogLine = Annotated[str, Field(max_length=bounds.LOG_LINE_MAX), NO_NUL]
Reason = Annotated[str, Field(max_length=bounds.RELEASE_REASON_MAX), NO_NUL]
LeaseSeconds = Annotated[int, Field(ge=bounds.LEASE_SECONDS_MIN, le=bounds.LEASE_SECONDS_MAX)]
Counter = Annotated[int, Field(ge=1, le=bounds.COUNTER_MAX)]
RetryAfterSeconds = Annotated[float, Field(ge=0, le=bounds.RETRY_AFTER_SECONDS_MAX, allow_inf_nan=False)]
WaitSeconds = Annotated[float, Field(ge=0, le=bounds.WAIT_SECONDS_MAX, allow_inf_nan=False)]
LabelKey = Annotated[str, Field(min_length=1, max_length=bounds.LABEL_KEY_MAX), NO_NUL]
LabelValue = Annotated[str, Field(max_length=bounds.LABEL_VALUE_MAX), NO_NUL]
Labels = Annotated[
    dict[LabelKey, LabelValue],
    Field(max_length=bounds.LABELS_MAX),
    # Left to itself, pydantic makes the key's pattern say which keys the value's bounds are for.
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": bounds.LABELS_MAX,
            "propertyNames": {"minLength": 1, "maxLength": bounds.LABEL_KEY_MAX, "pattern": r"^[^\u0000]*$"},
            "additionalProperties": {
                "type": "string",
                "maxLength": bounds.LABEL_VALUE_MAX,
                "pattern": r"^[^\u0000]*$",
            },
        }
    ),
]

MaxActive = Annotated[int, Field(ge=1, le=bounds.CAP_MAX)]
MaxActiveByRole = Annotated[dict[RoleName, MaxActive], Field(max_length=len(get_args(RoleName)))]
SourceName = Annotated[str, Field(min_length=1, max_length=bounds.SOURCE_MAX), NO_NUL]
MaxActiveBySource = Annotated[
    dict[SourceName, MaxActive],
    Field(max_length=bounds.CAPS_BY_SOURCE_MAX),
    # As with labels: pydantic by itself says which keys the value's bounds are for.
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": bounds.CAPS_BY_SOURCE_MAX,
            "propertyNames": {"minLength": 1, "maxLength": bounds.SOURCE_MAX, "pattern": r"^[^\u0000]*$"},
            "additionalProperties": {"type": "integer", "minimum": 1, "maximum": bounds.CAP_MAX},
        }
    ),
]
MaxFailures = Annotated[int, Field(ge=bounds.MAX_FAILURES_MIN, le=bounds.MAX_FAILURES_MAX)]
StalledAfterSeconds = Annotated[int, Field(ge=bounds.STALLED_AFTER_SECONDS_MIN, le=bounds.STALLED_AFTER_SECONDS_MAX)]
MilestoneDescription = Annotated[str, Field(max_length=MILESTONE_DESCRIPTION_MAX), NO_NUL]

PlanTitle = Annotated[str, Field(min_length=bounds.TITLE_MIN, max_length=bounds.TITLE_MAX), NO_NUL]
LaneKey = Annotated[str, Field(min_length=1, max_length=bounds.LANE_KEY_MAX), NO_NUL]
LanePriority = Annotated[int, Field(ge=bounds.PRIORITY_MIN, le=bounds.PRIORITY_MAX)]
Prompt = Annotated[str, Field(max_length=bounds.PROMPT_MAX), NO_NUL]
RejectReason = Annotated[str, Field(min_length=1, max_length=bounds.REJECT_REASON_MAX), NO_NUL]

TicketTitle = Annotated[str, Field(min_length=bounds.TICKET_TITLE_MIN, max_length=bounds.TICKET_TITLE_MAX), NO_NUL]
TicketDescription = Annotated[
    str, Field(min_length=bounds.TICKET_DESCRIPTION_MIN, max_length=bounds.TICKET_DESCRIPTION_MAX), NO_NUL
]
ExternalKey = Annotated[str, Field(min_length=1, max_length=EXTERNAL_KEY_MAX), NO_NUL]
Label = Annotated[str, Field(min_length=1, max_length=LABEL_MAX), NO_NUL]
"""A label of an issue, elsewhere."""
RequestType = Annotated[str, Field(min_length=1, max_length=REQUEST_TYPE_MAX), NO_NUL]
TicketPriority = Annotated[str, Field(min_length=1, max_length=TICKET_PRIORITY_MAX), NO_NUL]
ActorRole = Annotated[str, Field(min_length=1, max_length=ACTOR_ROLE_MAX), NO_NUL]
SuggestedResolution = Annotated[str, Field(max_length=SUGGESTED_RESOLUTION_MAX), NO_NUL]
