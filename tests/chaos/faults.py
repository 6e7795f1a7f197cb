"""What goes wrong in the campaign, one thing or several at a time, by chance from a seed; each is put right again.

Faults of PostgreSQL exclude each other, and so do those of one server: a fault in the midst of another of the same
thing would only hide it. Everything else coincides as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final

import asyncpg

from tests.chaos.history import History
from tests.chaos.system import SERVERS, System
from tests.chaos.workers import Crew

PAUSE_SECONDS: Final = (2.0, 10.0)
"""Between the begin of two faults: often two or three of them coincide, and now and then all is well."""
DATABASE: Final = frozenset(
    {"PostgreSQL killed", "standby promoted", "PostgreSQL stopped", "disk full", "connections used up"}
)
"""While one of these goes on nothing can be changed, or hardly anything."""
Do = Callable[[], Coroutine[Any, Any, None]]
JUMPS: Final = (-86_400, -3_600, -60, 60, 3_600, 86_400)
BURST: Final = 10.0


class Faults:
    """Does them. `did`: how many of each kind were begun."""

    def __init__(
        self, system: System, crew: Crew, history: History, *, lease_seconds: int, chance: random.Random
    ) -> None:
        self.did: Counter[str] = Counter()
        self._system = system
        self._crew = crew
        self._history = history
        self._lease = lease_seconds
        self._chance = chance
        self._database = asyncio.Lock()
        self._each = [asyncio.Lock() for _ in range(SERVERS)]
        self._clock = asyncio.Lock()
        self._burst = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def go_on(self, seconds: float) -> None:
        """Faults for so long; returns when all are put right. Raises what went wrong with one."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        kinds: list[Do] = []
        while (left := ends_at - loop.time()) > 0:
            if not kinds:  # each in its turn, in an order of chance
                kinds = [do for do, times in self._kinds() for _ in range(times)]
                self._chance.shuffle(kinds)
            task = loop.create_task(kinds.pop()())
            self._tasks.add(task)
            await asyncio.sleep(min(left, self._chance.uniform(*PAUSE_SECONDS)))
            for done in [task for task in self._tasks if task.done()]:
                self._tasks.discard(done)
                done.result()
        await asyncio.gather(*self._tasks)

    def _kinds(self) -> list[tuple[Do, int]]:
        kinds: list[tuple[Do, int]] = [
            (self._kill_server, 5),
            (self._stop_server, 3),
            (self._cut_clients, 3),
            (self._slow_clients, 2),
            (self._cut_database, 3),
            (self._slow_database, 2),
            (self._kill_postgres, 1),
            (self._promote, 1),
            (self._stop_postgres, 1),
            (self._use_up_connections, 1),
            (self._burst_of_work, 1),
        ]
        if self._system.pair.primary.has_disk:
            kinds.append((self._fill_disk, 1))
        if self._system.has_clock:
            kinds.append((self._set_clock, 2))
        return kinds

    @contextlib.asynccontextmanager
    async def _alone(self, lock: asyncio.Lock, kind: str) -> AsyncIterator[bool]:
        """Whether nothing else is being done to that thing; a fault in the history, if so."""
        if lock.locked():
            yield False
            return
        async with lock:
            with self._history.fault(kind):
                self.did[kind] += 1
                yield True

    async def _a_while(self, least: float, most: float) -> None:
        await asyncio.sleep(self._chance.uniform(least, most))

    # --- servers ----------------------------------------------------------------------------------------------------

    async def _kill_server(self) -> None:
        number = self._chance.randrange(SERVERS)
        server = self._system.servers[number]
        async with self._alone(self._each[number], "server killed") as alone:
            if alone:
                await asyncio.to_thread(server.kill)
                await self._a_while(0.0, self._lease)
                await asyncio.to_thread(server.spawn)
                await self._until_well(number)

    async def _stop_server(self) -> None:
        number = self._chance.randrange(SERVERS)
        async with self._alone(self._each[number], "server stopped") as alone:
            if alone:
                self._system.servers[number].process.send_signal(signal.SIGSTOP)
                await self._a_while(self._lease, 2.5 * self._lease)
                self._system.servers[number].process.send_signal(signal.SIGCONT)

    async def _until_well(self, number: int) -> None:
        """Until the server answers again; where it could not start, as without a database, it is started again."""
        server = self._system.servers[number]
        for _ in range(600):
            if await asyncio.to_thread(server.status, "/healthz") == 200:
                return
            if server.process.poll() is not None:
                await asyncio.to_thread(server.spawn)
            await asyncio.sleep(0.2)
        raise AssertionError(f"server {number} doesn't come back\n{server.last_words()}")

    async def _set_clock(self) -> None:
        async with self._alone(self._clock, "clock set") as alone:
            if alone:
                self._system.set_clock(self._chance.choice(JUMPS))
                await self._a_while(self._lease, 3 * self._lease)
                self._system.set_clock(0)

    # --- the network ------------------------------------------------------------------------------------------------

    async def _cut_clients(self) -> None:
        with self._begun("clients cut off"):
            link = self._chance.choice(self._system.to_server)
            await link.cut()
            await self._a_while(0.2, 1.5 * self._lease)
            link.mend()

    async def _slow_clients(self) -> None:
        with self._begun("clients slow"):
            link = self._chance.choice(self._system.to_server)
            link.delay_seconds = self._chance.uniform(0.1, 1.5)
            await self._a_while(0.5 * self._lease, 1.5 * self._lease)
            link.delay_seconds = 0.0

    async def _cut_database(self) -> None:
        with self._begun("database cut off"):
            link = self._chance.choice(self._system.to_database)
            await link.cut()
            await self._a_while(0.2, 1.5 * self._lease)
            link.mend()

    async def _slow_database(self) -> None:
        with self._begun("database slow"):
            link = self._chance.choice(self._system.to_database)
            link.delay_seconds = self._chance.uniform(0.02, 0.3)
            await self._a_while(0.5 * self._lease, 1.5 * self._lease)
            link.delay_seconds = 0.0

    @contextlib.contextmanager
    def _begun(self, kind: str) -> Iterator[None]:
        self.did[kind] += 1
        with self._history.fault(kind):
            yield

    # --- PostgreSQL -------------------------------------------------------------------------------------------------

    async def _kill_postgres(self) -> None:
        async with self._alone(self._database, "PostgreSQL killed") as alone:
            if alone:
                await asyncio.to_thread(self._system.pair.primary.kill)
                await self._a_while(0.0, 3.0)
                await asyncio.to_thread(self._system.pair.primary.start)

    async def _stop_postgres(self) -> None:
        async with self._alone(self._database, "PostgreSQL stopped") as alone:
            if alone:
                with self._system.pair.primary.frozen():
                    await self._a_while(1.0, 1.5 * self._lease)

    async def _promote(self) -> None:
        pair = self._system.pair
        if self._database.locked() or not pair.followed or not await pair.is_followed():
            return
        async with self._alone(self._database, "standby promoted") as alone:
            if not alone:
                return
            await pair.fail_over()
            self._system.turn_to_primary()
            for link in self._system.to_database:
                await link.break_all()
        async with self._database:
            await pair.rebuild()

    async def _fill_disk(self) -> None:
        async with self._alone(self._database, "disk full") as alone:
            if alone:
                node = self._system.pair.primary
                await asyncio.to_thread(node.fill_disk)
                await self._a_while(2.0, self._lease)
                await asyncio.to_thread(node.make_room)
                await asyncio.to_thread(node.start)

    async def _use_up_connections(self) -> None:
        """Somebody else has the runs to himself: each connection of every server waits for them."""
        async with self._alone(self._database, "connections used up") as alone:
            if alone:
                with contextlib.suppress(OSError, asyncpg.PostgresError):
                    await self._system.pair.primary.hold_up(self._chance.uniform(1.0, self._lease))

    # --- load -------------------------------------------------------------------------------------------------------

    async def _burst_of_work(self) -> None:
        async with self._alone(self._burst, "burst") as alone:
            if alone:
                self._crew.hurry = BURST
                await self._a_while(3.0, 8.0)
                self._crew.hurry = 1.0
