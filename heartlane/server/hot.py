"""The frame of the routes that machines call all day: plain ASGI, in front of FastAPI.

They share everything with the other routes (settings, authentication, limiter, models, errors) and stand in the same
OpenAPI document; what they leave out is the framework's own cost for every call.

A request is let in by the gate, counted against its route's limit, authenticated, read whole, parsed and validated, in
this order; then the route itself does its work. Every way out of it is an answer in the contract's shape.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from heartlane.lanes.decisions import Refusal
from heartlane.server.auth import Principal, require
from heartlane.server.context import Context
from heartlane.server.errors import ApiError, Headers, Issue, invalid_request, render, validation_error
from heartlane.server.failures import as_api_error, cut_off
from heartlane.server.headers import for_machines
from heartlane.server.limits import client_ip
from heartlane.server.logs import begin_request, log_hot_request, logs_hot_routes
from heartlane.server.media import check_content_encoding, check_content_type, declared_size, too_large
from heartlane.store.batch import Outcome
from heartlane.store.tokens import Scope
from heartlane.wire.parse import BadJson, parse_json
from heartlane.wire.run_json import run_body

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Body = TypeVar("Body", bound=BaseModel)

JSON_TYPE: Final = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


class HotRequest:
    """One request on a hot route, as far as its frame has read it.

    path_id     the run's id out of the path, as it was sent; "" on a route without one
    """

    __slots__ = ("body", "path_id", "principal", "receive")

    def __init__(self, principal: Principal, body: bytes, path_id: str, receive: Receive) -> None:
        self.principal = principal
        self.body = body
        self.path_id = path_id
        self.receive = receive


Handler = Callable[[HotRequest], Awaitable[bytes]]


class HotRoute:
    """One POST route: `limit` names its rate limit, `scope` what the token must cover, `handle` does the work."""

    def __init__(self, context: Context, limit: str, scope: Scope, handle: Handler) -> None:
        self._context = context
        self._limit = limit
        self._scope = scope
        self._handle = handle
        self._trusted = context.settings.trusted_proxies
        self._body_max = context.settings.max_body_bytes
        self._headers = for_machines(context.settings)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send, path_id: str = "") -> None:
        gate = self._context.gate
        started = time.perf_counter() if logs_hot_routes() else 0.0
        address = client_ip(scope, self._trusted)
        headers: Headers = []
        task = gate.enter()
        try:
            limited = self._context.limiter.check(self._limit, address)
            headers = limited.headers()
            if not limited.allowed:
                raise limited.error()
            body = await self._handle(await self._let_in(scope, receive, address, path_id))
            status = 200
            headers.append(JSON_TYPE)
            headers.append((b"content-length", b"%d" % len(body)))
        except ClientGone:
            return
        except (Exception, asyncio.CancelledError) as error:  # every way out is an answer in the contract's shape
            if isinstance(error, asyncio.CancelledError) and not gate.gave_up:
                raise
            if not isinstance(error, ApiError):
                begin_request(scope["headers"])  # what is logged of it carries the request's id
            refusal = as_api_error(error, scope["path"])
            self._context.metrics.refused(refusal)
            status, refused_headers, body = render(refusal)
            # A 429 carries its RateLimit headers itself.
            headers = refused_headers if refusal.code == "RATE_LIMITED" else [*headers, *refused_headers]
        finally:
            gate.leave(task)
        headers += self._headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        if started:
            begin_request(scope["headers"])
            log_hot_request(scope, status, started, address)

    async def _let_in(self, scope: AsgiScope, receive: Receive, address: str, path_id: str) -> HotRequest:
        if not self._context.gate.is_open:
            raise ApiError("UNAVAILABLE", "The server is shutting down; another one, or this one again, takes over.")
        authorization = length = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"content-type" and value != JSON_TYPE[1]:
                check_content_type(value)
            elif name == b"content-encoding":
                check_content_encoding(value)
            elif name == b"content-length":
                length = value
        if authorization is None:
            principal, _ = await self._context.sessions.identify(scope, address)
        else:
            auth = self._context.auth
            principal = auth.known(authorization, address) or await auth.authenticate(authorization, address)
        require(principal, self._scope)
        size = declared_size(length)
        if size > self._body_max:
            raise too_large(self._body_max)
        with self._context.patience:
            body = await self._read(receive, size)
        return HotRequest(principal, body, path_id, receive)

    async def _read(self, receive: Receive, declared: int) -> bytes:
        """The body. One as long as it was declared is whole: the message that says so isn't waited for."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise cut_off()
        body: bytes = message.get("body", b"")
        if message.get("more_body") and not len(body) == declared > 0:
            parts = [body]
            size = len(body)
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise cut_off()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > self._body_max:
                    raise too_large(self._body_max)
            body = b"".join(parts)
        if len(body) > self._body_max:
            raise too_large(self._body_max)
        return body


def read_body(model: type[Body], body: bytes) -> Body:
    """The validated body. Raises ApiError with every problem."""
    try:
        return model.model_validate(parse_json(body))
    except BadJson as error:
        raise invalid_request([Issue("body", str(error))]) from None
    except ValidationError as error:
        raise validation_error(error) from None


def refuse(outcome: Outcome) -> ApiError:
    """The 409 (or 404) of a refusal, with the run as it is now."""
    refusal = outcome.decision
    if not isinstance(refusal, Refusal):
        raise TypeError(f"not a refusal: {refusal!r}")
    run = None if refusal.run is None else run_body(refusal.run, outcome.now)
    return ApiError(refusal.code, refusal.error, run=run)


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection (the body must have been read)."""
    while (await receive())["type"] != "http.disconnect":
        pass
