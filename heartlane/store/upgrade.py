"""Brings a database's schema to the one this version works with, and tells how it stands.

Migrations run inside one transaction on both engines, so that a failed or killed upgrade leaves nothing half done.
Several servers may start at once: an advisory lock (PostgreSQL) or the file's write lock (SQLite) lets one upgrade and
the others find it done. A SQLite file that holds data is copied aside first, under the same lock. A schema made by a
newer version is refused.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, event, inspect, literal_column, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from heartlane.store import github_schema, news_schema, schema, session_schema  # noqa: F401 - their tables belong to the metadata
from heartlane.store.columns import metadata
from heartlane.store.errors import SchemaMismatch, StoreUnavailable
from heartlane.store.postgres import CONNECT_SECONDS

HEAD: Final = "0009"
"""The newest revision (a test compares it to the migrations): a start with a current schema needs no Alembic."""

ADVISORY_LOCK: Final = 0x6865_6172_746C_616E  # "heartlan"


class Status(NamedTuple):
    """How a database stands: its revision (None when it is empty), the newest one, and what would run."""

    current: str | None
    head: str
    pending: list[str]


def upgrade(url: str) -> Status:
    """Run what is pending on `sqlite:///path` or `postgresql://…`; the status as it was before this did anything.

    Raises SchemaMismatch for a newer or foreign database, StoreUnavailable when it can't be reached.
    """
    return asyncio.run(upgrade_async(url))


def status(url: str) -> Status:
    """How the database stands; changes nothing. Raises as `upgrade` does."""
    return asyncio.run(_status(url))


def check(url: str) -> list[str]:
    """What is wrong with the database's schema, a line each; empty when all is well. Raises StoreUnavailable."""
    return asyncio.run(_check(url))


async def upgrade_async(url: str) -> Status:
    """`upgrade`, within a running event loop."""
    before = await _status(url)
    if not before.pending:
        return before
    async with _connection(url, write=True) as conn:
        if conn.dialect.name == "postgresql":
            await conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        # Whoever waited for the lock looks again: another process may have done it meanwhile, or a newer version more.
        before = _judged(await conn.run_sync(_current))
        if before.pending:
            if before.current is not None and conn.dialect.name == "sqlite":
                await asyncio.to_thread(_copy_aside, url, before.current)
            await conn.run_sync(_migrations().run)
    return before


async def _status(url: str) -> Status:
    if url.startswith("sqlite:") and not await asyncio.to_thread(Path(make_url(url).database or "").exists):
        return Status(None, HEAD, _migrations().revisions())
    async with _connection(url) as conn:
        return _judged(await conn.run_sync(_current))


def _judged(current: str | None) -> Status:
    """What a revision means to this version. Raises SchemaMismatch for one that it doesn't know."""
    if current == HEAD:
        return Status(current, HEAD, [])
    known = _migrations().revisions()
    if current is not None and current not in known:
        raise SchemaMismatch(
            f"The database has schema {current}, which this version of Heartlane (schema {HEAD}) doesn't know. "
            "It was made by a newer version: run that one, or restore a backup."
        )
    return Status(current, HEAD, known[known.index(current) + 1 :] if current is not None else known)


async def _check(url: str) -> list[str]:
    try:
        found = await _status(url)
    except SchemaMismatch as error:
        return [str(error)]
    if found.pending:
        return [f"Schema {found.current or 'none'}; pending: {', '.join(found.pending)}. Run: heartlane db upgrade"]
    async with _connection(url) as conn:
        problems = await conn.run_sync(_differences)
        if url.startswith("sqlite:"):
            rows = (await conn.execute(text("PRAGMA quick_check"))).scalars().all()
            problems += [f"SQLite: {row}" for row in rows if row != "ok"]
    return problems


def _migrations() -> ModuleType:
    from heartlane.store.migrations import runner  # noqa: PLC0415 - Alembic costs a running server 10 MB it doesn't need

    return runner


def _current(conn: Connection) -> str | None:
    tables = inspect(conn).get_table_names()
    if "alembic_version" in tables:
        current: str | None = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if current is not None:
            return current
    foreign = sorted(metadata.tables.keys() & set(tables))
    if foreign:
        names = ", ".join(foreign)
        raise SchemaMismatch(f"The database holds another program's tables ({names}); give Heartlane one of its own.")
    return None


def _differences(conn: Connection) -> list[str]:
    """Tables and columns that the newest schema has and the database lacks."""
    found = inspect(conn)
    tables = set(found.get_table_names())
    problems = [f"Table {name} is missing." for name in metadata.tables if name not in tables]
    for name, table in metadata.tables.items():
        if name in tables:
            columns = set(conn.execute(select(literal_column("*")).select_from(table).limit(0)).keys())
            problems += [f"Column {name}.{column.name} is missing." for column in table.c if column.name not in columns]
    return problems


def _copy_aside(url: str, revision: str) -> None:
    """Copy the file whole, under its name only once it is: a copy that was broken off is never taken for one."""
    path = Path(make_url(url).database or "")
    copy = path.with_name(f"{path.name}.before-upgrade-from-{revision}")
    part = copy.with_name(f"{copy.name}.part")
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
        shutil.copymode(path, part)  # it holds the same secrets
        part.replace(copy)
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(
            f"The database could not be copied to {copy.name} before its upgrade.", cause=error
        ) from error


@asynccontextmanager
async def _connection(url: str, *, write: bool = False) -> AsyncIterator[AsyncConnection]:
    if url.startswith("sqlite:"):
        engine = create_async_engine(make_url(url).set(drivername="sqlite+aiosqlite"), poolclass=NullPool)
        begin = "BEGIN IMMEDIATE" if write else "BEGIN"

        def on_connect(connection: Any, record: Any) -> None:
            connection.isolation_level = None
            connection.cursor().execute("PRAGMA busy_timeout = 30000")

        def on_begin(connection: Any) -> None:
            connection.exec_driver_sql(begin)

        event.listen(engine.sync_engine, "connect", on_connect)
        event.listen(engine.sync_engine, "begin", on_begin)
    else:
        engine = create_async_engine(
            "postgresql+asyncpg://", poolclass=NullPool, connect_args={"dsn": url, "timeout": CONNECT_SECONDS}
        )
    try:
        async with engine.begin() as conn:
            yield conn
    except (DBAPIError, OSError, TimeoutError) as error:
        raise StoreUnavailable("The database can't be used.", cause=getattr(error, "orig", None) or error) from error
    finally:
        await engine.dispose()
