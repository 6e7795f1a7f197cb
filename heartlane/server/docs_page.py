"""A page for browsers: the reader of the OpenAPI document, and what it loads.

All of it comes from this server: no asset from another host, no inline script, and a content security policy that
holds browsers to that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from heartlane import __version__
from heartlane.wire import plan_file

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "schema.json": "application/schema+json",
}

router = APIRouter(tags=["Pages"])


class Asset(NamedTuple):
    """A file as it is served, and the tag of its content."""

    body: bytes
    media_type: str
    etag: str


def make_asset(body: bytes, suffix: str) -> Asset:
    """A file of this content; `suffix` is one of TYPES."""
    return Asset(body, TYPES[suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@cache
def load(name: str) -> Asset:
    """A file of the package's `static` folder, its version filled in."""
    text = resources.files("heartlane.server").joinpath("static", name).read_text("utf-8")
    return make_asset(text.replace("{{version}}", __version__).encode(), name.rpartition(".")[2])


def respond(request: Request, asset: Asset) -> Response:
    """The asset, or 304 for a browser that has it already."""
    headers = {**SECURITY_HEADERS, "etag": asset.etag, "cache-control": "no-cache"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if asset.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


@router.get("/", summary="The board", response_class=Response, responses={200: {"content": {"text/html": {}}}})
async def board() -> Response:
    """The page that people look at: which lanes are being worked, by whom, what is stuck, what needs a hand."""
    # The board itself stands above the server and before this route; a server without one has this page alone.
    return RedirectResponse("/docs", 307)


@router.get("/docs", summary="API reader", response_class=Response, responses={200: {"content": {"text/html": {}}}})
async def docs(request: Request) -> Response:
    """A page that shows `/openapi.json` to people."""
    return respond(request, load("docs.html"))


@router.get(
    "/openapi.json",
    summary="This document",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}}},
)
async def openapi_json(request: Request) -> Response:
    """OpenAPI 3.1 of every route."""
    document: Callable[[], Asset] = request.app.state.openapi_json
    return respond(request, document())


@cache
def plan_schema() -> Asset:
    """The schema of plan files."""
    return make_asset(json.dumps(plan_file.schema(), indent=2).encode(), "schema.json")


@router.get(
    plan_file.SCHEMA_PATH,
    summary="Schema of plan files",
    response_class=Response,
    responses={200: {"content": {"application/schema+json": {}}}},
)
async def plan_schema_json(request: Request) -> Response:
    """JSON Schema (draft 2020-12) of the files that `heartlane plan create` takes, for editors. Needs no token."""
    return respond(request, plan_schema())


@router.get("/static/style.css", include_in_schema=False)
async def style(request: Request) -> Response:
    """The pages' style."""
    return respond(request, load("style.css"))


@router.get("/static/docs.js", include_in_schema=False)
async def script(request: Request) -> Response:
    """The reader's script."""
    return respond(request, load("docs.js"))
