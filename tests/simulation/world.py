"""The world: seed, time, faults, and who lives in it. `World(seed).run(steps)` lives it up to that step.

A step is one thing that happens at one place: a request or an answer arrives, a transaction is done or breaks off, a
process starts or is killed, a person acts. Timers that only look at the clock are none.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import hashlib
import logging
import random as random_module
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import structlog
from sqlalchemy import insert

from heartlane.client import keeping
from heartlane.store import ids
from heartlane.store.clock import Clock
from heartlane.store.columns import from_micros, to_micros
from heartlane.store.schema import accounts
from tests.simulation.checker import Checker
from tests.simulation.disk import Disk
from tests.simulation.folding import Broken
from tests.simulation.loop import Process, SimulatedLoop, Stuck
from tests.simulation.network import Network
from tests.simulation.people import People
from tests.simulation.server import Server
from tests.simulation.storage import Threads
from tests.simulation.worker import Worker

GAP_SECONDS: Final = 3.0
"""What the contract's "a time in which no server ran" means."""
EPOCH: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EPOCH_MICROS: Final = to_micros(EPOCH)
FAULTS_OF_CODE: Final = frozenset(
    {"batch_failed", "command_failed", "take_back_failed", "hearer_failed", "request_failed"}
)
"""Log messages that say that something went wrong which nobody foresaw: here always a mistake in the code."""


class Faults(NamedTuple):
    """How often what goes wrong: chances of each message or transaction; seconds between two crashes on average."""

    refused: float = 0.002
    request_lost: float = 0.01
    request_doubled: float = 0.02
    answer_lost: float = 0.015
    answer_spoilt: float = 0.005
    notice_lost: float = 0.1
    slow_message: float = 0.02
    read_fails: float = 0.001
    write_fails: float = 0.001
    commit_in_doubt: float = 0.003
    dies_in_write: float = 0.0005
    dies_in_batch: float = 0.0005
    dies_after_commit: float = 0.0005
    slow_disk: float = 0.001
    disk_seconds: float = 0.002
    server_crash_seconds: float = 90.0
    worker_crash_seconds: float = 2.0
    link_cut_seconds: float = 3.0
    link_away_seconds: float = 15.0
    person_acts_seconds: float = 0.5


TROUBLED: Final = Faults(
    request_lost=0.02,
    request_doubled=0.1,
    answer_lost=0.03,
    slow_message=0.08,
    commit_in_doubt=0.005,
    disk_seconds=0.02,
    link_cut_seconds=0.7,
    person_acts_seconds=0.3,
)
"""A bad day: what goes wrong seldom elsewhere, goes wrong often."""


USUAL: Final = Faults()


class Scale(NamedTuple):
    """How much of everything there is."""

    servers: int = 1
    workers: int = 200
    lanes: int = 400
    start_seconds: float = 20.0


SMALL: Final = Scale(workers=30, lanes=40)
"""Few of everything, so that the same lanes and workers meet again and again."""


class Failure(NamedTuple):
    """What broke, and where in the run."""

    check: str
    text: str
    step: int
    now: float


class SimulatedClock(Clock):
    """The database's clock."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def host_time(self) -> datetime:
        return from_micros(EPOCH_MICROS + int(self._loop.now * 1_000_000))


class World:
    """Everything there is, made from one seed.

    served_since    since when a server has been there without a break
    excused_until   until when the storage's own trouble may hold the servers up
    """

    def __init__(self, seed: int, scale: Scale = SMALL, faults: Faults = USUAL) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.scale = scale
        self.faults = faults
        self.loop = SimulatedLoop()
        self.loop.set_exception_handler(self._on_fault)
        self.loop.in_thread = Threads(self).submit
        self.clock = SimulatedClock(self.loop)
        self.disk = Disk()
        self.checker = Checker(self)
        self.disk.on_commit = partial(self.check, self.checker.committed)
        self.network = Network(self)
        self.account_id = ids.new_id()
        self.servers: list[Server] = []
        self.workers: dict[str, Worker] = {}
        self.people = People(self)
        self.failure: Failure | None = None
        self.steps = 0
        self.kinds: dict[str, int] = {}
        self.served_since = 0.0
        self.excused_until = 0.0
        self._steps_max = 0
        self._tags = 0
        self._over = False
        self._alive_at: int | None = None
        self._started = 0
        self._trace = hashlib.blake2b(digest_size=16)

    # --- what its inhabitants need --------------------------------------------------------------------------------

    def chance(self, part: float) -> bool:
        """Whether something of this probability happens now."""
        return self.random.random() < part

    def step(self, kind: str, detail: str = "") -> None:
        """Something happened: look at what has to hold."""
        if self.steps >= self._steps_max or self.failure is not None:
            return
        self.steps += 1
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self._trace.update(f"{self.loop.now:.6f} {kind} {detail}\n".encode())
        try:
            self.checker.look_at_time(self.loop.now)
        except Broken as broken:
            self.fail(broken)
        if self.steps >= self._steps_max:
            self.loop.stop()

    def fail(self, broken: Broken) -> None:
        """Remember the first broken promise, and end."""
        if self.failure is None:
            self.failure = Failure(broken.check, str(broken), self.steps, self.loop.now)
        self.loop.stop()

    def later(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> None:
        """Have something happen in a while, as a part of the world and not of whoever asked for it."""
        self.loop.call_later(seconds, self.check, function, *arguments, context=self._outside)

    def check(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call something that may find a promise broken."""
        if self._over:
            return
        try:
            function(*arguments)
        except Broken as broken:
            self.fail(broken)

    def network_seconds(self, client: Process | None = None) -> float:
        """How long a message travels: some milliseconds, or up to minutes now and then, or a second on a slow link."""
        if client is not None and self.network.is_slow(client):
            return self.random.expovariate(1 / 1.5)
        if self.chance(self.faults.slow_message):
            return self.random.expovariate(1 / 8.0)
        return 0.0005 + self.random.expovariate(1 / 0.005)

    def disk_seconds(self) -> float:
        """How long the storage takes: below a millisecond, or seconds now and then."""
        if self.chance(self.faults.slow_disk):
            seconds = self.random.uniform(0.1, 2.0)
            self.excused_until = max(self.excused_until, self.loop.now + 2 * seconds + 1.0)
            return seconds
        return self.random.expovariate(1 / self.faults.disk_seconds)

    async def storage_wait(self, process: Process) -> None:
        """Wait as for a lock or a thread; the process may be dead by then."""
        process.look()
        await asyncio.sleep(self.disk_seconds())
        process.look()

    def excuse(self) -> None:
        """The storage refused something: the servers try again a second later."""
        self.excused_until = max(self.excused_until, self.loop.now + 2.5)

    def note_signs(self) -> None:
        """Where no server could say for long that it runs, holders have a lease to be heard again: from now on."""
        alive_at = self.disk.alive_at()
        if alive_at is not None and alive_at != self._alive_at:
            if self._alive_at is not None and alive_at - self._alive_at > GAP_SECONDS * 1_000_000:
                self.served_since = self.loop.now
            self._alive_at = alive_at

    def seconds_of(self, moment: datetime | None) -> float:
        """A moment of the database's clock as seconds of the world."""
        return 0.0 if moment is None else (moment - EPOCH).total_seconds()

    def next_tag(self) -> int:
        """A number that nobody else has."""
        self._tags += 1
        return self._tags

    # --- who lives in it ------------------------------------------------------------------------------------------

    def any_server(self) -> Server | None:
        """A server that is up, as a load balancer picks one; None while there is none."""
        return self.random.choice(self.servers) if self.servers else None

    def server_of(self, process: Process) -> Server:
        """The server that this process is."""
        return next(server for server in self.servers if server.process is process)

    def worker_named(self, worker_id: str) -> Worker | None:
        """The worker of that id, dead or alive."""
        return self.workers.get(worker_id.partition("/")[0])

    def crash(self, process: Process, how: str) -> None:
        """Kill a server, now; it is started again in a while."""
        server = self.server_of(process)
        process.kill()
        self.disk.undo()
        self.servers.remove(server)
        for future in list(server.flights):
            self.network.reset(future)
        self.step("server-crash", f"{process.name} {how}")
        self.excuse()
        self.later(self.random.choice((0.05, 1.0, 5.0, 30.0)), self._start_server)

    def _start_server(self) -> None:
        if not self.servers:
            self.served_since = self.loop.now
        self._started += 1
        self.servers.append(Server(self, self._started))
        self.excuse()
        self.step("server-start", str(self._started))

    def _start_worker(self) -> None:
        self._started += 1
        worker = Worker(self, self._started)
        self.workers[worker.process.name] = worker
        self.step("worker-start", worker.process.name)

    def _crash_some_server(self) -> None:
        server = self.any_server()
        if server is not None:
            self.crash(server.process, "killed")
        self.later(self.random.expovariate(1 / self.faults.server_crash_seconds), self._crash_some_server)

    def _crash_some_worker(self) -> None:
        name = self.random.choice([name for name, worker in self.workers.items() if worker.process.alive])
        self.workers[name].process.kill()
        self.step("worker-crash", name)
        self._start_worker()
        self.later(self.random.expovariate(1 / self.faults.worker_crash_seconds), self._crash_some_worker)

    def _cut_some_link(self) -> None:
        name = self.random.choice([name for name, worker in self.workers.items() if worker.process.alive])
        # A link that goes down is slow first, more often than not.
        slow = self.random.choice((0.0, 3.0, 10.0))
        self.network.slow_until[name] = self.loop.now + slow
        self.later(slow, self.network.cut, name, self.random.expovariate(1 / self.faults.link_away_seconds))
        self.step("link-cut", name)
        self.later(self.random.expovariate(1 / self.faults.link_cut_seconds), self._cut_some_link)

    # --- its life -------------------------------------------------------------------------------------------------

    def run(self, steps: int) -> Failure | None:
        """Live up to that step; what broke, or None."""
        self._outside = contextvars.copy_context()
        self._steps_max = steps
        with _made_plain(self):
            self.disk.sql.execute(
                insert(accounts).values(id=self.account_id, name="simulated", created_at=self.clock.host_time())
            )
            self.disk.sql.commit()
            asyncio.set_event_loop(None)
            self.loop.call_soon(self._begin)
            try:
                self.loop.run_forever()
                if self.failure is None:
                    self.checker.audit()
            except Broken as broken:
                self.fail(broken)
            except Stuck:
                self.fail(Broken("the world goes on", "nothing is left that could ever happen"))
            self._end()
        return self.failure

    @property
    def trace(self) -> str:
        """A hash of all that happened, in its order."""
        return self._trace.hexdigest()

    def _begin(self) -> None:
        for _ in range(self.scale.servers):
            self._start_server()
        self.people.begin()
        for _ in range(self.scale.workers):
            self._start_worker()
        self.later(self.random.expovariate(1 / self.faults.server_crash_seconds), self._crash_some_server)
        self.later(self.random.expovariate(1 / self.faults.worker_crash_seconds), self._crash_some_worker)
        self.later(self.random.expovariate(1 / self.faults.link_cut_seconds), self._cut_some_link)

    def _end(self) -> None:
        """Let everybody go, so that nothing of this world is left."""
        self._over = True
        for server in self.servers:
            server.process.kill()
        for worker in self.workers.values():
            worker.process.kill()
        self.people.process.kill()
        self.loop.call_later(1.0, self.loop.stop)
        self.loop.run_forever()
        self.loop.close()
        self.disk.close()

    def _on_fault(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Broken):
            self.fail(error)
        elif self._over:
            return
        else:
            self.fail(Broken("no fault of the code", f"{context.get('message')}: {error!r}"))

    def heard_log(self, logger: Any, method: str, message: MutableMapping[str, Any]) -> str:
        """structlog's processor: nothing is printed, but mistakes of the code are noticed."""
        if message.get("event") in FAULTS_OF_CODE and self.failure is None:
            error = message.get("exc_info")
            self.fail(Broken("no fault of the code", f"{message['event']} {error!r}"))
        raise structlog.DropEvent


@contextmanager
def _made_plain(world: World) -> Iterator[None]:
    """Take away what differs from run to run: chance, ids, the wall clock; and what would be printed."""
    state = random_module.getstate()
    random_module.seed(world.seed)
    before = structlog.get_config()
    structlog.configure(processors=[world.heard_log])
    client_log = logging.getLogger("heartlane.client")
    was_disabled, client_log.disabled = client_log.disabled, True
    wall = SimpleNamespace(now=lambda zone=None: world.clock.host_time())
    chance = SimpleNamespace(urandom=world.random.randbytes)
    ticking = SimpleNamespace(time_ns=lambda: int((EPOCH.timestamp() + world.loop.now) * 1e9))
    # No clock jumps here, and so nobody needs to look for that every second.
    naps = patch.object(keeping, "LOOK_SECONDS", 60.0)
    gc.freeze()
    try:
        with naps, patch.object(keeping, "datetime", wall), patch.multiple(ids, os=chance, time=ticking):
            yield
    finally:
        gc.unfreeze()
        client_log.disabled = was_disabled
        structlog.configure(**before)
        random_module.setstate(state)
