"""The FastAPI application: every route but the hot ones, and one shape for every error.

Around FastAPI stands `Front`, which does for these routes what the hot routes do for themselves: lets in, counts rate
limits, and makes sure that whatever happens is answered in the contract's shape.
"""

from __future__ import annotations

import asyncio
import re
from functools import cache
from typing import Final

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heartlane import __version__
from heartlane.server import docs_page, openapi
from heartlane.server.context import Context
from heartlane.server.errors import ApiError, Headers, render
from heartlane.server.failures import as_api_error, unknown_method
from heartlane.server.headers import for_browsers
from heartlane.server.limits import client_ip
from heartlane.server.logs import AccessLog, App
from heartlane.server.routes import (
    audit,
    budgets,
    github,
    health,
    milestones,
    notices,
    overview,
    plans,
    projects,
    runs,
    sessions,
    streams,
    tickets,
    webhooks,
    workers,
)
from heartlane.server.streams import HEAD_ONLY
from heartlane.store.errors import StoreError
from heartlane.store.pages import BadCursor

LIMITED: Final = re.compile(r"/api/agents/(plan$|plans/[^/]+/(?:approve|reject)$)")
NO_STORE: Final = (b"cache-control", b"no-store")
COMPRESSED_BYTES_MIN: Final = 4_096
COMPRESSION: Final = 3
"""Answers from this size on are compressed for who takes it, streams never: a page of 200 lanes is 240 KB without. At
this level that takes some 2 ms of it."""
ROUTERS: Final = tuple(
    module.router
    for module in (
        *(runs, plans, workers, streams, projects, milestones, tickets, github),
        *(budgets, overview, webhooks, notices, sessions, audit, health, docs_page),
    )
)


def create_app(context: Context, pages: APIRouter | None = None) -> App:
    """The application behind the hot routes: FastAPI, with what stands around it.

    pages   the routes of the board, which stands above the server; none in a server that is an API alone
    """
    app = make_fastapi(context, pages)
    trusted = context.settings.trusted_proxies
    small = GZipMiddleware(app, COMPRESSED_BYTES_MIN, COMPRESSION)
    return AccessLog(Front(context, small, Methods(pages)), lambda scope: client_ip(scope, trusted))


def make_fastapi(context: Context, pages: APIRouter | None) -> FastAPI:
    """FastAPI with every route, the board's first, and one shape for all that goes wrong in them."""
    app = FastAPI(
        title="Heartlane",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.context = context
    for router in (*(() if pages is None else (pages,)), *ROUTERS):
        app.include_router(router)

    @cache
    def openapi_json() -> docs_page.Asset:
        return docs_page.make_asset(orjson.dumps(openapi.build_document(api_routes())), "json")

    app.state.openapi_json = openapi_json

    async def on_error(request: Request, error: Exception) -> Response:
        return answer(context, as_api_error(error, request.scope["path"]))

    for kind in (ApiError, StoreError, BadCursor, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, on_error)
    return app


def api_routes() -> list[APIRoute]:
    """Every route that FastAPI serves."""
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def answer(context: Context, error: ApiError) -> Response:
    """An error as an answer, counted."""
    context.metrics.refused(error)
    rendered = render(error)
    response = Response(rendered.body, rendered.status)
    response.raw_headers = rendered.headers
    return response


class Methods:
    """Which methods each path knows, hot routes included."""

    def __init__(self, pages: APIRouter | None) -> None:
        known: dict[str, set[str]] = {}
        shown = [] if pages is None else [route for route in pages.routes if isinstance(route, APIRoute)]
        for route in [*api_routes(), *shown]:
            known.setdefault(route.path, set()).update(route.methods or ())
        for path in openapi.HOT_PATHS:
            known.setdefault(path, set()).add("POST")
        # A path with fewer parameters goes before one with more: `tickets/batch` is no ticket's id.
        self._patterns = [
            (re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)), sorted(_with_implied(known[path])))
            for path in sorted(known, key=lambda path: path.count("{"))
        ]

    def of(self, path: str) -> list[str]:
        """The methods of a path, sorted; none for a path that isn't there."""
        return next((methods for pattern, methods in self._patterns if pattern.fullmatch(path)), [])


def _with_implied(methods: set[str]) -> set[str]:
    return methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())


class Front:
    """ASGI middleware that lets requests in, counts rate limits, and answers HEAD and OPTIONS."""

    def __init__(self, context: Context, app: ASGIApp, methods: Methods) -> None:
        self._context = context
        self._app = app
        self._methods = methods
        self._trusted = context.settings.trusted_proxies
        self._headers = for_browsers(context.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        extra: Headers = list(self._headers)
        started = False

        async def send_with(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = list(message.get("headers", ()))
                names = {name for name, _ in own}
                message["headers"] = own + [header for header in extra if header[0] not in names]
            elif head:
                message = {**message, "body": b""}
            await send(message)

        head = scope["method"] == "HEAD"
        gate = self._context.gate
        task = gate.enter()
        try:
            refused = self._let_in(scope, extra) or self._by_method(scope)
            if refused is not None:
                await refused(scope, receive, send_with)
                return
            await self._app({**scope, "method": "GET", HEAD_ONLY: True} if head else scope, receive, send_with)
        except (Exception, asyncio.CancelledError) as error:  # every way out is an answer in the contract's shape
            if isinstance(error, asyncio.CancelledError) and not gate.gave_up:
                raise
            # Starlette raises again what it has answered with our 500 (and logged) already.
            if not started:
                await answer(self._context, as_api_error(error, scope["path"]))(scope, receive, send_with)
        finally:
            gate.leave(task)

    def _let_in(self, scope: Scope, extra: Headers) -> Response | None:
        """Count the request; the answer of one that may not enter, else None. Adds to the answer's headers."""
        path: str = scope["path"]
        if not any(name == b"authorization" for name, _ in scope["headers"]):
            try:
                self._context.sessions.origins.refuse_strange_host(scope)
            except ApiError as error:
                return answer(self._context, error)
        # A login writes as much as any call does.
        if not path.startswith("/api/") and scope["method"] != "POST":
            return None
        extra.append(NO_STORE)
        limited = self._context.limiter.check(_limit_of(scope["method"], path), client_ip(scope, self._trusted))
        if not limited.allowed:
            return answer(self._context, limited.error())
        extra.extend(limited.headers())
        if not self._context.gate.is_open:
            return answer(self._context, ApiError("UNAVAILABLE", "The server is shutting down; try again in a moment."))
        return None

    def _by_method(self, scope: Scope) -> Response | None:
        """The 405 of a method that the path doesn't know, or the answer to OPTIONS; else None."""
        known = self._methods.of(scope["path"])
        if not known or (scope["method"] in known and scope["method"] != "OPTIONS"):
            return None
        allow = ", ".join(known)
        if scope["method"] == "OPTIONS":
            return Response(status_code=204, headers={"allow": allow})
        return answer(self._context, unknown_method(allow))


def _limit_of(method: str, path: str) -> str:
    """The name of the rate limit of a route (`heartlane.server.limits.ROUTES`)."""
    found = LIMITED.match(path) if method == "POST" else None
    if found is None:
        return "default"
    return "plan" if found[1] == "plan" else found[1].rpartition("/")[2]
