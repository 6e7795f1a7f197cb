"""The simulated network: requests and answers get lost, late, doubled, overtaken, or cut in two.

A lost request or answer is silence: the client waits until its own patience ends, and the server may have done what was
asked. A doubled request is served twice, the second time whenever it arrives. Nothing keeps the order of what was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from heartlane.client.errors import Unreachable
from tests.simulation.loop import Process
from tests.simulation.server import HttpAnswer, Server

if TYPE_CHECKING:
    from tests.simulation.world import World

PAGE: Final = HttpAnswer(502, {"content-type": "text/html"}, b"<html>Bad Gateway</html>")


class Network:
    """Between all workers and all servers.

    cut_until, slow_until   until when a worker's link is down, or slow, by its name
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.cut_until: dict[str, float] = {}
        self.slow_until: dict[str, float] = {}

    def cut(self, name: str, seconds: float) -> None:
        """A worker's link is down from now on, for so long."""
        self.cut_until[name] = self._world.loop.now + seconds

    def is_slow(self, client: Process) -> bool:
        """Whether this worker's link is slow."""
        return self.slow_until.get(client.name, 0.0) > self._world.loop.now

    def _is_cut(self, client: Process) -> bool:
        """Whether this worker's link is down: nothing goes either way."""
        return self.cut_until.get(client.name, 0.0) > self._world.loop.now

    async def request(
        self, client: Process, method: str, path: str, query: Sequence[tuple[str, str]], body: bytes
    ) -> HttpAnswer:
        """The answer to a request, if one ever comes. Raises Unreachable."""
        world = self._world
        client.look()
        future: asyncio.Future[HttpAnswer] = world.loop.create_future()
        server = world.any_server()
        cut = self._is_cut(client)
        if server is None or (cut and world.chance(0.5)) or world.chance(world.faults.refused):
            await asyncio.sleep(world.network_seconds())
            raise Unreachable("Connection refused.", sent=False)
        gone: asyncio.Future[None] = world.loop.create_future()
        server.flights[future] = None
        asked = (method, path, query, body)
        if not cut and not world.chance(world.faults.request_lost):
            world.later(world.network_seconds(client), self._arrive, server, client, future, gone, asked)
        if not cut and world.chance(world.faults.request_doubled):
            world.later(world.network_seconds(client), self._arrive, server, client, future, gone, asked)
        try:
            return await future
        finally:
            server.flights.pop(future, None)
            if not future.done() or future.cancelled():
                world.later(world.network_seconds(), _resolve, gone)

    def _arrive(
        self,
        server: Server,
        client: Process,
        future: asyncio.Future[HttpAnswer],
        gone: Any,
        asked: tuple[str, str, Sequence[tuple[str, str]], bytes],
    ) -> None:
        world = self._world
        world.step("request", f"{client.name} {server.process.name}")
        if server.process.alive:
            server.process.spawn(self._serve(server, client, future, gone, asked))
        else:
            self.reset(future)

    async def _serve(
        self,
        server: Server,
        client: Process,
        future: asyncio.Future[HttpAnswer],
        gone: Any,
        asked: tuple[str, str, Sequence[tuple[str, str]], bytes],
    ) -> None:
        world = self._world
        answer = await server.handle(*asked, gone)
        if answer is None or not server.process.alive or world.chance(world.faults.answer_lost):
            return
        if world.chance(world.faults.answer_spoilt):
            cut = answer._replace(content=answer.content[: len(answer.content) // 2])
            answer = PAGE if world.random.random() < 0.5 else cut
        world.later(world.network_seconds(client), self._deliver, client, future, answer)

    def _deliver(self, client: Process, future: asyncio.Future[HttpAnswer], answer: HttpAnswer) -> None:
        self._world.step("answer", f"{client.name} {answer.status}")
        if client.alive and not future.done() and not self._is_cut(client):
            future.set_result(answer)

    def reset(self, future: asyncio.Future[HttpAnswer]) -> None:
        """The connection on which a client waits breaks, and it may or may not hear of that."""
        if self._world.random.random() < 0.7:
            self._world.later(self._world.network_seconds(), _break, future)


def _break(future: asyncio.Future[HttpAnswer]) -> None:
    if not future.done():
        future.set_exception(Unreachable("Connection reset.", sent=True))


def _resolve(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)
