"""Light workers: the real asyncio client, two hundred of them in one process, with bodies that do little and say it.

Each event has a mark that no other has. Some bodies fail, some leave their lane, some vanish as a killed process does,
and some are held still for longer than their lease, like a stopped process. Whoever has lost a lane tries once more to
report on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable
from typing import Any, Final

import httpx

from heartlane.client import AsyncClient
from heartlane.client.errors import HeartlaneError, LaneLost
from heartlane.client.lane import AsyncLane
from tests.chaos.history import History
from tests.chaos.recorder import Recorder

WAIT_SECONDS: Final = 5.0
SOON_SECONDS: Final = 0.5


class Vanished(BaseException):
    """The process of this worker was killed."""


class Crew:
    """All light workers.

    hurry   how many times faster than usual they work
    did     how often lanes ended in which way
    """

    def __init__(
        self, history: History, urls: list[str], token: str, project: str, *, lease_seconds: int, chance: random.Random
    ) -> None:
        self.hurry = 1.0
        self.did: dict[str, int] = {}
        self.stopping = asyncio.Event()
        self._history = history
        self._urls = urls
        self._token = token
        self._project = project
        self._lease = lease_seconds
        self._chance = chance
        self._marks = itertools.count(1)
        self._later: set[asyncio.Task[None]] = set()

    async def work(self, number: int) -> None:
        """One worker's life after life, until told to stop."""
        for life in itertools.count(1):
            if self.stopping.is_set():
                return
            recorder = Recorder(self._history, f"light-{number}.{life}")
            client = AsyncClient(
                self._urls[number % len(self._urls)],
                self._token,
                worker_id=recorder.process,
                transport=recorder,
                trust_env=False,
            )
            try:
                await self._live(client, recorder, follow=number % 8 == 0)
            except Vanished:
                recorder.dead = True
                self._aside(client.aclose)  # nothing of it is sent
            else:
                await client.aclose()

    async def end(self) -> None:
        """Wait for what was left to be done."""
        while self._later:
            await asyncio.gather(*self._later, return_exceptions=True)

    async def _live(self, client: AsyncClient, recorder: Recorder, *, follow: bool) -> None:
        while not self.stopping.is_set():
            try:
                lane = await client.claim(
                    project_id=self._project, lease_seconds=self._lease, wait_seconds=WAIT_SECONDS, follow=follow
                )
            except HeartlaneError:
                await asyncio.sleep(self._chance.uniform(0.0, SOON_SECONDS))
                continue
            try:
                how = await self._body(lane, recorder)
                await lane.leave()
            except LaneLost:
                how = "lost"
                await lane.leave()
            except (HeartlaneError, RuntimeError) as error:
                how = "failed" if isinstance(error, RuntimeError) else "unanswered"
                await lane.leave(error=error)
            self.did[how] = self.did.get(how, 0) + 1
            if how == "lost":
                await self._haunt(lane, recorder)

    async def _body(self, lane: AsyncLane, recorder: Recorder) -> str:
        chance = self._chance
        for _ in range(chance.randint(2, 8)):
            await lane.action("edit", mark=self._mark(lane))
            if chance.random() < 0.3:
                await lane.log("a line", mark=self._mark(lane))
            if chance.random() < 0.1:
                await lane.phase("tests", mark=self._mark(lane))
            await asyncio.sleep(chance.uniform(0.5, 2.5) / self.hurry)
        fate = chance.random()
        if fate < 0.03:
            recorder.dead = True
            self._aside(lambda: self._haunt_later(lane))
            raise Vanished
        if fate < 0.06:
            await self._stand_still(recorder)
        elif fate < 0.12:
            raise RuntimeError("the work failed")
        elif fate < 0.18:
            await lane.release("handed on")
            return "released"
        await lane.ship(summary="done", mark=self._mark(lane))
        return "shipped"

    def _mark(self, lane: AsyncLane) -> str:
        return f"{lane.run.id}:{lane.attempt}:{next(self._marks)}"

    async def _stand_still(self, recorder: Recorder) -> None:
        with self._history.fault("worker stopped"):
            recorder.going.clear()
            await asyncio.sleep(self._chance.uniform(0.5, 2.5) * self._lease)
            recorder.going.set()

    async def _haunt_later(self, lane: AsyncLane) -> None:
        await asyncio.sleep(self._chance.uniform(1.0, 3.0) * self._lease)
        recorder = Recorder(self._history, f"{lane.worker_id} (past)")
        await self._haunt(lane, recorder)
        await recorder.aclose()

    async def _haunt(self, lane: AsyncLane, recorder: Recorder) -> None:
        """Report as the holder that it no longer is, with its attempt and without."""
        body: dict[str, Any] = {"worker_id": lane.worker_id}
        if self._chance.random() < 0.5:
            body["attempt"] = lane.attempt
        body["events"] = [{"type": "action", "payload": {"mark": self._mark(lane)}}]
        request = httpx.Request(
            "POST",
            f"{self._urls[0]}/api/agents/runs/{lane.run.id}/events",
            json=body,
            headers={"authorization": f"Bearer {self._token}"},
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), 10.0)},
        )
        with contextlib.suppress(httpx.HTTPError):
            await recorder.handle_async_request(request)
        self.did["past holders' reports"] = self.did.get("past holders' reports", 0) + 1

    def _aside(self, do: Callable[[], Any]) -> None:
        task = asyncio.get_running_loop().create_task(do())
        self._later.add(task)
        task.add_done_callback(self._later.discard)
