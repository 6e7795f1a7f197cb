"""Errors as the API answers them: one exception, one body shape, one renderer.

Every error answer of every route is made here, from the table of codes in `heartlane.wire.errors`:

    400 INVALID_REQUEST            401 NOT_AUTHENTICATED, TOKEN_EXPIRED, TOKEN_REVOKED, GITHUB_LINK_BROKEN
    403 FORBIDDEN                  404 NOT_FOUND                  405 METHOD_NOT_ALLOWED
    409 CLAIM_HELD_BY_OTHER, CLAIM_LOST, NOT_CLAIMED, STALE_ATTEMPT, RUN_FINISHED, PLAN_APPROVED, PLAN_REJECTED,
        NO_LONGER_QUEUED, LANE_BLOCKED, ROLES_INCOMPLETE
    413 PAYLOAD_TOO_LARGE          415 UNSUPPORTED_MEDIA_TYPE     429 RATE_LIMITED
    500 INTERNAL_ERROR             503 UNAVAILABLE

    {"error": …, "code": …, "fieldErrors"?: {path: first message}, "issues"?: [{"path", "message"}],
     "retryAfter"?: seconds, "relinkGithub"?: boolean, "run"?: {…}}
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from pydantic import ValidationError

from heartlane.wire.errors import CODES
from heartlane.wire.issues import Issue, issues_of

__all__ = ["Issue", "issues_of"]  # beside what is defined here: whoever answers errors takes all of it from one place

Headers = list[tuple[bytes, bytes]]

RETRY_AFTER_SECONDS_DEFAULT: Final = 1.0


class ApiError(Exception):
    """A request that is answered with an error. The status follows from the code.

    code           one of `heartlane.wire.errors.CODES`
    error          a sentence a person can act on; left out: the code's own meaning
    issues         every problem found, for 400
    retry_after    seconds until a retry makes sense, for 429 and 503 (which get 1 s where none is given)
    run            the run as it is now, already in the shape of an answer, for a 409 about a claim
    relink_github  whether linking GitHub again may help, for 401
    headers        further answer headers (lower-case names), say `allow` for 405
    """

    def __init__(
        self,
        code: str,
        error: str | None = None,
        *,
        issues: Sequence[Issue] = (),
        retry_after: float | None = None,
        run: Mapping[str, Any] | orjson.Fragment | None = None,
        relink_github: bool | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        row = CODES[code]
        self.code = code
        self.status = row.status
        self.error = error or row.meaning
        self.issues = issues
        self.retry_after = retry_after
        if retry_after is None and self.status in (429, 503):
            self.retry_after = RETRY_AFTER_SECONDS_DEFAULT
        self.run = run
        self.relink_github = relink_github
        self.headers = list(headers)
        super().__init__(f"{code}: {self.error}")


class RenderedError(NamedTuple):
    """An error answer ready to be sent. `headers` include the content type and length."""

    status: int
    headers: Headers
    body: bytes


def error_body(error: ApiError) -> bytes:
    """The JSON object of an error. Never fails: characters that JSON can't carry are replaced."""
    body: dict[str, Any] = {"error": error.error, "code": error.code}
    if error.issues:
        first: dict[str, str] = {}
        for path, message in error.issues:
            first.setdefault(path, message)
        body["fieldErrors"] = first
        body["issues"] = [{"path": path, "message": message} for path, message in error.issues]
    if error.retry_after is not None:
        body["retryAfter"] = round(error.retry_after, 3)
    if error.relink_github is not None:
        body["relinkGithub"] = error.relink_github
    if error.run is not None:
        body["run"] = error.run
    try:
        return orjson.dumps(body, option=orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:
        # A lone surrogate in a text. What the server itself renders (`run`) has none.
        return orjson.dumps(_replace_surrogates(body), option=orjson.OPT_UTC_Z)


def render(error: ApiError) -> RenderedError:
    """Status, headers and body of an error, with the headers that its status calls for."""
    body = error_body(error)
    headers: Headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    headers.extend(error.headers)
    return RenderedError(error.status, headers, body)


def validation_error(failure: ValidationError) -> ApiError:
    """All problems of a body as one 400."""
    return invalid_request(issues_of(failure.errors(include_url=False, include_input=False)))


def invalid_request(issues: Sequence[Issue]) -> ApiError:
    """A 400 whose sentence names the first problem and how many more there are."""
    if not issues:
        return ApiError("INVALID_REQUEST")
    path, message = issues[0]
    more = len(issues) - 1
    rest = f" (and {more} more {'problem' if more == 1 else 'problems'})" if more else ""
    return ApiError("INVALID_REQUEST", f"The request is not valid: {path} {message}{rest}.", issues=issues)


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    return value
