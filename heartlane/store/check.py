"""Looks for anything wrong: the schema, the pages, what must always hold, and every run against its log.

Reads alone, in short transactions, so that it may run beside a server: each run is compared with its log as both are at
one moment. On SQLite every page is read by `PRAGMA integrity_check`. PostgreSQL looks at its own pages (`pg_amcheck`,
data checksums); here they are read, and what PostgreSQL says of one that it can't read is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg
from sqlalchemy import Connection, inspect, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.fold import Fold
from heartlane.lanes.run import EVENT_TYPE_BITS, Event, Run
from heartlane.store.columns import metadata
from heartlane.store.connection import connection
from heartlane.store.errors import SchemaMismatch, StoreDamaged, StoreUnavailable
from heartlane.store.runs import expand
from heartlane.store.schema import control, events, runs
from heartlane.store.upgrade import Status, status_async

DAMAGED: Final = (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError)
"""What PostgreSQL says of a page that it can't read."""
RUNS_AT_ONCE: Final = 200
ROWS_AT_ONCE: Final = 500
SHOWN_MAX: Final = 100
"""Problems that are told in full; of further ones only the number."""
OF_EACH_MAX: Final = 20

_HELD: Final = "state IN ('claimed', 'running', 'paused', 'shipping')"
_FREE: Final = "state IN ('queued', 'released')"
_ENDED: Final = "state IN ('shipped', 'failed')"

RULES: Final = {
    "a lane that is held names no holder": f"{_HELD} AND worker_id IS NULL",
    "a lane that nobody holds names a holder": f"{_FREE} AND worker_id IS NOT NULL",
    "its state is none that there is": f"NOT ({_HELD} OR {_FREE} OR {_ENDED})",
    "it is held without a deadline": f"{_HELD} AND (lease_expires_at IS NULL OR claimed_at IS NULL)",
    "it has a deadline, and nobody holds it": f"NOT {_HELD} AND lease_expires_at IS NOT NULL",
    "the take-back would look at it too late": f"{_HELD} AND (take_back_at IS NULL OR take_back_at > lease_expires_at)",
    "it is held without an attempt": f"{_HELD} AND attempt < 1",
    "it has ended at no time": f"{_ENDED} AND finished_at IS NULL",
    "it has not ended, at a time": f"NOT {_ENDED} AND finished_at IS NOT NULL",
    "it has failed as often as it may, and goes on": f"NOT {_ENDED} AND failures >= max_failures",
    "its plan is not approved": "plan_id IN (SELECT id FROM plans WHERE status <> 'approved')",
    "it waits for another number of lanes than are not shipped": (
        "blockers_left <> (SELECT count(*) FROM run_blockers AS b JOIN runs AS o ON o.id = b.blocker_id "
        "WHERE b.run_id = runs.id AND o.state <> 'shipped')"
    ),
}
"""What must never be true of a row of `runs`: in words, and as SQL of both engines."""

ORPHANS: Final = (
    "SELECT DISTINCT e.run_number FROM events AS e LEFT JOIN runs AS r ON r.number = e.run_number "
    f"WHERE r.number IS NULL LIMIT {OF_EACH_MAX}"
)


class Problem(NamedTuple):
    """One thing that is wrong.

    kind    schema, page, rule (something that must always hold) or log (a run is otherwise than its log says)
    run_id  the run that it is about
    """

    kind: str
    message: str
    run_id: str | None = None

    def __str__(self) -> str:
        return self.message if self.run_id is None else f"Run {self.run_id}: {self.message}"


class Checked(NamedTuple):
    """What was found, and how much was looked at.

    usable      whether the schema is one that this version works with: else nothing beyond it was looked at
    more        problems beyond those that are told
    """

    schema: str | None
    problems: Sequence[Problem]
    usable: bool = True
    more: int = 0
    runs: int = 0
    events: int = 0

    @property
    def damaged(self) -> bool:
        """Whether something is wrong with what is stored."""
        return self.usable and bool(self.problems)


def check(url: str, *, quick: bool = False, older: bool = False) -> Checked:
    """Check a database; changes nothing. Raises StoreUnavailable.

    quick   leave out the comparison of every run with its log, and of SQLite's indexes with their tables
    older   take a schema that is to be upgraded for usable, and look at its pages alone
    """
    return asyncio.run(check_async(url, quick=quick, older=older))


async def check_async(url: str, *, quick: bool = False, older: bool = False) -> Checked:
    """`check`, within a running event loop."""
    try:
        found = await status_async(url)
    except SchemaMismatch as error:
        return Checked(None, [Problem("schema", str(error))], usable=False)
    except StoreDamaged as error:
        return Checked(None, [_damage(error)])
    if found.pending and not (older and found.current):
        return Checked(found.current, [_pending(found)], usable=False)
    search = _Search(url, quick)
    await search.pages()
    if not found.pending:
        await search.schema()
        if not search.problems:
            await search.rules()
            if not quick:
                await search.logs()
    shown = search.problems[:SHOWN_MAX]
    return Checked(found.current, shown, True, search.count - len(shown), search.runs, search.events)


def _pending(found: Status) -> Problem:
    wanted = f"Schema {found.current or 'none'}; pending: {', '.join(found.pending)}. Run: heartlane db upgrade"
    return Problem("schema", wanted)


def _damage(error: StoreUnavailable) -> Problem:
    return Problem("page", f"A page can't be read: {error.cause or error}")


class _Search:
    """One look through a database, and what it has found so far."""

    def __init__(self, url: str, quick: bool) -> None:
        self._url = url
        self._quick = quick
        self.problems: list[Problem] = []
        self.count = 0
        self._pruned_before: datetime | None = None
        self.runs = 0
        self.events = 0

    def _tell(self, kind: str, message: str, run_id: str | None = None) -> None:
        self.count += 1
        if len(self.problems) < SHOWN_MAX:
            self.problems.append(Problem(kind, message, run_id))

    async def pages(self) -> None:
        """Every page of a SQLite file, and what its indexes and foreign keys say."""
        if not self._url.startswith("sqlite:"):
            return
        pragma = "quick_check" if self._quick else "integrity_check"
        try:
            async with connection(self._url, pragmas=("PRAGMA cell_size_check = ON",)) as conn:
                for row in (await conn.execute(text(f"PRAGMA {pragma}({SHOWN_MAX})"))).scalars():
                    if row != "ok":
                        for line in str(row).splitlines():
                            self._tell("page", f"SQLite: {line}")
                for row in (await conn.execute(text("PRAGMA foreign_key_check"))).all():
                    self._tell("rule", f"A row of {row[0]} refers to one of {row[2]} that isn't there.")
        except StoreDamaged as error:
            self._tell("page", str(_damage(error)))

    async def schema(self) -> None:
        """Tables and columns that the newest schema has and the database lacks."""
        async with connection(self._url) as conn:
            for message in await conn.run_sync(_differences):
                self._tell("schema", message)

    async def rules(self) -> None:
        """What must hold of every row."""
        for words, condition in RULES.items():
            query = f"SELECT id FROM runs WHERE {condition} LIMIT {OF_EACH_MAX}"
            for (run_id,) in await self._rows(query):
                self._tell("rule", f"{words}.", str(run_id))
        for (number,) in await self._rows(ORPHANS):
            self._tell("rule", f"The log has events of a run {number} that isn't there.")

    async def _rows(self, query: str) -> Sequence[Any]:
        try:
            async with connection(self._url, snapshot=True) as conn:
                return (await conn.execute(text(query))).all()
        except StoreUnavailable as error:
            self._tell_of_page(error)
            return ()

    def _tell_of_page(self, error: StoreUnavailable) -> None:
        """Raises the error again where it is about something else than what is stored."""
        if not isinstance(error, StoreDamaged) and not isinstance(error.cause, DAMAGED):
            raise error
        self._tell("page", str(_damage(error)))

    async def logs(self) -> None:
        """Every run against its log."""
        after = 0
        while True:
            try:
                async with connection(self._url, snapshot=True) as conn:
                    query = select(runs).where(runs.c.number > after).order_by(runs.c.number).limit(RUNS_AT_ONCE)
                    found = [Run._make(row) for row in await conn.execute(query)]
                    self._pruned_before = (await conn.execute(select(control.c.events_pruned_before))).scalar()
                    await self._compare(conn, found)
            except StoreUnavailable as error:
                self._tell_of_page(error)
                return
            if len(found) < RUNS_AT_ONCE:
                return
            after = found[-1].number

    async def _compare(self, conn: AsyncConnection, found: Sequence[Run]) -> None:
        if not found:
            return
        by_number = {run.number: run for run in found}
        query = select(*_COLUMNS).where(events.c.run_number.between(found[0].number, found[-1].number))
        query = query.order_by(events.c.run_number, events.c.last_seq).execution_options(yield_per=ROWS_AT_ONCE)
        rows = await conn.stream(query)
        seen = set()
        log: _Log | None = None
        async for columns in rows:
            row = _Row._make(columns)
            if log is None or log.run.number != row.run_number:
                self._end(log)
                run = by_number.get(row.run_number)
                log = None if run is None else _Log(run, self._pruned_before)
                seen.add(row.run_number)
            if log is not None:
                self.events += row.size
                log.add(row)
        self._end(log)
        for run in found:
            if run.number not in seen:
                self._end(_Log(run, self._pruned_before))
        self.runs += len(found)

    def _end(self, log: _Log | None) -> None:
        if log is not None:
            for message in log.end():
                self._tell("log", message, log.run.id)


class _Row(NamedTuple):
    """A row of the log. (A row of SQLAlchemy's own has a method `count`.)"""

    run_number: int
    last_seq: int
    recorded_at: datetime
    size: int
    types: int
    worker_id: str | None
    attempt: int
    body: str


_COLUMNS: Final = [events.c["count" if name == "size" else name] for name in _Row._fields]


class _Log:
    """One run's log as it is read."""

    def __init__(self, run: Run, pruned_before: datetime | None) -> None:
        self.run = run
        self._fold: Fold | None = Fold(run)
        self._pruned_before = pruned_before if pruned_before is not None and run.created_at < pruned_before else None
        self._seq = 0
        self._wrong: list[str] = []

    def add(self, row: _Row) -> None:
        """The next row. Nothing is said of what follows upon the first that is wrong."""
        if self._wrong:
            return
        pruned = self._pruned_before
        if pruned is not None and row.last_seq - row.size > self._seq:
            self._fold = None  # it can't be known what was there
        elif row.last_seq - row.size != self._seq:
            self._wrong.append(f"its log goes on with event {row.last_seq - row.size + 1} after {self._seq}.")
            return
        self._seq = row.last_seq
        if pruned is not None and row.recorded_at >= pruned:
            self._pruned_before = None  # from here on nothing may be missing
        try:
            logged = expand(row.body, row.last_seq, row.recorded_at, row.worker_id, row.attempt)
            found = [Event(event.type, event.payload, event.at) for event in logged]
            types = sum({EVENT_TYPE_BITS.get(event.type, 0) for event in found})
        except (ValueError, KeyError, TypeError) as error:
            self._wrong.append(f"its events up to {row.last_seq} can't be read: {error}")
            return
        if len(found) != row.size or types != row.types:
            self._wrong.append(f"its events up to {row.last_seq} are others than their row says.")
        elif self._fold is not None:
            problem = self._fold.add(found, row.worker_id, row.recorded_at)
            if problem is not None:
                self._wrong.append(f"event {row.last_seq}: {problem}.")

    def end(self) -> list[str]:
        """All that is wrong."""
        if self._wrong:
            return self._wrong
        if self._seq != self.run.event_count:
            if self._pruned_before is not None and self._seq < self.run.event_count:
                return []
            return [f"it has {self.run.event_count} events, and its log ends with {self._seq}."]
        return [] if self._fold is None else [f"{difference}." for difference in self._fold.differences(self.run)]


def _differences(conn: Connection) -> list[str]:
    found = inspect(conn)
    tables = set(found.get_table_names())
    problems = [f"Table {name} is missing." for name in metadata.tables if name not in tables]
    for name, table in metadata.tables.items():
        if name in tables:
            columns = set(conn.execute(select(literal_column("*")).select_from(table).limit(0)).keys())
            problems += [f"Column {name}.{column.name} is missing." for column in table.c if column.name not in columns]
    return problems
