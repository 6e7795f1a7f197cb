"""Fixtures for tests of `heartlane work`: one server for all tests of a module, and a worker beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.server_process import closing as closing_servers
from tests.worker.work_process import Lanes, Worker, closing


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    """One server for all tests of the module; each takes lanes of its own, by a label."""
    folder = tmp_path_factory.mktemp("server")
    server = ServerProcess(f"sqlite:///{folder / 'heartlane.sqlite3'}", folder)
    with closing_servers(server):
        server.start()
        with contextlib.closing(Lanes(server)) as lanes:
            yield lanes


@pytest.fixture
def worker(lanes: Lanes, tmp_path: Path) -> Iterator[Worker]:
    """A worker that was not started yet."""
    worker = Worker(lanes, tmp_path)
    with closing(worker):
        yield worker
