"""Servers as processes, for the tests that need a real socket, a real signal or a real crash."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import ENGINES, new_postgres_database
from tests.e2e.database import new_token
from tests.e2e.fleet import client_of
from tests.e2e.postgres_process import PostgresProcess, own_postgres
from tests.e2e.server_process import ServerProcess, closing


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A running server on each engine, without rate limits, for a test that may break it."""
    server = ServerProcess(database_url, tmp_path)
    with closing(server):
        server.start()
        yield server


@pytest.fixture(scope="session")
def standing_sqlite(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    """One server on SQLite that stays for the whole session."""
    folder = tmp_path_factory.mktemp("standing-sqlite")
    shutil.copyfile(sqlite_template, folder / "heartlane.db")
    server = ServerProcess(f"sqlite:///{folder / 'heartlane.db'}", folder)
    with closing(server):
        server.start()
        yield [server]


@pytest.fixture(scope="session")
def standing_postgresql(
    postgres_url: str, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServerProcess]]:
    """Two servers on one PostgreSQL that stay for the whole session."""
    folder = tmp_path_factory.mktemp("standing-postgres")
    with contextlib.contextmanager(new_postgres_database)(postgres_url, postgres_template) as database_url:
        servers = [ServerProcess(database_url, folder, name=name) for name in ("first", "second")]
        with closing(*servers):
            for server in servers:
                server.spawn()
            for server in servers:
                server.wait_ready()
            yield servers


class Replicas:
    """Servers on one database, for tests that leave them as they are: two on PostgreSQL, one on SQLite.

    one, other      clients of the first and of the last server, with an admin's token
    """

    def __init__(self, servers: list[ServerProcess], one: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
        self.servers = servers
        self.database = servers[0].database
        self.one = one
        self.other = other


@pytest.fixture(params=ENGINES)
def standing(request: pytest.FixtureRequest) -> list[ServerProcess]:
    """The servers that stay, on each engine."""
    servers: list[ServerProcess] = request.getfixturevalue(f"standing_{request.param}")
    return servers


@pytest.fixture
async def replicas(standing: list[ServerProcess]) -> AsyncIterator[Replicas]:
    """What several servers on one database do together, on each engine."""
    async for replicas in _replicas(standing):
        yield replicas


@pytest.fixture
async def on_sqlite(standing_sqlite: list[ServerProcess]) -> AsyncIterator[Replicas]:
    """The same on SQLite alone: one server."""
    async for replicas in _replicas(standing_sqlite):
        yield replicas


@pytest.fixture
async def on_postgres(standing_postgresql: list[ServerProcess]) -> AsyncIterator[Replicas]:
    """The same on PostgreSQL alone: two servers."""
    async for replicas in _replicas(standing_postgresql):
        yield replicas


async def _replicas(servers: list[ServerProcess]) -> AsyncIterator[Replicas]:
    token = await new_token(servers[0].database)
    async with client_of(servers[0].url, token) as one, client_of(servers[-1].url, token) as other:
        yield Replicas(servers, one, other)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    """A durable PostgreSQL that the module's tests may kill; each takes a database of its own."""
    with own_postgres() as postgres:
        yield postgres
