"""The storage contract: one `Store`, whichever engine is behind it.

Existing runs change through `store.ledger` alone. Everything else (projects, tickets, plans, tokens, new runs) is
written in `store.writing()`, and everything is read through `store.reading()`, which never waits behind the ledger.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

import asyncpg
from sqlalchemy import event, make_url, select, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from heartlane.store.audience import Audience
from heartlane.store.batch import Announcement, Opening
from heartlane.store.clock import Clock
from heartlane.store.damage import Damage, is_damage
from heartlane.store.errors import StoreUnavailable
from heartlane.store.feed import CHANNEL, Feed, encode
from heartlane.store.ids import new_id
from heartlane.store.ledger import QUEUE_LIMIT_DEFAULT, Ledger
from heartlane.store.listener import Listener
from heartlane.store.news_schema import webhooks
from heartlane.store.postgres import PostgresEngine, connect_arguments
from heartlane.store.sqlite import PRAGMAS, SqliteEngine

READER_PRAGMAS: Final = (
    "PRAGMA query_only = ON",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA cache_size = -4096",
    "PRAGMA cell_size_check = ON",
)
POOL_SIZE_DEFAULT: Final = 8
POOL_WAIT_SECONDS: Final = 5.0
"""Longest wait for a connection, the time to find out that a pooled one is dead included."""


@dataclass
class WriteTransaction:
    """One open write transaction: its connection, its time, and what to announce when it has committed.

    told    something went into the outbox
    """

    conn: AsyncConnection
    now: datetime
    openings: list[Opening] = field(default_factory=list)
    plan_ids: list[str] = field(default_factory=list)
    told: bool = False

    def announce(self, openings: Sequence[Opening] = (), *, plan_ids: Sequence[str] = ()) -> None:
        """Lanes that are claimable once this commits, and plans that have changed: whoever waits for such is told then,
        on every server."""
        self.openings.extend(openings)
        self.plan_ids.extend(plan_ids)

    @property
    def announcement(self) -> Announcement:
        """All that is to be told once this has committed."""
        return Announcement(self.openings, plan_ids=tuple(self.plan_ids))


class Store:
    """An open database. Make one with `Store.open`, end it with `close`.

    dialect     "sqlite" or "postgresql"
    server_id   this process, among those that share the database
    clock       what the database's clock is adjusted by, in tests
    ledger      how existing runs change
    feed        announcements of what was committed, here and on other servers
    audience    which projects have webhooks, and whom to wake when there is something for them
    damage      whether the database was found damaged: nothing works on it from then on
    """

    def __init__(
        self,
        dialect: Literal["sqlite", "postgresql"],
        url: str,
        *,
        queue_limit: int,
        batch_size: int,
        pool_size: int,
        clock: Clock | None = None,
    ) -> None:
        self.dialect = dialect
        self.server_id = new_id()
        self.clock = clock or Clock()
        self.feed = Feed()
        self.audience = Audience()
        self.damage = Damage()
        self._one_writer = asyncio.Lock()
        self._listener: Listener | None = None
        self._connect_seconds: float | None
        self._engine: SqliteEngine | PostgresEngine
        if dialect == "sqlite":
            path = sqlite_path(url)
            self._engine = SqliteEngine(path, self.clock, self._one_writer, self.audience, self.damage)
            self._reader, self._writer = _sqlite_engines(path, pool_size)
            self._connect_seconds = None  # SQLite waits for a lock by itself, and is not to be interrupted in it
            committers = 1
        else:
            self._engine = PostgresEngine(url, self.clock, self.server_id, self.audience)
            self._reader = self._writer = _postgres_engine(url, pool_size)
            self._connect_seconds = POOL_WAIT_SECONDS
            self._listener = Listener(url, self.server_id, self.feed)
            committers = 2
        self.ledger = Ledger(
            self._engine, self.feed.publish, queue_limit=queue_limit, batch_size=batch_size, committers=committers
        )
        self.ledger.on_told = self.audience.told

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        queue_limit: int = QUEUE_LIMIT_DEFAULT,
        batch_size: int = 256,
        pool_size: int = POOL_SIZE_DEFAULT,
        clock: Clock | None = None,
    ) -> Store:
        """Open `sqlite:///path` or `postgresql://…`, whose schema has to be up to date (`upgrade.py`).

        queue_limit commands that may wait in the ledger; batch_size commands in one transaction; pool_size
        connections for reads and other writes; clock one that a test moves in its own way. Raises StoreUnavailable when
        the database can't be reached.
        """
        dialect: Literal["sqlite", "postgresql"] = "sqlite" if url.startswith("sqlite:") else "postgresql"
        store = cls(dialect, url, queue_limit=queue_limit, batch_size=batch_size, pool_size=pool_size, clock=clock)
        try:
            await store.now()
            await store.meet_audience()
        except StoreUnavailable:
            await store.close()
            raise
        if store._listener is not None:
            store._listener.start()
        return store

    async def now(self) -> datetime:
        """The database's time. Raises StoreUnavailable."""
        async with self.reading() as conn:
            if self.dialect == "sqlite":
                await conn.execute(text("SELECT 1"))  # whoever asks for the time wants to know that the file is there
            return await self.now_on(conn)

    async def meet_audience(self) -> None:
        """Find out which projects have webhooks. Raises StoreUnavailable."""
        async with self.reading() as conn:
            listening = await conn.execute(select(webhooks.c.project_id).where(webhooks.c.enabled).distinct())
            self.audience.projects = frozenset(listening.scalars())

    async def now_on(self, conn: AsyncConnection) -> datetime:
        """The database's time by way of a connection that is open already. SQLite's clock is this machine's."""
        if self.dialect == "sqlite":
            return self.clock.host_time()
        moment: datetime = (await conn.execute(text("SELECT clock_timestamp()"))).scalar_one()
        return self.clock.adjusted(moment.astimezone(UTC))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for SELECTs, in one short read transaction. Raises StoreUnavailable."""
        with _translated(self.damage):
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._connect_seconds):
                    conn = await stack.enter_async_context(self._reader.connect())
                yield conn

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[WriteTransaction]:
        """One write transaction: committed on a clean exit, undone on an exception. Raises StoreUnavailable."""
        if self.dialect == "sqlite":
            async with self._one_writer, self._transaction() as tx:
                yield tx
        else:
            async with self._transaction() as tx:
                yield tx
        if tx.told:
            self.audience.told()
        if tx.announcement.names_something:
            self.feed.publish(tx.announcement)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[WriteTransaction]:
        with _translated(self.damage) as translated:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._connect_seconds):
                    conn = await stack.enter_async_context(self._writer.begin())
                tx = WriteTransaction(conn, await self.now_on(conn))
                yield tx
                if tx.announcement.names_something and self.dialect == "postgresql":
                    payload = encode(self.server_id, tx.announcement)
                    await conn.execute(
                        text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload}
                    )
                translated.committing = True

    async def close(self) -> None:
        """Commit what the ledger has accepted, then close every connection."""
        await self.ledger.close()
        if self._listener is not None:
            await self._listener.close()
        await self._engine.close()
        await self._reader.dispose()
        if self._writer is not self._reader:
            await self._writer.dispose()


def sqlite_path(url: str) -> Path:
    """The file of a `sqlite:///path` URL."""
    return Path(make_url(url).database or "")


def _sqlite_engines(path: Path, pool_size: int) -> tuple[AsyncEngine, AsyncEngine]:
    url = make_url("sqlite+aiosqlite://").set(database=str(path))
    reader = create_async_engine(url, pool_size=pool_size, pool_timeout=POOL_WAIT_SECONDS)
    writer = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=POOL_WAIT_SECONDS)
    _prepare_sqlite(reader, "BEGIN", READER_PRAGMAS)
    _prepare_sqlite(writer, "BEGIN IMMEDIATE", [*PRAGMAS, "PRAGMA cache_size = -2048"])
    return reader, writer


def _prepare_sqlite(engine: AsyncEngine, begin: str, pragmas: Sequence[str]) -> None:
    """Have SQLAlchemy begin transactions itself: the driver's own way begins too late to take the write lock."""

    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)


def _postgres_engine(url: str, pool_size: int) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=True,
        connect_args=connect_arguments(url),
    )


class _translated:  # noqa: N801 - reads as a clause: `with _translated():`
    """Turns the drivers' errors that mean "the database is away" into StoreUnavailable, and damage into StoreDamaged.

    committing      set by the block when nothing but its COMMIT is left
    """

    def __init__(self, damage: Damage) -> None:
        self._damage = damage
        self.committing = False

    def __enter__(self) -> Self:
        self._damage.refuse()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        cause = getattr(error, "orig", None) or error
        if is_damage(cause):
            raise self._damage.found(cause, maybe_done=self.committing) from error
        if is_unavailable(error):
            raise StoreUnavailable(
                "The database can't be used now.", cause=cause, maybe_done=self.committing
            ) from error


def is_unavailable(error: BaseException) -> bool:
    """Whether an error of SQLAlchemy or a driver means that the database is away, full or busy."""
    if isinstance(
        error,
        PoolTimeout | ConnectionError | TimeoutError | asyncpg.PostgresConnectionError | asyncpg.InternalClientError,
    ):
        return True
    if isinstance(error, OSError):
        return not isinstance(error, FileNotFoundError)
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:  # PostgreSQL: connection, resources, intervention, rollback, read-only, locks, internal
        return str(state)[:2] in ("08", "53", "57", "58", "40", "XX") or state in ("25006", "55P03")
    if isinstance(error.orig, sqlite3.IntegrityError):
        return False
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


__all__ = ["Store", "WriteTransaction", "is_unavailable", "sqlite_path"]
