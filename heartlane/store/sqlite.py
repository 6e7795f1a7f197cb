"""The embedded engine: one SQLite file, write-ahead log, `synchronous=FULL`, one writer.

A batch runs on the one writing connection in a thread of its own, so that a slow disk never holds up the event loop.
The shared batch algorithm is written with `await`; nothing here ever suspends, so the thread drives it to its end.

SQLite works without the interpreter's lock, which the thread has to win back from the event loop after every step of a
statement: with a busy loop that takes longer than the step. So whatever a batch does, it does in few steps: all runs
come as one row of JSON, and rows are written sixteen by one statement.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from heartlane.lanes.run import RUN_COLUMNS, Role, Run
from heartlane.lanes.tickets import TICKET_COLUMNS, Ticket
from heartlane.store.audience import Audience
from heartlane.store.audit import Entry
from heartlane.store.batch import COLUMN_SETS, ClaimNext, Holder, LockedRuns, Offer, OnRun, Writes
from heartlane.store.clock import Clock
from heartlane.store.columns import from_micros, to_micros
from heartlane.store.damage import Damage, is_damage
from heartlane.store.errors import StoreUnavailable
from heartlane.store.gates import ACTIVE_QUERY, LIMITS_QUERY, UPDATE_BUDGET, Limits, Probe, budget_row, by_project
from heartlane.store.ledger import Applied
from heartlane.store.rows import SqliteRows
from heartlane.store.run_batch import run_batch
from heartlane.store.tallies import tally_rows
from heartlane.store.telling import tell_of_runs

T = TypeVar("T")

BUSY_TIMEOUT_SECONDS: Final = 5.0
"""How long a write waits for another process (a backup, the command line) before it is answered with 503."""

PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}",
    "PRAGMA wal_autocheckpoint = 2000",
    "PRAGMA cache_size = -16384",
    "PRAGMA cell_size_check = ON",  # a damaged page is found when it is read, not when something falls over it
)

_SELECT: Final = "SELECT " + ", ".join(f'r."{name}"' for name in RUN_COLUMNS) + " FROM runs AS r"
_TIMES: Final = tuple(
    place for place, name in enumerate(RUN_COLUMNS) if name.endswith(("_at", "_before")) or name == "last_heartbeat"
)
_TIME_NAMES: Final = frozenset(RUN_COLUMNS[place] for place in _TIMES)
_GETTERS: Final = {columns: attrgetter(*columns) for columns in COLUMN_SETS}

LOCK_RUNS: Final = f"""
SELECT json_group_array(json_array({", ".join(f'r."{name}"' for name in RUN_COLUMNS)})) FROM runs AS r
WHERE r.id IN (SELECT value FROM json_each(?))
"""
"""One statement whatever the number of runs, so that it is prepared once; one row of JSON, so that it is one step."""

HELD_BY: Final = """
SELECT r.id FROM runs AS r INDEXED BY runs_worker_idx
WHERE r.billing_account_id = ? AND r.worker_id = ? AND r.state IN ('claimed', 'running', 'paused', 'shipping')
"""

LOCK_WAITING: Final = """
SELECT blocker_id, run_id FROM run_blockers WHERE blocker_id IN (SELECT value FROM json_each(?)) ORDER BY run_id
"""

LABEL_KEYS: Final = "SELECT label_key FROM label_sets WHERE billing_account_id = ?"

# The best lanes of one role and one label set: the head of a claimable index, of the account or of one project.
_CLAIMABLE_HEAD: Final = """AND r.label_key = ? AND r.role = ?
AND r.state IN ('queued', 'released') AND r.blockers_left = 0 AND r.not_before IS NULL
ORDER BY r.priority DESC, r.number LIMIT ?
"""
ACCOUNT_HEAD: Final = f"{_SELECT} WHERE r.billing_account_id = ? {_CLAIMABLE_HEAD}"
PROJECT_HEAD: Final = f"{_SELECT} WHERE r.project_id = ? AND r.source = ? {_CLAIMABLE_HEAD}"

# Lanes that were held back until a time that has passed; the maintenance clears `not_before`, so these are few. The
# index is named because SQLite, without statistics, would rather walk over every queued lane of the account.
CLAIMABLE_DUE: Final = f"""
{_SELECT} INDEXED BY runs_delayed_idx
WHERE r.not_before <= ? AND r.state IN ('queued', 'released') AND r.not_before IS NOT NULL
AND r.blockers_left = 0 AND r.billing_account_id = ?
"""

LIMITS: Final = LIMITS_QUERY.format(wanted="p.billing_account_id IN (SELECT value FROM json_each(?)) AND p.limited")
ACTIVE: Final = ACTIVE_QUERY.format(projects="IN (SELECT value FROM json_each(?))")
SOURCES: Final = "SELECT project_id, source FROM lane_sources WHERE billing_account_id = ?"

ROWS_AT_ONCE: Final = 16
"""Rows that one statement writes. Where fewer are left, their places hold NULL, which no row has for its key."""


def _places(width: int) -> str:
    return ", ".join([f"({', '.join('?' * width)})"] * ROWS_AT_ONCE)


UPDATE_RUN: Final = {
    columns: "UPDATE runs SET " + ", ".join(f'"{name}" = ?' for name in columns) + " WHERE number = ?"
    for columns in COLUMN_SETS
}
UPDATE_RUNS: Final = {
    columns: "UPDATE runs AS r SET "
    + ", ".join(f'"{name}" = d.column{place}' for place, name in enumerate(columns, 1))
    + f" FROM (VALUES {_places(len(columns) + 1)}) AS d WHERE r.number = d.column{len(columns) + 1}"
    for columns in COLUMN_SETS
}
"""For each set of columns the values to set, then the run's number: for one run, and for up to ROWS_AT_ONCE."""

_INTO_EVENTS: Final = """
INSERT INTO events (run_number, last_seq, recorded_at, "count", types, worker_id, attempt, body)
"""
INSERT_CHUNK: Final = f"{_INTO_EVENTS} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_CHUNKS: Final = f"{_INTO_EVENTS} SELECT * FROM (VALUES {_places(8)}) WHERE column1 IS NOT NULL"

INSERT_ENTRY: Final = f"INSERT INTO audit ({', '.join(Entry._fields)}) VALUES ({', '.join('?' for _ in Entry._fields)})"

LOCK_TICKETS: Final = f"""
SELECT {", ".join(TICKET_COLUMNS)} FROM tickets WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id
"""
_TICKET_TIMES: Final = tuple(place for place, name in enumerate(TICKET_COLUMNS) if name.endswith("_at"))

UPDATE_TICKET: Final = f"UPDATE tickets SET {', '.join(f'{name} = ?' for name in TICKET_COLUMNS)} WHERE id = ?"


def connect(path: Path) -> sqlite3.Connection:
    """A connection as the writer uses it. Raises StoreUnavailable."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
        for pragma in PRAGMAS:
            connection.execute(pragma)
    except sqlite3.Error as error:
        if is_damage(error):
            raise
        raise StoreUnavailable("SQLite can't open the database.", cause=error) from error
    return connection


def _run(row: Sequence[Any]) -> Run:
    values = list(row)
    for place in _TIMES:
        if values[place] is not None:
            values[place] = from_micros(values[place])
    return Run._make(values)


def _values(run: Run, columns: tuple[str, ...]) -> list[Any]:
    """The columns as SQLite stores them, and the run's number."""
    values = [
        to_micros(value) if name in _TIME_NAMES and value is not None else value
        for name, value in zip(columns, _GETTERS[columns](run), strict=True)
    ]
    values.append(run.number)
    return values


class SqliteBatch:
    """One open `BEGIN IMMEDIATE` on the writing connection; a `BatchTransaction`."""

    def __init__(self, connection: sqlite3.Connection, now: datetime, audience: Audience) -> None:
        self._connection = connection
        self._now = now
        self._audience = audience
        self.told = False

    async def lock_holders(self, holders: Sequence[Holder]) -> Sequence[str]:
        # The write lock on the file holds every other claim up.
        return [run_id for holder in holders for (run_id,) in self._connection.execute(HELD_BY, holder)]

    async def lock_runs(self, run_ids: Sequence[str], shipping_ids: Sequence[str]) -> LockedRuns:
        # The write lock on the file is the lock on every row.
        waiting: dict[str, list[str]] = {}
        ids = list(run_ids)
        if shipping_ids:
            for blocker_id, run_id in self._connection.execute(LOCK_WAITING, (orjson.dumps(shipping_ids),)):
                waiting.setdefault(blocker_id, []).append(run_id)
                ids.append(run_id)
        if not ids:
            return LockedRuns(self._now, {}, waiting)
        ((rows,),) = self._connection.execute(LOCK_RUNS, (orjson.dumps(ids),))
        return LockedRuns(self._now, {row[1]: _run(row) for row in orjson.loads(rows)}, waiting)

    async def label_keys(self, account_id: str) -> Sequence[str]:
        return [key for (key,) in self._connection.execute(LABEL_KEYS, (account_id,))]

    async def lock_limits(self, account_ids: Sequence[str]) -> Sequence[Limits]:
        rows = self._connection.execute(LIMITS, (orjson.dumps(account_ids),)).fetchall()
        return [Limits.of_row([*row[:-1], None if row[-1] is None else from_micros(row[-1])]) for row in rows]

    async def active(self, project_ids: Sequence[str]) -> Mapping[str, Mapping[tuple[str, str], int]]:
        return by_project(self._connection.execute(ACTIVE, (orjson.dumps(project_ids),)).fetchall())

    async def sources(self, account_id: str) -> Sequence[tuple[str, str]]:
        return self._connection.execute(SOURCES, (account_id,)).fetchall()

    async def lock_claimable(
        self, wanted: ClaimNext, label_keys: Sequence[str], count: int, now: datetime, probes: Sequence[Probe] | None
    ) -> Offer:
        rows: list[Any] = []
        execute = self._connection.execute
        for key in label_keys:
            if probes is None:
                for role in wanted.roles or tuple(Role):
                    rows += execute(ACCOUNT_HEAD, (wanted.account_id, key, str(role), count)).fetchall()
            else:
                for project_id, source, role in probes:
                    rows += execute(PROJECT_HEAD, (project_id, source, key, role, count)).fetchall()
        rows += execute(CLAIMABLE_DUE, (to_micros(now), wanted.account_id)).fetchall()
        kinds = None if probes is None else set(probes)
        fitting = [
            lane
            for lane in map(_run, rows)
            if lane.label_key in label_keys
            and (not wanted.roles or lane.role in wanted.roles)
            and (kinds is None or (lane.project_id, lane.source, lane.role) in kinds)
            and lane.billing_account_id == wanted.account_id
        ]
        return Offer(sorted(fitting, key=lambda lane: (-lane.priority, lane.number))[:count])

    async def lock_tickets(self, ticket_ids: Sequence[str]) -> Mapping[str, Ticket]:
        rows = self._connection.execute(LOCK_TICKETS, (orjson.dumps(ticket_ids),)).fetchall()
        return {row[0]: _ticket(row) for row in rows}

    async def record(self, entries: Sequence[Entry]) -> None:
        rows = [[to_micros(value) if isinstance(value, datetime) else value for value in entry] for entry in entries]
        self._connection.executemany(INSERT_ENTRY, rows)

    async def write(self, writes: Writes) -> None:
        execute_many = self._connection.executemany
        for columns, runs in writes.rows.items():
            self._write_rows(UPDATE_RUN[columns], UPDATE_RUNS[columns], [_values(run, columns) for run in runs])
        if writes.chunks:
            now = to_micros(writes.now)
            rows = [
                [row.run_number, row.last_seq, now, row.size, row.types, row.worker_id, row.attempt, row.body]
                for row in writes.chunks
            ]
            self._write_rows(INSERT_CHUNK, INSERT_CHUNKS, rows)
        for ticket in writes.tickets:
            values = [to_micros(value) if isinstance(value, datetime) else value for value in ticket]
            self._connection.execute(UPDATE_TICKET, [*values, ticket.id])
        if writes.tallies is not None:
            for statement, added in tally_rows(writes.tallies, 0):
                execute_many(statement.replace("$", "?"), added)
        for budget in writes.budgets:
            row = [
                to_micros(value) if isinstance(value, datetime) else value for value in budget_row(budget, writes.now)
            ]
            self._connection.execute(UPDATE_BUDGET.replace("$", "?"), row)
        if writes.happened:
            self.told = await tell_of_runs(
                SqliteRows(self._connection), writes.happened, writes.now, self._audience.projects
            )

    def _write_rows(self, one: str, many: str, rows: Sequence[list[Any]]) -> None:
        """Write rows of one length by the statement for one, or so many at once as the one for many takes."""
        if len(rows) == 1:
            self._connection.execute(one, rows[0])
            return
        for place in range(0, len(rows), ROWS_AT_ONCE):
            values = list(chain.from_iterable(rows[place : place + ROWS_AT_ONCE]))
            values += [None] * (len(rows[0]) * ROWS_AT_ONCE - len(values))
            self._connection.execute(many, values)


def _ticket(row: Sequence[Any]) -> Ticket:
    values = list(row)
    for place in _TICKET_TIMES:
        if values[place] is not None:
            values[place] = from_micros(values[place])
    return Ticket._make(values)


class SqliteEngine:
    """Applies batches to one SQLite file.

    path        the database file; its folder has to exist
    writer      shared with every other write of this process, so that the file has one writer at a time
    audience    which projects have webhooks
    damage      what is known of the file's damage
    """

    def __init__(self, path: Path, clock: Clock, writer: asyncio.Lock, audience: Audience, damage: Damage) -> None:
        self._path = path
        self._damage = damage
        self._clock = clock
        self._audience = audience
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heartlane-writer")
        self._connection: sqlite3.Connection | None = None

    async def apply(self, entries: Sequence[OnRun | ClaimNext]) -> Applied:
        async with self._writer:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._apply, entries)

    def _apply(self, entries: Sequence[OnRun | ClaimNext]) -> Applied:
        committing = False
        self._damage.refuse()
        try:
            if self._connection is None:
                self._connection = connect(self._path)
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                tx = SqliteBatch(connection, self._clock.host_time(), self._audience)
                outcomes, announcement = _drive(run_batch(tx, entries))
                committing = True
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            if is_damage(error):
                raise self._damage.found(error, maybe_done=committing) from error
            if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)):
                raise
            # A full disk or a busy file is seen before the last page is written; after an I/O error nobody can say.
            code = getattr(error, "sqlite_errorcode", 0)
            maybe_done = committing and code & 0xFF == sqlite3.SQLITE_IOERR
            raise StoreUnavailable("SQLite can't write now.", cause=error, maybe_done=maybe_done) from error
        return Applied(outcomes, announcement, tx.told)

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    work.close()
    raise AssertionError("a SQLite batch must not suspend")
