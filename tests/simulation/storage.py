"""The real `Store` and the real ledger on the simulated disk: where a transaction waits, breaks off, or takes its
server with it.

Between two points at which a process waits nothing else can happen in this world, as in asyncio itself; so each
transaction is one such stretch, with a wait before it (for the lock, the thread, the disk) and one behind it (for the
answer), and a server may be killed in either, or at any statement between them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartlane.store.audience import Audience
from heartlane.store.damage import Damage
from heartlane.store.errors import StoreUnavailable
from heartlane.store.feed import Feed
from heartlane.store.ids import new_id
from heartlane.store.ledger import Ledger
from heartlane.store.sqlite import SqliteEngine
from heartlane.store.store import Store, WriteTransaction
from tests.simulation.disk import Connection, Disk, PulledPlug, disk_error
from tests.simulation.loop import Process, here

if TYPE_CHECKING:
    from tests.simulation.world import World


class SimulatedStore(Store):
    """The storage contract on the simulated disk, for one server.

    What is real: `writing`, the ledger, the SQLite engine with all its statements. What is not: SQLAlchemy's pools and
    the driver's threads, whose place is taken by waits of the world's making.
    """

    def __init__(self, world: World, process: Process, batch_size: int) -> None:
        self.world = world
        self.process = process
        self.dialect = "sqlite"
        self.server_id = new_id()
        self.clock = world.clock
        self.feed = Feed()
        self.audience = Audience()
        self.damage = Damage()
        self._one_writer = asyncio.Lock()
        self._listener = None
        self._engine = SqliteEngine(Path("simulated"), self.clock, self._one_writer, self.audience, self.damage)
        self.connection = Connection(world.disk)
        self._engine._connection = self.connection  # type: ignore[assignment]
        self.ledger = Ledger(self._engine, self.feed.publish, batch_size=batch_size)
        self.ledger.on_told = self.audience.told

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Any]:
        await self.world.storage_wait(self.process)
        if self.world.chance(self.world.faults.read_fails):
            self.world.step("read-fails", self.process.name)
            self.world.excuse()
            raise StoreUnavailable("The database can't be used now.")
        self.world.step("read", self.process.name)
        yield _Statements(self.world.disk, self.process)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[WriteTransaction]:
        world, disk = self.world, self.world.disk
        await world.storage_wait(self.process)
        breaks_off = world.chance(world.faults.write_fails)
        dies = world.chance(world.faults.dies_in_write)
        disk.begin()
        try:
            yield WriteTransaction(_Statements(disk, self.process), self.clock.host_time())  # type: ignore[arg-type]
            if dies:
                disk.undo()
                world.crash(self.process, "before-commit")
                raise asyncio.CancelledError
            if breaks_off:
                world.excuse()
                raise StoreUnavailable("The database can't be used now.", maybe_done=True)
            disk.commit()
            world.note_signs()
            world.step("write", self.process.name)
        finally:
            disk.undo()
        await world.storage_wait(self.process)


class _Statements:
    """A SQLAlchemy connection whose statements are done at once."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self.dialect = disk.sql.dialect

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """As AsyncConnection has it."""
        self._process.look()
        return self._disk.sql.execute(statement, parameters)


class Threads:
    """What stands in for the thread in which the SQLite engine applies a batch."""

    def __init__(self, world: World) -> None:
        self._world = world

    def submit(self, process: Process, work: Callable[..., Any], arguments: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Have a function called in a while, and its answer come a while after."""
        future: asyncio.Future[Any] = self._world.loop.create_future()
        self._world.later(self._world.disk_seconds(), self._call, process, future, work, arguments)
        return future

    def _call(
        self, process: Process, future: asyncio.Future[Any], work: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        world = self._world
        if not process.alive:
            return
        server = world.server_of(process)
        self._tempt(server.store.connection)
        try:
            result = process.run(work, *arguments)
        except PulledPlug:
            world.disk.undo()
            world.crash(process, "in-batch")
            return
        except StoreUnavailable as error:
            world.excuse()
            world.step("batch-fails", f"{process.name} {error.maybe_done}")
            self._answer(process, future, None, error)
            return
        except Exception as error:  # noqa: BLE001 - handed on, as a thread would
            world.disk.undo()
            self._answer(process, future, None, error)
            return
        finally:
            server.store.connection.statements_left = None
            server.store.connection.broken_commit = None
        if arguments:
            world.checker.applied(arguments[0], result.outcomes)
        world.step("batch", f"{process.name} {len(arguments[0]) if arguments else 0}")
        if world.chance(world.faults.dies_after_commit):
            world.crash(process, "after-commit")
            return
        self._answer(process, future, result, None)

    def _tempt(self, connection: Connection) -> None:
        """Decide what befalls this batch."""
        world = self._world
        if world.chance(world.faults.dies_in_batch):
            connection.statements_left, connection.breaks = world.random.randrange(5), PulledPlug()
        elif world.chance(world.faults.write_fails):
            full = disk_error("database or disk is full", sqlite3.SQLITE_FULL)
            connection.statements_left, connection.breaks = world.random.randrange(5), full
        elif world.chance(world.faults.commit_in_doubt):
            done = world.random.random() < 0.5
            connection.broken_commit = (disk_error("disk I/O error", sqlite3.SQLITE_IOERR), done)
        elif world.chance(world.faults.dies_in_batch):
            connection.broken_commit = (PulledPlug(), world.random.random() < 0.5)

    def _answer(self, process: Process, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        def tell() -> None:
            if process.alive and not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        self._world.later(self._world.disk_seconds(), tell)


__all__ = ["SimulatedStore", "Threads", "here"]
