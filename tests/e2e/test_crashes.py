"""Servers that are killed under load, and answers that get lost on their way.

Whatever was answered is there afterwards, once and in order; whatever was not answered is there whole or not at all.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Replicas
from tests.e2e.database import new_token
from tests.e2e.fleet import (
    all_go_on,
    assert_all_there,
    client_of,
    get,
    make_plan,
    make_project,
    make_reporters,
    post,
    read_events,
    read_run,
)
from tests.e2e.proxy import losing_answers
from tests.e2e.server_process import ServerProcess, until

LANES_A_PLAN = 25


async def send_until_answered(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    """Send a command that may be sent again until there is an answer; the body of its 200."""
    while True:
        try:
            response = await client.post(path, json=body)
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        if response.status_code != 503:
            assert response.status_code == 200, response.text
            answer: dict[str, Any] = response.json()
            return answer
        await asyncio.sleep(0.05)


class Approver:
    """An operator who makes plans and approves them, and notes which were answered."""

    def __init__(self, client: httpx.AsyncClient, project_id: str) -> None:
        self._client = client
        self._project_id = project_id
        self.approved: list[str] = []

    async def approve_until(self, stopping: asyncio.Event) -> None:
        """Make and approve plans; what gets no answer is left as it is."""
        while not stopping.is_set():
            try:
                plan_id = await make_plan(self._client, self._project_id, LANES_A_PLAN)
                await post(self._client, f"/api/agents/plans/{plan_id}/approve")
            except (httpx.TransportError, AssertionError):
                await asyncio.sleep(0.05)
            else:
                self.approved.append(plan_id)
            await asyncio.sleep(0.05)

    async def assert_all_or_nothing(self) -> None:
        """A plan has all its runs or none, and those that were answered have them."""
        rows: list[dict[str, Any]] = []
        query: dict[str, Any] = {"project_id": self._project_id, "limit": 200}
        while query.get("cursor", "") is not None:
            page = await get(self._client, "/api/agents/plans", **query)
            rows += page["plans"]
            query["cursor"] = page["next_cursor"]
        assert set(self.approved) <= {plan["id"] for plan in rows if plan["status"] == "approved"}
        for plan in rows:
            runs = (await get(self._client, f"/api/agents/plans/{plan['id']}"))["runs"]
            assert len(runs) == (LANES_A_PLAN if plan["status"] == "approved" else 0)


class Shipper:
    """A worker that ships lanes of which each waits for the one before it, and each of which has a ticket."""

    def __init__(self, client: httpx.AsyncClient, lanes: int) -> None:
        self._client = client
        self._lanes = lanes
        self.run_ids: list[str] = []
        self.ticket_paths: list[str] = []
        self.shipped: list[str] = []

    async def prepare(self) -> None:
        """The tickets, and an approved plan of one chain."""
        project_id = await make_project(self._client)
        lanes = []
        for n in range(self._lanes):
            fields = {
                "title": f"Ticket {n}",
                "description": "One step of many.",
                "request_type": "feature",
                "blocking": False,
            }
            answer = await post(
                self._client, f"/api/projects/{project_id}/tickets", 201, priority="high", roles=["backend"], **fields
            )
            ticket_id = answer["ticket"]["id"]
            self.ticket_paths.append(f"/api/projects/{project_id}/tickets/{ticket_id}")
            lane = {"laneKey": f"lane-{n}", "title": f"Lane {n}", "role": "backend", "ticketIds": [ticket_id]}
            lanes.append({**lane, "after": [f"lane-{n - 1}"] if n else []})
        plan = (await post(self._client, "/api/agents/plan", 201, projectId=project_id, title="Chain", lanes=lanes))[
            "plan"
        ]
        runs = (await post(self._client, f"/api/agents/plans/{plan['id']}/approve"))["runs"]
        by_key = {run["lane_key"]: run["id"] for run in runs}
        self.run_ids = [by_key[f"lane-{n}"] for n in range(self._lanes)]

    async def ship_until(self, stopping: asyncio.Event) -> None:
        """Claim and ship one lane after the other; a lane that still waits for a shipped one is a failure."""
        for run_id in self.run_ids:
            if stopping.is_set():
                return
            await send_until_answered(self._client, f"/api/agents/runs/{run_id}/claim", worker_id="shipper")
            await send_until_answered(
                self._client,
                f"/api/agents/runs/{run_id}/events",
                worker_id="shipper",
                attempt=1,
                seq=1,
                events=[{"type": "ship_complete", "payload": {"pr_url": f"https://example.com/{run_id}"}}],
            )
            self.shipped.append(run_id)
            await asyncio.sleep(0.02)

    async def assert_whole(self) -> None:
        """Each lane was claimed and shipped once or not at all, and its ticket says so."""
        assert self.shipped == self.run_ids[: len(self.shipped)]
        for run_id, path in zip(self.run_ids, self.ticket_paths, strict=True):
            shipped = run_id in self.shipped
            run = await read_run(self._client, run_id)
            assert (run["state"], run["attempt"]) == (("shipped", 1) if shipped else ("queued", 0))
            types = [event["type"] for event in await read_events(self._client, run_id)]
            assert types == (["claimed", "ship_complete"] if shipped else [])
            ticket = (await get(self._client, path))["ticket"]
            assert ticket["roles"]["backend"] == ("done" if shipped else "pending")


async def kill_under_load(server: ServerProcess, *, reporters: int, kills: int, seed: int) -> None:
    """Kill the server again and again while everybody works, each time at another moment; then count."""
    chance = random.Random(seed)
    async with client_of(server.url, await new_token(server.database)) as client:
        workers = await make_reporters(client, reporters, chance)
        approver = Approver(client, await make_project(client))
        shipper = Shipper(client, 30 * kills)
        await shipper.prepare()
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.report_until(stopping))
            group.create_task(approver.approve_until(stopping))
            group.create_task(shipper.ship_until(stopping))
            for _ in range(kills):
                await all_go_on(workers)
                await asyncio.sleep(chance.uniform(0, 0.2))
                server.kill()
                await server.start_beside()
            await all_go_on(workers)
            stopping.set()
        assert all(worker.lost for worker in workers)
        count = await assert_all_there(client, workers)
        assert count > sum(len(worker.acknowledged) for worker in workers)  # those, and the claims
        await approver.assert_all_or_nothing()
        await shipper.assert_whole()
    assert server.stop() == 0


async def test_what_was_acknowledged_survives_kills_under_load(server: ServerProcess) -> None:
    await kill_under_load(server, reporters=24, kills=2, seed=1)


@pytest.mark.slow
async def test_what_was_acknowledged_survives_many_kills(server: ServerProcess) -> None:
    await kill_under_load(server, reporters=48, kills=25, seed=2)


async def test_a_report_whose_answer_was_lost_is_sent_again_and_stored_once(replicas: Replicas) -> None:
    chance = random.Random(3)
    async with losing_answers(replicas.servers[0], chance, 0.2) as url:
        workers = await make_reporters(replicas.one, 16, chance)
        async with client_of(url, replicas.one.headers["authorization"].removeprefix("Bearer ")) as lossy:
            for worker in workers:
                worker.client = lossy
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for worker in workers:
                    group.create_task(worker.report_until(stopping))
                await until(lambda: sum(worker.duplicates for worker in workers) >= 40, "answers lost", 30)
                stopping.set()
        assert sum(worker.lost for worker in workers) >= 40
        await assert_all_there(replicas.other, workers)
