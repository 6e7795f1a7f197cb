"""A fleet to measure with: a project with an approved plan, and lanes of it, each claimed by a worker of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from bench.bodies import LEASE_SECONDS, Case, report
from bench.client import Client
from bench.load import LaneJob
from bench.processes import HOST, Server, command

LANES_PER_PLAN: Final = 50
FIRST_SEQ: Final = 1_000_000
"""Seven digits from the first report to the last, so that no request changes its length."""


@dataclass
class Worker:
    """One worker, the lane that it holds, and its reports, made but for their `seq`."""

    worker_id: str
    run_id: str
    attempt: int
    reports: dict[Case, tuple[str, str]]
    seq: int = FIRST_SEQ

    def job(self, case: Case) -> LaneJob:
        """What the load generator needs to report as this worker."""
        return LaneJob(run_id=self.run_id, body=list(self.reports[case]), seq=self.seq)


@dataclass
class Fleet:
    """Workers at work, and the token that they all report with."""

    token: str
    project_id: str
    workers: list[Worker]


async def make_token(database_url: str) -> str:
    """A token that may do everything, made through the command line. Raises ServerFailed."""
    return await command("token", "create", "bench", "--scope", "admin", database_url=database_url)


async def make_project(client: Client, name: str) -> str:
    """A new project's id."""
    answer = await client.post("/api/projects", {"name": name})
    return str(answer["project"]["id"])


async def make_lanes(client: Client, project_id: str, count: int) -> list[dict[str, Any]]:
    """`count` new claimable lanes of a project, as runs, by approved plans."""
    runs: list[dict[str, Any]] = []
    while len(runs) < count:
        here = min(LANES_PER_PLAN, count - len(runs))
        lanes = [{"laneKey": f"lane-{n}", "title": f"Measure lane {n}", "role": "backend"} for n in range(here)]
        answer = await client.post("/api/agents/plan", {"projectId": project_id, "title": "Measure", "lanes": lanes})
        answer = await client.post(f"/api/agents/plans/{answer['plan']['id']}/approve", {})
        runs += answer["runs"]
    return runs


async def gather(server: Server, token: str, count: int) -> Fleet:
    """`count` workers that each hold a lane."""
    source = random.Random(4)
    workers: list[Worker] = []
    async with Client(HOST, server.port, token) as client:
        project_id = await make_project(client, "Bench")
        for place, run in enumerate(await make_lanes(client, project_id, count)):
            worker_id = f"builder-{place:03}.example.internal:{4_000 + place}:{source.randrange(16**8):08x}"
            body = {"worker_id": worker_id, "lease_seconds": LEASE_SECONDS}
            claimed = (await client.post(f"/api/agents/runs/{run['id']}/claim", body))["run"]
            attempt = int(claimed["attempt"])
            cases: tuple[Case, Case] = ("heartbeat", "events")
            reports = {case: tuple(report(case, worker_id, attempt, source)) for case in cases}
            workers.append(Worker(worker_id, run["id"], attempt, reports))  # type: ignore[arg-type]
    return Fleet(token, project_id, workers)
