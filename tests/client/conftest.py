"""What the client's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.client.worker import Worker
from tests.harness import Harness


@pytest.fixture
async def worker(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    """A worker's client, on each engine."""
    worker = Worker(harness, monkeypatch)
    yield worker
    await worker.client.aclose()
