"""The first ceiling of a project, set while lanes of it are being worked: what is spent just then is never missed."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from heartlane.server.settings import load_settings
from heartlane.store.store import Store
from tests.conftest import SECRET_KEY
from tests.harness import Harness

TIMES = 10
LANES = 6


async def spend(harness: Harness, run_id: str, tokens: int) -> None:
    events: list[dict[str, Any]] = [{"type": "heartbeat", "payload": {"usage": {"input_tokens": tokens}}}]
    response = await harness.report(run_id, events=events)
    assert response.status_code == 200, response.text


async def put(harness: Harness, project_id: str, **ceilings: Any) -> dict[str, Any]:
    response = await harness.admin.put(f"/api/projects/{project_id}/budget", json=ceilings)
    assert response.status_code == 200, response.text
    budget: dict[str, Any] = response.json()["budget"]
    return budget


async def spent(harness: Harness, project_id: str) -> tuple[int, int]:
    response = await harness.viewer.get(f"/api/projects/{project_id}/budget")
    amounts = response.json()["budget"]["spent"]
    return amounts["tokens_today"], amounts["tokens_total"]


async def test_a_first_budget_counts_what_is_spent_while_it_is_set(harness: Harness) -> None:
    runs = await harness.approved(LANES)
    project_id = runs[0]["project_id"]
    for run in runs:
        await harness.claim(run["id"])

    async def work(run_id: str) -> None:
        for tokens in range(1, TIMES + 1):
            await spend(harness, run_id, tokens)

    async def decide() -> None:
        # Set, taken away and set again: each time it is the first one that counts.
        for number in range(6):
            await put(harness, project_id, **({} if number % 2 else {"tokens_total": 1_000_000}))
        await put(harness, project_id, tokens_total=1_000_000)

    await asyncio.gather(*(work(run["id"]) for run in runs), decide())
    assert await spent(harness, project_id) == (LANES * TIMES, LANES * TIMES)
    for run in runs:
        await spend(harness, run["id"], TIMES + 5)
    assert await spent(harness, project_id) == (LANES * (TIMES + 5), LANES * (TIMES + 5))


async def test_what_is_spent_between_two_budgets_counts(harness: Harness) -> None:
    (run,) = await harness.approved(1)
    await harness.claim(run["id"])
    await put(harness, run["project_id"], tokens_total=100)
    await spend(harness, run["id"], 10)
    await put(harness, run["project_id"])
    await spend(harness, run["id"], 30)
    assert await spent(harness, run["project_id"]) == (30, 30)
    budget = await put(harness, run["project_id"], tokens_total=30)
    assert (budget["state"], budget["spent"]["tokens_total"]) == ("exceeded", 30)


@pytest.mark.parametrize("hand", ["put", "go-on"])
async def test_a_report_that_has_looked_before_the_budget_was_there_is_waited_for(
    postgres_database_url: str, hand: str
) -> None:
    """On PostgreSQL batches run side by side: this one has found no limit, and is held up just before it writes."""
    store = await Store.open(postgres_database_url)
    settings = load_settings({"rate_limits": "off", "database": "sqlite:///unused", "secret_key": SECRET_KEY})
    harness = await Harness.start(store, settings)
    connection = await asyncpg.connect(postgres_database_url)
    try:
        (run,) = await harness.approved(1)
        await harness.claim(run["id"])
        path = f"/api/projects/{run['project_id']}/budget"
        async with connection.transaction():
            await connection.execute("LOCK TABLE usage_days IN SHARE MODE")
            report = asyncio.ensure_future(spend(harness, run["id"], 70))
            async with asyncio.timeout(20):
                held_up = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'usage_days'::regclass"
                while not await connection.fetchval(held_up):  # noqa: ASYNC110 - the lock itself has no event
                    await asyncio.sleep(0.01)
            if hand == "put":
                deciding = asyncio.ensure_future(harness.admin.put(path, json={"tokens_total": 70}))
            else:
                deciding = asyncio.ensure_future(harness.operator.post(f"{path}/go-on", json={"hours": 1}))
            await asyncio.sleep(0.3)
            assert not deciding.done()
            assert not report.done()
            # Nobody else waits for it: other lanes are planned, claimed and reported on meanwhile.
            (other,) = await harness.approved(1)
            await harness.claim(other["id"])
        await report
        response = await deciding
        assert response.status_code == 200
        assert response.json()["budget"]["spent"]["tokens_total"] == 70
        assert (await put(harness, run["project_id"], tokens_total=70))["state"] in ("exceeded", "waived")
    finally:
        await connection.close()
        await harness.close()
        await store.close()
