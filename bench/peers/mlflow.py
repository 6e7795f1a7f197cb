"""MLflow: metrics of a run, by `log-batch` of its tracking server. For want of a heartbeat it gets a batch of one."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.bodies import EVENTS_PER_REPORT, Case
from bench.client import Client
from bench.load import LaneJob
from bench.peers.environments import Environment
from bench.peers.peer import READY_SECONDS, Call, Contestant, count
from bench.processes import HOST, Server, environment_without, free_port, serving

POOL_SIZE: Final = 100
"""More than two for each of the 40 threads that answer: with the pool's own 15, 64 connections bring it to a stand."""
API: Final = "/api/2.0/mlflow"
FIRST_STEP: Final = 1_000_000
"""Seven digits from the first step to the last, so that no request changes its length."""
METRICS: Final[dict[Case, int]] = {"heartbeat": 1, "events": EVENTS_PER_REPORT}
_STEP_MARK: Final = '"@step@"'
TIMESTAMP_MS: Final = 1_767_603_600_000


class Mlflow(Contestant):
    """`mlflow server`, with as many runs as there are connections for each case."""

    name = "MLflow"
    settings = (
        "`mlflow server --workers 1 --uvicorn-opts '--no-access-log --log-level warning'` on PostgreSQL (psycopg2)",
        f"`MLFLOW_SQLALCHEMYSTORE_POOL_SIZE={POOL_SIZE}`: with its own pool of 15 it stands still under 64 connections",
        "the execution of jobs off (`MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false`), which has processes of its own",
        "uvloop and httptools beside it, which uvicorn takes where they are installed",
    )
    not_comparable = (
        "it knows no workers, leases or heartbeats: the heartbeat is a batch of one metric",
        "a report of 10 is 10 metrics, of a number each, not 10 lines of text",
        "it asks for no credentials",
    )

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self._environment = environment
        self.version = environment.pins["mlflow"]

    @asynccontextmanager
    async def running(self, database_url: str, folder: Path, connections: int) -> AsyncIterator[Server]:
        home = folder / "mlflow"
        home.mkdir()
        port = free_port()
        store = database_url.replace("postgresql:", "postgresql+psycopg2:", 1)
        program = (
            *(
                str(self._environment.program("mlflow")),
                "server",
                "--workers",
                "1",
                "--host",
                HOST,
                "--port",
                str(port),
            ),
            *("--backend-store-uri", store, "--artifacts-destination", str(home / "artifacts")),
            *("--uvicorn-opts", "--no-access-log --log-level warning"),
        )
        async with serving(
            "mlflow", program, self._settings(home), port, folder, ready_path="/health", ready_seconds=READY_SECONDS
        ) as server:
            async with Client(HOST, port, "") as client:
                experiment = await client.post(f"{API}/experiments/create", {"name": "bench"})
                for case, metrics in METRICS.items():
                    runs = [await begin(client, experiment["experiment_id"]) for _ in range(connections)]
                    key = f"{case}-"
                    lanes = [batch(run_id, key, metrics) for run_id in runs]
                    sql = f"SELECT count(*) FROM metrics WHERE key LIKE '{key}%'"
                    shown = f"`POST {API}/runs/log-batch` with {metrics} metric{'s' if metrics > 1 else ''}"
                    self.calls[case] = Call(shown, lanes, sql, metrics)
                    self.calls[case].before = await count(database_url, sql)
            yield server

    def _settings(self, home: Path) -> Mapping[str, str]:
        kept = environment_without("MLFLOW")
        return {
            **kept,
            "HOME": str(home),
            "PATH": f"{self._environment.program('')}{os.pathsep}{kept.get('PATH', '')}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(POOL_SIZE),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }


async def begin(client: Client, experiment_id: str) -> str:
    """A new run's id."""
    answer: Any = await client.post(f"{API}/runs/create", {"experiment_id": experiment_id})
    return str(answer["run"]["info"]["run_id"])


def batch(run_id: str, key: str, metrics: int) -> LaneJob:
    """So many metrics of one run, each with the step that goes where the `seq` of a report does.

    A metric with another's run, key, time, step and value is the same to MLflow, and wouldn't be written.
    """
    values = [
        {"key": f"{key}{place}", "value": place + 0.5, "timestamp": TIMESTAMP_MS, "step": "@step@"}
        for place in range(metrics)
    ]
    body = json.dumps({"run_id": run_id, "metrics": values}).split(_STEP_MARK)
    return LaneJob(run_id=run_id, body=body, seq=FIRST_STEP, request=f"POST {API}/runs/log-batch")
