"""Claims that wait, while lanes are locked for a moment by others, on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from heartlane.server.settings import load_settings
from heartlane.store.store import Store
from tests.harness import Harness

LOOK_SECONDS = 3.0
"""Well before the poll, which comes after four seconds at the earliest."""


@pytest.fixture
async def harness(postgres_database_url: str) -> AsyncIterator[Harness]:
    """A server on PostgreSQL."""
    store = await Store.open(postgres_database_url)
    harness = await Harness.start(store, load_settings({"rate_limits": "off", "database": "sqlite:///unused"}))
    yield harness
    await harness.close()
    await store.close()


async def test_a_lane_that_somebody_only_looked_at_is_claimed_soon_after(
    harness: Harness, postgres_database_url: str
) -> None:
    """As a past holder's report does: it locks the row, is refused, and leaves it as it was, which nobody announces."""
    (run,) = await harness.approved()
    connection = await asyncpg.connect(postgres_database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM runs WHERE id = $1 FOR UPDATE", run["id"])
            body = {"worker_id": "w1", "wait_seconds": 30}
            waiting = asyncio.ensure_future(harness.worker.post("/api/agents/runs/claim", json=body))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        response = await asyncio.wait_for(waiting, LOOK_SECONDS)
        assert response.json()["run"]["id"] == run["id"]
    finally:
        await connection.close()


async def test_a_lane_that_stays_locked_is_looked_at_ever_more_rarely(
    harness: Harness, postgres_database_url: str
) -> None:
    (run,) = await harness.approved()
    sizes: list[int] = []
    harness.store.ledger.on_batch = lambda size, seconds: sizes.append(size)
    connection = await asyncpg.connect(postgres_database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM runs WHERE id = $1 FOR UPDATE", run["id"])
            body = {"worker_id": "w1", "wait_seconds": 1.5}
            response = await harness.worker.post("/api/agents/runs/claim", json=body)
        assert response.json()["run"] is None
        # After 0, 0.05, 0.15, 0.35 and 0.75 seconds, give or take a fifth, and at the end; fewer on a slow machine.
        assert 3 <= len(sizes) <= 8
    finally:
        await connection.close()
