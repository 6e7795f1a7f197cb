"""A small HTTP/1.1 client on one keep-alive connection: enough for the bench's own calls, and quick to measure with."""

from __future__ import annotations

import asyncio
import json
import time
from types import TracebackType
from typing import Any, Self

NO_CONTENT = 204
"""The one status without a body whose length would have to be said."""


class Refused(Exception):
    """The server answered with another status than 2xx."""


class Client:
    """One connection with one request under way at a time; `async with Client(…)` opens and closes it."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._host = host
        self._port = port
        self._token = token
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self.sent = 0.0
        self.answered = 0.0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def get(self, path: str) -> Any:
        """The JSON answer to a GET. Raises Refused."""
        return await self._exchange("GET", path, b"")

    async def post(self, path: str, body: Any) -> Any:
        """The JSON answer to a POST of JSON. Raises Refused."""
        return await self._exchange("POST", path, json.dumps(body).encode())

    async def send(self, method: str, path: str, body: Any) -> Any:
        """The JSON answer to JSON sent by another method. Raises Refused."""
        return await self._exchange(method, path, json.dumps(body).encode())

    async def _exchange(self, method: str, path: str, body: bytes) -> Any:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAuthorization: Bearer {self._token}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.sent = time.perf_counter()
        self._writer.write(head.encode() + b"\r\n" + body)
        answer_head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(answer_head[9:12])
        fields = dict(line.lower().split(":", 1) for line in answer_head.split("\r\n")[1:] if ":" in line)
        length = 0 if status == NO_CONTENT else int(fields["content-length"])
        content = await self._reader.readexactly(length)
        self.answered = time.perf_counter()
        if not 200 <= status < 300:
            raise Refused(f"{method} {path} was answered {status}: {content[:500].decode(errors='replace')}")
        return json.loads(content) if content else None

    @property
    def seconds(self) -> float:
        """How long the last exchange took."""
        return self.answered - self.sent
