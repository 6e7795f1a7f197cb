"""The pages at which a browser is logged in and out.

A one-time link has its secret behind the `#` of its address, which browsers keep to themselves. The page's script moves
it into the form, and a person presses the button: what only looks at a link, as previews and scanners do, uses nothing
up. Without the script the page takes the secret as it takes a token, pasted.

All of this is one template, `templates/login.html`, with one script and one style.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import Response

from heartlane import __version__
from heartlane.server.context import Context
from heartlane.server.depends import get_context
from heartlane.server.docs_page import SECURITY_HEADERS, Asset, make_asset, respond
from heartlane.server.errors import ApiError
from heartlane.server.limits import client_ip
from heartlane.server.sessions import csrf_token
from heartlane.store.errors import StoreError

FORM_TYPE: Final = "application/x-www-form-urlencoded"
FORM_BYTES_MAX: Final = 16 * 1024
NEXT_MAX: Final = 2_000
"""Characters of a place to come back to."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# `same-origin` rather than `no-referrer`: with that, browsers say of a form that it comes from nowhere (Origin: null).
HEADERS: Final = {
    **SECURITY_HEADERS,
    "content-security-policy": POLICY,
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
# One slash, then no other and no backslash, which browsers take for one: `//host` is another host. No control
# characters, which they drop, and no space.
_LOCAL: Final = re.compile(r"/(?![/\\])[!-\[\]-~]*")


def local_place(text: str | None) -> str:
    r"""The place to go to after a login: a page of this server, whatever was asked for.

    >>> local_place("/plans?status=pending"), local_place("//other.example"), local_place("https://other.example")
    ('/plans?status=pending', '/', '/')
    """
    if text is None or len(text) > NEXT_MAX or not _LOCAL.fullmatch(text):
        return "/"
    path = re.split(r"[?#]", text, maxsplit=1)[0]
    # Not round in a circle, and not to what is no page.
    return "/" if path in ("/login", "/logout") or path.startswith("/api/") else text


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("heartlane.board"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _asset(name: str) -> Asset:
    content = resources.files("heartlane.board").joinpath("static", name).read_bytes()
    return make_asset(content, name.rpartition(".")[2])


def _page(status: int, headers: dict[str, str] | None = None, **values: Any) -> Response:
    """The login page. What it may say: `place` to go on to, `problem`, `who` is logged in already and its `csrf`."""
    filled = {"problem": None, "who": None, "csrf": "", "version": __version__, **values}
    text = _templates().get_template("login.html").render(filled)
    return Response(text, status, {**HEADERS, **(headers or {})}, "text/html; charset=utf-8")


def _goto(place: str, cookie: str) -> Response:
    return Response(status_code=303, headers={**HEADERS, "location": place, "set-cookie": cookie})


async def show_login(request: Request) -> Response:
    """The form. Who is logged in already sees as whom, and can log in as somebody else."""
    context = get_context(request)
    place = local_place(request.query_params.get("next"))
    secret = context.sessions.secret(request.scope)
    if secret is None:
        return _page(200, place=place)
    try:
        principal, _ = await context.sessions.identify(request.scope, _address(request, context))
    except (ApiError, StoreError):
        return _page(200, place=place)
    return _page(200, place=place, who=principal.name, csrf=csrf_token(secret))


async def log_in(request: Request) -> Response:
    """Log in with what the form holds, and go on to where the person came from."""
    context = get_context(request)
    place = "/"
    try:
        form = await _form(request)
        place = local_place(form.get("next"))
        secret = form.get("token", "")
        if not secret.strip():
            raise ApiError("INVALID_REQUEST", "Paste a token, or open a one-time link.")
        started = await context.sessions.log_in(request.scope, secret, _address(request, context))
    except ApiError as error:
        after = {} if error.retry_after is None else {"retry-after": str(round(error.retry_after))}
        return _page(error.status, after, place=place, problem=error.error)
    except StoreError as error:
        return _page(503, {"retry-after": "1"}, place=place, problem=f"{error.message} Try again in a moment.")
    return _goto(place, context.sessions.cookie(request.scope, started))


async def log_out(request: Request) -> Response:
    """End the session, and go to the login. Needs the session's CSRF token as the field `csrf_token`."""
    context = get_context(request)
    form = await _form(request)
    await context.sessions.log_out(request.scope, _address(request, context), form.get("csrf_token", ""))
    return _goto("/login", context.sessions.cookie(request.scope, None))


async def show_asset(request: Request) -> Response:
    """The page's style or script."""
    return respond(request, _asset(request.scope["path"].rpartition("/")[2]))


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises ApiError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise ApiError("UNSUPPORTED_MEDIA_TYPE", f"A form is sent as {FORM_TYPE}.")
    body = b""
    with get_context(request).patience:
        async for part in request.stream():
            body += part
            if len(body) > FORM_BYTES_MAX:
                raise ApiError("PAYLOAD_TOO_LARGE", f"A form may have {FORM_BYTES_MAX} bytes.")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise ApiError("INVALID_REQUEST", "This is no form that this page sent.") from None
    return {name: values[-1] for name, values in fields.items()}


def _address(request: Request, context: Context) -> str:
    return client_ip(request.scope, context.settings.trusted_proxies)


def make_router() -> APIRouter:
    """The routes of the login, for the server to serve beside its own."""
    router = APIRouter(tags=["Pages"], include_in_schema=False)
    router.add_api_route("/login", show_login, methods=["GET"], response_class=Response)
    router.add_api_route("/login", log_in, methods=["POST"], response_class=Response)
    router.add_api_route("/logout", log_out, methods=["POST"], response_class=Response)
    for name in ("login.css", "login.js"):
        router.add_api_route(f"/static/{name}", show_asset, methods=["GET"], response_class=Response)
    return router
