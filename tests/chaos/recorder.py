"""How requests travel while they are recorded: every claim, report and release of a client goes into the history.

The client above is the real one, with all its retries: each try is an operation of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final

import httpx

from tests.chaos.history import History, Op

PATHS: Final = {
    re.compile(r"/api/agents/runs/claim"): "claim",
    re.compile(r"/api/agents/runs/(?P<run>[^/]+)/claim"): "claim",
    re.compile(r"/api/agents/runs/(?P<run>[^/]+)/events"): "report",
    re.compile(r"/api/agents/runs/(?P<run>[^/]+)/release"): "release",
}
NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
NOBODY_KNOWS: Final = "It is not known whether a change was made"


class Recorder(httpx.AsyncBaseTransport):
    """One client's requests. `process` names it in the history.

    going   cleared: requests wait, as those of a process that was stopped; set again, they go on
    dead    nothing is sent any more, as by a process that was killed
    """

    def __init__(self, history: History, process: str) -> None:
        self.process = process
        self.going = asyncio.Event()
        self.going.set()
        self.dead = False
        self._history = history
        self._http = httpx.AsyncHTTPTransport(verify=False, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self.going.wait()
        if self.dead:
            raise httpx.ConnectError("the process was killed")
        op = self._invoke(request)
        if op is None:
            return await self._http.handle_async_request(request)
        try:
            response = await self._http.handle_async_request(request)
            await response.aread()
        except NEVER_SENT:
            self._history.complete(op, "fail", why="never sent")
            raise
        except BaseException as error:
            self._history.complete(op, "unknown", why=type(error).__name__)
            raise
        await self.going.wait()  # an answer to a stopped process is read when it goes on
        self._complete(op, response)
        return response

    async def aclose(self) -> None:
        await self._http.aclose()

    def _invoke(self, request: httpx.Request) -> Op | None:
        if request.method != "POST":
            return None
        for pattern, does in PATHS.items():
            if found := pattern.fullmatch(request.url.path):
                return self._history.invoke(self.process, does, {**found.groupdict(), **_asked(request)})
        return None

    def _complete(self, op: Op, response: httpx.Response) -> None:
        try:
            body: dict[str, Any] = json.loads(response.content)
        except ValueError:
            self._history.complete(op, "unknown", status=response.status_code)
            return
        if response.status_code == 200:
            run = body.get("run") or {}
            kept = ("id", "attempt", "worker_id", "state", "lease_expires_at")
            heard = {name: run[name] for name in kept if name in run}
            self._history.complete(op, "ok", **heard, duplicate=body.get("duplicate", False))
            return
        text = str(body.get("error"))
        lost = response.status_code >= 500 and (NOBODY_KNOWS in text or response.status_code != 503)
        self._history.complete(op, "unknown" if lost else "fail", status=response.status_code, code=body.get("code"))


def _asked(request: httpx.Request) -> dict[str, Any]:
    body = json.loads(request.content)
    asked = {name: body[name] for name in ("worker_id", "attempt", "seq", "lease_seconds") if name in body}
    marks = [event["payload"]["mark"] for event in body.get("events") or () if "mark" in event.get("payload", {})]
    return {**asked, **({"marks": marks} if marks else {})}
