"""A line between a client and what it connects to, which can be cut, slowed, and turned to something else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from tests.e2e.server_process import HOST

CHUNK_BYTES: Final = 65_536


class Link:
    """Listens on `port`; each connection goes on to the next of `targets` that takes it.

    delay_seconds   how long each piece of data is held up, both ways
    """

    def __init__(self, *targets: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self._targets: Sequence[int] = targets
        self._turn = 0
        self._is_cut = False
        self._listening: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen, on a port of the system's choice."""
        self._listening = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End all of it."""
        if self._listening is not None:
            self._listening.close()
        await self.break_all()

    def turn_to(self, *targets: int) -> None:
        """New connections go there from now on; those that are open stay where they are."""
        self._targets = targets

    async def cut(self) -> None:
        """Break every connection, and take no new one until `mend`."""
        self._is_cut = True
        await self.break_all()

    def mend(self) -> None:
        """Undo `cut`."""
        self._is_cut = False

    async def break_all(self) -> None:
        """Break every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        beyond = None
        ways: list[asyncio.Task[None]] = []
        try:
            if not self._is_cut and (found := await self._connect()) is not None:
                answers, beyond = found
                ways = [
                    asyncio.create_task(self._pass_on(reader, beyond)),
                    asyncio.create_task(self._pass_on(answers, writer)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # cut: the connection ends below, and nobody is told
        finally:
            self._tasks.discard(task)
            for way in ways:
                way.cancel()
            for end in (beyond, writer):
                if end is not None:
                    end.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._targets:
            self._turn += 1
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(HOST, self._targets[self._turn % len(self._targets)])
        return None

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                writer.write(data)
                await writer.drain()
