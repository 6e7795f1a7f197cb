"""Run by Airflow's own interpreter: a run of the DAG "bench", every task of it queued; prints their ids and tokens.

Prints one line of JSON, a list of {id, token}. What the scheduler does to a task on its way into the queue is set here;
starting it is left to the Execution API. The DAG has to be in the database (`airflow dags reserialize`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args
from airflow.configuration import conf
from airflow.models.dagbag import DBDagBag
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

RUN_ID = "bench"
VALID_SECONDS = timedelta(days=1).total_seconds()


def queue_tasks() -> list[str]:
    """A run of the DAG with all its task instances queued; their ids."""
    now = datetime.now(UTC)
    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag("bench", session=session)
        dag.create_dagrun(
            run_id=RUN_ID,
            logical_date=now,
            data_interval=None,
            run_after=now,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )
        session.flush()
        tasks = list(session.scalars(select(TaskInstance).where(TaskInstance.run_id == RUN_ID)))
        for task in tasks:
            task.state = TaskInstanceState.QUEUED
        return [str(task.id) for task in tasks]


def main() -> None:
    # As an executor makes them for the tasks that it starts, but for how long they are good.
    generator = JWTGenerator(
        valid_for=VALID_SECONDS,
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience")[0],
        **get_signing_args(make_secret_key_if_needed=False),
    )
    print(json.dumps([{"id": one, "token": generator.generate({"sub": one})} for one in queue_tasks()]))


if __name__ == "__main__":
    main()
