"""A network that can't be trusted, between a worker and its server: it drops, delays, doubles and answers rubbish.

proxy = FaultyProxy(server.port)
proxy.fate = lambda method, path: Fate(Fault.LOST) if path.endswith("/claim") else FINE
proxy.cut()             # nothing gets through, nothing answers …
proxy.mend()            # … until now
proxy.close()

Each request is forwarded over a connection of its own, and so has a fate of its own. Runs on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from tests.e2e.server_process import HOST

HEAD_BYTES_MAX: Final = 65_536
CHUNK_BYTES: Final = 65_536
PAGE: Final = b"<!doctype html><title>Sorry</title><p>Something is in the way."


class Fault(StrEnum):
    """What happens to a request.

    NONE        it is forwarded, and its answer too
    REFUSED     the connection ends before the server hears of it
    LOST        the server does what was asked; the connection ends in place of the answer
    ABANDONED   the connection ends at once, while the server goes on with what was asked
    TWICE       the server gets it twice, one after the other; the second answer is the one that arrives
    PAGE        a page of the proxy's own; the server hears nothing of it
    """

    NONE = "none"
    REFUSED = "refused"
    LOST = "lost"
    ABANDONED = "abandoned"
    TWICE = "twice"
    PAGE = "page"


class Fate(NamedTuple):
    """A fault, how long the request is held up before it, and the status of a page."""

    fault: Fault = Fault.NONE
    delay_seconds: float = 0.0
    status: int = 502


FINE: Final = Fate()


class FaultyProxy:
    """Listens on `port`, and forwards to the server's. `fate` is asked of each request: method and path."""

    def __init__(self, server_port: int) -> None:
        self.fate: Callable[[str, str], Fate] = lambda method, path: FINE
        self.port = 0
        self.requests = 0
        self._server_port = server_port
        self._whole = asyncio.Event()
        self._whole.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._detached: set[asyncio.Task[bytes]] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="faulty-proxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    @property
    def url(self) -> str:
        """Where the worker finds its server."""
        return f"http://{HOST}:{self.port}"

    def cut(self) -> None:
        """The network is gone: whoever is connected hears nothing more, and neither does whoever connects."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self) -> None:
        """The network is back. Connections from before are broken."""
        self._loop.call_soon_threadsafe(self._break_all)
        self._loop.call_soon_threadsafe(self._whole.set)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)

    # --- on its thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._closing.wait()
        server.close()
        self._break_all()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _break_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._one_request(reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request = head + await reader.readexactly(_length(head))
        method, path = head.split(b" ", 2)[:2]
        self.requests += 1
        fate = self.fate(method.decode(), path.decode().partition("?")[0])
        await asyncio.sleep(fate.delay_seconds)
        await self._whole.wait()
        match fate.fault:
            case Fault.REFUSED:
                return
            case Fault.PAGE:
                writer.write(_page(fate.status))
                await writer.drain()
                return
            case Fault.LOST:
                await self._whole_answer(request)
                return
            case Fault.ABANDONED:
                task = asyncio.create_task(self._whole_answer(request))
                self._detached.add(task)
                task.add_done_callback(self._detached.discard)
                return
            case Fault.TWICE:
                await self._whole_answer(request)
        relay = asyncio.create_task(self._relay(request, writer))
        gone = asyncio.create_task(reader.read(1))  # a client has no more to say before it is answered, but can leave
        try:
            await asyncio.wait({relay, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            relay.cancel()
            gone.cancel()
            await asyncio.gather(relay, gone, return_exceptions=True)

    async def _whole_answer(self, request: bytes) -> bytes:
        """The server's answer, to its end; empty where there is none."""
        with contextlib.suppress(OSError):
            reader, writer = await self._send(request)
            try:
                return await reader.read()
            finally:
                writer.close()
        return b""

    async def _send(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(HOST, self._server_port)
        writer.write(_for_one_request(request))
        await writer.drain()
        return reader, writer

    async def _relay(self, request: bytes, client: asyncio.StreamWriter) -> None:
        try:
            reader, writer = await self._send(request)
        except OSError:
            client.write(_page(502))
            await client.drain()
            return
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._whole.wait()
                client.write(data)
                await client.drain()
        finally:
            writer.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _for_one_request(request: bytes) -> bytes:
    """The request, with the wish that the connection ends with its answer."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body


def _page(status: int) -> bytes:
    head = f"HTTP/1.1 {status} Sorry\r\nContent-Type: text/html\r\nContent-Length: {len(PAGE)}\r\nConnection: close\r\n"
    return head.encode() + b"\r\n" + PAGE
