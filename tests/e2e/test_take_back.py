"""Leases that run out are taken back: once each, in time, and never from a worker that is heard."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final

from tests.e2e.conftest import Replicas
from tests.e2e.fleet import claim, get, make_runs, post, read_events, read_run
from tests.e2e.server_process import until
from tests.harness import assert_error

PROMISED_SECONDS: Final = 2.0
SLACK_SECONDS: Final = 1.5
"""What a machine may add that is busy with other things."""
SILENT: Final = 40
HEARD: Final = 10


async def test_each_lease_that_runs_out_is_taken_back_once_and_in_time(replicas: Replicas) -> None:
    run_ids = await make_runs(replicas.one, SILENT + HEARD)
    silent, heard = run_ids[:SILENT], run_ids[SILENT:]
    await asyncio.gather(*(claim(replicas.one, run_id, "silent", lease_seconds=1) for run_id in silent))
    await asyncio.gather(*(claim(replicas.one, run_id, "heard", lease_seconds=3) for run_id in heard))
    stopping = asyncio.Event()

    async def keep(run_id: str) -> None:
        for turn, client in enumerate([replicas.one, replicas.other] * 1000):
            if stopping.is_set():
                return
            line = f"turn {turn}"
            await post(client, f"/api/agents/runs/{run_id}/events", worker_id="heard", lease_seconds=2, log_line=line)
            await asyncio.sleep(0.3)

    async with asyncio.TaskGroup() as group:
        for run_id in heard:
            group.create_task(keep(run_id))
        plan_id = (await read_run(replicas.one, silent[0]))["plan_id"]
        await until(lambda: all_queued(replicas, plan_id, SILENT), "leases taken back")
        if len(replicas.servers) > 1:
            await asyncio.sleep(1)  # a second one of a lane would come with the next looks of the servers
        stopping.set()

    for run_id in silent:
        run = await read_run(replicas.other, run_id)
        assert (run["state"], run["worker_id"], run["failures"], run["attempt"]) == ("queued", None, 1, 1)
        claimed, expired = await read_events(replicas.other, run_id)
        assert (claimed["type"], expired["type"]) == ("claimed", "lease_expired")
        assert expired["payload"]["worker_id"] == "silent"
        deadline = datetime.fromisoformat(expired["payload"]["deadline"])
        late = (datetime.fromisoformat(expired["recorded_at"]) - deadline).total_seconds()
        assert 0 <= late < PROMISED_SECONDS + SLACK_SECONDS
    for run_id in heard:
        run = await read_run(replicas.one, run_id)
        assert (run["state"], run["worker_id"], run["failures"], run["attempt"]) == ("running", "heard", 0, 1)
    late_report = await replicas.one.post(f"/api/agents/runs/{silent[0]}/events", json={"worker_id": "silent"})
    assert_error(late_report, 409, "CLAIM_LOST")


async def all_queued(replicas: Replicas, plan_id: str, count: int) -> bool:
    """Whether so many lanes of a plan wait for a worker."""
    plan = await get(replicas.other, f"/api/agents/plans/{plan_id}")
    return [run["state"] for run in plan["runs"]].count("queued") == count
