"""Servers as processes, for the tests that need a real socket, a real signal or a real crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.postgres_process import PostgresProcess, own_postgres
from tests.e2e.server_process import ServerProcess, closing


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A running server on each engine, without rate limits."""
    server = ServerProcess(database_url, tmp_path)
    with closing(server):
        server.start()
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    """A durable PostgreSQL that the module's tests may kill; each takes a database of its own."""
    with own_postgres() as postgres:
        yield postgres
