"""Apache Airflow 3: a running task's heartbeat, by the Execution API of its API server.

A task's supervisor tells the API server every few seconds that its task instance lives, with a token made for this very
instance. Log lines never come to that server: a worker writes them to files or to a store of objects.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.client import Client
from bench.load import LaneJob
from bench.peers.environments import Environment
from bench.peers.peer import READY_SECONDS, Call, Contestant, count, run_inside, writes_sql
from bench.processes import HOST, Server, environment_without, free_port, serving

SEED: Final = Path(__file__).parent / "inside" / "airflow_tasks.py"
UNIXNAME: Final = "bench"
DAG: Final = """
from datetime import datetime
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("bench", schedule=None, start_date=datetime(2026, 1, 1)):
    for number in range({count}):
        EmptyOperator(task_id=f"lane-{{number}}")
"""


class Airflow(Contestant):
    """`airflow api-server`, with as many task instances in state running as there are connections."""

    name = "Apache Airflow"
    settings = (
        "`airflow api-server --apps execution --workers 1`: the Execution API alone, as its documentation separates it",
        "`[logging] logging_level = WARNING`, which leaves out the line per request",
        "`[database]` its own pool (5 connections and 10 more)",
        "HS512 tokens, one for each task instance, of a day, so that none has to be renewed meanwhile",
    )
    not_comparable = (
        "log lines: Airflow's workers write them to files or to a store of objects, never to the API server",
        "the heartbeat renews no deadline and passes no message back; a task's instance is looked at by the scheduler",
    )

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self._environment = environment
        self.version = environment.pins["apache-airflow"]

    @asynccontextmanager
    async def running(self, database_url: str, folder: Path, connections: int) -> AsyncIterator[Server]:
        home = folder / "airflow"
        (home / "dags").mkdir(parents=True)
        settings = self._settings(database_url, home)
        airflow = str(self._environment.program("airflow"))
        (home / "dags" / "bench.py").write_text(DAG.format(count=connections))
        await run_inside(airflow, "db", "migrate", settings=settings)
        await run_inside(airflow, "dags", "reserialize", settings=settings)
        printed = await run_inside(str(self._environment.python), str(SEED), settings=settings)
        tasks: list[dict[str, str]] = json.loads(printed.splitlines()[-1])
        port = free_port()
        program = (airflow, "api-server", "--apps", "execution", "--workers", "1", "--host", HOST, "--port", str(port))
        ready = "/execution/health"
        async with serving(
            "airflow", program, settings, port, folder, ready_path=ready, ready_seconds=READY_SECONDS
        ) as server:
            lanes = [await begin(server, place, task) for place, task in enumerate(tasks)]
            sql = writes_sql("task_instance")
            call = Call("`PUT /execution/task-instances/{id}/heartbeat`", lanes, sql, 1, status=204)
            call.fresh = ("task_instance", "last_heartbeat_at")
            call.before = await count(database_url, sql)
            self.calls["heartbeat"] = call
            yield server

    def _settings(self, database_url: str, home: Path) -> Mapping[str, str]:
        kept = environment_without("AIRFLOW")
        return {
            **kept,
            "PATH": f"{self._environment.program('')}{os.pathsep}{kept.get('PATH', '')}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url.replace("postgresql:", "postgresql+psycopg2:", 1),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        }


async def begin(server: Server, place: int, task: dict[str, Any]) -> LaneJob:
    """Start a queued task instance by the API, as its supervisor does; returns its heartbeat."""
    hostname, pid = f"builder-{place:03}.example.internal", 4_000 + place
    async with Client(HOST, server.port, task["token"]) as client:
        body = {"state": "running", "hostname": hostname, "unixname": UNIXNAME, "pid": pid}
        body["start_date"] = datetime.now(UTC).isoformat()
        await client.send("PATCH", f"/execution/task-instances/{task['id']}/run", body)
    return LaneJob(
        run_id=task["id"],
        body=[json.dumps({"hostname": hostname, "pid": pid})],
        seq=0,
        request=f"PUT /execution/task-instances/{task['id']}/heartbeat",
        authorization=f"Bearer {task['token']}",
    )
