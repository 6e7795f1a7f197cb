"""Readers of event streams: within this process, where a test decides when the reader reads, and over a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx

SECONDS = 20.0
"""How long a test waits for something that has to come."""


class Told(NamedTuple):
    """One block of a stream: an event, or a comment or `retry` alone (then `event` is None)."""

    event: str | None
    data: Any
    id: str | None
    text: str


def read_block(text: str) -> Told:
    """A block of the stream, without the blank line at its end."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, _, value = line.partition(": ")
        assert name not in fields, text
        fields[name] = value
    data = json.loads(fields["data"]) if "data" in fields else None
    return Told(fields.get("event"), data, fields.get("id"), text)


class Stream:
    """An open stream. Blocks are read as they come; `all` keeps those that `next` has returned."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.ended = asyncio.Event()
        self.all: list[Told] = []
        self._text = ""
        self._arrived = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """What was received."""
        self._text += data.decode()
        self._arrived.set()

    async def block(self, timeout: float = SECONDS) -> Told:
        """The next block of any kind. Raises EOFError at the stream's end."""
        async with asyncio.timeout(timeout):
            while "\n\n" not in self._text:
                self._arrived.clear()
                if self.ended.is_set():
                    raise EOFError(self._text)
                ending = asyncio.ensure_future(self.ended.wait())
                arrival = asyncio.ensure_future(self._arrived.wait())
                await asyncio.wait((arrival, ending), return_when=asyncio.FIRST_COMPLETED)
                arrival.cancel()
                ending.cancel()
        block, _, self._text = self._text.partition("\n\n")
        told = read_block(block)
        self.all.append(told)
        return told

    async def next(self, timeout: float = SECONDS) -> Told:
        """The next event."""
        while (told := await self.block(timeout)).event is None:
            pass
        return told

    async def until(self, wanted: Callable[[Told], bool], timeout: float = SECONDS) -> Told:
        """The first event that is wanted; those before it are read and kept in `all`."""
        async with asyncio.timeout(timeout):
            while not wanted(told := await self.next(timeout)):
                pass
        return told

    async def until_state(self, state: str, timeout: float = SECONDS) -> Told:
        """The run in that state."""
        return await self.until(lambda told: told.event == "run" and told.data["state"] == state, timeout)

    async def until_seq(self, seq: int, timeout: float = SECONDS) -> Told:
        """The event of the log with this number."""
        return await self.until(lambda told: told.id == str(seq), timeout)

    def told_events(self) -> list[dict[str, Any]]:
        """The events that a stream of all work has told so far, in order, each with its `run_id`."""
        return [told.data for told in self.all if told.event == "event"]

    @property
    def last_id(self) -> str:
        """What the stream is resumed by, after what was read so far."""
        return [told.id for told in self.all if told.id is not None][-1]

    async def quiet(self, seconds: float) -> None:
        """No event comes for so long."""
        with suppress(TimeoutError):
            raise AssertionError(await self.next(seconds))

    async def quiet_of(self, event: str, seconds: float) -> None:
        """Nothing of that kind comes for so long."""
        with suppress(TimeoutError):
            raise AssertionError(await self.until(lambda told: told.event == event, seconds))

    def events(self) -> list[dict[str, Any]]:
        """The events of the log that were told so far, in order."""
        return [told.data for told in self.all if told.id is not None]


class Tap(Stream):
    """A stream within this process: the application's own `send`, and whether the reader takes what it sends."""

    def __init__(self) -> None:
        super().__init__(0, {})
        self.started = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self.held_bytes = 0
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """The request's body, then nothing until the reader goes."""
        if not self.started.is_set():
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take a part of the answer, when the reader reads."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.started.set()
            return
        self.held_bytes = len(message["body"])
        await self.reads.wait()
        self.held_bytes = 0
        self.feed(message["body"])


@asynccontextmanager
async def tapped(
    app: Any, path: str, headers: Mapping[str, str], *, method: str = "GET", **query: Any
) -> AsyncIterator[Tap]:
    """A stream of an application in this process, left at the end of the block."""
    tap = Tap()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": urlencode(query, doseq=True).encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 40_000),
        "server": ("heartlane.test", 80),
    }

    async def serve() -> None:
        try:
            await app(scope, tap.receive, tap.send)
        finally:
            tap.ended.set()
            tap.started.set()

    serving = asyncio.ensure_future(serve())
    try:
        async with asyncio.timeout(SECONDS):
            await tap.started.wait()
        yield tap
    finally:
        tap.gone.set()
        tap.reads.set()
        async with asyncio.timeout(SECONDS):
            await serving


@asynccontextmanager
async def connected(
    client: httpx.AsyncClient, run_id: str | None, *, last: str | None = None, **query: Any
) -> AsyncIterator[Stream]:
    """A run's stream over a connection, or that of all work."""
    path = "/api/agents/stream" if run_id is None else f"/api/agents/runs/{run_id}/stream"
    headers = {} if last is None else {"Last-Event-ID": last}
    timeout = httpx.Timeout(SECONDS)
    async with client.stream("GET", path, headers=headers, params=query, timeout=timeout) as response:
        stream = Stream(response.status_code, response.headers)

        async def read() -> None:
            with suppress(httpx.TransportError):
                async for data in response.aiter_raw():
                    stream.feed(data)
            stream.ended.set()

        reading = asyncio.ensure_future(read())
        try:
            yield stream
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
