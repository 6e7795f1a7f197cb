"""What can go wrong for a client: one family of exceptions.

    HeartlaneError
    ├── NotConfigured            no address, no token, or one that can't be used; nothing was sent
    ├── Unreachable              no answer came: no network, a time-out, TLS, a connection that broke
    ├── BadAnswer                what came is no answer of Heartlane: a proxy's page, half a body
    ├── NoLane                   nothing to claim within the time that was asked for
    ├── LaneLost                 the lane isn't ours any more; nothing that we do to it counts
    └── ApiError                 the server's own answer: `status`, `code`, `error` and what goes with them
        ├── InvalidRequest, PayloadTooLarge, UnsupportedMediaType, MethodNotAllowed
        ├── NotAuthenticated ── TokenExpired, TokenRevoked, GithubLinkBroken
        ├── Forbidden, NotFound
        ├── ClaimRefused ── ClaimHeldByOther, ClaimLost, NotClaimed, StaleAttempt, RunFinished
        ├── LaneBlocked, NoLongerQueued, PlanApproved, PlanRejected, RolesIncomplete
        └── RateLimited, InternalError, Unavailable

Each code of `heartlane.wire.errors` has a class of its own; a code that a newer server sends is a plain `ApiError`. No
text of any of them ever holds the token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:  # a worker has use for these exceptions, and none for the models
    from heartlane.wire.answers import ErrorAnswer, RunObject


class HeartlaneError(Exception):
    """Whatever goes wrong between a client and its server.

    retry_after     seconds until a retry makes sense, where the server or a proxy says so
    """

    retry_after: float | None = None


class NotConfigured(HeartlaneError):
    """There is no address or no token, or one that can't be used."""


class Unreachable(HeartlaneError):
    """No answer came.

    sent    whether the request may have reached the server: then it may have been done
    """

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class BadAnswer(HeartlaneError):
    """What came is no answer of Heartlane's; the request may have been done all the same.

    status      HTTP status of what came
    """

    def __init__(self, text: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class NoLane(HeartlaneError):
    """There was no lane to claim within the time that was asked for."""


class LaneLost(HeartlaneError):
    """The lane isn't ours any more, or has ended: stop working on it.

    code    what the server said (`CLAIM_LOST`, `RUN_FINISHED`, …), or None where the lease ran out unconfirmed
    """

    def __init__(self, text: str, *, code: str | None = None) -> None:
        super().__init__(text)
        self.code = code


class Issue(NamedTuple):
    """One problem of a request: where (`events.3.type`) and what."""

    path: str
    message: str


class ApiError(HeartlaneError):
    """The server's answer to a request that it didn't do.

    status          HTTP status
    code            stable, to branch on
    error           a sentence a person can act on
    issues          400: every problem found
    field_errors    400: the first problem of each field
    relink_github   401: whether linking GitHub again may help
    run             409 about a claim: the run as it is now
    """

    def __init__(self, status: int, answer: ErrorAnswer, retry_after: float | None = None) -> None:
        super().__init__(f"{answer.error} ({answer.code})")
        self.status = status
        self.code = answer.code
        self.error = answer.error
        self.issues: Sequence[Issue] = tuple(Issue(issue.path, issue.message) for issue in answer.issues or ())
        self.field_errors: Mapping[str, str] = answer.fieldErrors or {}
        self.retry_after = retry_after if answer.retryAfter is None else answer.retryAfter
        self.relink_github = bool(answer.relinkGithub)
        self.run: RunObject | None = answer.run


class InvalidRequest(ApiError):
    """400: the request is not valid; `issues` has all that is wrong with it."""


class NotAuthenticated(ApiError):
    """401: the server doesn't know the token."""


class TokenExpired(NotAuthenticated):
    """401: the token's time is up."""


class TokenRevoked(NotAuthenticated):
    """401: the token was revoked or rotated."""


class GithubLinkBroken(NotAuthenticated):
    """401: the link to GitHub no longer works; `relink_github` says whether linking it again may help."""


class Forbidden(ApiError):
    """403: the token's scope doesn't allow this."""


class NotFound(ApiError):
    """404: there is no such thing, or the token can't see it."""


class MethodNotAllowed(ApiError):
    """405: the server is older than the client, or no Heartlane."""


class ClaimRefused(ApiError):
    """409: the claim is not ours; `run` says whose it is."""


class ClaimHeldByOther(ClaimRefused):
    """409: another worker holds the claim."""


class ClaimLost(ClaimRefused):
    """409: the lease ran out and the claim was taken back, or an operator took it."""


class NotClaimed(ClaimRefused):
    """409: nobody holds the claim."""


class StaleAttempt(ClaimRefused):
    """409: a later attempt holds the claim."""


class RunFinished(ClaimRefused):
    """409: the run has ended."""


class PlanApproved(ApiError):
    """409: the plan is approved already."""


class PlanRejected(ApiError):
    """409: the plan is rejected already."""


class NoLongerQueued(ApiError):
    """409: the run is in a state that doesn't allow this."""


class LaneBlocked(ApiError):
    """409: the lane waits for other lanes, or for its time."""


class RolesIncomplete(ApiError):
    """409: not every role of the ticket is done or skipped."""


class NoSecretKey(ApiError):
    """409: the server has no key to keep secrets with; `HEARTLANE_SECRET_KEY` is not set there."""


class PayloadTooLarge(ApiError):
    """413: the body is too large."""


class UnsupportedMediaType(ApiError):
    """415: the body is no plain JSON."""


class RateLimited(ApiError):
    """429: too many requests; go on after `retry_after` seconds."""


class InternalError(ApiError):
    """500: the server failed in a way that it did not foresee."""


class Unavailable(ApiError):
    """503: the server can't do this now; try again after `retry_after` seconds."""


CLASSES: Final[Mapping[str, type[ApiError]]] = {
    "INVALID_REQUEST": InvalidRequest,
    "NOT_AUTHENTICATED": NotAuthenticated,
    "TOKEN_EXPIRED": TokenExpired,
    "TOKEN_REVOKED": TokenRevoked,
    "GITHUB_LINK_BROKEN": GithubLinkBroken,
    "FORBIDDEN": Forbidden,
    "NOT_FOUND": NotFound,
    "METHOD_NOT_ALLOWED": MethodNotAllowed,
    "CLAIM_HELD_BY_OTHER": ClaimHeldByOther,
    "CLAIM_LOST": ClaimLost,
    "NOT_CLAIMED": NotClaimed,
    "STALE_ATTEMPT": StaleAttempt,
    "RUN_FINISHED": RunFinished,
    "PLAN_APPROVED": PlanApproved,
    "PLAN_REJECTED": PlanRejected,
    "NO_LONGER_QUEUED": NoLongerQueued,
    "LANE_BLOCKED": LaneBlocked,
    "ROLES_INCOMPLETE": RolesIncomplete,
    "NO_SECRET_KEY": NoSecretKey,
    "PAYLOAD_TOO_LARGE": PayloadTooLarge,
    "UNSUPPORTED_MEDIA_TYPE": UnsupportedMediaType,
    "RATE_LIMITED": RateLimited,
    "INTERNAL_ERROR": InternalError,
    "UNAVAILABLE": Unavailable,
}
"""Code → the exception that it becomes."""


def api_error(status: int, answer: ErrorAnswer, retry_after: float | None = None) -> ApiError:
    """The exception of an error answer; `retry_after` is what its headers say, where its body doesn't."""
    return CLASSES.get(answer.code, ApiError)(status, answer, retry_after)
