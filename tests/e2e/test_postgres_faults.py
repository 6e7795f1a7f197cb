"""PostgreSQL that is killed or stands still under load, and comes back: servers wait for it, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import asyncpg
import httpx
import pytest

from tests.e2e.database import new_token
from tests.e2e.fleet import (
    Reporter,
    all_go_on,
    assert_all_there,
    assert_unavailable,
    claim,
    client_of,
    get,
    make_plan,
    make_project,
    make_reporters,
    make_runs,
    post,
    read_events,
    read_run,
)
from tests.e2e.postgres_process import PostgresProcess
from tests.e2e.proxy import breaking_commits
from tests.e2e.server_process import ServerProcess, closing, until

_names = itertools.count(1)
UNKNOWN: Final = "It is not known whether a change was made"
BREAKS: Final[tuple[tuple[Literal["before", "after"], bool], ...]] = (("before", False), ("after", True))
"""When a connection breaks in a COMMIT, and whether PostgreSQL has done it then."""
NOBODY: Final = "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40"
REFUSED_SECONDS: Final = 15.0
"""How long a server may take to find out that PostgreSQL stands still, and to say so."""
CUTS: Final = 20
ENDED_SECONDS: Final = 10.0
"""How long a server may take to end, whatever holds it up."""
STANDSTILL_SECONDS: Final = 4.5
"""Longer than servers go without a sign of life, and longer than the leases below."""


@pytest.fixture
def database_url(postgres: PostgresProcess) -> str:
    """A database of a PostgreSQL that may be killed."""
    return postgres.create_database(f"faults_{next(_names)}")


class Fleet(NamedTuple):
    """Two servers on one database, a client of each, and workers that report through both."""

    servers: list[ServerProcess]
    clients: list[httpx.AsyncClient]
    workers: list[Reporter]


@asynccontextmanager
async def working(database_url: str, folder: Path, *, lease_seconds: int = 300) -> AsyncIterator[Fleet]:
    """A fleet at work within the block. It goes on by itself after it, and every acknowledged event is there once."""
    servers = [ServerProcess(database_url, folder, name=name) for name in ("first", "second")]
    with closing(*servers):
        await asyncio.gather(*(server.start_beside() for server in servers))
        token = await new_token(database_url)
        async with client_of(servers[0].url, token) as first, client_of(servers[1].url, token) as second:
            workers = await make_reporters(first, 16, random.Random(7), lease_seconds)
            for worker in workers[1::2]:
                worker.client = second
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for worker in workers:
                    group.create_task(worker.report_until(stopping))
                await all_go_on(workers)
                yield Fleet(servers, [first, second], workers)
                await all_go_on(workers)
                stopping.set()
            await assert_all_there(first, workers)


async def assert_alive_but_unable(client: httpx.AsyncClient) -> None:
    """A server is alive and not ready, and answers whatever needs the database with 503."""
    assert (await client.get("/healthz")).status_code == 200
    async with asyncio.timeout(REFUSED_SECONDS):
        answers = await asyncio.gather(
            client.get("/readyz"),
            client.get("/api/agents/runs"),
            client.post("/api/projects", json={"name": "Project"}),
            client.post("/api/agents/runs/claim", json={"worker_id": "w"}),
            client.post(f"/api/agents/runs/{NOBODY}/events", json={"worker_id": "w"}),
        )
    for answer in answers:
        assert_unavailable(answer)
        assert UNKNOWN not in answer.json()["error"]
    assert (await client.get("/healthz")).status_code == 200


async def wait_through(client: httpx.AsyncClient, project_id: str) -> Any:
    """The run of a claim that waits for a lane, asked again whenever it is refused."""
    while True:
        asked = {"worker_id": "patient", "project_id": project_id, "wait_seconds": 30}
        response = await client.post("/api/agents/runs/claim", json=asked)
        if response.status_code == 200 and response.json()["run"] is not None:
            return response.json()["run"]
        assert_unavailable(response)
        await asyncio.sleep(0.1)


async def test_a_postgres_that_is_killed_loses_nothing_and_is_waited_for(
    postgres: PostgresProcess, database_url: str, tmp_path: Path
) -> None:
    async with working(database_url, tmp_path) as (_, (first, second), workers):
        project_id = await make_project(first)
        plan_id = await make_plan(first, project_id, 1)
        waiting = asyncio.create_task(wait_through(second, project_id))
        await asyncio.to_thread(postgres.kill)
        await until(lambda: all(worker.refusals for worker in workers), "refusals")
        await assert_alive_but_unable(first)
        await assert_alive_but_unable(second)
        await asyncio.to_thread(postgres.start)
        await all_go_on(workers)
        assert {(await client.get("/readyz")).status_code for client in (first, second)} == {200}
        # Whoever waited for a lane is still woken through the other server.
        run = (await post(first, f"/api/agents/plans/{plan_id}/approve"))["runs"][0]
        assert (await waiting)["id"] == run["id"]


async def test_connections_that_are_cut_lose_nothing(database_url: str, tmp_path: Path) -> None:
    """As by an administrator: between statements, within them, and while the end of a COMMIT is waited for."""
    async with working(database_url, tmp_path) as (_, (first, second), _):
        connection: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
        try:
            for _ in range(CUTS):
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'heartlane' AND datname = current_database()"
                )
                for client in (first, second):
                    assert (await client.get("/api/agents/runs")).status_code in (200, 503)
        finally:
            await connection.close()


async def test_a_postgres_that_stands_still_loses_nothing_and_costs_nobody_a_lane(
    postgres: PostgresProcess, database_url: str, tmp_path: Path
) -> None:
    async with working(database_url, tmp_path, lease_seconds=2) as (_, (first, second), workers):
        (silent,) = await make_runs(first, 1)
        await claim(first, silent, "silent", lease_seconds=2)
        with postgres.frozen():
            stopped = time.monotonic()
            await asyncio.sleep(1.1)  # until no token is known any more, whose requests would wait for longer
            await asyncio.gather(assert_alive_but_unable(first), assert_alive_but_unable(second))
            await asyncio.sleep(max(0, stopped + STANDSTILL_SECONDS - time.monotonic()))
        thawed = time.monotonic()
        # Every lease ran out meanwhile. Nobody could be heard, so everybody has one lease to be heard again.
        await all_go_on(workers)
        run = await read_run(second, silent)
        assert time.monotonic() - thawed > 1.8 or (run["state"], run["attempt"]) == ("claimed", 1)
        assert [worker.attempt for worker in workers] == [1] * len(workers)


@pytest.mark.parametrize("settings", [{"shutdown_seconds": 0.5}, pytest.param({}, marks=pytest.mark.slow)])
async def test_a_server_ends_in_time_while_postgres_stands_still(
    postgres: PostgresProcess, database_url: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    server = ServerProcess(database_url, tmp_path, **settings)
    with closing(server):
        await server.start_beside()
        async with client_of(server.url, await new_token(database_url)) as client:
            (run_id,) = await make_runs(client, 1)
            await claim(client, run_id, "worker")
            with postgres.frozen():
                requests = [
                    asyncio.create_task(client.post(f"/api/agents/runs/{run_id}/events", json={"worker_id": "worker"})),
                    asyncio.create_task(client.get("/api/agents/runs")),
                ]
                await asyncio.sleep(0.2)
                began = time.monotonic()
                assert await asyncio.to_thread(server.stop) == 0
                assert time.monotonic() - began < ENDED_SECONDS
            # Nobody is left without an answer in the one shape, and none says more than is known.
            for answer in await asyncio.gather(*requests):
                assert_unavailable(answer)
                assert UNKNOWN in answer.json()["error"]
    assert not [line for line in server.log_lines() if line["level"] == "error"]


async def test_a_commit_that_breaks_off_is_answered_as_what_it_is(database_url: str, tmp_path: Path) -> None:
    async with breaking_commits(database_url) as (url, breaker):
        server = ServerProcess(url, tmp_path)
        with closing(server):
            await server.start_beside()
            async with client_of(server.url, await new_token(database_url)) as client:
                numbers = itertools.count(1)

                async def break_off(at: Literal["before", "after"], path: str, **fields: Any) -> dict[str, Any]:
                    """The body of the first request whose own COMMIT broke; the server commits for itself, too."""
                    while True:
                        number = next(numbers)
                        body = {"seq": number, "name": f"Project {number}", **fields}
                        breaker.at = at
                        response = await client.post(path, json=body)
                        if response.status_code == 503:
                            assert_unavailable(response)
                            assert UNKNOWN in response.json()["error"]
                            breaker.at = None
                            return body

                (run_id,) = await make_runs(client, 1)
                await claim(client, run_id, "worker")
                path = f"/api/agents/runs/{run_id}/events"
                for at, was_done in BREAKS:
                    report = await break_off(at, path, worker_id="worker", attempt=1, events=[{"type": "action"}])
                    again = await post(client, path, **report)
                    assert again["duplicate"] == was_done
                    types = [event["type"] for event in await read_events(client, run_id)]
                    assert types == ["claimed", *["action"] * report["seq"]]
                for at, was_done in BREAKS:
                    project = await break_off(at, "/api/projects")
                    names = {row["name"] for row in (await get(client, "/api/projects"))["projects"]}
                    assert (project["name"] in names) == was_done


@pytest.mark.slow
async def test_a_postgres_that_fails_again_and_again_loses_nothing(
    postgres: PostgresProcess, database_url: str, tmp_path: Path
) -> None:
    chance = random.Random(11)
    async with working(database_url, tmp_path) as (_, _, workers):
        for _ in range(12):
            await asyncio.sleep(chance.uniform(0, 1))
            if chance.random() < 0.5:
                await asyncio.to_thread(postgres.kill)
                await asyncio.sleep(chance.uniform(0, 3))
                await asyncio.to_thread(postgres.start)
            else:
                with postgres.frozen():
                    await asyncio.sleep(chance.uniform(0, 25))
            await all_go_on(workers, 60)
