"""The outermost application: sends each request to a hot route or to FastAPI, and keeps count of all of them."""

from __future__ import annotations

from typing import Final

from heartlane.server.claims import Claims
from heartlane.server.context import Context
from heartlane.server.hot import AsgiScope, Receive, Send
from heartlane.server.telemetry import telemetry

RUNS: Final = "/api/agents/runs/"
CLAIM_NEXT: Final = "/api/agents/runs/claim"


class Gateway:
    """The ASGI application of one server: the three hot POST routes, and everything else.

    rest    the FastAPI application
    """

    def __init__(self, context: Context, rest: object) -> None:
        claims = Claims(context)
        self._telemetry = telemetry(context)
        self._claim_next = claims.next
        self._claim_one = claims.one
        self._rest = rest

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path: str = scope["path"]
            if path.startswith(RUNS):
                place = len(RUNS)
                if path == CLAIM_NEXT:
                    await self._claim_next(scope, receive, send)
                    return
                if path.endswith("/events") and path.count("/", place) == 1:
                    await self._telemetry(scope, receive, send, path[place:-7])
                    return
                if path.endswith("/claim") and path.count("/", place) == 1:
                    await self._claim_one(scope, receive, send, path[place:-6])
                    return
        await self._rest(scope, receive, send)  # type: ignore[operator]
