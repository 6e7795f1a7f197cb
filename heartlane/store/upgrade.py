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
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from sqlalchemy import Connection, inspect, make_url, text

from heartlane.store import (  # noqa: F401 - their tables belong to the metadata
    fleet_schema,
    github_schema,
    news_schema,
    schema,
    session_schema,
)
from heartlane.store.columns import metadata
from heartlane.store.connection import connection
from heartlane.store.errors import SchemaMismatch, StoreUnavailable

HEAD: Final = "0011"
"""The newest revision (a test compares it to the migrations): a start with a current schema needs no Alembic."""

OLDEST: Final = "0010"
"""The newest schema of the oldest version that can work on this one. A migration that only adds what older versions can
do without (expand) leaves it; one that takes something away (contract), a release later, raises it."""

ADVISORY_LOCK: Final = 0x6865_6172_746C_616E  # "heartlan"


class Status(NamedTuple):
    """How a database stands: its revision (None when it is empty), the newest one, and what would run.

    newer   a newer version has upgraded it, in a way that this one can go on with
    """

    current: str | None
    head: str
    pending: list[str]
    newer: bool = False


def upgrade(url: str) -> Status:
    """Run what is pending on `sqlite:///path` or `postgresql://…`; the status as it was before this did anything.

    Raises SchemaMismatch for a newer or foreign database, StoreUnavailable when it can't be reached.
    """
    return asyncio.run(upgrade_async(url))


def status(url: str) -> Status:
    """How the database stands; changes nothing. Raises as `upgrade` does."""
    return asyncio.run(status_async(url))


async def upgrade_async(url: str) -> Status:
    """`upgrade`, within a running event loop."""
    before = await status_async(url)
    if not before.pending:
        return before
    async with connection(url, write=True) as conn:
        if conn.dialect.name == "postgresql":
            await conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        # Whoever waited for the lock looks again: another process may have done it meanwhile, or a newer version more.
        before = await conn.run_sync(_stands)
        if before.pending:
            if before.current is not None and conn.dialect.name == "sqlite":
                await asyncio.to_thread(_copy_aside, url, before.current)
            await conn.run_sync(migrate)
    return before


async def status_async(url: str) -> Status:
    if url.startswith("sqlite:") and not await asyncio.to_thread(Path(make_url(url).database or "").exists):
        return Status(None, HEAD, _migrations().revisions())
    async with connection(url) as conn:
        return await conn.run_sync(_stands)


def _stands(conn: Connection) -> Status:
    """What a database's revision means to this version. Raises SchemaMismatch for one that it can't work with."""
    current = revision_of(conn)
    if current == HEAD:
        return Status(current, HEAD, [])
    known = _migrations().revisions()
    if current is not None and current not in known:
        columns = {column["name"] for column in inspect(conn).get_columns("control")} if _has_control(conn) else set()
        oldest = (
            conn.execute(text("SELECT oldest_schema FROM control")).scalar() if "oldest_schema" in columns else None
        )
        if oldest is not None and oldest <= HEAD:
            return Status(current, HEAD, [], newer=True)
        raise SchemaMismatch(
            f"The database has schema {current}, which this version of Heartlane (schema {HEAD}) doesn't know. "
            "It was made by a newer version: run that one, or restore a backup."
        )
    return Status(current, HEAD, known[known.index(current) + 1 :] if current is not None else known)


def migrate(conn: Connection) -> None:
    """Run what is pending in the connection's transaction, under the lock that the caller holds."""
    _migrations().run(conn)
    conn.execute(text("UPDATE control SET oldest_schema = :oldest"), {"oldest": OLDEST})


def _has_control(conn: Connection) -> bool:
    return "control" in inspect(conn).get_table_names()


def _migrations() -> ModuleType:
    from heartlane.store.migrations import runner  # noqa: PLC0415 - Alembic costs a running server 10 MB it doesn't need

    return runner


def revision_of(conn: Connection) -> str | None:
    """The revision of a database; None where it is empty. Raises SchemaMismatch where it is another program's."""
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
