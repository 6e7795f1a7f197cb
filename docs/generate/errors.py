"""Every error code of the API, and what a worker does on it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Final

from docs.generate.markdown import code, table
from heartlane.wire.errors import CODES

WORKERS: Final[Mapping[str, str]] = {
    "INVALID_REQUEST": "It is a fault of the worker's own: log the `issues`. The claim stands; go on renewing.",
    "NOT_AUTHENTICATED": "Claim nothing more, and tell a person. A lane in hand is yours until its lease runs out.",
    "TOKEN_EXPIRED": "As with `NOT_AUTHENTICATED`: a new token has to come from a person.",
    "TOKEN_REVOKED": "As with `NOT_AUTHENTICATED`: a new token has to come from a person.",
    "GITHUB_LINK_BROKEN": "Tell a person. This server never answers it by itself; a proxy or a later version may.",
    "FORBIDDEN": "The token is a viewer's, or the call is an operator's: tell a person.",
    "NOT_FOUND": "Tell a person: the address, or the token's project, is wrong. Don't take it for a lost claim.",
    "METHOD_NOT_ALLOWED": "It is a fault of the worker's own: log it.",
    "CLAIM_HELD_BY_OTHER": "Stop the work on this lane at once; claim another.",
    "CLAIM_LOST": "Stop the work on this lane at once; claim another.",
    "NOT_CLAIMED": "Stop: you report on a lane that you never claimed.",
    "STALE_ATTEMPT": "Stop the work of that attempt at once: a later one has the lane, maybe your own restarted self.",
    "RUN_FINISHED": "Stop, and forget what is still unsent: the lane is done, or an operator ended it.",
    "PLAN_APPROVED": "Workers don't meet it.",
    "PLAN_REJECTED": "Workers don't meet it.",
    "NO_LONGER_QUEUED": "Claim another lane: this one has ended.",
    "LANE_BLOCKED": "Claim another lane, or wait with `POST /api/agents/runs/claim`.",
    "ROLES_INCOMPLETE": "Workers don't meet it.",
    "NO_SECRET_KEY": "Workers don't meet it.",
    "PAYLOAD_TOO_LARGE": "Split the report into smaller ones, in order, each with a `seq` of its own.",
    "UNSUPPORTED_MEDIA_TYPE": "It is a fault of the worker's own: log it.",
    "RATE_LIMITED": "Wait `retryAfter` seconds, with some jitter, and send the same again.",
    "INTERNAL_ERROR": "Send the same again after a moment; `seq` makes that safe.",
    "UNAVAILABLE": "Wait `retryAfter` seconds, with some jitter, and send the same again; `seq` makes that safe.",
}


def reference() -> str:
    """A table of all codes, then each under a heading of its own, by status."""
    rows = [[f"[{code(row.code)}](#{row.code.lower()})", str(row.status), row.meaning] for row in CODES.values()]
    parts = [table(["code", "status", "meaning"], rows)]
    for status, codes in groupby(CODES.values(), lambda row: row.status):
        parts.append(f"## {status}")
        parts += [
            f"### {row.code}\n\n{row.meaning}\n\n- Remedy: {row.remedy}\n- A worker: {WORKERS[row.code]}"
            for row in codes
        ]
    return "\n\n".join(parts)
