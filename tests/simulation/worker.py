"""One simulated worker: the real Python client (claims, lease, outbox) around a body of work made up by the seed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from heartlane.client.aio import RETRY, AsyncClient
from heartlane.client.call import Call, read_answer
from heartlane.client.claiming import WorkerIds
from heartlane.client.errors import HeartlaneError, LaneLost, NoLane, Unreachable
from heartlane.client.lane import AsyncLane
from heartlane.client.lease import Standing
from heartlane.wire.answers import ClaimAnswer, ReportAnswer
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

PHASES = ("plan", "code", "tests", "shipping", "waiting")


class Client(AsyncClient):
    """The asyncio client, on the simulated network and with a clock that runs a little fast or slow."""

    def __init__(self, world: World, process: Process) -> None:
        self.url = "http://simulated"
        self.retry = RETRY
        rate = world.random.uniform(0.995, 1.005)
        offset = world.random.uniform(0, 1e6)
        self.clock = lambda: offset + world.loop.now * rate
        self.chance = world.random.random
        self.world = world
        self.process = process
        self._workers = WorkerIds(process.name)
        self._lanes = set()
        self._doubted = set()
        self._chores = set()

    async def send_once(self, call: Call[T], *, seconds: float | None = None) -> T:
        seconds = call.seconds if seconds is None else seconds
        content = call.content() or b""
        try:
            async with asyncio.timeout(seconds):
                answer = await self.world.network.request(self.process, call.method, call.path, call.query, content)
        except TimeoutError:
            raise Unreachable(f"no answer within {seconds:g} s", sent=True) from None
        found = read_answer(call, answer.status, answer.headers, answer.content)
        if isinstance(found, ReportAnswer):
            self.world.check(self.world.checker.report_answered, orjson.loads(content), found)
        elif isinstance(found, ClaimAnswer) and found.run is not None:
            self.world.check(self.world.checker.claim_answered, orjson.loads(content), found)
        return found


class Worker:
    """A process that claims lanes and works them, until it is killed."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.process = Process(world.loop, f"worker-{number}")
        self.client = Client(world, self.process)
        self.lane: AsyncLane | None = None
        self.process.spawn(self._live())

    def holds(self, run_id: str, attempt: int) -> bool:
        """Whether it works that lane at this moment, for all it knows."""
        lane = self.lane
        return (
            self.process.alive
            and lane is not None
            and str(lane.run.id) == run_id
            and lane.attempt == attempt
            and lane.outcome is None
            and lane._keeper.standing is Standing.HELD
        )

    async def _live(self) -> None:
        random = self.world.random
        await asyncio.sleep(random.uniform(0, self.world.scale.start_seconds))
        while True:
            try:
                lane = await self.client.claim(
                    lease_seconds=random.choice((5, 10, 20, 60)),
                    wait_seconds=random.choice((0, 10, 30)),
                    outage_seconds=random.choice((0.0, 30.0)),
                    follow=False,
                )
            except NoLane:
                await asyncio.sleep(random.uniform(0.5, 20))
                continue
            except HeartlaneError:
                await asyncio.sleep(random.uniform(0.5, 5))
                continue
            self.lane = lane
            self._mark(lane)
            try:
                async with lane:
                    await self._work(lane)
            except (HeartlaneError, _Mistake):
                pass
            finally:
                self.lane = None
            if random.random() < 0.3:
                await asyncio.sleep(random.uniform(0, 10))

    def _mark(self, lane: AsyncLane) -> None:
        """Number what the lane tells, so that each event is known wherever it comes up."""
        world, outbox = self.world, lane._keeper.outbox
        tag = world.next_tag()
        tell = outbox.tell

        def marked(type: str, payload: Mapping[str, Any], now: float, at: str) -> int:
            return tell(type, {**payload, "tag": tag, "n": outbox.told + 1}, now, at)

        outbox.tell = marked  # type: ignore[method-assign]
        lane.on_change = lambda: world.check(world.checker.confirmed, lane.run.id, tag, outbox.confirmed)

    async def _work(self, lane: AsyncLane) -> None:
        random = self.world.random
        for _ in range(random.randrange(2, 30)):
            await lane.checkpoint()
            match random.randrange(10):
                case 0:
                    await lane.phase(random.choice(PHASES))
                case 1:
                    await lane.action("edit", file="x.py")
                case 2:
                    await lane.error("a test failed")
                case 3:
                    await lane.flush()
                case _:
                    await lane.log(f"line {random.randrange(1000)}")
            await asyncio.sleep(random.expovariate(0.5))
        end = random.random()
        if end < 0.6:
            await lane.ship(pr_url="https://git.test/1", branch="lane", commit="abc", summary="It works.")
        elif end < 0.7:
            await lane.fail("no more disk")
        elif end < 0.85:
            await lane.release("later", retry_after=random.choice((None, 5, 30)), failed=random.random() < 0.5)
        elif end < 0.95:
            raise _Mistake("a mistake in the work")


class _Mistake(Exception):
    """The body of the work goes wrong."""


__all__ = ["LaneLost", "Worker"]
