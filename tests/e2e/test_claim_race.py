"""Fifty claimers of several kinds race for the lanes of one plan through every server at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.conftest import Replicas
from tests.e2e.database import held_up
from tests.e2e.fleet import gather_in_ledger, get, make_plan, make_project, post

CLAIMERS = 50
LANES = [
    *({"role": "backend", "labels": {}},) * 9,
    *({"role": "frontend", "labels": {}},) * 4,
    *({"role": "test", "labels": {"os": "linux"}},) * 4,
    *({"role": "backend", "labels": {"gpu": "yes", "os": "linux"}},) * 2,
    *({"role": "qa", "labels": {"gpu": "yes"}},) * 1,
]
"""Twenty kinds of lanes in turn; a fleet's work is a multiple of this."""


class Kind(NamedTuple):
    """What a claimer takes: these roles (all of them, if empty), and lanes that ask for no more than these labels."""

    roles: list[str]
    labels: dict[str, str]


KINDS = [
    Kind([], {"gpu": "yes", "os": "linux", "zone": "a"}),
    Kind(["backend", "frontend"], {}),
    Kind([], {"os": "linux"}),
    Kind(["qa", "backend"], {"gpu": "yes", "os": "linux"}),
    Kind(["test"], {"os": "linux"}),
]


class Claimer:
    """A worker that claims through one server and ships through the other, until there is nothing left for it."""

    def __init__(self, number: int, project_id: str, claims: httpx.AsyncClient, reports: httpx.AsyncClient) -> None:
        self._worker_id = f"claimer-{number}"
        self._kind = KINDS[number % len(KINDS)]
        self._project_id = project_id
        self._claims = claims
        self._reports = reports
        self.shipped: list[str] = []

    async def work(self) -> None:
        """Claim and ship as long as there are lanes."""
        asked = {"worker_id": self._worker_id, "project_id": self._project_id, **self._kind._asdict()}
        while (run := (await post(self._claims, "/api/agents/runs/claim", **asked))["run"]) is not None:
            self._check(run)
            events = [{"type": "ship_complete", "payload": {"summary": self._worker_id}}]
            path = f"/api/agents/runs/{run['id']}/events"
            done = (await post(self._reports, path, worker_id=self._worker_id, attempt=1, seq=1, events=events))["run"]
            assert (done["state"], done["summary"]) == ("shipped", self._worker_id)
            self.shipped.append(run["id"])

    def _check(self, run: dict[str, Any]) -> None:
        assert (run["worker_id"], run["attempt"], run["failures"]) == (self._worker_id, 1, 0)
        assert not self._kind.roles or run["role"] in self._kind.roles
        assert run["labels"].items() <= self._kind.labels.items()


async def race(replicas: Replicas, lanes: int) -> None:
    """Let the claimers race, then look at every run: each was claimed once, by whoever shipped it."""
    project_id = await make_project(replicas.one)
    rows = [{"laneKey": f"lane-{n}", "title": f"Lane {n}", **LANES[n % len(LANES)]} for n in range(lanes)]
    plan = (await post(replicas.one, "/api/agents/plan", 201, projectId=project_id, title="Race", lanes=rows))["plan"]
    run_ids = [run["id"] for run in (await post(replicas.one, f"/api/agents/plans/{plan['id']}/approve"))["runs"]]
    sides = [(replicas.one, replicas.other), (replicas.other, replicas.one)]
    claimers = [Claimer(number, project_id, *sides[number % 2]) for number in range(CLAIMERS)]
    await asyncio.gather(*(claimer.work() for claimer in claimers))

    shipped = Counter(run_id for claimer in claimers for run_id in claimer.shipped)
    assert shipped == Counter(run_ids)
    runs = (await get(replicas.other, f"/api/agents/plans/{plan['id']}"))["runs"]
    assert len(runs) == lanes
    # Two events a run: one claim, one ship.
    assert {(run["state"], run["attempt"], run["failures"], run["event_count"]) for run in runs} == {
        ("shipped", 1, 0, 2)
    }
    by = {run_id: f"claimer-{number}" for number, claimer in enumerate(claimers) for run_id in claimer.shipped}
    assert {run["id"]: run["worker_id"] for run in runs} == by
    assert sum(bool(claimer.shipped) for claimer in claimers) > CLAIMERS / 2


async def test_fifty_claimers_race_for_a_thousand_lanes_through_two_servers(on_postgres: Replicas) -> None:
    await race(on_postgres, 1_000)


async def test_fifty_claimers_race_on_one_sqlite(on_sqlite: Replicas) -> None:
    await race(on_sqlite, 200)


@pytest.mark.slow
async def test_races_go_on_ending_well(on_postgres: Replicas) -> None:
    for _ in range(10):
        await race(on_postgres, 2_000)


async def test_claims_of_several_kinds_in_one_transaction_leave_no_lane_that_one_could_have(replicas: Replicas) -> None:
    project_id = await make_project(replicas.one)
    plan_id = await make_plan(replicas.one, project_id, 20)
    await post(replicas.one, f"/api/agents/plans/{plan_id}/approve")
    kinds: list[dict[str, Any]] = [{}, {"roles": ["backend"]}, {"labels": {"os": "linux"}}]
    asked = [{"worker_id": f"worker-{number}", "project_id": project_id, **kinds[number % 3]} for number in range(20)]

    # The first ones wait for the lock, and the others behind them for one transaction.
    async with held_up(replicas.database):
        asking = (post(replicas.one, "/api/agents/runs/claim", **body) for body in asked)
        claims = await gather_in_ledger(replicas.one, asking, 9)
    answers = await asyncio.gather(*claims)
    assert len({answer["run"]["id"] for answer in answers}) == len(claims)
