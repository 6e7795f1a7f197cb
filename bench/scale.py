"""A hundred thousand live lanes on one machine; fifty thousand leases that run out at once; several processes.

**scale**: so many lanes, each held, each renewed every 20 seconds as the clock says, over keep-alive connections that
many workers share; a lane's report is due at its moment whether or not the server keeps up, and its latency counts from
then.

**takeback**: half of the lanes run out together while the workers of the other half go on; from the look at which the
first was taken back to the one at which none is left, and what the others' heartbeats took before and meanwhile.

**processes**: heartbeats a second of a server of one process and of several, on one PostgreSQL, taking turns.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import asyncpg

from bench import processes
from bench.databases import Engine
from bench.figures import Report
from bench.fleet import gather
from bench.load import Job, LaneJob, Result
from bench.processes import HOST, Server
from bench.rounds import LoadFailed, Pace, Progress, generate, load
from bench.seeding import LIVE_SEQ, Size, live_run, live_worker, prepare

LANES: Final = 100_000
HEARTBEAT_SECONDS: Final = 20.0
LIVE_SECONDS: Final = 600.0
CONNECTIONS: Final = 256
LEASE_SECONDS: Final = 60

EXPIRING_LEASE_SECONDS: Final = 45
"""How long after the server's start they run out: no lease is taken back sooner after a time without a server."""
OTHERS_RATE: Final = 1_000.0
BEFORE_SECONDS: Final = 12.0
LOOK_SECONDS: Final = 0.2
TAKEN_BACK_SECONDS_MAX: Final = 10.0
SLOWED_MAX: Final = 2.0
GIVE_UP_SECONDS: Final = 180.0


def _job(
    server: Server, token: str, lanes: range, *, rate: float, seconds: float, warmup: float, seq: int = LIVE_SEQ + 1_000
) -> Job:
    return Job(
        host=HOST,
        port=server.port,
        token=token,
        connections=CONNECTIONS,
        warmup_seconds=warmup,
        seconds=seconds,
        check_every=64,
        lanes=[_lane(number, seq) for number in lanes],
        rate=rate,
    )


def _lane(number: int, seq: int) -> LaneJob:
    body = {"worker_id": live_worker(number), "lease_seconds": LEASE_SECONDS, "attempt": 1, "seq": seq}
    before, after = json.dumps(body, separators=(",", ":")).split(f":{seq}}}")
    return LaneJob(run_id=live_run(number), body=[before + ":", "}" + after], seq=seq)


async def live(engine: Engine, folder: Path, lanes: int, seconds: float, *, report: Report, progress: Progress) -> None:
    """`lanes` lanes, each renewed every 20 seconds, for `seconds`."""
    url = await engine.create()
    token = await prepare(url, folder, Size(runs=lanes), progress, kind="live")
    rate = lanes / HEARTBEAT_SECONDS
    async with processes.heartlane(url, folder) as server:
        before, database_before = server.cpu_seconds(), processes.cpu_seconds(engine.processes())
        started, idle_mib = time.monotonic(), server.rss_mib()
        job = _job(server, token, range(lanes), rate=rate, seconds=seconds, warmup=10.0)
        result = await generate(job, server.name)
        elapsed = time.monotonic() - started
        cpu = (server.cpu_seconds() - before) / elapsed
        database_cpu = (processes.cpu_seconds(engine.processes()) - database_before) / elapsed
        rss_mib = server.rss_mib()
    title, suffix = engine.title, f"{lanes:,} live lanes"
    lost = await _not_held(url, range(lanes))
    report.add(title, f"{suffix}, heartbeats", result["rate"], "/s", least=rate * 0.99, note=f"due {rate:,.0f}/s")
    report.add(title, f"{suffix}, p50", result["p50_ms"], "ms", note=f"over {result['seconds']:.0f} s, from when due")
    report.add(title, f"{suffix}, p99", result["p99_ms"], "ms", note=f"slowest {result['max_ms']:,.0f} ms")
    report.add(title, f"{suffix}, lanes lost", lost, "", most=0)
    report.add(title, f"{suffix}, processor", cpu, "cores", note=f"the database beside it {database_cpu:.2f}")
    report.add(title, f"{suffix}, memory", rss_mib, "MiB", note=f"{idle_mib:.0f} before the first")
    progress(f"{title}: {suffix}: {result['rate']:,.0f}/s, p99 {result['p99_ms']:.1f} ms, {lost} lost")


async def takeback(engine: Engine, folder: Path, lanes: int, report: Report, progress: Progress) -> None:
    """`lanes` leases run out at once while workers of as many others go on."""
    url = await engine.create()
    token = await prepare(url, folder, Size(runs=2 * lanes), progress, kind="live")
    await _let_run_out(url, lanes)
    others = range(lanes, 2 * lanes)
    async with processes.heartlane(url, folder) as server:
        ends = time.monotonic() + EXPIRING_LEASE_SECONDS
        job = _job(server, token, others, rate=OTHERS_RATE, seconds=BEFORE_SECONDS, warmup=3.0)
        before = await generate(job, server.name)
        async with asyncio.TaskGroup() as group:
            watched = group.create_task(_watch(url, lanes))
            # Until they have run out, and no longer than it takes to take all of them back at the rate that is asked.
            await asyncio.sleep(max(0.0, ends - time.monotonic() - 1.0))
            seconds, seq = TAKEN_BACK_SECONDS_MAX, LIVE_SEQ + 2_000
            job = _job(server, token, others, rate=OTHERS_RATE, seconds=seconds, warmup=1.0, seq=seq)
            meanwhile: Result = await generate(job, server.name)
            took = await watched
    title, suffix = engine.title, f"{lanes:,} leases at once"
    report.add(title, f"{suffix}, all taken back", took, "s", most=TAKEN_BACK_SECONDS_MAX)
    slowed = meanwhile["p50_ms"] / before["p50_ms"]
    note = f"p50 {before['p50_ms']:.1f} ms before, {meanwhile['p50_ms']:.1f} ms meanwhile"
    report.add(title, f"{suffix}, others slowed, p50", slowed, "times", most=SLOWED_MAX, note=note)
    note = f"p99 {before['p99_ms']:.1f} ms before, {meanwhile['p99_ms']:.1f} ms meanwhile; {OTHERS_RATE:,.0f}/s"
    slowed = meanwhile["p99_ms"] / before["p99_ms"]
    report.add(title, f"{suffix}, others slowed, p99", slowed, "times", most=SLOWED_MAX, note=note)
    progress(f"{title}: {suffix}: taken back in {took:.1f} s; {note}")


async def several(
    engine: Engine, folder: Path, counts: tuple[int, ...], *, pace: Pace, report: Report, progress: Progress
) -> None:
    """Heartbeats a second of servers of so many processes, the first count being the measure."""
    rates: dict[int, list[float]] = {count: [] for count in counts}
    async with AsyncExitStack() as stack:
        servers = []
        for count in counts:
            url = await engine.create()
            token = await prepare(url, folder, Size(), progress)
            server = await stack.enter_async_context(processes.heartlane(url, folder, count))
            servers.append((count, server, await gather(server, token, pace.connections)))
            mib = server.unique_mib()
            report.add(engine.title, f"memory, {count} process(es)", mib, "MiB", note="shared pages counted once")
        for number in range(pace.rounds):
            for count, server, fleet in servers if number % 2 else reversed(servers):
                rates[count].append((await load(server, fleet, "heartbeat", pace))["rate"])
            progress(", ".join(f"{count} process(es): {rates[count][-1]:,.0f}/s" for count in counts))
    first = rates[counts[0]]
    for count in counts:
        times = statistics.median(here / its for here, its in zip(rates[count], first, strict=True))
        note = f"{statistics.median(rates[count]):,.0f}/s; load generator and database on the same cores"
        report.add(engine.title, f"heartbeats, {count} process(es)", times, "times", note=note)


# --- what the database says ---------------------------------------------------------------------------------------


async def _let_run_out(url: str, lanes: int) -> None:
    """Have the first lanes' leases run out a while after the server's start, all at the same moment."""
    # Heard one lease before they ran out: by that length the server, when it starts, gives them grace.
    ended = "(unixepoch('now') - 1) * 1000000" if url.startswith("sqlite:") else "now() - interval '1 second'"
    lease = (
        f"{EXPIRING_LEASE_SECONDS} * 1000000"
        if url.startswith("sqlite:")
        else f"interval '{EXPIRING_LEASE_SECONDS} seconds'"
    )
    values = f"lease_seconds = {EXPIRING_LEASE_SECONDS}, last_heartbeat = {ended} - {lease}, "
    values += f"lease_expires_at = {ended}, take_back_at = {ended}"
    first = f"number < (SELECT min(number) FROM runs) + {lanes}"
    await _execute(url, f"UPDATE runs SET {values} WHERE {first}")


async def _watch(url: str, lanes: int) -> float:
    """Seconds from the last look at which all of the first lanes were held to the first at which none is, which is up
    to one look too long. Raises LoadFailed where it can't say: some had gone before the first look, or never went."""
    started, last_whole = time.monotonic(), None
    while (now := time.monotonic()) - started < GIVE_UP_SECONDS:
        left = lanes - await _not_held(url, range(lanes))
        if left == lanes:
            last_whole = now
        elif last_whole is None:
            raise LoadFailed(f"{lanes - left:,} of {lanes:,} leases had ended before they were watched")
        elif left == 0:
            return time.monotonic() - last_whole
        await asyncio.sleep(LOOK_SECONDS)
    raise LoadFailed(f"not all of {lanes:,} leases had been taken back after {GIVE_UP_SECONDS:.0f} s")


async def _not_held(url: str, lanes: range) -> int:
    """How many of the seeded lanes nobody holds."""
    place = f"number - (SELECT min(number) FROM runs) < {lanes.stop}"
    found = await _execute(url, f"SELECT count(*) FROM runs WHERE worker_id IS NOT NULL AND {place}")
    return len(lanes) - found


async def _execute(url: str, sql: str) -> int:
    """The figure that a SELECT answers; 0 for what answers none."""
    if url.startswith("sqlite:"):
        return await asyncio.to_thread(_execute_sqlite, Path(url.removeprefix("sqlite:///")), sql)
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(sql) or 0)
    finally:
        await connection.close()


def _execute_sqlite(path: Path, sql: str) -> int:
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        row = connection.execute(sql).fetchone()
        return 0 if row is None else int(row[0])
    finally:
        connection.close()
