"""Prefect 3: a worker's heartbeat to its work pool, and the log lines of its flow runs, by the API server."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.bodies import EVENTS_PER_REPORT, payload_events
from bench.client import Client
from bench.load import LaneJob
from bench.peers.environments import Environment
from bench.peers.peer import READY_SECONDS, Call, Contestant, count, writes_sql
from bench.processes import HOST, Server, environment_without, free_port, serving

POOL: Final = "bench"
LEVEL_INFO: Final = 20
HEARTBEAT_SECONDS: Final = 30


class Prefect(Contestant):
    """`prefect server start`, with a work pool of as many workers as there are connections, each on a flow run."""

    name = "Prefect"
    settings = (
        "`prefect server start --no-services`: the API without the background services, as its manual scales it",
        "PostgreSQL with asyncpg and its own pool (5 connections and 10 more)",
        "`PREFECT_SERVER_LOGGING_LEVEL=WARNING`, which leaves out the line per request; analytics and UI off",
        "uvloop and httptools beside it, which uvicorn takes where they are installed",
    )
    not_comparable = (
        "it asks for no credentials (Heartlane and Airflow check a token on each call)",
        "the heartbeat tells that a worker lives; it is no lease on what the worker does",
        "its logs aren't numbered: what is sent twice is stored twice",
    )

    def __init__(self, environment: Environment, pg_trgm: Environment) -> None:
        super().__init__()
        self._environment = environment
        self.pg_trgm = pg_trgm
        self.version = environment.pins["prefect"]

    @asynccontextmanager
    async def running(self, database_url: str, folder: Path, connections: int) -> AsyncIterator[Server]:
        settings = self._settings(database_url, folder / "prefect")
        port = free_port()
        prefect = str(self._environment.program("prefect"))
        program = (prefect, "server", "start", "--no-services", "--host", HOST, "--port", str(port))
        async with serving(
            "prefect", program, settings, port, folder, ready_path="/api/health", ready_seconds=READY_SECONDS
        ) as server:
            async with Client(HOST, port, "") as client:
                await client.post("/api/work_pools/", {"name": POOL, "type": "process"})
                flow = await client.post("/api/flows/", {"name": "bench"})
                state = {"type": "RUNNING"}
                runs = [
                    (await client.post("/api/flow_runs/", {"flow_id": flow["id"], "state": state}))["id"]
                    for _ in range(connections)
                ]
            beats, sql = [beat(place) for place in range(connections)], writes_sql("worker")
            call = Call(
                "`POST /api/work_pools/{name}/workers/heartbeat`", beats, sql, 1, ("worker", "last_heartbeat_time")
            )
            call.status = 204
            self.calls["heartbeat"] = call
            source = random.Random(4)
            logs = [log_lines(run_id, source) for run_id in runs]
            call = Call(
                f"`POST /api/logs/` with {EVENTS_PER_REPORT} lines", logs, "SELECT count(*) FROM log", EVENTS_PER_REPORT
            )
            call.status = 201
            self.calls["events"] = call
            for call in self.calls.values():
                call.before = await count(database_url, call.count_sql)
            yield server

    def _settings(self, database_url: str, home: Path) -> Mapping[str, str]:
        return {
            **environment_without("PREFECT"),
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url.replace("postgresql:", "postgresql+asyncpg:", 1),
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
        }


def beat(place: int) -> LaneJob:
    """One worker's heartbeat, as Prefect's own workers send it."""
    name = f"builder-{place:03}"
    body = json.dumps({"name": name, "heartbeat_interval_seconds": HEARTBEAT_SECONDS})
    return LaneJob(run_id=name, body=[body], seq=0, request=f"POST /api/work_pools/{POOL}/workers/heartbeat")


def log_lines(run_id: str, source: random.Random) -> LaneJob:
    """Ten log lines of one flow run, with the texts of Heartlane's ten events."""
    lines = [
        {
            "name": "prefect.flow_runs",
            "level": LEVEL_INFO,
            "message": event["payload"].get("line") or json.dumps(event["payload"]),
            "timestamp": event["at"],
            "flow_run_id": run_id,
        }
        for event in payload_events(source)
    ]
    return LaneJob(run_id=run_id, body=[json.dumps(lines)], seq=0, request="POST /api/logs/")
