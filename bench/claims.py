"""What a claim costs when the queue is long: the database's share of it alone, and the whole call.

The database's share is what the ledger asks of it to find and lock the best lane: its own statements, one claim to a
transaction, undone afterwards so that every claim finds the same queue. Timed here at the driver, round trips included,
so the figure is an upper bound of the time that the database itself takes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from bench import processes
from bench.client import Client
from bench.databases import Engine
from bench.figures import Report
from bench.load import percentile
from bench.processes import HOST
from bench.rounds import Progress
from bench.seeding import Size, prepare
from heartlane.store import postgres, sqlite
from heartlane.store.audience import Audience
from heartlane.store.batch import ClaimNext
from heartlane.store.clock import Clock
from heartlane.store.ids import new_id
from heartlane.store.store import sqlite_path

CLAIMS: Final = 300
WARMUP: Final = 30
DATABASE_MS_MAX: Final = 1.0


async def measure(engine: Engine, folder: Path, queued: int, report: Report, progress: Progress) -> None:
    """Claim-next with `queued` lanes in the queue."""
    url = await engine.create()
    token = await prepare(url, folder, Size(runs=queued), progress, kind="queue")
    title, suffix = engine.title, f"{queued:,} queued"
    database_ms = await (database_times_sqlite(url) if engine.name == "sqlite" else database_times_postgres(url))
    report.add(
        title,
        f"claim-next, database, {suffix}, p50",
        percentile(database_ms, 0.5),
        "ms",
        most=DATABASE_MS_MAX,
        note=f"p99 {percentile(database_ms, 0.99):.2f} ms; at the driver, round trips included",
    )
    whole_ms: list[float] = []
    async with (
        processes.heartlane(url, folder) as server,
        Client(HOST, server.port, token) as client,
    ):
        for number in range(WARMUP + CLAIMS):
            answer = await client.post("/api/agents/runs/claim", {"worker_id": f"claimer-{number}"})
            if answer["run"] is None:
                raise processes.ServerFailed("a claim found no lane in a long queue")
            if number >= WARMUP:
                whole_ms.append(client.seconds * 1000)
    whole_ms.sort()
    report.add(
        title,
        f"claim-next, whole call, {suffix}, p50",
        percentile(whole_ms, 0.5),
        "ms",
        note=f"p99 {percentile(whole_ms, 0.99):.2f} ms; one caller, durable",
    )
    progress(
        f"{title}: claim-next with {suffix}: {percentile(database_ms, 0.5):.2f} ms in the database, "
        f"{percentile(whole_ms, 0.5):.2f} ms in all"
    )


async def database_times_sqlite(url: str) -> list[float]:
    """Sorted milliseconds from BEGIN to having the best lane, SQLite."""
    connection = sqlite.connect(sqlite_path(url))
    times: list[float] = []
    try:
        wanted = ClaimNext("bench", None, connection.execute("SELECT account_id FROM tokens").fetchone()[0])
        clock = Clock()
        for number in range(WARMUP + CLAIMS):
            started = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            batch = sqlite.SqliteBatch(connection, clock.host_time(), Audience())
            await batch.lock_limits([wanted.account_id])
            keys = await batch.label_keys(wanted.account_id)
            lanes, _ = await batch.lock_claimable(wanted, keys, 1, clock.host_time(), None)
            if number >= WARMUP:
                times.append((time.perf_counter() - started) * 1000)
            connection.execute("ROLLBACK")
            assert len(lanes) == 1
    finally:
        connection.close()
    return sorted(times)


async def database_times_postgres(url: str) -> list[float]:
    """Sorted milliseconds from BEGIN to having the best lane locked, PostgreSQL."""
    connection = await postgres.connect(url)
    times: list[float] = []
    try:
        wanted = ClaimNext("bench", None, await connection.fetchval("SELECT account_id FROM tokens"))
        clock = Clock()
        for number in range(WARMUP + CLAIMS):
            started = time.perf_counter()
            await connection.execute("BEGIN")
            batch = postgres.PostgresBatch(connection, clock, new_id(), Audience())
            await batch.lock_limits([wanted.account_id])
            keys = await batch.label_keys(wanted.account_id)
            lanes, _ = await batch.lock_claimable(wanted, keys, 1, clock.host_time(), None)
            if number >= WARMUP:
                times.append((time.perf_counter() - started) * 1000)
            await connection.execute("ROLLBACK")
            assert len(lanes) == 1
    finally:
        await connection.close()
    return sorted(times)
