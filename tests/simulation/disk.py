"""The simulated storage: the real SQLite in memory, with a plug to pull.

The real engine (`SqliteEngine`) and the real `Store` work on it, through connections that can break off at any
statement. What was not committed by then is undone, as SQLite does when it opens the file again. What was committed is
told to the checker at that very moment, from the rows themselves: a temporary trigger notes which runs were written, by
whatever code, so that nothing the code says of itself is believed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from heartlane.lanes.run import Run
from heartlane.store import github_schema, news_schema, schema
from heartlane.store.columns import metadata
from heartlane.store.sqlite import _run

TABLES: Final = (schema, news_schema, github_schema)
"""The modules whose tables stand in the metadata."""

CHANGED: Final = "SELECT r.* FROM changed AS c CROSS JOIN main.runs AS r ON r.number = c.number ORDER BY r.number"
WRITTEN: Final = """
SELECT position, run_number, last_seq, recorded_at, "count", worker_id, attempt, body FROM events
WHERE position > ? ORDER BY position
"""


class PulledPlug(BaseException):
    """The process is killed in the middle of a statement."""


class Row:
    """A row of the event log as it was committed."""

    __slots__ = ("attempt", "body", "count", "last_seq", "position", "recorded_at", "run_number", "worker_id")

    def __init__(self, values: Sequence[Any]) -> None:
        (
            self.position,
            self.run_number,
            self.last_seq,
            self.recorded_at,
            self.count,
            self.worker_id,
            self.attempt,
            self.body,
        ) = values


class Commit:
    """What one transaction made durable: the runs it wrote, and what it appended to the log."""

    __slots__ = ("rows", "runs")

    def __init__(self, runs: list[Run], rows: list[Row]) -> None:
        self.runs = runs
        self.rows = rows


class Disk:
    """One database.

    on_commit   called with what each transaction made durable, before anybody else can know of it
    """

    def __init__(self) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
        self._engine = create_engine("sqlite://", creator=lambda: self.raw, poolclass=StaticPool)
        self.sql = self._engine.connect()
        metadata.create_all(self.sql)
        self.sql.commit()
        self.raw.execute("INSERT INTO control (id) VALUES (1) ON CONFLICT DO NOTHING")
        self.raw.executescript("""
            CREATE TEMP TABLE changed (number INTEGER PRIMARY KEY);
            CREATE TEMP TRIGGER run_updated AFTER UPDATE ON main.runs
                BEGIN INSERT OR IGNORE INTO changed VALUES (NEW.number); END;
            CREATE TEMP TRIGGER run_inserted AFTER INSERT ON main.runs
                BEGIN INSERT OR IGNORE INTO changed VALUES (NEW.number); END;
        """)
        self._position = 0
        self.on_commit: Callable[[Commit], None] = lambda commit: None

    def begin(self) -> None:
        """Take the one write lock."""
        if self.raw.in_transaction:
            raise RuntimeError("two write transactions at once")
        self.raw.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make it durable, and have the checker look at it."""
        self.raw.execute("COMMIT")
        runs = [_run(row) for row in self.raw.execute(CHANGED)]
        rows = [Row(values) for values in self.raw.execute(WRITTEN, (self._position,))]
        if runs:
            self.raw.execute("DELETE FROM changed")
        if rows:
            self._position = rows[-1].position
        if runs or rows:
            self.on_commit(Commit(runs, rows))

    def undo(self) -> None:
        """What a database does with a transaction that was broken off."""
        if self.raw.in_transaction:
            self.raw.execute("ROLLBACK")

    def alive_at(self) -> int | None:
        """When a server last said that it runs, in microseconds."""
        row: tuple[int | None] = self.raw.execute("SELECT alive_at FROM control").fetchone()
        return row[0]

    def all_runs(self) -> list[Run]:
        """Every row."""
        return [_run(row) for row in self.raw.execute("SELECT * FROM runs ORDER BY number")]

    def event_counts(self) -> dict[int, int]:
        """How many events the log holds of each run."""
        return dict(self.raw.execute('SELECT run_number, sum("count") FROM events GROUP BY run_number').fetchall())

    def close(self) -> None:
        """Forget it all."""
        self.sql.close()
        self._engine.dispose()
        self.raw.close()


class Connection:
    """The writing connection of one server: the database's own, until the plug is pulled at one of its statements.

    statements_left     how many more go through before `breaks` is raised; None: all
    broken_commit       what COMMIT raises, and whether it was done all the same; None: it goes through
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.statements_left: int | None = None
        self.breaks: BaseException = PulledPlug()
        self.broken_commit: tuple[BaseException, bool] | None = None

    @property
    def in_transaction(self) -> bool:
        """As the driver has it."""
        return self._disk.raw.in_transaction

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        """As the driver has it."""
        if statement == "COMMIT":
            self._commit()
            return self._disk.raw.cursor()
        if statement == "BEGIN IMMEDIATE":
            self._disk.begin()
            return self._disk.raw.cursor()
        if statement == "ROLLBACK":
            self._disk.undo()
            return self._disk.raw.cursor()
        self._count()
        return self._disk.raw.execute(statement, parameters)

    def executemany(self, statement: str, parameters: Any) -> sqlite3.Cursor:
        """As the driver has it."""
        self._count()
        return self._disk.raw.executemany(statement, parameters)

    def close(self) -> None:
        """The database stays."""

    def _count(self) -> None:
        if self.statements_left is not None:
            self.statements_left -= 1
            if self.statements_left < 0:
                raise self.breaks

    def _commit(self) -> None:
        broken, self.broken_commit = self.broken_commit, None
        if broken is None:
            self._disk.commit()
            return
        error, done = broken
        if done:
            self._disk.commit()
        raise error


def disk_error(message: str, code: int) -> sqlite3.OperationalError:
    """An error as SQLite raises it, with its code."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error
