"""Every refused request is counted once, by its code: of workers on the hot routes, and of people on all others."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from heartlane.server.settings import load_settings
from heartlane.store.store import Store
from tests.harness import Harness

CLAIM = "/api/agents/runs/claim"


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[Harness]:
    """A server that takes two claims and six other calls a minute from an address."""
    store = await Store.open(database_url)
    settings = load_settings({"rate_limits": "claim=2/minute,default=6/minute", "database": "sqlite:///unused"})
    harness = await Harness.start(store, settings)
    yield harness
    await harness.close()
    await store.close()


async def refusals(harness: Harness) -> dict[str, int]:
    text = (await harness.context.metrics.render(harness.store, waiting=0, streams=0)).decode()
    found = re.findall(r'^heartlane_refusals_total\{code="([A-Z_]+)"\} ([0-9.]+)$', text, re.MULTILINE)
    return {code: int(float(number)) for code, number in found}


async def test_each_is_counted_once_by_its_code(harness: Harness) -> None:
    stranger, bad = harness.client_with(None), harness.client_with("not-a-token")
    for path in (CLAIM, "/api/agents/runs"):
        call = stranger.post(path, json={"worker_id": "w1"}) if path == CLAIM else stranger.get(path)
        assert (await call).status_code == 401
    assert (await harness.viewer.post(CLAIM, json={"worker_id": "w1"})).status_code == 403
    assert (await harness.worker.post(CLAIM, json={"worker_id": "w1"})).status_code == 429
    assert (await bad.get("/api/me")).status_code == 401
    assert (await harness.viewer.post("/api/projects", json={"name": "x"})).status_code == 403
    assert (await harness.admin.post("/api/projects", json={"name": ""})).status_code == 400
    assert (await harness.viewer.get("/api/nothing")).status_code == 404
    assert (await harness.viewer.get(CLAIM)).status_code == 405
    assert (await harness.viewer.get("/api/agents/runs")).status_code == 429
    assert await refusals(harness) == {
        "NOT_AUTHENTICATED": 3,
        "FORBIDDEN": 2,
        "RATE_LIMITED": 2,
        "INVALID_REQUEST": 1,
        "NOT_FOUND": 1,
        "METHOD_NOT_ALLOWED": 1,
    }


async def test_what_succeeds_or_fails_by_the_servers_fault_is_none(harness: Harness) -> None:
    assert (await harness.worker.post(CLAIM, json={"worker_id": "w1"})).status_code == 200
    harness.context.gate.close()
    assert (await harness.worker.post(CLAIM, json={"worker_id": "w1"})).status_code == 503
    assert (await harness.viewer.get("/api/agents/runs")).status_code == 503
    assert await refusals(harness) == {}
