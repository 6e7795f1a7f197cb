"""Takes old events out of the log, in steps that hold no heartbeat up.

Runs that have not ended keep their whole log, however old. Of runs that have, everything before a moment goes. What was
taken is written down first (`control.events_pruned_before`), so that nobody takes a log that begins late for a damaged
one.

SQLite: rows go in transactions that hold the write lock for some milliseconds each, with pauses in which the server
writes. They aren't synced one by one: what a crash brings back goes again with the next pruning. PostgreSQL: a week is
a partition (`heartlane.store.partitions`), and goes by being detached and dropped; where runs that have not ended have
rows in it, these are copied first, and take its place in the same moment. Only whole weeks go.
"""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import asyncpg
import orjson

from heartlane.store.columns import from_micros, to_micros
from heartlane.store.connection import APPLICATION
from heartlane.store.damage import is_damage
from heartlane.store.errors import StoreDamaged, StoreUnavailable
from heartlane.store.partitions import week_of
from heartlane.store.runs import CLOCK_BACK_MAX
from heartlane.store.store import sqlite_path

LOOKED_AT_ONCE: Final = 2_000
STEP_SECONDS: Final = 0.004
"""How long a step on SQLite is to hold the write lock."""
STEP_ROWS_MAX: Final = 1_000
REST_SECONDS: Final = 0.01
"""The least pause after a step; it is three times as long as the step where that is more."""
CHECKPOINT_EVERY: Final = 20
"""Steps after which the log that was written is given back, which waits for nobody."""
LOCK_MILLISECONDS: Final = 20
"""How long a partition's going may wait for who uses the log, for reports wait behind it."""
LOCK_TRIES: Final = 100
REST_BYTES_MAX: Final = 16 * 1024 * 1024
"""Up to this size of `events_rest` a partition is exchanged: PostgreSQL looks through it then, under the lock."""

ENDED: Final = "('shipped', 'failed')"
NOTE: Final = (
    "UPDATE control SET events_pruned_before = {} WHERE events_pruned_before IS NULL OR events_pruned_before < {}"
)

Progress = Callable[[int], None]


class Pruned(NamedTuple):
    """What went, or would go.

    before      the moment before which it did: on PostgreSQL the beginning of a week
    rows        rows of the log, events in them
    partitions  of PostgreSQL, that were dropped
    longest     seconds that the longest step held a lock
    waiting     partitions that somebody read all the time, so that they are still there
    """

    before: datetime
    rows: int = 0
    events: int = 0
    partitions: Sequence[str] = ()
    longest: float = 0.0
    waiting: Sequence[str] = ()


def prune_events(url: str, older_than: timedelta, *, dry_run: bool = False, progress: Progress | None = None) -> Pruned:
    """Take the events out that are older than that, by the database's clock.

    dry_run     only count them
    progress    hears how many rows have gone so far

    Raises StoreUnavailable, StoreDamaged. What was done by then stays done, and the next call goes on.
    """
    if url.startswith("sqlite:"):
        return _prune_sqlite(url, older_than, dry_run, progress)
    return asyncio.run(_Postgres(url, older_than, dry_run).prune())


# --- SQLite -------------------------------------------------------------------------------------------------------


def _prune_sqlite(url: str, older_than: timedelta, dry_run: bool, progress: Progress | None) -> Pruned:
    before = datetime.now(UTC) - older_than
    try:
        path = sqlite_path(url).resolve().as_uri()
        with closing(sqlite3.connect(f"{path}?mode=rw", uri=True, isolation_level=None)) as connection:
            for pragma in ("busy_timeout = 5000", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
                connection.execute(f"PRAGMA {pragma}")
            return _Sqlite(connection, before, dry_run, progress).prune()
    except sqlite3.Error as error:
        if is_damage(error):
            raise StoreDamaged("The database file is damaged.", cause=error) from error
        raise StoreUnavailable("The database can't be used.", cause=error) from error


class _Sqlite:
    """One pruning of a SQLite file."""

    def __init__(
        self, connection: sqlite3.Connection, before: datetime, dry_run: bool, progress: Progress | None
    ) -> None:
        self._execute = connection.execute
        self._before = before
        self._dry_run = dry_run
        self._progress = progress
        self._size = 20
        self._steps = 0
        self._longest = 0.0

    def prune(self) -> Pruned:
        """All of it."""
        before = to_micros(self._before)
        rows = events = position = 0
        noted = self._dry_run
        while True:
            # Without their bodies, which stand behind the other columns, rows are quick to read.
            found = self._execute(
                'SELECT position, recorded_at, run_number, "count" FROM events WHERE position > ? '
                "ORDER BY position LIMIT ?",
                (position, LOOKED_AT_ONCE),
            ).fetchall()
            if not found or from_micros(min(row[1] for row in found)) >= self._before + CLOCK_BACK_MAX:
                break
            position = found[-1][0]
            old = [row for row in found if row[1] < before]
            ended = self._ended({row[2] for row in old})
            going = [row for row in old if row[2] in ended]
            if not noted and going:
                self._execute(NOTE.format(before, before))
                noted = True
            rows += len(going)
            events += sum(row[3] for row in going)
            if not self._dry_run:
                self._delete([row[0] for row in going])
                if self._progress is not None and going:
                    self._progress(rows)
        if not self._dry_run:
            self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return Pruned(self._before, rows, events, longest=self._longest)

    def _ended(self, numbers: set[int]) -> set[int]:
        query = f"SELECT number FROM runs WHERE number IN (SELECT value FROM json_each(?)) AND state IN {ENDED}"
        return {number for (number,) in self._execute(query, (orjson.dumps(list(numbers)),))}

    def _delete(self, positions: list[int]) -> None:
        while positions:
            step, positions = positions[: self._size], positions[self._size :]
            self._execute("BEGIN IMMEDIATE")
            started = time.perf_counter()
            try:
                # A run may have been retried just now.
                self._execute(
                    "DELETE FROM events WHERE position IN (SELECT value FROM json_each(?)) "
                    f"AND run_number IN (SELECT number FROM runs WHERE state IN {ENDED})",
                    (orjson.dumps(step),),
                )
                self._execute("COMMIT")
            except BaseException:
                self._execute("ROLLBACK")
                raise
            took = time.perf_counter() - started
            self._longest = max(self._longest, took)
            wanted = int(len(step) * STEP_SECONDS / max(took, 1e-6))
            self._size = max(1, min(STEP_ROWS_MAX, wanted, self._size * 2))
            self._steps += 1
            if self._steps % CHECKPOINT_EVERY == 0:
                self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            time.sleep(max(REST_SECONDS, 3 * took))


# --- PostgreSQL ---------------------------------------------------------------------------------------------------

PARTITIONS: Final = """
SELECT c.relname FROM pg_class AS c JOIN pg_inherits AS i ON i.inhrelid = c.oid
WHERE i.inhparent = 'events'::regclass ORDER BY c.relname
"""
LEFT_OVER: Final = r"""
SELECT c.relname FROM pg_class AS c WHERE c.relkind = 'r' AND NOT c.relispartition
AND c.relnamespace = current_schema()::regnamespace AND c.relname ~ '^events_\d{8}_(pruned|kept)$'
"""
COUNTS: Final = f"""
SELECT count(*) FILTER (WHERE r.state IN {ENDED}), coalesce(sum(e.count) FILTER (WHERE r.state IN {ENDED}), 0),
    count(*) FILTER (WHERE r.state NOT IN {ENDED})
FROM {{}} AS e JOIN runs AS r ON r.number = e.run_number WHERE e.recorded_at < $1
"""
DELETE: Final = f"""
WITH gone AS (
    DELETE FROM {{0}} WHERE ctid = ANY(ARRAY(
        SELECT e.ctid FROM {{0}} AS e JOIN runs AS r ON r.number = e.run_number
        WHERE e.recorded_at < $1 AND r.state IN {ENDED} LIMIT 500
    )) RETURNING 1
) SELECT count(*) FROM gone
"""
COPY: Final = f"""
INSERT INTO {{0}}_kept SELECT e.* FROM {{0}} AS e JOIN runs AS r ON r.number = e.run_number
WHERE r.state NOT IN {ENDED}
"""


class _Postgres:
    """One pruning of a PostgreSQL database."""

    def __init__(self, url: str, older_than: timedelta, dry_run: bool) -> None:
        self._url = url
        self._older_than = older_than
        self._dry_run = dry_run
        self._connection: asyncpg.Connection[Any]
        self._longest = 0.0

    async def prune(self) -> Pruned:
        """All of it."""
        try:
            self._connection = await asyncpg.connect(
                self._url, timeout=5.0, server_settings={"application_name": APPLICATION, "timezone": "UTC"}
            )
            try:
                return await self._prune()
            finally:
                await self._connection.close(timeout=1.0)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise StoreUnavailable("The database can't be used.", cause=error) from error

    async def _prune(self) -> Pruned:
        fetch = self._connection.fetch
        now: datetime = await self._connection.fetchval("SELECT clock_timestamp()")
        before = week_of(now - self._older_than)
        if not self._dry_run:
            for (name,) in await fetch(LEFT_OVER):  # of a pruning that broke off
                await self._connection.execute(f"DROP TABLE {name}")
        names = [name for (name,) in await fetch(PARTITIONS)]
        old = [name for name in names if (end := _end_of(name)) is not None and end <= before]
        rows = events = 0
        dropped: list[str] = []
        waiting: list[str] = []
        for name in ["events_rest", *old]:
            ended, inside, alive = await self._counts(name, before)
            if not ended and (alive or name == "events_rest"):
                continue  # a week that is empty goes as well
            if not self._dry_run:
                await self._connection.execute(NOTE.format("$1", "$1"), before)
                if name == "events_rest" or (alive and await self._rest_is_large()):
                    await self._delete(name, before)
                elif await self._take(name, keep=bool(alive)):
                    dropped.append(name)
                else:
                    waiting.append(name)
                    continue
            elif name != "events_rest":
                dropped.append(name)
            rows += ended
            events += inside
        return Pruned(before, rows, events, dropped, self._longest, waiting)

    async def _counts(self, name: str, before: datetime) -> tuple[int, int, int]:
        """Rows of runs that have ended, events in them, and rows of runs that have not."""
        row = await self._connection.fetchrow(COUNTS.format(name), before)
        return (0, 0, 0) if row is None else (row[0], int(row[1]), row[2])

    async def _rest_is_large(self) -> bool:
        size: int = await self._connection.fetchval("SELECT pg_relation_size('events_rest')")
        return size > REST_BYTES_MAX

    async def _delete(self, name: str, before: datetime) -> None:
        gone = 1
        while gone:
            started = time.perf_counter()
            gone = await self._connection.fetchval(DELETE.format(name), before)
            took = time.perf_counter() - started
            await asyncio.sleep(max(REST_SECONDS, took))  # PostgreSQL deletes beside reports; the disk has to breathe

    async def _take(self, name: str, *, keep: bool) -> bool:
        """Take a partition out of the log, and drop it; whether the lock for it was to be had."""
        execute = self._connection.execute
        end = _end_of(name) or week_of(datetime.now(UTC))
        bounds = f"FROM ('{(end - timedelta(weeks=1)).isoformat()}') TO ('{end.isoformat()}')"
        if keep:
            async with self._connection.transaction():
                await execute(f"CREATE TABLE {name}_kept (LIKE events INCLUDING DEFAULTS INCLUDING INDEXES)")
                await execute(
                    # With this PostgreSQL needs no look at the rows when they take the week's place.
                    f"ALTER TABLE {name}_kept ADD CONSTRAINT {name}_week CHECK (recorded_at >= "
                    f"'{(end - timedelta(weeks=1)).isoformat()}' AND recorded_at < '{end.isoformat()}')"
                )
                await execute(COPY.format(name))
        for _ in range(LOCK_TRIES):
            try:
                started = time.perf_counter()
                async with self._connection.transaction():
                    await execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
                    await execute(f"ALTER TABLE events DETACH PARTITION {name}")
                    await execute(f"ALTER TABLE {name} RENAME TO {name}_pruned")
                    if keep:
                        await execute(f"ALTER TABLE {name}_kept RENAME TO {name}")
                        await execute(f"ALTER TABLE events ATTACH PARTITION {name} FOR VALUES {bounds}")
                self._longest = max(self._longest, time.perf_counter() - started)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                await asyncio.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - jitter, not a secret
                continue
            await execute(f"DROP TABLE {name}_pruned")
            return True
        if keep:
            await execute(f"DROP TABLE {name}_kept")
        return False


def _end_of(partition: str) -> datetime | None:
    """The end of a partition's week, by its name; None for another table.

    >>> _end_of("events_20261123").isoformat(), _end_of("events_rest")
    ('2026-11-30T00:00:00+00:00', None)
    """
    found = re.fullmatch(r"events_(\d{8})", partition)
    if found is None:
        return None
    return datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC) + timedelta(weeks=1)
