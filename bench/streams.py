"""What open event streams cost: the rate of heartbeats beside 2,000 of them, memory, and how soon an event is with all.

Half of the streams follow the project, a quarter of these with `leases=true`, and half follow a run. Rounds with them
and rounds without take turns on one server, so that what else the machine does hits both alike.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench import processes
from bench.client import Client
from bench.databases import Engine
from bench.figures import Report
from bench.fleet import Fleet, gather
from bench.processes import HOST, Server, ServerFailed
from bench.rounds import Memory, Pace, Progress, load
from bench.seeding import Size, prepare

STREAMS: Final = 2_000
LANES: Final = 256
RATIO_LEAST: Final = 0.8
MEMORY_MIB_MAX: Final = 300
OPENING_AT_ONCE: Final = 50
OPEN_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 2.0
TURNS: Final = 5
"""Events whose way to all readers is timed."""


class StreamReader(asyncio.Protocol):
    """One open stream: whether it has begun, and a mark to look for in what comes."""

    def __init__(self, request: bytes) -> None:
        self.begun = asyncio.Event()
        self.seen = asyncio.Event()
        self.mark = b"\0"
        self.lost = False
        self._request = request
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.begun.is_set():
            if not data.startswith(b"HTTP/1.1 200"):
                self.lost = True
                self.transport.close()
            self.begun.set()
        whole = self._tail + data
        if self.mark in whole:
            self.seen.set()
        self._tail = whole[-len(self.mark) :]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.begun.set()


async def measure(engine: Engine, folder: Path, count: int, *, pace: Pace, report: Report, progress: Progress) -> None:
    """Rates with and without `count` streams, memory with them, and delays. Raises ServerFailed, LoadFailed."""
    url = await engine.create()
    token = await prepare(url, folder, Size(), progress)
    rates: dict[bool, list[float]] = {False: [], True: []}
    peaks: list[float] = []
    delays: list[float] = []
    async with processes.heartlane(url, folder) as server:
        fleet = await gather(server, token, LANES)
        await load(server, fleet, "heartbeat", pace)
        for turn in range(pace.rounds):
            rates[False].append((await load(server, fleet, "heartbeat", pace))["rate"])
            async with _open(server, fleet, count) as readers:
                await asyncio.sleep(SETTLE_SECONDS)
                async with Memory(server) as memory:
                    rates[True].append((await load(server, fleet, "heartbeat", pace))["rate"])
                peaks.append(memory.peak_mib)
                if turn == 0:
                    delays = [await _delay(server, fleet, readers, number) for number in range(TURNS)]
                if any(reader.lost for reader in readers):
                    raise ServerFailed("a stream ended")
            progress(
                f"{engine.title}: {rates[False][-1]:,.0f}/s without and {rates[True][-1]:,.0f}/s with {count} streams"
            )
    with_them, without = statistics.median(rates[True]), statistics.median(rates[False])
    report.add(
        engine.title,
        f"heartbeats beside {count:,} streams",
        with_them / without,
        "of those without",
        least=RATIO_LEAST,
        note=f"{with_them:,.0f}/s against {without:,.0f}/s, median of {pace.rounds}",
    )
    report.add(engine.title, "memory with them", max(peaks), "MiB", most=MEMORY_MIB_MAX, note="highest, under load")
    slowest = max(delays)
    note = f"the slowest of {TURNS}, {count // 2:,} readers in this process"
    report.add(engine.title, "an event to all readers of a project", slowest, "s", note=note)


@asynccontextmanager
async def _open(server: Server, fleet: Fleet, count: int) -> AsyncIterator[Sequence[StreamReader]]:
    """So many streams, half of the project and half of runs. Raises ServerFailed."""
    loop = asyncio.get_running_loop()
    readers: list[StreamReader] = []

    async def open_one(place: int) -> None:
        path = f"/api/agents/runs/{fleet.workers[place % len(fleet.workers)].run_id}/stream"
        if place % 2 == 0:
            path = f"/api/agents/stream?project_id={fleet.project_id}" + ("&leases=true" if place % 8 == 0 else "")
        head = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {fleet.token}\r\n\r\n"
        _, reader = await loop.create_connection(lambda: StreamReader(head.encode()), HOST, server.port)
        readers.append(reader)
        await asyncio.wait_for(reader.begun.wait(), OPEN_SECONDS)
        if reader.lost:
            raise ServerFailed("a stream was not let in")

    try:
        for start in range(0, count, OPENING_AT_ONCE):
            await asyncio.gather(*(open_one(place) for place in range(start, min(count, start + OPENING_AT_ONCE))))
        yield readers
    finally:
        for reader in readers:
            reader.transport.close()


async def _delay(server: Server, fleet: Fleet, readers: Sequence[StreamReader], number: int) -> float:
    """Seconds from an event's report to the last reader of the project."""
    worker = fleet.workers[0]
    mark = f"mark-{number}-{time.monotonic_ns()}"
    following = readers[::2]
    for reader in following:
        reader.mark = mark.encode()
        reader.seen.clear()
    body = {"worker_id": worker.worker_id, "events": [{"type": "action", "payload": {"mark": mark}}]}
    async with Client(HOST, server.port, fleet.token) as client:
        began = time.monotonic()
        await client.post(f"/api/agents/runs/{worker.run_id}/events", body)
        await asyncio.wait_for(asyncio.gather(*(reader.seen.wait() for reader in following)), OPEN_SECONDS)
    return time.monotonic() - began
