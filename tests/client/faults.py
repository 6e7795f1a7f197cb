"""What stands between a client and a server and goes wrong when told to: requests and answers that get lost, pages of
a proxy, servers that are busy. What comes through is answered by the real application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
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


class _Answer(httpx.AsyncByteStream):
    """An answer as the application sends it. Closing it is the client's going away."""

    def __init__(self) -> None:
        self.start: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.broken = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if not self.start.done():  # nobody waits for it any more where the client has gone
                self.start.set_result(dict(message))
        else:
            await self.parts.put(message["body"])
            if not message.get("more_body"):
                await self.parts.put(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := await self.parts.get()) is not None:
            if self.broken:
                raise httpx.ReadError("")
            yield part

    async def aclose(self) -> None:
        self.gone.set()


class InProcess(httpx.AsyncBaseTransport):
    """To an application in this process, part by part as it answers: httpx's own waits for an answer's end."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.open: list[_Answer] = []

    def break_off(self) -> None:
        """Whatever is being answered breaks off."""
        for answer in self.open:
            answer.broken = True
            answer.parts.put_nowait(b"")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        answer = _Answer()
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": body, "more_body": False}
            await answer.gone.wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": ("127.0.0.1", 40_000),
            "server": ("heartlane.test", 80),
        }
        serving = asyncio.ensure_future(self._app(scope, receive, answer.send))
        self.open.append(answer)
        serving.add_done_callback(lambda _: self.open.remove(answer))
        try:
            start = await answer.start
        except asyncio.CancelledError:
            answer.gone.set()
            raise
        return httpx.Response(start["status"], headers=start["headers"], stream=answer, request=request)


class Faulty(httpx.AsyncBaseTransport):
    """A transport to the application. `sent` lists what was asked, method and path."""

    def __init__(self, inner: InProcess) -> None:
        self.inner = inner
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
            return await self.inner.handle_async_request(request)

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
    return Faulty(InProcess(harness.app))


def secret_of(client: httpx.AsyncClient) -> str:
    """The token that a client of the harness sends."""
    return str(client.headers["authorization"]).removeprefix("Bearer ")


def client_on(harness: Harness, transport: httpx.AsyncBaseTransport | None = None, **options: Any) -> AsyncClient:
    """A client of scope admin."""
    options.setdefault("token", secret_of(harness.admin))
    return AsyncClient("http://heartlane.test", transport=transport or faulty(harness), **options)
