"""What the client's tests share. They run on one engine: a client doesn't see which, and the server's own tests run on
both."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client.worker import Worker
from tests.harness import Harness


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated database of its own."""
    path = tmp_path / "heartlane.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
async def worker(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    """A worker's client on a server's application."""
    worker = Worker(harness, monkeypatch)
    yield worker
    await worker.client.aclose()
