"""Two servers on one PostgreSQL, and the budget of a project that both spend of: nothing is lost, nothing slips by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from heartlane.server.settings import load_settings
from heartlane.store.store import Store
from tests.conftest import SECRET_KEY
from tests.harness import Harness

SETTINGS = {"rate_limits": "off", "database": "sqlite:///unused", "secret_key": SECRET_KEY}
TIMES = 12


@pytest.fixture
async def pair(postgres_database_url: str) -> AsyncIterator[tuple[Harness, Harness]]:
    """Two servers on one database."""
    stores = [await Store.open(postgres_database_url) for _ in range(2)]
    one, other = [await Harness.start(store, load_settings(SETTINGS)) for store in stores]
    yield one, other
    for harness in (one, other):
        await harness.close()
        await harness.store.close()


async def spend(harness: Harness, run_id: str, tokens: int) -> None:
    events: list[dict[str, Any]] = [{"type": "heartbeat", "payload": {"usage": {"input_tokens": tokens}}}]
    response = await harness.report(run_id, events=events)
    assert response.status_code == 200, response.text


async def test_nothing_that_two_servers_spend_at_once_is_lost(pair: tuple[Harness, Harness]) -> None:
    one, other = pair
    runs = await one.approved(16)
    path = f"/api/projects/{runs[0]['project_id']}/budget"
    await one.admin.put(path, json={"tokens_total": 1_000_000})
    for run in runs:
        await one.claim(run["id"])

    async def work(server: Harness, run_id: str) -> None:
        for tokens in range(1, TIMES + 1):
            await spend(server, run_id, tokens)

    async def look() -> None:
        for _ in range(TIMES):
            await one.admin.put(path, json={"tokens_total": 1_000_000})
            await other.take_back.round()

    await asyncio.gather(*(work(pair[place % 2], run["id"]) for place, run in enumerate(runs)), look())
    spent = (await one.viewer.get(path)).json()["budget"]["spent"]
    assert spent["tokens_total"] == spent["tokens_today"] == 16 * TIMES


async def test_no_claim_slips_by_the_report_that_uses_a_budget_up(pair: tuple[Harness, Harness]) -> None:
    one, other = pair
    (first, *rest) = await one.approved(2)
    path = f"/api/projects/{first['project_id']}/budget"
    await one.claim(first["id"])
    for tokens in range(1, 9):
        await one.admin.put(path, json={"tokens_total": tokens})
        await spend(one, first["id"], tokens)
        # Committed and answered: no server hands out another lane of the project, whatever it knew before.
        body = {"worker_id": "w2", "project_id": first["project_id"]}
        answers = [await server.worker.post("/api/agents/runs/claim", json=body) for server in (other, one)]
        assert [answer.json()["run"] for answer in answers] == [None, None]
    assert (await one.read(rest[0]["id"]))["state"] == "queued"
