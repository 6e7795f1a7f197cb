"""Run by an interpreter that has Procrastinate: workers that are registered, and the load of their heartbeats.

python procrastinate_heartbeats.py prepare '{"url": …, "workers": N}'       prints the workers' ids
python procrastinate_heartbeats.py hold '{"url": …, "workers": [id…], …}'   prints what was measured
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any

import procrastinate


def application(url: str, connections: int) -> procrastinate.App:
    """Procrastinate on the database, with a pool of exactly so many connections."""
    return procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=url, min_size=connections, max_size=connections)
    )


async def prepare(job: dict[str, Any]) -> list[int]:
    """Make the schema and register workers; their ids."""
    async with application(job["url"], 1).open_async() as app:
        await app.schema_manager.apply_schema_async()
        return [await app.job_manager.register_worker() for _ in range(job["workers"])]


async def hold(job: dict[str, Any]) -> dict[str, Any]:
    """Each worker sends its next heartbeat as soon as the last one is written; latencies in milliseconds."""
    latencies: list[float] = []
    counting, stopping, sent = False, False, 0

    async def beat(worker_id: int) -> None:
        nonlocal sent
        while not stopping:
            began = time.perf_counter()
            await app.job_manager.update_heartbeat(worker_id)
            sent += 1
            if counting:
                latencies.append((time.perf_counter() - began) * 1000)

    async with application(job["url"], len(job["workers"])).open_async() as app:
        tasks = [asyncio.create_task(beat(worker_id)) for worker_id in job["workers"]]
        await asyncio.sleep(job["warmup_seconds"])
        began, cpu, counting = time.perf_counter(), time.process_time(), True
        await asyncio.sleep(job["seconds"])
        counting, elapsed, cpu = False, time.perf_counter() - began, time.process_time() - cpu
        stopping = True
        await asyncio.gather(*tasks)
    ordered = sorted(latencies)
    return {
        "requests": len(ordered),
        "seconds": elapsed,
        "rate": len(ordered) / elapsed,
        "p50_ms": ordered[int(len(ordered) * 0.50)],
        "p99_ms": ordered[int(len(ordered) * 0.99)],
        "max_ms": ordered[-1],
        "cpu": cpu / elapsed,
        "sent": sent,
    }


if __name__ == "__main__":
    gc.disable()  # as in the load generator of the others
    print(json.dumps(asyncio.run({"prepare": prepare, "hold": hold}[sys.argv[1]](json.loads(sys.argv[2])))))
