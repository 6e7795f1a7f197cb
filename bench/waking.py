"""How soon a worker that waits for a lane has it: a long poll on one server, the lane opened there or on another.

One worker gives its lane back while another waits. Timed from sending the release, so its own commit is in the figure,
to the waiter's answer. A lane given back with `retry_after` opens by itself, which is timed by the database's clock.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Final

from bench import processes
from bench.client import Client
from bench.databases import Engine
from bench.figures import Report
from bench.fleet import make_lanes, make_project
from bench.load import percentile
from bench.processes import HOST, Server
from bench.rounds import Progress
from bench.seeding import Size, prepare

WAIT_SECONDS: Final = 30
SETTLE_SECONDS: Final = 0.02
"""Time for the waiter's request to be waiting before the lane opens."""
WAKE_MS_MAX: Final = 100.0
OPENED_BY_TIME: Final = 10


async def measure(engine: Engine, folder: Path, turns: int, report: Report, progress: Progress) -> None:
    """Wake-up times within one server, and on PostgreSQL across two."""
    url = await engine.create()
    token = await prepare(url, folder, Size(), progress)
    async with processes.heartlane(url, folder) as first:
        here = await _hand_over(first, first, token, turns)
        _add(report, engine, "long poll wakes, same server", here)
        late = await _open_by_time(first, token)
        _add(report, engine, "long poll wakes, lane opened by time", late)
        if engine.name == "postgresql":
            async with processes.heartlane(url, folder) as second:
                there = await _hand_over(second, first, token, turns)
            _add(report, engine, "long poll wakes, other server", there)
    progress(f"{engine.title}: a long poll wakes in {percentile(here, 0.5):.1f} ms (p99 {percentile(here, 0.99):.1f})")


def _add(report: Report, engine: Engine, name: str, times: list[float]) -> None:
    note = f"p50 {percentile(times, 0.5):.1f} ms, {len(times)} times"
    report.add(engine.title, f"{name}, p99", percentile(times, 0.99), "ms", most=WAKE_MS_MAX, note=note)


async def _hand_over(releasing: Server, waiting: Server, token: str, turns: int) -> list[float]:
    """Sorted milliseconds from sending a release on one server to the waiter's answer on another (or the same)."""
    times: list[float] = []
    async with (
        Client(HOST, releasing.port, token) as giver,
        Client(HOST, waiting.port, token) as taker,
    ):
        project_id = await make_project(giver, f"Hand over {releasing.port} {waiting.port}")
        await make_lanes(giver, project_id, 1)
        claim = {"project_id": project_id, "wait_seconds": WAIT_SECONDS}
        run = (await giver.post("/api/agents/runs/claim", {**claim, "worker_id": "turn-0"}))["run"]
        for turn in range(1, turns + 1):
            wait = asyncio.create_task(taker.post("/api/agents/runs/claim", {**claim, "worker_id": f"turn-{turn}"}))
            await asyncio.sleep(SETTLE_SECONDS)
            body = {"worker_id": f"turn-{turn - 1}", "attempt": run["attempt"]}
            await giver.post(f"/api/agents/runs/{run['id']}/release", body)
            run = (await wait)["run"]
            if run is None:
                raise processes.ServerFailed("a long poll ended without the lane that was given back")
            times.append((taker.answered - giver.sent) * 1000)
    return sorted(times)


async def _open_by_time(server: Server, token: str) -> list[float]:
    """Sorted milliseconds from a lane's `not_before` to its next claim, both by the database's clock."""
    times: list[float] = []
    async with Client(HOST, server.port, token) as giver, Client(HOST, server.port, token) as taker:
        project_id = await make_project(giver, "Open by time")
        await make_lanes(giver, project_id, 1)
        claim = {"project_id": project_id, "wait_seconds": WAIT_SECONDS}
        run = (await giver.post("/api/agents/runs/claim", {**claim, "worker_id": "turn-0"}))["run"]
        for turn in range(1, OPENED_BY_TIME + 1):
            body = {"worker_id": f"turn-{turn - 1}", "attempt": run["attempt"], "retry_after": 1}
            released = (await giver.post(f"/api/agents/runs/{run['id']}/release", body))["run"]
            run = (await taker.post("/api/agents/runs/claim", {**claim, "worker_id": f"turn-{turn}"}))["run"]
            if run is None:
                raise processes.ServerFailed("a long poll ended without the lane whose time had come")
            late = _moment(run["claimed_at"]) - _moment(released["not_before"])
            times.append(late.total_seconds() * 1000)
    return sorted(times)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
