"""Reports per second against the floor: both servers up, taking turns within each round, medians over the rounds.

Each case has its own floor, measured just before it with the very same POST, so that a machine that speeds up or slows
down in between does so for both.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import asyncpg

from bench import processes
from bench.bodies import Case
from bench.databases import Engine
from bench.figures import Report
from bench.fleet import Fleet, gather
from bench.load import Job, Result
from bench.processes import HOST, Server
from bench.seeding import Size, prepare

TITLES: Final[dict[Case, str]] = {"heartbeat": "heartbeats", "events": "10-event reports"}
RATIO_TARGETS: Final = {
    ("sqlite", "heartbeat"): 0.40,
    ("postgresql", "heartbeat"): 0.25,
    ("sqlite", "events"): 0.25,
    ("postgresql", "events"): 0.15,
}
CALM_SHARE: Final = 0.8
P99_MS_MAX: Final = 15.0
MEMORY_IDLE_MIB_MAX: Final = 120.0
MEMORY_LOADED_MIB_MAX: Final = 200.0
MEMORY_SAMPLE_SECONDS: Final = 0.5
STATISTICS_SECONDS: Final = 1.5
"""How long PostgreSQL's sessions may sit on their statistics after their last transaction."""
HOT_LEAST: Final = 0.9
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Pace:
    """How long and how often to measure."""

    connections: int = 64
    rounds: int = 5
    seconds: float = 3.0
    warmup_seconds: float = 0.7
    check_every: int = 64


class LoadFailed(Exception):
    """The load generator saw an answer that isn't right; the text says which."""


async def load(server: Server, fleet: Fleet, case: Case, pace: Pace, rate: float | None = None) -> Result:
    """Hold one case's load on a server from a process of its own: as much as is answered, or so many reports a second.
    Raises LoadFailed."""
    job = Job(
        host=HOST,
        port=server.port,
        token=fleet.token,
        connections=pace.connections,
        warmup_seconds=pace.warmup_seconds,
        seconds=pace.seconds,
        check_every=pace.check_every,
        lanes=[worker.job(case) for worker in fleet.workers],
    )
    if rate is not None:
        job["rate"] = rate
    result = await generate(job, f"{server.name}, {TITLES[case]}")
    for worker, seq in zip(fleet.workers, result["seqs"], strict=True):
        worker.seq = seq
    return result


async def generate(job: Job, what: str) -> Result:
    """Run a job of the load generator in a process of its own. Raises LoadFailed, which says what was measured."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.load",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate(json.dumps(job).encode())
    except BaseException:
        process.kill()
        raise
    if process.returncode != 0:
        raise LoadFailed(f"{what}: {errors.decode(errors='replace').strip()[-2000:]}")
    result: Result = json.loads(output)
    return result


class Memory:
    """The highest resident memory of a server while the block runs, in MiB."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.peak_mib = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self.peak_mib = max(self.peak_mib, self._server.rss_mib())

    async def _watch(self) -> None:
        while True:
            self.peak_mib = max(self.peak_mib, self._server.rss_mib())
            await asyncio.sleep(MEMORY_SAMPLE_SECONDS)


async def measure(engine: Engine, folder: Path, size: Size, *, pace: Pace, report: Report, progress: Progress) -> None:
    """Heartbeats and 10-event reports on one engine against the floor, and the server's memory meanwhile."""
    url = await engine.create()
    token = await prepare(url, folder, size, progress)
    rows: list[dict[str, Any]] = []
    hot: float | None = None
    async with processes.heartlane(url, folder) as server, processes.floor(folder) as floor:
        fleet = await gather(server, token, pace.connections)
        await asyncio.sleep(1.0)
        idle_mib = server.rss_mib()
        async with Memory(server) as memory:
            for number in range(1, pace.rounds + 1):
                row: dict[str, Any] = {"engine": engine.name, "round": number}
                for case in TITLES:
                    row[f"{case} floor"] = await load(floor, fleet, case, pace)
                    if case == "heartbeat" and number == pace.rounds and engine.name == "postgresql":
                        row[case], hot = await with_hot_ratio(url, lambda: load(server, fleet, "heartbeat", pace))
                    else:
                        row[case] = await load(server, fleet, case, pace)
                    # How soon reports are answered where there are not more than can be.
                    rate = row[case]["rate"] * CALM_SHARE
                    row[f"{case} calm"] = await load(server, fleet, case, pace, rate)
                    ratio = row[case]["rate"] / row[f"{case} floor"]["rate"]
                    progress(
                        f"{engine.title}, round {number}: {row[case]['rate']:,.0f} {TITLES[case]}/s, {ratio:.3f} of "
                        f"the floor's {row[f'{case} floor']['rate']:,.0f}/s; p99 {row[case]['p99_ms']:.1f} ms"
                    )
                rows.append(row)
    for row in rows:
        for found in row.values():
            if isinstance(found, dict):
                found.pop("seqs", None)
    report.rounds += rows
    _add_figures(engine, rows, report)
    title = engine.title
    if hot is not None:
        report.add(
            title, "HOT updates under heartbeats", hot, "of all", least=HOT_LEAST, note="pg_stat_user_tables, runs"
        )
    report.add(title, "memory idle", idle_mib, "MiB", most=MEMORY_IDLE_MIB_MAX, note="all server processes, RSS")
    report.add(title, "memory under load, peak", memory.peak_mib, "MiB", most=MEMORY_LOADED_MIB_MAX)


def _add_figures(engine: Engine, rows: list[dict[str, Any]], report: Report) -> None:
    def median(case: str, what: str) -> float:
        return float(statistics.median(row[case][what] for row in rows))

    for case, title in TITLES.items():
        ratios = [row[case]["rate"] / row[f"{case} floor"]["rate"] for row in rows]
        report.add(
            engine.title,
            f"{title} to floor",
            statistics.median(ratios),
            "of the floor",
            least=RATIO_TARGETS[engine.name, case],
            note=f"rounds {min(ratios):.3f} to {max(ratios):.3f}",
        )
        report.add(engine.title, title, median(case, "rate"), "/s", note="answered when durable")
        floor = f"{case} floor"
        report.add(
            engine.title,
            "  their floor",
            median(floor, "rate"),
            "/s",
            note=f"p99 {median(floor, 'p99_ms'):.2f} ms; generator {median(floor, 'cpu'):.0%} of a core",
        )
        report.add(engine.title, f"{title}, p50", median(case, "p50_ms"), "ms")
        report.add(engine.title, f"{title}, p99", median(case, "p99_ms"), "ms")
        calm = f"{case} calm"
        report.add(
            engine.title,
            f"{title}, p99 at {CALM_SHARE:.0%} of it",
            median(calm, "p99_ms"),
            "ms",
            most=P99_MS_MAX,
            note=f"p50 {median(calm, 'p50_ms'):.1f} ms; from when a report was due",
        )


async def with_hot_ratio(url: str, work: Callable[[], Awaitable[Result]]) -> tuple[Result, float]:
    """What `work` returns, and which share of its updates of `runs` PostgreSQL could make in place (HOT)."""
    await asyncio.sleep(STATISTICS_SECONDS)
    before = await _updates(url)
    result = await work()
    await asyncio.sleep(STATISTICS_SECONDS)
    after = await _updates(url)
    every = after[1] - before[1]
    return result, (after[0] - before[0]) / every if every else 0.0


async def _updates(url: str) -> tuple[int, int]:
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(
            "SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'runs'"
        )
    finally:
        await connection.close()
    return int(row[0]), int(row[1])
