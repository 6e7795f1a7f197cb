"""A worker's client on the real application, with faults in between and a hand on its clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from heartlane.client import AsyncClient, keeping
from heartlane.client.lane import AsyncLane
from heartlane.client.retry import RetryPolicy
from tests.client.faults import Faulty, faulty, secret_of
from tests.harness import Harness

SECONDS = 20.0


class Worker:
    """A client, what stands between it and the server, and the time on both sides."""

    def __init__(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        # Naps are short, so that a clock that was moved is seen soon.
        monkeypatch.setattr(keeping, "LOOK_SECONDS", 0.01)
        self.harness = harness
        self.transport: Faulty = faulty(harness)
        self.offset = 0.0
        self.client = AsyncClient(
            "http://heartlane.test",
            secret_of(harness.worker),
            worker_id="w1",
            transport=self.transport,
            retry=RetryPolicy(first_seconds=0.01, longest_seconds=0.05),
            clock=lambda: time.monotonic() + self.offset,
            chance=lambda: 0.02,  # waits are short
        )

    def sleep(self, seconds: float) -> None:
        """The worker's machine sleeps for so long: its clock jumps, its timers don't."""
        self.offset += seconds

    async def let_pass(self, seconds: float) -> None:
        """Time passes, for the server too, which looks for leases that have run out."""
        await self.harness.let_pass(seconds)
        self.offset += seconds

    @asynccontextmanager
    async def lane(self, run: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[AsyncLane]:
        """A lane that is claimed and reported on, without its stream."""
        options.setdefault("follow", False)
        async with self.client.claim(None if run is None else run["id"], **options) as lane:
            await until(lambda: lane.run.state == "running" or lane.should_stop)
            yield lane

    async def kinds(self, run: Any) -> list[str]:
        """The types of a run's events."""
        return [event["type"] for event in await self.harness.events(str(run["id"] if isinstance(run, dict) else run))]


async def until(holds: Callable[[], Any], timeout: float = SECONDS) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while True:
        if holds():
            return
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.005)
