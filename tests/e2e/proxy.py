"""Proxies that break connections: of a server's clients, to lose answers; of a server to PostgreSQL, in a COMMIT."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import make_url

from tests.e2e.server_process import HOST, ServerProcess

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
POSTGRES_SOCKET: Final = ".s.PGSQL.5432"


class Line:
    """What a proxy does to one connection: a piece is passed on, or else the connection breaks."""

    def passes_request(self, data: bytes) -> bool:
        """Whether a piece from the client is passed on."""
        return True

    def passes_answer(self, data: bytes) -> bool:
        """Whether a piece for the client is passed on."""
        return True


class Proxy:
    """Passes bytes on both ways: each connection has one of its own beyond, and a `Line` that decides."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]], line: Callable[[], Line]) -> None:
        self._connect = connect
        self._line = line
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, until one side ends it or it breaks."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        line = self._line()
        answers, beyond = await self._connect()
        ways = [
            asyncio.create_task(_pass_on(reader, beyond, line.passes_request)),
            asyncio.create_task(_pass_on(answers, writer, line.passes_answer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (beyond, writer):
                end.transport.abort()

    async def close(self) -> None:
        """Break every connection."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[bytes], bool]) -> None:
    with contextlib.suppress(ConnectionError):
        while (data := await reader.read(65536)) and passes(data):
            writer.write(data)
            await writer.drain()


# --- answers of a server ------------------------------------------------------------------------------------------


class LossyLine(Line):
    """Loses this share of all answers: the request arrives and is done, and nobody hears of it."""

    def __init__(self, chance: random.Random, loss: float) -> None:
        self._chance = chance
        self._loss = loss

    def passes_answer(self, data: bytes) -> bool:
        return self._chance.random() >= self._loss


@asynccontextmanager
async def losing_answers(server: ServerProcess, chance: random.Random, loss: float) -> AsyncIterator[str]:
    """The URL of a proxy in front of a server that loses this share of its answers."""
    proxy = Proxy(lambda: asyncio.open_connection(HOST, server.port), lambda: LossyLine(chance, loss))
    listening = await asyncio.start_server(proxy.serve, HOST, 0)
    try:
        yield f"http://{HOST}:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        await proxy.close()


# --- PostgreSQL's COMMIT ------------------------------------------------------------------------------------------


class CommitBreaker:
    """Breaks the connection of the next COMMIT.

    at          "before" it reaches PostgreSQL, or "after" PostgreSQL has done it and says so; None: none breaks
    broken      how many did
    """

    def __init__(self) -> None:
        self.at: Literal["before", "after"] | None = None
        self.broken = 0

    def break_now(self) -> bool:
        """Note that one breaks now; False, to break it."""
        self.at = None
        self.broken += 1
        return False


class CommitLine(Line):
    """One connection of a server to PostgreSQL."""

    def __init__(self, breaker: CommitBreaker) -> None:
        self._breaker = breaker
        self._committing = False

    def passes_request(self, data: bytes) -> bool:
        # A COMMIT is a message of its own, for it goes out when everything before it has been answered.
        self._committing = data.startswith(b"Q") and b"COMMIT" in data and self._breaker.at is not None
        return not (self._committing and self._breaker.at == "before") or self._breaker.break_now()

    def passes_answer(self, data: bytes) -> bool:
        return not self._committing or self._breaker.break_now()


@asynccontextmanager
async def breaking_commits(database_url: str) -> AsyncIterator[tuple[str, CommitBreaker]]:
    """The URL of a proxy in front of a PostgreSQL on this machine, and what breaks its connections."""
    breaker = CommitBreaker()
    url = make_url(database_url)
    beyond = Path(str(url.query["host"])) / POSTGRES_SOCKET
    proxy = Proxy(lambda: asyncio.open_unix_connection(beyond), lambda: CommitLine(breaker))
    # Not in a test's own folder: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="heartlane-") as folder:
        listening = await asyncio.start_unix_server(proxy.serve, Path(folder) / POSTGRES_SOCKET)
        try:
            yield url.update_query_dict({"host": folder}).render_as_string(hide_password=False), breaker
        finally:
            listening.close()
            await proxy.close()
