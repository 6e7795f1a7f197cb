"""Every error code of the API: its status, what it means, and what a client does about it.

The documentation, the OpenAPI document and the renderer of errors all read this one table. Codes are stable: clients
branch on them.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class ErrorCode(NamedTuple):
    """One row of the table.

    code     upper snake case, stable
    status   HTTP status it is answered with, always the same
    meaning  one sentence, also the `error` text where the server has nothing more exact to say
    remedy   one sentence: what a person or a client does next
    """

    code: str
    status: int
    meaning: str
    remedy: str


_ROWS: Final = (
    ErrorCode(
        "INVALID_REQUEST",
        400,
        "The request is not valid.",
        "Correct every problem listed in `issues`; sending the same request again fails again.",
    ),
    ErrorCode(
        "NOT_AUTHENTICATED",
        401,
        "The request carries no valid token.",
        "Send `Authorization: Bearer <token>` with a token made by `heartlane token create`; a browser logs in again.",
    ),
    ErrorCode(
        "TOKEN_EXPIRED",
        401,
        "The token has expired.",
        "Make a new secret with `heartlane token rotate`, or a new token.",
    ),
    ErrorCode(
        "TOKEN_REVOKED",
        401,
        "The token has been revoked or rotated.",
        "Use the token that replaced it, or ask whoever runs the server for one.",
    ),
    ErrorCode(
        "GITHUB_LINK_BROKEN",
        401,
        "The link to GitHub no longer works.",
        "Link GitHub again; `relinkGithub` says whether that may help.",
    ),
    ErrorCode(
        "FORBIDDEN",
        403,
        "The token's scope doesn't allow this, or a browser's change lacks the proof that it is meant.",
        "Use a token of the scope that `error` names; a browser sends the header `X-CSRF-Token` with each change.",
    ),
    ErrorCode(
        "NOT_FOUND",
        404,
        "There is no such thing here, or the token can't see it.",
        "Check the path and the id, and that the token belongs to the same account and project.",
    ),
    ErrorCode(
        "METHOD_NOT_ALLOWED",
        405,
        "This path doesn't know that method.",
        "Use one of the methods in the `Allow` header.",
    ),
    ErrorCode(
        "CLAIM_HELD_BY_OTHER",
        409,
        "Another worker holds the claim.",
        "Stop working on this lane; claim another one.",
    ),
    ErrorCode(
        "CLAIM_LOST",
        409,
        "The lease ran out and the claim was taken back.",
        "Stop working on this lane at once; somebody else may hold it already.",
    ),
    ErrorCode(
        "NOT_CLAIMED",
        409,
        "Nobody holds the claim.",
        "Claim the lane before reporting on it.",
    ),
    ErrorCode(
        "STALE_ATTEMPT",
        409,
        "The attempt number is not the run's current one.",
        "Stop working on this lane; a later attempt has taken over.",
    ),
    ErrorCode(
        "RUN_FINISHED",
        409,
        "The run has ended.",
        "Stop reporting on it; an operator can put a failed run back into the queue.",
    ),
    ErrorCode(
        "PLAN_APPROVED",
        409,
        "The plan is already approved.",
        "Read the plan; cancel its runs one by one if they should not go on.",
    ),
    ErrorCode(
        "PLAN_REJECTED",
        409,
        "The plan is already rejected.",
        "Create a new plan.",
    ),
    ErrorCode(
        "NO_LONGER_QUEUED",
        409,
        "The run is not in a state that allows this.",
        "Read the run and decide by its present state.",
    ),
    ErrorCode(
        "LANE_BLOCKED",
        409,
        "The lane waits for other lanes, or for its time.",
        "Wait until the runs in `blocked_by` are shipped and `not_before` has passed.",
    ),
    ErrorCode(
        "ROLES_INCOMPLETE",
        409,
        "Not every role of the ticket is done or skipped.",
        "Finish or skip the roles that `error` names, then close the ticket.",
    ),
    ErrorCode(
        "NO_SECRET_KEY",
        409,
        "This server has no key to keep secrets with.",
        "Set HEARTLANE_SECRET_KEY, the same on every server, and send the request again.",
    ),
    ErrorCode(
        "PAYLOAD_TOO_LARGE",
        413,
        "The request body is too large.",
        "Send less at once: split the report into several, in order.",
    ),
    ErrorCode(
        "UNSUPPORTED_MEDIA_TYPE",
        415,
        "The request body is not plain JSON.",
        "Send uncompressed UTF-8 JSON with `Content-Type: application/json`.",
    ),
    ErrorCode(
        "RATE_LIMITED",
        429,
        "Too many requests from this address.",
        "Wait `retryAfter` seconds, then go on.",
    ),
    ErrorCode(
        "INTERNAL_ERROR",
        500,
        "The server failed in a way it did not foresee.",
        "Try again; if it stays, look for the request id (`X-Request-Id`) in the server's log.",
    ),
    ErrorCode(
        "UNAVAILABLE",
        503,
        "The server can't do this right now.",
        "Send the same request again after `retryAfter` seconds; with `seq`, a report is never applied twice.",
    ),
)

CODES: Final[dict[str, ErrorCode]] = {row.code: row for row in _ROWS}
"""Every code, in the order of its status."""


def codes_for(status: int) -> list[ErrorCode]:
    """The codes that go with an HTTP status, in the order of the table.

    >>> [row.code for row in codes_for(403)]
    ['FORBIDDEN']
    """
    return [row for row in _ROWS if row.status == status]
