"""What the routes ask FastAPI for: who calls, the checked body, and what the server consists of.

Bodies don't go through FastAPI's own reading, which would take "5" for 5: they are read by the one parser that the hot
routes use, then validated by strict models. `BodyReader` carries its model, from where the OpenAPI document takes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, get_origin

from fastapi import Depends, Path, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from heartlane.server.auth import Principal, require
from heartlane.server.bodies import dump
from heartlane.server.context import Context
from heartlane.server.errors import ApiError, Issue, invalid_request, issues_of
from heartlane.server.limits import client_ip
from heartlane.server.media import check_content_encoding, check_content_type, declared_size, too_large
from heartlane.server.sessions import user_agent
from heartlane.server.streams import Opening
from heartlane.server.telemetry import UUID
from heartlane.store.audit import Actor
from heartlane.store.pages import Reach
from heartlane.store.ticket_audit import By
from heartlane.store.tokens import Scope
from heartlane.wire.fields import Id
from heartlane.wire.parse import BadJson, parse_json

JSON_TYPE: Final = "application/json"


class Json(Response):
    """An answer as JSON, dates and ready-made fragments included."""

    media_type = JSON_TYPE

    def render(self, content: Any) -> bytes:
        return dump(content)


def get_context(request: Request) -> Context:
    """The server that this request came to."""
    context: Context = request.app.state.context
    return context


Server = Annotated[Context, Depends(get_context)]


class Caller:
    """Authenticates the request, and refuses a token whose scope doesn't cover `scope`.

    Then a query parameter that is given twice though it has one value: which of the two counted would be a guess.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        context = get_context(request)
        headers = request.scope["headers"]
        header = next((value for name, value in headers if name == b"authorization"), None)
        address = client_ip(request.scope, context.settings.trusted_proxies)
        if header is None:
            principal, header = await context.sessions.identify(request.scope, address)
        else:
            principal = await context.auth.authenticate(header, address)
        request.state.credential = header
        require(principal, self.scope)
        _refuse_repeated(request)
        return principal


def _refuse_repeated(request: Request) -> None:
    counts = Counter(name for name, _ in request.query_params.multi_items())
    if counts.total() == len(counts):
        return
    route = request.scope["route"]
    fields = {
        name: field
        for parameter in route.dependant.query_params
        for name, field in parameter.field_info.annotation.model_fields.items()
    }
    issues = [
        Issue(name, "must be given only once")
        for name, count in counts.items()
        if count > 1 and name in fields and get_origin(fields[name].annotation) is not list
    ]
    if issues:
        raise invalid_request(issues)


Viewer = Annotated[Principal, Depends(Caller("viewer"))]
Worker = Annotated[Principal, Depends(Caller("worker"))]
Operator = Annotated[Principal, Depends(Caller("operator"))]
Admin = Annotated[Principal, Depends(Caller("admin"))]

PathId = Annotated[Id, Path(alias="id", description="In any case.")]
PathTicketId = Annotated[Id, Path(alias="ticketId", description="In any case.")]
PathMilestoneId = Annotated[Id, Path(alias="milestoneId", description="In any case.")]


class BodyReader:
    """Reads and validates the body; all its problems, and those of the ids in the path, are one answer.

    models      the one model of the body or, with `choose`, those that it may be
    choose      which of them a parsed body is meant to be
    optional    whether a request without any body counts as `{}`
    """

    def __init__(
        self,
        *models: type[BaseModel],
        choose: Callable[[Any], type[BaseModel]] | None = None,
        optional: bool = False,
    ) -> None:
        self.models: Sequence[type[BaseModel]] = models
        self.choose = choose
        self.optional = optional

    async def __call__(self, request: Request) -> BaseModel:
        _check_media(request.scope["headers"])
        raw = await _read(request, get_context(request).settings.max_body_bytes)
        issues = [
            Issue(name, "must be a UUID") for name, text in request.path_params.items() if not UUID.fullmatch(text)
        ]
        body: BaseModel | None = None
        try:
            value = {} if self.optional and not raw else parse_json(raw)
            model = self.models[0] if self.choose is None else self.choose(value)
            body = model.model_validate(value)
        except BadJson as error:
            issues.append(Issue("body", str(error)))
        except ValidationError as error:
            issues.extend(issues_of(error.errors(include_url=False, include_input=False)))
        if issues or body is None:
            raise invalid_request(issues)
        return body


def body_of(
    *models: type[BaseModel], choose: Callable[[Any], type[BaseModel]] | None = None, optional: bool = False
) -> Any:
    """A route's dependency on its body."""
    return Depends(BodyReader(*models, choose=choose, optional=optional))


def _check_media(headers: Sequence[tuple[bytes, bytes]]) -> None:
    for name, value in headers:
        if name == b"content-type":
            check_content_type(value)
        elif name == b"content-encoding":
            check_content_encoding(value)


async def _read(request: Request, size_max: int) -> bytes:
    if declared_size(request.headers.get("content-length", "").encode("latin-1")) > size_max:
        raise too_large(size_max)
    parts: list[bytes] = []
    size = 0
    with get_context(request).patience:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > size_max:
                raise too_large(size_max)
    return b"".join(parts)


async def read_raw(request: Request) -> bytes:
    """The body as it came, of a request that declares plain JSON. Raises ApiError."""
    _check_media(request.scope["headers"])
    return await _read(request, get_context(request).settings.max_body_bytes)


def object_from(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises ApiError."""
    try:
        value = parse_json(raw)
    except BadJson as error:
        raise invalid_request([Issue("body", str(error))]) from None
    if not isinstance(value, dict):
        raise invalid_request([Issue("body", "must be an object")])
    return value


def credential_of(request: Request) -> bytes:
    """What an authenticated request proved itself with: its `Authorization` header, or a session's secret in its place.

    `Authenticator.known` and `authenticate` take it again later, as streams do.
    """
    credential: bytes = request.state.credential
    return credential


def actor_of(request: Request, principal: Principal) -> Actor:
    """The caller as the audit log names it."""
    return Actor(
        "token" if principal.session_id is None else "session",
        principal.name,
        principal.token_id,
        principal.session_id,
        client_ip(request.scope, get_context(request).settings.trusted_proxies),
        user_agent(request.scope),
    )


def by_of(request: Request, principal: Principal) -> By:
    """The same with the caller's account."""
    return By(actor_of(request, principal), principal.account_id)


def opening_of(request: Request) -> Opening:
    """Who opens a stream, for one who has been let in."""
    address = client_ip(request.scope, get_context(request).settings.trusted_proxies)
    return Opening(credential_of(request), address)


def reach_of(principal: Principal) -> Reach:
    """How far the caller sees."""
    return Reach(principal.account_id, principal.project_id)


def not_found(what: str) -> ApiError:
    """The 404 of something that isn't there, or that the caller can't see."""
    return ApiError("NOT_FOUND", f"There is no such {what}.")
