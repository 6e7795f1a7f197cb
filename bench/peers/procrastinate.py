"""Procrastinate: a worker's heartbeat, an UPDATE that the worker itself sends to PostgreSQL. There is no server.

So the load is Procrastinate's own call of its own connector, in a process of its own: as many tasks as there are
connections, each with one heartbeat under way. What it measures is the library, the driver and PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.bodies import Case
from bench.load import LaneJob, Result
from bench.peers.environments import Environment
from bench.peers.peer import Call, Contestant, count, run_inside, writes_sql
from bench.processes import Server, environment_without
from bench.rounds import Pace

HEARTBEATS: Final = Path(__file__).parent / "inside" / "procrastinate_heartbeats.py"


class Procrastinate(Contestant):
    """A PostgreSQL with Procrastinate's schema and as many registered workers as there are connections."""

    name = "Procrastinate"
    settings = (
        "no server: `JobManager.update_heartbeat` over `PsycopgConnector` (psycopg 3 in C), a connection a worker",
    )
    not_comparable = (
        "no HTTP, no credentials, no project, no answer: each worker has a connection to the database and its password",
        "its load comes from its own library, which takes the place of the load generator and its core",
        "there are no log lines",
    )

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self._environment = environment
        self._url = ""
        self.version = environment.pins["procrastinate"]

    @asynccontextmanager
    async def running(self, database_url: str, folder: Path, connections: int) -> AsyncIterator[Server | None]:
        self._url = database_url
        workers: list[int] = json.loads(await self._inside("prepare", {"url": database_url, "workers": connections}))
        sql = writes_sql("procrastinate_workers")
        lanes = [LaneJob(run_id=str(worker), body=[""], seq=0) for worker in workers]
        fresh = ("procrastinate_workers", "last_heartbeat")
        call = Call("`UPDATE procrastinate_workers SET last_heartbeat = NOW()` by its function", lanes, sql, 1, fresh)
        call.before = await count(database_url, sql)
        self.calls["heartbeat"] = call
        yield None

    async def load(self, server: Server | None, case: Case, pace: Pace) -> Result:
        call = self.calls[case]
        call.started = datetime.now(UTC)
        job = {
            "url": self._url,
            "workers": [int(lane["run_id"]) for lane in call.lanes],
            "warmup_seconds": pace.warmup_seconds,
            "seconds": pace.seconds,
        }
        found: dict[str, Any] = json.loads(await self._inside("hold", job))
        call.sent += int(found["sent"])
        return Result(
            requests=found["requests"],
            seconds=found["seconds"],
            rate=found["rate"],
            p50_ms=found["p50_ms"],
            p99_ms=found["p99_ms"],
            max_ms=found["max_ms"],
            checked=0,
            cpu=found["cpu"],
            seqs=[],
        )

    async def _inside(self, verb: str, job: dict[str, Any]) -> str:
        python = str(self._environment.python)
        return await run_inside(python, str(HEARTBEATS), verb, json.dumps(job), settings=environment_without("PG"))
