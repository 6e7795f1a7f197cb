"""Moves a database from one engine to the other, all of it or nothing, and proves that nothing was changed.

Nobody may use either side meanwhile: a SQLite file is held as its server holds it, and servers on PostgreSQL are looked
for. On the new side everything happens in one transaction (PostgreSQL) or in a file that gets its name at the end
(SQLite), so that a move that is killed has done nothing, and is begun again.

    old: one snapshot ── rows, table by table ──► new ── read again ── counts and digests equal? ──► commit
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Table, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store.check import check_async
from heartlane.store.connection import connection
from heartlane.store.errors import InUse, StoreError
from heartlane.store.exclusive import only_user, refuse_served
from heartlane.store.partitions import WEEKS_AHEAD, week_of
from heartlane.store.schema import control, events
from heartlane.store.store import sqlite_path
from heartlane.store.tables import ROWS_AT_ONCE, Digest, all_tables, rows_of
from heartlane.store.upgrade import ADVISORY_LOCK, migrate, revision_of, status_async

WEEKS_BACK_MAX: Final = 520
"""Older events go to `events_rest`."""
SERVED: Final = "A server runs on {}. Stop it, and move again."

Progress = Callable[[str, int], None]


class NotMoved(StoreError):
    """The move was refused, or the two sides were not equal; nothing was changed. The text says why."""


class Moved(NamedTuple):
    """What was moved of one table, and the digest that both sides have."""

    table: str
    rows: int
    digest: str


def move(source: str, target: str, *, progress: Progress | None = None) -> list[Moved]:
    """Move everything from `source` to `target`, which has to be empty: a file that isn't there, or a database without
    Heartlane's tables. The source is left as it is.

    progress    hears of each table and its rows

    Raises NotMoved, InUse, StoreUnavailable.
    """
    return asyncio.run(move_async(source, target, progress))


async def move_async(source: str, target: str, progress: Progress | None = None) -> list[Moved]:
    """`move`, within a running event loop."""
    async with AsyncExitStack() as stack:
        for url in {source, target}:
            if url.startswith("sqlite:"):
                path = sqlite_path(url)
                stack.enter_context(only_user(path, SERVED.format(path)))
        before = await status_async(source)
        if before.current is None or before.pending:
            raise NotMoved(f"The old database has schema {before.current or 'none'}. Run: heartlane db upgrade")
        if before.newer:
            raise NotMoved(f"The old database has schema {before.current} of a newer version: move it with that one.")
        await _refuse_filled(target)
        found = await check_async(source, quick=True)
        if found.problems:
            raise NotMoved(f"The old database is not in order, see heartlane db check: {found.problems[0]}")
        old = await stack.enter_async_context(connection(source, snapshot=True))
        if old.dialect.name == "postgresql":
            await refuse_served(old, "move")
        async with _new(target) as new:
            return await _move(old, new, progress)


async def _refuse_filled(target: str) -> None:
    if target.startswith("sqlite:") and sqlite_path(target).exists():
        raise NotMoved(f"{sqlite_path(target)} is there already: name a file that isn't.")
    if not target.startswith("sqlite:") and (await status_async(target)).current is not None:
        raise NotMoved("The new database holds Heartlane's tables already: it has to be empty (createdb makes one).")


@asynccontextmanager
async def _new(target: str) -> AsyncIterator[AsyncConnection]:
    """An empty database of the newest schema, which is there once the block has ended well."""
    if not target.startswith("sqlite:"):
        async with connection(target) as conn:
            await conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            if await conn.run_sync(revision_of) is not None:
                raise NotMoved("Somebody else has made Heartlane's tables in the new database just now.")
            await conn.run_sync(migrate)
            yield conn
            await refuse_served(conn, "move")
        return
    path = sqlite_path(target)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        await asyncio.to_thread(part.touch, 0o600)
        async with connection(f"sqlite:///{part}", write=True) as conn:
            await conn.run_sync(migrate)
            yield conn
        await asyncio.to_thread(_put, part, path)
    finally:
        for suffix in ("", "-journal"):
            await asyncio.to_thread(Path(f"{part}{suffix}").unlink, True)


def _put(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(part, path)  # never over a file that was made meanwhile
    except FileExistsError:
        raise InUse(f"{path} was made by somebody else just now.") from None


async def _move(old: AsyncConnection, new: AsyncConnection, progress: Progress | None) -> list[Moved]:
    await new.execute(delete(control))  # the one row that a schema brings along
    if new.dialect.name == "postgresql":
        await _make_partitions(old, new)
    moved = []
    for table in all_tables():
        names = [column.name for column in table.columns]
        digest = Digest()
        rows: list[dict[str, Any]] = []
        async for row in rows_of(old, table, names):
            digest.add(row)
            rows.append(dict(zip(names, row, strict=True)))
            if len(rows) == ROWS_AT_ONCE:
                await new.execute(insert(table), rows)
                rows = []
        if rows:
            await new.execute(insert(table), rows)
        moved.append(Moved(table.name, digest.rows, str(digest)))
        if progress is not None:
            progress(table.name, digest.rows)
    if new.dialect.name == "postgresql":
        await _count_on(old, new)
    await _prove(new, moved)
    return moved


async def _make_partitions(old: AsyncConnection, new: AsyncConnection) -> None:
    """A partition for each week of the log, as the server would have made them."""
    now = datetime.now(UTC)
    oldest: datetime | None = (await old.execute(select(func.min(events.c.recorded_at)))).scalar()
    start = max(week_of(oldest or now), week_of(now - timedelta(weeks=WEEKS_BACK_MAX)))
    while start <= week_of(now) + timedelta(weeks=WEEKS_AHEAD):
        end = start + timedelta(weeks=1)
        await new.execute(
            text(
                f"CREATE TABLE IF NOT EXISTS events_{start:%Y%m%d} PARTITION OF events "
                f"FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
            )
        )
        start = end


async def _count_on(old: AsyncConnection, new: AsyncConnection) -> None:
    """Let numbers go on from where they are: none is ever given twice, those of rows that are gone included."""
    for table in all_tables():
        name = next((name for name in ("number", "position") if name in table.primary_key.columns), None)
        if name is None or table.c[name].autoincrement is not True:
            continue
        highest = await _highest(old, table, name)
        if highest:
            await new.execute(
                text("SELECT setval(pg_get_serial_sequence(:table, :name), :highest)"),
                {"table": table.name, "name": name, "highest": highest},
            )


async def _highest(old: AsyncConnection, table: Table, name: str) -> int:
    highest: int = (await old.execute(select(func.coalesce(func.max(table.c[name]), 0)))).scalar_one()
    if old.dialect.name == "sqlite":
        given = (await old.execute(text("SELECT seq FROM sqlite_sequence WHERE name = :n"), {"n": table.name})).scalar()
        highest = max(highest, given or 0)
    return highest


async def _prove(new: AsyncConnection, moved: Sequence[Moved]) -> None:
    """Read everything again on the new side. Raises NotMoved where it is otherwise than on the old one."""
    for name, rows, wanted in moved:
        table = next(each for each in all_tables() if each.name == name)
        digest = Digest()
        async for row in rows_of(new, table, [column.name for column in table.columns]):
            digest.add(row)
        if (digest.rows, str(digest)) != (rows, wanted):
            raise NotMoved(
                f"Table {name} has {rows} rows with digest {wanted[:16]}… on the old side, and {digest.rows} with "
                f"{str(digest)[:16]}… on the new one. Nothing was moved."
            )
