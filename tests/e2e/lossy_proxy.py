"""A proxy in front of a server that loses answers: the request arrives and is done, and nobody hears of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.e2e.server_process import HOST, ServerProcess


class LossyProxy:
    """Passes bytes on both ways, but loses an answer now and then and closes its connection.

    chance      seeded randomness
    loss        the share of answers that are lost
    """

    def __init__(self, server: ServerProcess, chance: random.Random, loss: float) -> None:
        self._port = server.port
        self._chance = chance
        self._loss = loss
        self._running: set[asyncio.Task[None]] = set()
        self.url = ""
        self.lost = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, with one of its own to the server."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        there, back = await asyncio.open_connection(HOST, self._port)
        try:
            requests = asyncio.create_task(self._pass(reader, back))
            answers = asyncio.create_task(self._pass(there, writer, self._loss))
            await asyncio.wait((requests, answers), return_when=asyncio.FIRST_COMPLETED)
            for way in (requests, answers):
                way.cancel()
            await asyncio.gather(requests, answers, return_exceptions=True)
        finally:
            back.close()
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loss: float = 0.0) -> None:
        while data := await reader.read(65536):
            if loss and self._chance.random() < loss:
                self.lost += 1
                return
            writer.write(data)
            await writer.drain()

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


@asynccontextmanager
async def losing_answers(server: ServerProcess, chance: random.Random, loss: float) -> AsyncIterator[LossyProxy]:
    """A proxy that runs, and the server's address behind it."""
    proxy = LossyProxy(server, chance, loss)
    listening = await asyncio.start_server(proxy.serve, HOST, 0)
    proxy.url = f"http://{HOST}:{listening.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.close()
