"""More work than the database takes: what doesn't fit into the queue is refused at once, and all else goes on.

The database is slow because another program holds a lock that every change waits for, as a backup may on a slow disk.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.e2e.database import held_up, new_token
from tests.e2e.fleet import (
    Reporter,
    assert_all_there,
    assert_unavailable,
    claim,
    client_of,
    expired,
    make_runs,
    read_run,
)
from tests.e2e.server_process import ServerProcess, closing, until

QUEUE_LIMIT: Final = 5
BATCHES: Final = 2
"""How many batches may be under way beside the queue, each no larger than the queue was."""
WORKERS: Final = 40
AT_ONCE_SECONDS: Final = 1.0
"""How long an answer may take that waits for nothing, on a machine that is busy with other things."""
TAKE_BACK_SECONDS: Final = 2 + 2


@pytest.fixture
async def crowded(database_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with a short queue."""
    server = ServerProcess(database_url, tmp_path, ledger_queue_limit=QUEUE_LIMIT)
    with closing(server):
        await server.start_beside()
        async with client_of(server.url, await new_token(database_url)) as client:
            yield client
        assert server.stop() == 0


async def make_workers(client: httpx.AsyncClient) -> list[Reporter]:
    """Workers that hold a lane each, claimed one after the other."""
    workers = [
        Reporter(client, run_id, f"worker-{number}", random.Random(number))
        for number, run_id in enumerate(await make_runs(client, WORKERS))
    ]
    for worker in workers:
        await worker.claim()
    return workers


async def test_what_does_not_fit_into_the_queue_is_refused_at_once(
    database_url: str, crowded: httpx.AsyncClient
) -> None:
    workers = await make_workers(crowded)
    refused: dict[str, float] = {}

    async def report(worker: Reporter) -> httpx.Response:
        sent = time.perf_counter()
        body = {"worker_id": worker.worker_id, "phase": "reported", "events": [{"type": "action"}]}
        response = await crowded.post(f"/api/agents/runs/{worker.run_id}/events", json=body)
        if response.status_code == 503:
            refused[worker.run_id] = time.perf_counter() - sent
        return response

    async with held_up(database_url):
        reports = [asyncio.create_task(report(worker)) for worker in workers]
        await until(lambda: len(refused) >= WORKERS - QUEUE_LIMIT * (1 + BATCHES), "refusals")
        assert not all(task.done() for task in reports)
        sent = time.perf_counter()
        assert (await crowded.get("/healthz")).status_code == 200
        assert (await read_run(crowded, workers[0].run_id))["state"] == "claimed"
        assert time.perf_counter() - sent < AT_ONCE_SECONDS
    answers = await asyncio.gather(*reports)

    assert sorted(refused.values())[len(refused) // 2] < AT_ONCE_SECONDS
    assert len(refused) < WORKERS
    for worker, answer in zip(workers, answers, strict=True):
        run = await read_run(crowded, worker.run_id)
        if worker.run_id in refused:
            assert_unavailable(answer)
            assert (run["state"], run["phase"], run["event_count"]) == ("claimed", None, 1)
        else:
            assert answer.status_code == 200
            assert (run["state"], run["phase"], run["event_count"]) == ("running", "reported", 2)


async def test_take_back_and_health_go_on_while_the_queue_is_full(
    database_url: str, crowded: httpx.AsyncClient
) -> None:
    workers = await make_workers(crowded)
    (silent,) = await make_runs(crowded, 1)
    stopping = asyncio.Event()

    async def hold_up() -> None:
        while not stopping.is_set():
            async with held_up(database_url):
                await asyncio.sleep(0.15)
            await asyncio.sleep(0.1)

    async def look() -> None:
        while not stopping.is_set():
            sent = time.perf_counter()
            assert (await crowded.get("/healthz")).status_code == 200
            assert time.perf_counter() - sent < AT_ONCE_SECONDS
            await asyncio.sleep(0.05)

    run = await claim(crowded, silent, "silent", lease_seconds=1)
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.report_until(stopping))
        group.create_task(hold_up())
        group.create_task(look())
        event = await until(lambda: expired(crowded, silent), "a lease taken back", 20)
        stopping.set()
    taken_back = datetime.fromisoformat(event["recorded_at"])
    late = (taken_back - datetime.fromisoformat(run["lease_expires_at"])).total_seconds()
    assert 0 <= late < TAKE_BACK_SECONDS
    # It was overloaded indeed, and went on by itself.
    assert sum(len(worker.refusals) for worker in workers) > WORKERS
    await assert_all_there(crowded, workers)
