"""Budgets while work goes on: workers that report at once, changes of mind, and who is told how often."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heartlane.server.budgets import carry_out
from tests.harness import Harness


async def put(harness: Harness, project_id: str, **fields: Any) -> None:
    response = await harness.admin.put(f"/api/projects/{project_id}/budget", json=fields)
    assert response.status_code == 200, response.text


async def spend(harness: Harness, run_id: str, worker_id: str, **figures: Any) -> None:
    response = await harness.report(run_id, worker_id, events=[{"type": "heartbeat", "payload": {"usage": figures}}])
    assert response.status_code == 200, response.text


async def carried_out(harness: Harness) -> None:
    await carry_out(harness.store, await harness.store.now())


async def claim_next(harness: Harness, **fields: Any) -> dict[str, Any]:
    response = await harness.worker.post("/api/agents/runs/claim", json={"worker_id": "w9", **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def told(harness: Harness) -> list[str]:
    """The kinds of the open notices, oldest first."""
    found = (await harness.viewer.get("/api/agents/notices", params={"open": "true"})).json()["notices"]
    return [each["kind"] for each in found][::-1]


async def held(harness: Harness, lanes: int, claimed: int, **budget: Any) -> list[dict[str, Any]]:
    """The lanes of a project with a budget, so many of them claimed by w0, w1, …"""
    runs = await harness.approved(lanes)
    await put(harness, runs[0]["project_id"], **budget)
    for place, run in enumerate(runs[:claimed]):
        await harness.claim(run["id"], f"w{place}", lease_seconds=3_600)
        await harness.report(run["id"], f"w{place}")
    return runs


async def directives(harness: Harness, runs: list[dict[str, Any]]) -> set[str]:
    answers = [await harness.report(run["id"], f"w{place}") for place, run in enumerate(runs)]
    return {answer.json()["directive"] for answer in answers}


async def test_a_budget_is_crossed_while_three_workers_report(harness: Harness) -> None:
    runs = await held(harness, 4, 3, usd_per_day=10)
    await asyncio.gather(*(spend(harness, run["id"], f"w{n}", cost_usd=2.8) for n, run in enumerate(runs[:3])))
    await carried_out(harness)
    assert await told(harness) == ["budget_80"]
    assert await directives(harness, runs[:3]) == {"continue"}
    await asyncio.gather(*(spend(harness, run["id"], f"w{n}", cost_usd=3.5) for n, run in enumerate(runs[:3])))
    # Whether it was carried out yet or not, nothing more of it is claimed.
    answer = await claim_next(harness)
    assert answer["run"] is None
    assert "10.50 USD of 10.00 USD today" in answer["words"]
    for _ in range(3):
        await carried_out(harness)
    assert await told(harness) == ["budget_80", "budget_100"]
    assert await directives(harness, runs[:3]) == {"pause"}
    assert {(await harness.read(run["id"]))["needs_attention"] for run in runs[:3]} == {"budget"}
    await put(harness, runs[0]["project_id"], usd_per_day=20)
    await carried_out(harness)
    assert await directives(harness, runs[:3]) == {"continue"}
    assert await told(harness) == []
    assert (await claim_next(harness))["run"]["id"] == runs[3]["id"]


async def test_a_budget_that_was_raised_and_is_used_up_again_is_told_again(harness: Harness) -> None:
    (run,) = await held(harness, 1, 1, usd_per_day=1)
    await spend(harness, run["id"], "w0", cost_usd=1)
    await carried_out(harness)
    await put(harness, run["project_id"], usd_per_day=10)
    await carried_out(harness)
    assert await told(harness) == []
    await spend(harness, run["id"], "w0", cost_usd=10)
    await carried_out(harness)
    assert await told(harness) == ["budget_100"]


@pytest.mark.parametrize("first", ["pause", "stop"])
async def test_what_a_used_up_budget_means_can_be_changed(harness: Harness, first: str) -> None:
    runs = await held(harness, 2, 1, usd_per_day=1, on_exceeded=first)
    await spend(harness, runs[0]["id"], "w0", cost_usd=1)
    await carried_out(harness)
    then = "stop" if first == "pause" else "pause"
    await put(harness, runs[0]["project_id"], usd_per_day=1, on_exceeded=then)
    await carried_out(harness)
    # Who was told to stop isn't told anything else any more; who stands still is told to stop.
    assert await directives(harness, runs[:1]) == {"stop"}
    assert (await claim_next(harness))["run"] is None
    await put(harness, runs[0]["project_id"], usd_per_day=5, on_exceeded=then)
    await carried_out(harness)
    assert await directives(harness, runs[:1]) == {"continue"}


async def test_a_lane_that_a_person_paused_stays_paused(harness: Harness) -> None:
    (run,) = await held(harness, 1, 1, usd_per_day=1)
    await harness.operator.post(f"/api/agents/runs/{run['id']}/pause")
    await spend(harness, run["id"], "w0", cost_usd=1)
    await carried_out(harness)
    await put(harness, run["project_id"], usd_per_day=5)
    await carried_out(harness)
    assert (await harness.read(run["id"]))["state"] == "paused"
    await harness.operator.post(f"/api/agents/runs/{run['id']}/resume")
    assert await directives(harness, [run]) == {"continue"}


async def test_a_waiting_claim_wakes_when_there_is_budget_again(harness: Harness) -> None:
    (run,) = await held(harness, 1, 0, usd_per_day=0)
    await carried_out(harness)
    waiting = asyncio.create_task(claim_next(harness, wait_seconds=20))
    await harness.waiting_claims(1)
    await put(harness, run["project_id"], usd_per_day=1)
    await carried_out(harness)
    async with asyncio.timeout(4):  # it would look by itself after five seconds
        assert (await waiting)["run"]["id"] == run["id"]
