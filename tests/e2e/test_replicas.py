"""What holds across the servers of one database: a revoked token, and the cost of heartbeats to PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any, Final

import asyncpg
import httpx

from heartlane.store import tokens
from tests.e2e.conftest import Replicas
from tests.e2e.database import new_token, opened
from tests.e2e.fleet import claim, client_of, make_runs, post
from tests.e2e.server_process import ServerProcess, until
from tests.harness import assert_error

PROMISED_SECONDS: Final = 2.0
BEATS: Final = 1_500


async def test_a_revoked_token_is_refused_by_every_server_within_two_seconds(replicas: Replicas) -> None:
    token = await new_token(replicas.database, name="to be revoked")
    (run_id,) = await make_runs(replicas.one, 1)
    await claim(replicas.one, run_id, "worker")
    last_passed = dict.fromkeys(replicas.servers, 0.0)

    async def use(server: ServerProcess) -> None:
        """Report without a break until that is refused."""
        async with client_of(server.url, token) as client:
            while True:
                sent = time.monotonic()
                response = await client.post(f"/api/agents/runs/{run_id}/events", json={"worker_id": "worker"})
                if response.status_code != 200:
                    break
                last_passed[server] = sent
                await asyncio.sleep(0.01)
            assert_error(response, 401, "TOKEN_REVOKED")
            assert_error(await client.get("/api/agents/runs"), 401, "TOKEN_REVOKED")
            assert_error(await client.post("/api/agents/runs/claim", json={"worker_id": "w"}), 401, "TOKEN_REVOKED")

    async with asyncio.timeout(30), opened(replicas.database) as store, asyncio.TaskGroup() as group:
        for server in replicas.servers:
            group.create_task(use(server))
        await until(lambda: all(last_passed.values()), "reports through every server")
        await tokens.revoke(store, (await tokens.find(store, "to be revoked")).id)
        revoked = time.monotonic()
    assert max(last_passed.values()) - revoked < PROMISED_SECONDS


async def test_heartbeats_are_updated_in_place(on_postgres: Replicas) -> None:
    """PostgreSQL's own count: nine of ten updates are HOT, so that heartbeats leave no work for indexes and vacuum."""
    run_ids = await make_runs(on_postgres.one, 40)
    await asyncio.gather(*(claim(on_postgres.one, run_id, "worker") for run_id in run_ids))
    connection: asyncpg.Connection[Any] = await asyncpg.connect(on_postgres.database)
    try:
        before = await updates(connection)

        seqs = itertools.count(1)

        async def beat(run_id: str, client: httpx.AsyncClient, seq: int) -> None:
            path = f"/api/agents/runs/{run_id}/events"
            await post(client, path, worker_id="worker", seq=seq, events=[{"type": "heartbeat"}])

        async def counted() -> bool:
            """Beat on until what was counted has reached the statistics, which trail behind by a second."""
            for client in (on_postgres.one, on_postgres.other) * 4:
                seq = next(seqs)
                await asyncio.gather(*(beat(run_id, client, seq) for run_id in run_ids))
            return (await updates(connection))[0] - before[0] >= BEATS

        await until(counted, "updates in the statistics", 30)
        all_of_them, in_place = (now - then for now, then in zip(await updates(connection), before, strict=True))
        assert in_place / all_of_them > 0.9, (in_place, all_of_them)
    finally:
        await connection.close()


async def updates(connection: asyncpg.Connection[Any]) -> tuple[int, int]:
    """How many rows of `runs` were updated so far, and how many of these in place."""
    row = await connection.fetchrow("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'runs'")
    assert row is not None
    return row["n_tup_upd"], row["n_tup_hot_upd"]
