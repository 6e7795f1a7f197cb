"""What a server takes that has nothing to do: processor time over half a minute, while its workers hold their lanes."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from bench import processes
from bench.databases import Engine
from bench.figures import Report
from bench.fleet import gather
from bench.processes import cpu_seconds
from bench.rounds import Progress
from bench.seeding import Size, prepare

CPU_PERCENT_MAX: Final = 1.0
SETTLE_SECONDS: Final = 2.0
HELD_LANES: Final = 64


async def measure(engines: list[Engine], folder: Path, seconds: float, report: Report, progress: Progress) -> None:
    """Idle processor use, a server on each engine at the same time."""
    async with AsyncExitStack() as stack:
        servers: list[tuple[Engine, processes.Server]] = []
        for engine in engines:
            url = await engine.create()
            token = await prepare(url, folder, Size(), progress)
            server = await stack.enter_async_context(processes.heartlane(url, folder))
            await gather(server, token, HELD_LANES)
            servers.append((engine, server))
        await asyncio.sleep(SETTLE_SECONDS)
        before = [(server.cpu_seconds(), cpu_seconds(engine.processes())) for engine, server in servers]
        started = time.monotonic()
        await asyncio.sleep(seconds)
        elapsed = time.monotonic() - started
        for (engine, server), (own, database) in zip(servers, before, strict=True):
            share = (server.cpu_seconds() - own) / elapsed * 100
            note = f"over {elapsed:.0f} s, {HELD_LANES} lanes held"
            if engine.processes():
                beside = (cpu_seconds(engine.processes()) - database) / elapsed * 100
                note += f"; the database beside it {beside:.2f} %"
            report.add(engine.title, "idle processor use", share, "% of a core", most=CPU_PERCENT_MAX, note=note)
            progress(f"{engine.title}: idle at {share:.2f} % of a core")
