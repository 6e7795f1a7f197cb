"""The OpenAPI document: FastAPI's own of its routes, with what it can't know.

That is: the hot routes in front of it, the bodies (read by `BodyReader`), what a token must cover, rate limits, every
error with an example, and an example of each body and answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from heartlane import __version__
from heartlane.server.depends import BodyReader, Caller
from heartlane.server.errors import RETRY_AFTER_SECONDS_DEFAULT
from heartlane.server.limits import ROUTES
from heartlane.server.openapi_security import SCHEMES, SIGNED, security_of
from heartlane.store.tokens import Scope
from heartlane.wire.answers import ClaimAnswer, ErrorAnswer, ReportAnswer
from heartlane.wire.errors import CODES
from heartlane.wire.examples import ANSWERS, CLAIMED_RUN, REQUESTS, RUNNING_RUN, STREAMS
from heartlane.wire.requests import ClaimBody, ClaimNextBody, ReportBody

Kind = TypeVar("Kind")

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
SCHEMAS: Final = "#/components/schemas/"

ABOUT: Final = """\
Heartlane is the control plane for fleets of workers that work the lanes of an approved plan side by side. It answers at
every moment who holds each lane, whether that worker is alive, what it is doing and, when it dies, who takes over.

**Tokens.** Every route under `/api` takes `Authorization: Bearer <token>`. Scopes nest: viewer < worker < operator <
admin. What a token can't see is 404. A browser that is logged in sends a cookie instead, and with every change the
header `X-CSRF-Token`; where a token is sent too, the token counts.

**Errors.** Every error of every route is one object, `ErrorAnswer`. `code` is stable; a 400 lists all problems at once.
A method that a path doesn't know is 405 `METHOD_NOT_ALLOWED` with an `Allow` header; a path that isn't there is 404.

**Ids** are UUIDs: taken in any case, answered in lower case. One that isn't a UUID is a 400. **Times** are RFC 3339 in
UTC. **Lists** come newest first, with `next_cursor`: send it as `cursor` for the next page; null on the last.

Unknown fields and unknown query parameters are ignored. A field that may be left out is left out, not sent as null,
unless its type says so. `HEAD` works wherever `GET` does, and `OPTIONS` answers the methods of a path.
"""

TAGS: Final = (
    ("Telemetry and claims", "What workers call: claim a lane, report on it."),
    ("Runs", "Lanes on their way: read and steered."),
    ("Plans", "What is to be done, approved before anybody starts."),
    ("Workers", "Who holds what."),
    ("Streams", "What happens, as it happens."),
    ("Projects", "What everything else belongs to."),
    ("Milestones", "Where a project is going."),
    ("Tickets", "What is wanted, and of which roles; lanes move them along."),
    ("GitHub", "Projects that are linked with it, and what it tells."),
    ("Sessions", "Who calls, and which browsers are logged in."),
    ("Audit", "Who did what."),
    ("Webhooks", "Where news of a project goes, signed and tried again, and how that went."),
    ("Notices", "What a person should know: told once, closed by progress or by hand."),
    ("Budgets", "What a project may cost, what it has cost, and a person's word to go on."),
    ("Overview", "How the work goes: throughput, time, failures, tokens and cost."),
    ("Health", "How the server is."),
    ("Pages", "For browsers."),
)


class HotOperation(NamedTuple):
    """An operation that is served in front of FastAPI."""

    name: str
    path: str
    summary: str
    description: str
    body: type[BaseModel]
    answer: type[BaseModel]
    answered: str


HOT: Final = (
    HotOperation(
        "report",
        "/api/agents/runs/{id}/events",
        "Report telemetry",
        "Renews the lease on the lane, sets the latest phase and log line, and appends the events, all in one atomic,"
        " durable step. Only the worker that holds the claim may report. With `seq`, a report can be sent again"
        " safely: a replay renews the lease and changes nothing else.",
        ReportBody,
        ReportAnswer,
        "Telemetry recorded; the updated run.",
    ),
    HotOperation(
        "claim_next",
        "/api/agents/runs/claim",
        "Claim the next lane",
        "The highest-priority, then oldest claimable lane that fits, or `run: null`. With `wait_seconds`, waits that"
        " long for one to come.",
        ClaimNextBody,
        ClaimAnswer,
        "The claimed lane, or null where none fits.",
    ),
    HotOperation(
        "claim_run",
        "/api/agents/runs/{id}/claim",
        "Claim one certain lane",
        "The holder's own second call renews its claim, and is the same attempt.",
        ClaimBody,
        ClaimAnswer,
        "The claimed lane.",
    ),
)
HOT_PATHS: Final = tuple(operation.path for operation in HOT)

CONFLICTS: Final[Mapping[str, Sequence[str]]] = {
    "report": ("CLAIM_HELD_BY_OTHER", "CLAIM_LOST", "NOT_CLAIMED", "STALE_ATTEMPT", "RUN_FINISHED"),
    "claim_run": ("CLAIM_HELD_BY_OTHER", "LANE_BLOCKED", "NO_LONGER_QUEUED"),
    "release_run": ("CLAIM_HELD_BY_OTHER", "CLAIM_LOST", "NOT_CLAIMED", "STALE_ATTEMPT", "RUN_FINISHED"),
    "pause_run": ("NOT_CLAIMED", "RUN_FINISHED"),
    "resume_run": ("NOT_CLAIMED", "RUN_FINISHED"),
    "cancel_run": ("RUN_FINISHED",),
    "retry_run": ("CLAIM_HELD_BY_OTHER", "RUN_FINISHED"),
    "approve_plan": ("PLAN_REJECTED",),
    "reject_plan": ("PLAN_APPROVED",),
    "patch_ticket": ("ROLES_INCOMPLETE",),
    "change_tickets": ("ROLES_INCOMPLETE",),
    "create_webhook": ("NO_SECRET_KEY",),
    "patch_webhook": ("NO_SECRET_KEY",),
    "rotate_webhook_secret": ("NO_SECRET_KEY",),
    "import_github": ("GITHUB_LINK_BROKEN",),
    "hear_github": (
        "NOT_AUTHENTICATED",
        "RATE_LIMITED",
        "INVALID_REQUEST",
        "NOT_FOUND",
        "PAYLOAD_TOO_LARGE",
        "UNSUPPORTED_MEDIA_TYPE",
        "UNAVAILABLE",
    ),
}
"""Operation → the 409s it can answer, and what else goes beyond what its kind of operation can."""

ABOUT_A_CLAIM: Final = frozenset(
    {"report", "claim_run", "release_run", "pause_run", "resume_run", "cancel_run", "retry_run"}
)
MAY_BE_MISSING: Final = frozenset({"claim_next", "create_plan"})
"""Operations without an id in their path whose body names something that may not be there."""
RATE_LIMITS: Final = (
    {"report": "report", "claim_next": "claim", "claim_run": "claim"}
    | {f"{name}_plan": name for name in ("approve", "reject")}
    | {"create_plan": "plan"}
)
"""Operation → the name of its rate limit; any other under /api: `default`."""

STATUS_TEXTS: Final = {
    400: "Invalid request: all problems at once.",
    401: "Not authenticated.",
    403: "The token's scope doesn't cover this, or a browser's change lacks its proof.",
    404: "Not found, or not to be seen with this token.",
    409: "Resource state conflict.",
    413: "The body is too large.",
    415: "The body is not plain JSON.",
    429: "Rate limited.",
    500: "Server error.",
    503: "The server can't do this right now; try again.",
}

RATE_LIMIT_HEADERS: Final = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
HEADERS: Final[Mapping[str, str]] = {
    "RateLimit-Limit": "Requests allowed in a window.",
    "RateLimit-Remaining": "Requests left in this window.",
    "RateLimit-Reset": "Seconds until the window ends.",
    "Retry-After": "Seconds until a retry makes sense.",
}


def build_document(routes: Sequence[APIRoute]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes and the hot ones."""
    routes = [route for route in routes if route.include_in_schema]
    document = get_openapi(
        title="Heartlane",
        version=__version__,
        openapi_version="3.1.0",
        description=ABOUT,
        routes=routes,
        tags=[{"name": name, "description": text} for name, text in TAGS],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        separate_input_output_schemas=False,
    )
    schemas: dict[str, Any] = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update(_schemas(_bodies(routes)))
    for route in routes:
        for method in route.methods or ():
            _complete(document["paths"][route.path][method.lower()], route)
    for hot in HOT:
        document["paths"].setdefault(hot.path, {})["post"] = _hot_operation(hot)
    document["paths"] = dict(sorted(document["paths"].items()))
    document["components"]["securitySchemes"] = SCHEMES
    document["components"]["headers"] = {
        name: {"description": text, "schema": {"type": "integer", "minimum": 0}} for name, text in HEADERS.items()
    }
    _tidy(document)
    return document


def _bodies(routes: Sequence[APIRoute]) -> list[tuple[type[BaseModel], JsonSchemaMode]]:
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(ErrorAnswer, "serialization")]
    models += [(hot.body, "validation") for hot in HOT] + [(hot.answer, "serialization") for hot in HOT]
    for route in routes:
        reader = _found(route, BodyReader)
        if reader is not None:
            models += [(model, "validation") for model in reader.models]
    return models


def _schemas(models: Sequence[tuple[type[BaseModel], JsonSchemaMode]]) -> dict[str, Any]:
    _, definitions = models_json_schema(models, ref_template=SCHEMAS + "{model}")
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def _found(route: APIRoute, kind: type[Kind]) -> Kind | None:
    return next((call for call in _calls(route.dependant) if isinstance(call, kind)), None)


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)


# --- operations ---------------------------------------------------------------------------------------------------


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    name = route.name
    caller, reader = _found(route, Caller), _found(route, BodyReader)
    operation["operationId"] = name
    operation["responses"].pop("422", None)
    if reader is not None:
        operation["requestBody"] = _request_body(name, reader.models, required=not reader.optional)
    answered = [text for status, text in operation["responses"].items() if status.startswith("2")]
    answer = answered[0] if answered else None
    if answer is not None and name in STREAMS:
        answer["description"] = "A stream of events that ends with the connection."
        answer["content"] = {EVENT_STREAM: {"schema": {"type": "string"}, "example": STREAMS[name]}}
    if answer is not None and name in ANSWERS:
        answer["description"] = (route.response_model.__doc__ or "").partition("\n")[0]
    if name in ANSWERS:
        for each in answered:
            each["content"][JSON]["example"] = ANSWERS[name]
    has_input = reader is not None or bool(operation.get("parameters"))
    _add_errors(
        operation,
        name,
        scope=None if caller is None else caller.scope,
        reads="GET" in (route.methods or ()),
        has_input=has_input,
        has_body=reader is not None,
        may_be_missing="{" in route.path or name in MAY_BE_MISSING,
    )


def _hot_operation(hot: HotOperation) -> dict[str, Any]:
    parameters = []
    if "{id}" in hot.path:
        schema = {"type": "string", "format": "uuid"}
        parameters.append(
            {"name": "id", "in": "path", "required": True, "description": "The run, in any case.", "schema": schema}
        )
    content = {JSON: {"schema": {"$ref": SCHEMAS + hot.answer.__name__}, "example": ANSWERS[hot.name]}}
    operation: dict[str, Any] = {
        "tags": [TAGS[0][0]],
        "summary": hot.summary,
        "description": hot.description,
        "operationId": hot.name,
        "parameters": parameters,
        "requestBody": _request_body(hot.name, [hot.body], required=True),
        "responses": {"200": {"description": hot.answered, "content": content}},
    }
    _add_errors(operation, hot.name, scope="worker", reads=False, has_input=True, has_body=True, may_be_missing=True)
    return operation


def _request_body(name: str, models: Sequence[type[BaseModel]], *, required: bool) -> dict[str, Any]:
    schemas = [{"$ref": SCHEMAS + model.__name__} for model in models]
    examples = {
        title.lower().replace(" ", "_"): {"summary": title, "value": value} for title, value in REQUESTS[name].items()
    }
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"required": required, "content": {JSON: {"schema": schema, "examples": examples}}}


def _add_errors(
    operation: dict[str, Any],
    name: str,
    *,
    scope: Scope | None,
    reads: bool,
    has_input: bool,
    has_body: bool,
    may_be_missing: bool,
) -> None:
    codes: list[str] = []
    limit = RATE_LIMITS.get(name, "default")
    if scope is not None:
        operation["security"] = security_of(name, reads=reads)
        operation["description"] = (
            f"{operation.get('description', '')}\n\n"
            f"Scope: **{scope}**. Limit: {ROUTES[limit][0]} requests a minute for one address"
            f"{' on this route' if limit not in ('default', 'claim') else ''}, unless set otherwise."
        ).strip()
        operation["x-scope"] = scope
        codes += ["NOT_AUTHENTICATED", "TOKEN_EXPIRED", "TOKEN_REVOKED", "FORBIDDEN", "RATE_LIMITED"]
    else:
        operation["security"] = []
    if has_input:
        codes.append("INVALID_REQUEST")
    if may_be_missing:
        codes.append("NOT_FOUND")
    if has_body:
        codes += ["PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"]
    codes += CONFLICTS.get(name, ())
    if scope is not None or name in ("readyz", "metrics"):
        codes.append("UNAVAILABLE")
    codes.append("INTERNAL_ERROR")
    responses = operation["responses"]
    for status in sorted({CODES[code].status for code in codes}):
        responses[str(status)] = _error_response(name, status, [code for code in codes if CODES[code].status == status])
    if scope is not None or name in SIGNED:
        for response in responses.values():
            response.setdefault("headers", {}).update(
                {header: {"$ref": f"#/components/headers/{header}"} for header in RATE_LIMIT_HEADERS}
            )


def _error_response(name: str, status: int, codes: Sequence[str]) -> dict[str, Any]:
    examples = {code: {"summary": CODES[code].remedy, "value": _error_example(name, code)} for code in codes}
    response: dict[str, Any] = {
        "description": STATUS_TEXTS[status],
        "content": {JSON: {"schema": {"$ref": f"{SCHEMAS}ErrorAnswer"}, "examples": examples}},
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    if status == 401:
        schema = {"type": "string", "const": "Bearer"}
        response["headers"] = {"WWW-Authenticate": {"description": "Always `Bearer`.", "schema": schema}}
    return response


def _error_example(name: str, code: str) -> dict[str, Any]:
    row = CODES[code]
    body: dict[str, Any] = {"error": row.meaning, "code": code}
    if row.status == 400:
        path, message = _invalid(name)
        body["error"] = f"The request is not valid: {path} {message}."
        body["fieldErrors"] = {path: message}
        body["issues"] = [{"path": path, "message": message}]
    if code == "GITHUB_LINK_BROKEN":
        body["relinkGithub"] = True
    if row.status in (429, 503):
        body["retryAfter"] = RETRY_AFTER_SECONDS_DEFAULT
    if row.status == 409 and name in ABOUT_A_CLAIM:
        body["run"] = _run_at(code)
    return body


def _invalid(name: str) -> tuple[str, str]:
    """One likely problem of an operation's input."""
    if name in ("report", "claim_run", "claim_next"):
        return "lease_seconds", "must be at most 3600"
    if name in REQUESTS:
        first = next(iter(next(iter(REQUESTS[name].values()))), "body")
        return first, "is required"
    return (
        ("limit", "must be at most 200")
        if name.startswith(("list_", "get_runs", "get_w"))
        else ("id", "must be a UUID")
    )


def _run_at(code: str) -> dict[str, Any]:
    """The run as it may be when a code is answered."""
    free = {"state": "queued", "worker_id": None, "claimed_at": None, "lease_expires_at": None}
    ended = {"state": "shipped", "lease_expires_at": None, "finished_at": RUNNING_RUN["updated_at"]}
    match code:
        case "RUN_FINISHED" | "NO_LONGER_QUEUED":
            return RUNNING_RUN | ended
        case "CLAIM_LOST" | "NOT_CLAIMED" | "LANE_BLOCKED":
            return RUNNING_RUN | free
    return CLAIMED_RUN | {"worker_id": "build-9.backend.77", "attempt": 2}


# --- tidying ------------------------------------------------------------------------------------------------------


def _tidy(node: Any) -> None:
    """Take out what generators put in and no reader wants: titles that repeat names, defaults that are null."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str) and ("type" in node or "anyOf" in node or "$ref" in node or "enum" in node):
        del node["title"]
    if "default" in node and node["default"] is None:
        del node["default"]
    for name, value in node.items():
        if name not in ("example", "examples", "default"):
            _tidy(value)
