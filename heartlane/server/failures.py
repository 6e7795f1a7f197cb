"""What went wrong, as an answer: the one place where exceptions become errors of the API.

Storage trouble is a 503. What nobody foresaw is logged with its traceback and becomes a 500 that says nothing of it.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from heartlane.server.errors import ApiError, Issue, invalid_request, issues_of
from heartlane.store.errors import StoreDamaged, StoreError, StoreUnavailable
from heartlane.store.pages import BadCursor

MAYBE_DONE: Final = (
    "It is not known whether a change was made: look before you send it again. (A report with `seq` can be sent again "
    "as it is.)"
)

log = structlog.get_logger(__name__)


def as_api_error(error: Exception | asyncio.CancelledError, path: str) -> ApiError:
    """The answer to an exception of any route; `path` is the request's, for the log."""
    match error:
        case ApiError():
            return error
        case StoreError():
            log.warning("unavailable", path=path, error=str(error))
            maybe_done = isinstance(error, StoreUnavailable) and error.maybe_done
            later = "" if isinstance(error, StoreDamaged) else " Try again in a moment."
            advice = f" {MAYBE_DONE}" if maybe_done else later
            return ApiError("UNAVAILABLE", f"{error.message}{advice}", retry_after=error.retry_after)
        case asyncio.CancelledError():
            log.warning("interrupted", path=path)
            return ApiError("UNAVAILABLE", f"The server had to end before this was done. {MAYBE_DONE}")
        case RequestValidationError():
            return invalid_request(issues_of(error.errors(), skip=1))
        case BadCursor():
            return invalid_request([Issue("cursor", "must be the next_cursor of this list's page before")])
        case ClientDisconnect():
            return cut_off()
        case HTTPException(status_code=405):
            return unknown_method((error.headers or {}).get("Allow", "GET"))
        case HTTPException():
            return ApiError("NOT_FOUND", "There is nothing at this path.")
    log.error("request_failed", path=path, exc_info=error)
    return ApiError("INTERNAL_ERROR")


def unknown_method(allow: str) -> ApiError:
    """The 405 of a path that knows only the methods in `allow`."""
    return ApiError("METHOD_NOT_ALLOWED", f"This path knows {allow}.", headers=[(b"allow", allow.encode("ascii"))])


def cut_off() -> ApiError:
    """The 400 of a body without its end. Nobody reads it where the client has gone; one that broke the rules of
    chunked bodies is still there."""
    return invalid_request([Issue("body", "must be sent to its end")])
