"""SIGTERM: what was accepted is finished and answered, new work is refused, and the server ends within ten seconds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.e2e.database import held_up, new_token, read_without_server
from tests.e2e.fleet import (
    all_go_on,
    assert_all_there,
    assert_unavailable,
    claim,
    client_of,
    gather_in_ledger,
    make_project,
    make_reporters,
    make_runs,
    metric,
    post,
    read_run,
)
from tests.e2e.server_process import HOST, ServerProcess, closing, until

PROMISED_SECONDS: Final = 10.0
WAITING: Final = 20
REPORTS: Final = 20
QUEUED: Final = 5
COMMITTED: Final = "heartlane_ledger_batch_size_sum"


@asynccontextmanager
async def ending_well(server: ServerProcess) -> AsyncIterator[None]:
    """SIGTERM goes out as the block begins; after it the server ends with code 0, and in time."""
    began = time.monotonic()
    server.terminate()
    yield
    assert await asyncio.to_thread(server.wait) == 0
    assert time.monotonic() - began < PROMISED_SECONDS


async def wait_for_a_lane(client: httpx.AsyncClient, project_id: str) -> Any:
    """The answer to a claim that finds no lane."""
    return await post(client, "/api/agents/runs/claim", worker_id="idle", project_id=project_id, wait_seconds=30)


async def test_accepted_work_is_finished_and_new_work_is_refused(server: ServerProcess) -> None:
    async with client_of(server.url, await new_token(server.database)) as client:
        project_id = await make_project(client)
        run_ids = await make_runs(client, REPORTS)
        for run_id in run_ids:
            await claim(client, run_id, "worker")
        looked = await metric(client, COMMITTED)
        claims = [asyncio.create_task(wait_for_a_lane(client, project_id)) for _ in range(WAITING)]
        await until(lambda: has_reached(client, COMMITTED, looked + WAITING), "claims that have looked and wait")

        async with AsyncExitStack() as lock:
            await lock.enter_async_context(held_up(server.database))
            late = {"worker_id": "worker", "phase": "late"}
            sending = (client.post(f"/api/agents/runs/{run_id}/events", json=late) for run_id in run_ids)
            reports = await gather_in_ledger(client, sending, QUEUED)
            async with ending_well(server):
                await until(lambda: is_refused(client, "GET", "/readyz"), "no longer ready")
                # Long polls are answered without a lane, and nothing new is begun.
                assert [answer["run"] for answer in await asyncio.gather(*claims)] == [None] * WAITING
                for method, path in (
                    ("GET", "/api/agents/runs"),
                    ("POST", f"/api/agents/runs/{run_ids[0]}/events"),
                    ("POST", "/api/agents/runs/claim"),
                    ("POST", "/api/projects"),
                ):
                    assert await is_refused(client, method, path)
                assert (await client.get("/healthz")).status_code == 200
                assert sum(not task.done() for task in reports) >= QUEUED
                await lock.aclose()
        answers = await asyncio.gather(*reports)
        assert [answer.status_code for answer in answers].count(200) >= QUEUED
    async with read_without_server(server.database) as reader:
        for run_id, answer in zip(run_ids, answers, strict=False):
            # A report may have come to a server that was ending already.
            if answer.status_code != 200:
                assert_unavailable(answer)
            assert (await read_run(reader, run_id))["phase"] == ("late" if answer.status_code == 200 else None)


async def has_reached(client: httpx.AsyncClient, name: str, value: float) -> bool:
    """Whether a figure of the server is at least so high."""
    return await metric(client, name) >= value


async def is_refused(client: httpx.AsyncClient, method: str, path: str) -> bool:
    """Whether a request is answered with a 503 in the contract's shape."""
    response = await client.request(method, path, json={"worker_id": "worker", "name": "Project"})
    if response.status_code != 503:
        return False
    assert_unavailable(response)
    return True


async def test_under_load_everything_is_either_answered_or_not_done(server: ServerProcess) -> None:
    async with client_of(server.url, await new_token(server.database)) as client:
        project_id = await make_project(client)
        workers = await make_reporters(client, 24, random.Random(5))
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            claims = [group.create_task(wait_for_a_lane(client, project_id)) for _ in range(WAITING)]
            for worker in workers:
                group.create_task(worker.report_until(stopping, giving_up=True))
            await all_go_on(workers)
            await until(lambda: has_reached(client, "heartlane_claims_waiting", WAITING), "claims that wait")
            async with ending_well(server):
                pass
            stopping.set()
        assert [claim.result()["run"] for claim in claims] == [None] * WAITING
    async with read_without_server(server.database) as reader:
        await assert_all_there(reader, workers)


@pytest.mark.parametrize("settings", [{"shutdown_seconds": 0.5}, pytest.param({}, marks=pytest.mark.slow)])
async def test_it_ends_in_time_while_another_program_holds_the_database(
    database_url: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    server = ServerProcess(database_url, tmp_path, **settings)
    with closing(server):
        await server.start_beside()
        async with client_of(server.url, await new_token(server.database)) as client:
            run_ids = await make_runs(client, REPORTS)
            for run_id in run_ids:
                await claim(client, run_id, "worker")
            async with held_up(server.database):
                report = {"worker_id": "worker", "phase": "late"}
                sending = (client.post(f"/api/agents/runs/{run_id}/events", json=report) for run_id in run_ids)
                reports = await gather_in_ledger(client, sending, QUEUED)
                async with ending_well(server):
                    pass
            for answer in await asyncio.gather(*reports):
                assert_unavailable(answer)
    async with read_without_server(server.database) as reader:
        assert {(await read_run(reader, run_id))["phase"] for run_id in run_ids} == {None}


async def stay_silent(server: ServerProcess, sent: bytes) -> asyncio.StreamWriter:
    """A connection on which so much of a request was sent, and nothing more comes."""
    _, writer = await asyncio.open_connection(HOST, server.port)
    writer.write(sent)
    await writer.drain()
    return writer


async def end_with_silent_clients(server: ServerProcess) -> None:
    """End a server to which clients are connected that have sent nothing, half a head, and half a body."""
    head = b"POST /api/projects HTTP/1.1\r\nhost: heartlane.test\r\ncontent-type: application/json\r\n"
    authorized = head + f"authorization: Bearer {await new_token(server.database)}\r\n".encode()
    await server.start_beside()
    halves = [b"", head, authorized + b'content-length: 100\r\n\r\n{"name":']
    connections = [await stay_silent(server, half) for half in halves]
    await asyncio.sleep(0.3)  # until the third one is inside, of which nothing tells
    async with ending_well(server):
        pass
    for connection in connections:
        connection.close()


async def test_silent_clients_do_not_keep_it_from_ending(postgres_database_url: str, tmp_path: Path) -> None:
    server = ServerProcess(postgres_database_url, tmp_path, shutdown_seconds=0.5)
    with closing(server):
        await end_with_silent_clients(server)
        assert server.log_lines("stopping_with_requests_unanswered")


@pytest.mark.slow
async def test_silent_clients_do_not_keep_it_from_ending_in_time_by_default(database_url: str, tmp_path: Path) -> None:
    server = ServerProcess(database_url, tmp_path)
    with closing(server):
        await end_with_silent_clients(server)
