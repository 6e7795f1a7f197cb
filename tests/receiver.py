"""A small HTTP server that webhooks are sent to: it keeps what came, and misbehaves as it is told.

async with Receiver() as receiver:
    receiver.answers["/hook"] = [status(500), status(200)]   # the last one goes on
    …
    receiver.got("/hook")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Self

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Received(NamedTuple):
    """A request as it came. `at` is the monotonic time of its end."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with this status."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {code} X\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return answer


async def hang(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.sleep(60)


async def break_off(writer: asyncio.StreamWriter) -> None:
    """Begin an answer, and close the connection in the middle of its head."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")
    await writer.drain()
    writer.close()


async def endless(writer: asyncio.StreamWriter) -> None:
    """Answer 200 with a body that doesn't end."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"\x1b[31mred \xff\x00" * 10_000)
            await writer.drain()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Answer a byte at a time, slower than anybody waits."""
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n" + b"x" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.1)


class Receiver:
    """Listens on 127.0.0.1 while its block lasts."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[Received] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        """Where it listens."""
        return f"http://{host}:{self.port}{path}"

    def got(self, path: str = "/hook") -> list[Received]:
        """What came to a path so far."""
        return [each for each in self.requests if each.path == path]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = first.split(" ")[1]
        self.requests.append(Received(path, headers, body, time.monotonic()))
        planned = self.answers.get(path) or [status(200, b"ok")]
        answer = planned.pop(0) if len(planned) > 1 else planned[0]
        await answer(writer)
        return not writer.is_closing()
