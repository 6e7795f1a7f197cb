"""What stands between a client and a server and goes wrong when told to: requests and answers that get lost, pages of
a proxy, servers that are busy. What comes through is answered by the real application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from heartlane.client import AsyncClient
from tests.harness import Harness

Perform = Callable[[], Awaitable[httpx.Response]]
Fault = Callable[[httpx.Request, Perform], Awaitable[httpx.Response]]


async def drop_request(request: httpx.Request, perform: Perform) -> httpx.Response:
    """No connection comes about."""
    raise httpx.ConnectError("All connection attempts failed", request=request)


async def drop_answer(request: httpx.Request, perform: Perform) -> httpx.Response:
    """The server does what was asked, and nobody hears of it."""
    await perform()
    raise httpx.ReadError("", request=request)


async def drop_before_it_is_done(request: httpx.Request, perform: Perform) -> httpx.Response:
    """The request is on its way when the connection breaks: the server never sees it."""
    raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)


async def hang(request: httpx.Request, perform: Perform) -> httpx.Response:
    """Nothing comes, ever."""
    await asyncio.Event().wait()
    raise AssertionError


def page(status: int, text: str = "<html><h1>Bad gateway</h1></html>", **headers: str) -> Fault:
    """A proxy answers with a page of its own; the server doesn't hear of the request."""

    async def answer(request: httpx.Request, perform: Perform) -> httpx.Response:
        return httpx.Response(status, headers={"content-type": "text/html", **headers}, text=text, request=request)

    return answer


def says(status: int, code: str, **fields: Any) -> Fault:
    """An error in the contract's shape; the server doesn't hear of the request."""

    async def answer(request: httpx.Request, perform: Perform) -> httpx.Response:
        return httpx.Response(status, json={"error": f"It is {code}.", "code": code, **fields}, request=request)

    return answer


class Faulty(httpx.AsyncBaseTransport):
    """A transport to the application. `sent` lists what was asked, method and path."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._faults: list[tuple[str, Fault]] = []
        self._always: dict[str, Fault] = {}
        self.sent: list[str] = []

    def next(self, where: str, *faults: Fault) -> None:
        """The next requests whose method and path contain `where` each meet one of these."""
        self._faults += [(where, fault) for fault in faults]

    def always(self, where: str, fault: Fault | None) -> None:
        """Each such request meets it from now on; None: no more."""
        if fault is None:
            self._always.pop(where, None)
        else:
            self._always[where] = fault

    @property
    def left(self) -> int:
        """Faults that nothing has met yet."""
        return len(self._faults)

    def count(self, where: str) -> int:
        """How many such requests there were."""
        return sum(where in each for each in self.sent)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        what = f"{request.method} {request.url.path}"
        self.sent.append(what)

        async def perform() -> httpx.Response:
            return await self._inner.handle_async_request(request)

        for place, (where, fault) in enumerate(self._faults):
            if where in what:
                del self._faults[place]
                return await fault(request, perform)
        for where, fault in self._always.items():
            if where in what:
                return await fault(request, perform)
        return await perform()


def faulty(harness: Harness) -> Faulty:
    """A transport to the harness's application."""
    return Faulty(httpx.ASGITransport(harness.app, raise_app_exceptions=False))


def secret_of(client: httpx.AsyncClient) -> str:
    """The token that a client of the harness sends."""
    return str(client.headers["authorization"]).removeprefix("Bearer ")


def client_on(harness: Harness, transport: httpx.AsyncBaseTransport | None = None, **options: Any) -> AsyncClient:
    """A client of scope admin."""
    options.setdefault("token", secret_of(harness.admin))
    return AsyncClient("http://heartlane.test", transport=transport or faulty(harness), **options)
