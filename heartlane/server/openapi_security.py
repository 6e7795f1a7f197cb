"""How a caller proves itself, for the OpenAPI document: by a token, or as a browser by its session's cookie."""

from __future__ import annotations

from typing import Any, Final

from heartlane.server.sessions import COOKIE, CSRF_HEADER

SIGNED: Final = frozenset({"hear_github"})
"""Operations under /api that are believed by a signature, and take no token."""
TOKEN_ALONE: Final = frozenset({"create_login_link"})
"""Operations that a session may not call."""

SCHEMES: Final[dict[str, Any]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token made by `heartlane token create NAME --scope SCOPE`.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": (
            "A browser that was logged in at `/login`. Over TLS the name has `__Host-` before it, and where the server "
            "has a port of its own, that port behind it, such as `heartlane-8484`."
        ),
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": CSRF_HEADER,
        "description": "With the cookie, for every method but GET and HEAD: `csrf_token` of `GET /api/me`.",
    },
}


def security_of(name: str, *, reads: bool) -> list[dict[str, list[str]]]:
    """The ways in which an operation can be called; `reads`: it changes nothing."""
    token: dict[str, list[str]] = {"token": []}
    if name in TOKEN_ALONE:
        return [token]
    return [token, {"session": []} if reads else {"session": [], "csrf": []}]
