"""`heartlane serve --processes`: several processes behind one port, which work, fail and end as one server."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.database import new_token
from tests.e2e.fleet import claim, client_of, make_runs, metric, post
from tests.e2e.server_process import ServerProcess, closing, command, until

PROCESSES = 2
CLIENTS = 12
"""Connections, dealt out by the kernel: that all of them come to one of two processes happens once in 2,048 times."""


def workers(server: ServerProcess) -> list[psutil.Process]:
    """The processes behind the supervisor."""
    return psutil.Process(server.process.pid).children()


@pytest.fixture
async def several(postgres_database_url: str, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server of two processes."""
    server = ServerProcess(postgres_database_url, tmp_path, processes=PROCESSES)
    with closing(server):
        await server.start_beside()
        await until(lambda: len(server.log_lines("listening")) == PROCESSES, "both processes", 30.0)
        left = workers(server)
        yield server
        for process in left:
            if process.is_running():
                process.kill()


async def connected(server: ServerProcess, token: str, stack: AsyncExitStack) -> list[httpx.AsyncClient]:
    """Clients with a connection each, of which every process has some."""
    clients = [await stack.enter_async_context(client_of(server.url, token)) for _ in range(CLIENTS)]
    for client in clients:
        assert (await client.get("/api/agents/runs")).status_code == 200
    for process in workers(server):
        found = [each for each in process.net_connections("tcp") if each.laddr[1] == server.port]
        assert any(each.status == "ESTABLISHED" for each in found)
    return clients


async def test_processes_share_claims_figures_and_an_ending(several: ServerProcess) -> None:
    token = await new_token(several.database)
    async with AsyncExitStack() as stack:
        clients = await connected(several, token, stack)
        # Claims wait at every process; the lanes are made through one of them.
        asked = [
            asyncio.create_task(post(client, "/api/agents/runs/claim", worker_id=f"w{place}", wait_seconds=20.0))
            for place, client in enumerate(clients)
        ]
        first = clients[0]
        await until(lambda: metric_is(first, "heartlane_claims_waiting", CLIENTS), "all claims counted together", 15.0)
        made = await make_runs(first, CLIENTS)
        answers = await asyncio.gather(*asked)
        assert sorted(answer["run"]["id"] for answer in answers) == sorted(made)

        for place, (client, answer) in enumerate(zip(clients, answers, strict=True)):
            await post(client, f"/api/agents/runs/{answer['run']['id']}/events", worker_id=f"w{place}", seq=1)
        for client in clients:
            assert await metric(client, 'heartlane_reports_total{result="applied"}') == CLIENTS
    left = workers(several)
    assert several.stop() == 0
    assert not any(process.is_running() for process in left)
    assert len(several.log_lines("stopped")) == PROCESSES


async def metric_is(client: httpx.AsyncClient, name: str, value: float) -> bool:
    return await metric(client, name) == value


async def test_a_process_that_is_killed_is_started_again_and_all_end_without_their_supervisor(
    several: ServerProcess,
) -> None:
    token = await new_token(several.database)
    async with client_of(several.url, token) as client:
        (run_id,) = await make_runs(client, 1)
        await claim(client, run_id, "worker")
    killed, kept = workers(several)
    killed.send_signal(signal.SIGKILL)
    await until(lambda: len(several.log_lines("listening")) == PROCESSES + 1, "a new process", 30.0)
    (line,) = several.log_lines("process_ended")
    assert (line["pid"], line["status"]) == (killed.pid, "SIGKILL")
    assert kept.is_running()
    async with client_of(several.url, token) as client:
        answer = await post(client, f"/api/agents/runs/{run_id}/events", worker_id="worker", seq=1)
        assert answer["run"]["state"] == "running"

    left = workers(several)
    assert len(left) == PROCESSES
    several.kill()
    await until(lambda: not any(process.is_running() for process in left), "both processes gone", 15.0)


async def test_what_keeps_a_process_from_starting_is_said_once(tmp_path: Path) -> None:
    file = tmp_path / "one.db"
    sqlite3.connect(file).close()
    ended = await asyncio.to_thread(
        command, "serve", "--database", f"sqlite:///{file}", "--port", "0", "--processes", "2", home=tmp_path / "home"
    )
    assert (ended.returncode, ended.stderr.count("processes needs PostgreSQL")) == (1, 1)

    away = "postgresql://nobody@127.0.0.1:1/none"
    ended = await asyncio.to_thread(
        command, "serve", "--database", away, "--port", "0", "--processes", "2", home=tmp_path / "home"
    )
    assert (ended.returncode, len(ended.stderr.strip().splitlines())) == (1, 1), ended.stderr
