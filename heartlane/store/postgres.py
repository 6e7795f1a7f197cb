"""The engine for several servers on one PostgreSQL: row locks, the database's clock, one NOTIFY a batch.

A batch is four round trips however large it is: BEGIN, one locking read, one writing statement (rows, events and the
notification together), COMMIT. The writing statements update through `unnest` arrays, and a heartbeat's touches four
columns that no index stands on, so that PostgreSQL can update in place on the page (HOT).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import asyncpg
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from heartlane.lanes.run import RUN_COLUMNS, Role, Run
from heartlane.lanes.tickets import TICKET_COLUMNS, Ticket
from heartlane.store.audience import Audience
from heartlane.store.audit import Entry
from heartlane.store.batch import COLUMN_SETS, ClaimNext, Holder, LockedRuns, Offer, OnRun, Writes
from heartlane.store.clock import Clock
from heartlane.store.errors import StoreUnavailable
from heartlane.store.feed import CHANNEL, encode
from heartlane.store.gates import (
    ACTIVE_QUERY,
    LIMITED_QUERY,
    LIMITS_QUERY,
    UPDATE_BUDGET,
    Limits,
    Probe,
    budget_row,
    by_project,
)
from heartlane.store.ledger import Applied
from heartlane.store.rows import PostgresRows
from heartlane.store.run_batch import run_batch
from heartlane.store.schema import runs as runs_table
from heartlane.store.tallies import SHARDS, tally_rows
from heartlane.store.telling import tell_of_runs

CONNECT_SECONDS: Final = 5.0
BATCH_SECONDS: Final = 10.0
"""Longest a batch may take, connecting and lock waits included, before its callers get 503."""
STATEMENT_SECONDS: Final = 8.0
"""Longest PostgreSQL itself works on one statement: what nobody waits for any more doesn't keep its locks."""
CLOSE_SECONDS: Final = 0.5
"""Longest wait for PostgreSQL to take leave of a connection."""

CLAIM_SLACK: Final = 32
"""How many more candidates than wanted a claim looks at, to have some left where other servers took the first ones."""

UNAVAILABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that PostgreSQL ended while nothing was asked of it
    asyncpg.OperatorInterventionError,  # shutdown, statement timeout
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.TransactionRollbackError,  # deadlock, serialisation
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that isn't promoted yet
    asyncpg.InternalServerError,
    asyncpg.PostgresSystemError,
)
"""What means "ask again later" rather than "this command is at fault"."""

_COLUMNS: Final = ", ".join(f'r."{name}"' for name in RUN_COLUMNS)

# A claim of another transaction for the same worker is not to be seen before it commits: so the workers themselves are
# locked, by a hash of their names, before anything else. Two of the same hash only wait for each other.
LOCK_HOLDERS: Final = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS keys(key)"

HELD_BY: Final = """
SELECT r.id FROM unnest($1::uuid[], $2::text[]) AS holders(account, worker) CROSS JOIN LATERAL (
    SELECT r.id FROM runs AS r WHERE r.billing_account_id = holders.account AND r.worker_id = holders.worker
    AND r.state IN ('claimed', 'running', 'paused', 'shipping')
) AS r
"""

LOCK_RUNS: Final = f"SELECT clock_timestamp(), {_COLUMNS} FROM runs AS r WHERE r.id = ANY($1) ORDER BY r.id FOR UPDATE"

LOCK_RUNS_AND_WAITING: Final = f"""
SELECT clock_timestamp(), {_COLUMNS} FROM runs AS r
WHERE r.id = ANY($1) OR r.id IN (SELECT run_id FROM run_blockers WHERE blocker_id = ANY($2))
ORDER BY r.id FOR UPDATE
"""

WAITING: Final = "SELECT blocker_id, run_id FROM run_blockers WHERE blocker_id = ANY($1) ORDER BY run_id"

LABEL_KEYS: Final = "SELECT label_key FROM label_sets WHERE billing_account_id = $1"

# The best lanes of each role and label set (the heads of a claimable index), and the few lanes that were held back
# until a time that has passed. Only numbers, and without locks: which of them are still free is seen when locking.
_CANDIDATES: Final = """
SELECT number FROM (
    (SELECT head.number, head.priority
    FROM unnest($1::text[]) AS keys(label_key) CROSS JOIN {kinds}
    CROSS JOIN LATERAL (
        SELECT r.number, r.priority FROM runs AS r
        WHERE {of_kind} AND r.label_key = keys.label_key AND r.role = kinds.role
        AND r.state IN ('queued', 'released') AND r.blockers_left = 0 AND r.not_before IS NULL
        ORDER BY r.priority DESC, r.number LIMIT $2
    ) AS head)
    UNION ALL
    (SELECT r.number, r.priority FROM runs AS r JOIN {kinds} ON {of_kind} AND r.role = kinds.role
    WHERE r.not_before <= $3 AND r.state IN ('queued', 'released') AND r.not_before IS NOT NULL
    AND r.blockers_left = 0 AND r.label_key = ANY($1))
) AS candidates ORDER BY priority DESC, number LIMIT $2
"""
ACCOUNT_CANDIDATES: Final = _CANDIDATES.format(
    kinds="unnest($4::text[]) AS kinds(role)", of_kind="r.billing_account_id = $5"
)
PROBED_CANDIDATES: Final = _CANDIDATES.format(
    kinds="unnest($4::text[], $5::text[], $6::text[]::uuid[]) AS kinds(role, source, project_id)",
    of_kind="r.project_id = kinds.project_id AND r.source = kinds.source",
)

# What was waited for is read by a statement that begins once it is locked: the one that locks sees the other tables as
# they were when it began.
LOCK_LIMITED: Final = LIMITED_QUERY.format(accounts="= ANY($1)", lock="FOR NO KEY UPDATE")
LIMITS: Final = LIMITS_QUERY.format(wanted="p.id = ANY($1)")
ACTIVE: Final = ACTIVE_QUERY.format(projects="= ANY($1)")
SOURCES: Final = "SELECT project_id, source FROM lane_sources WHERE billing_account_id = $1"

# FOR UPDATE sits above the sort and below LIMIT, so only the rows that are handed out get locked.
LOCK_CLAIMABLE: Final = f"""
SELECT {_COLUMNS} FROM runs AS r
WHERE r.number = ANY($1) AND r.billing_account_id = $2 AND r.state IN ('queued', 'released') AND r.blockers_left = 0
ORDER BY r.priority DESC, r.number LIMIT $3 FOR UPDATE SKIP LOCKED
"""

_ENTRY_PLACES: Final = ", ".join(f"${place}" for place, _ in enumerate(Entry._fields, 1))
INSERT_ENTRY: Final = f"INSERT INTO audit ({', '.join(Entry._fields)}) VALUES ({_ENTRY_PLACES})"

LOCK_TICKETS: Final = f"SELECT {', '.join(TICKET_COLUMNS)} FROM tickets WHERE id = ANY($1) ORDER BY id FOR UPDATE"

_TICKET_SETTINGS: Final = ", ".join(f"{name} = ${place}" for place, name in enumerate(TICKET_COLUMNS, 1))
UPDATE_TICKET: Final = f"UPDATE tickets SET {_TICKET_SETTINGS} WHERE id = $1"


def _pg_type(table: Table, name: str) -> str:
    return str(table.c[name].type.dialect_impl(postgresql.dialect()).compile(postgresql.dialect()))  # type: ignore[no-untyped-call]


def _writing_statement(columns: tuple[str, ...] | None, chunks: bool) -> str:
    """One statement that updates rows of one column set, appends chunks, and notifies; parts that are empty left out.

    Parameters, in order: numbers, then an array a column (if `columns`); now and the chunk arrays (if `chunks`);
    the payload of the notification.
    """
    parts: list[str] = []
    place = 0

    def parameter(kind: str) -> str:
        nonlocal place
        place += 1
        return f"${place}::{kind}"

    if columns is not None:
        arrays = [parameter("bigint[]"), *(parameter(f"{_pg_type(runs_table, name)}[]") for name in columns)]
        names = ", ".join(f'"{name}"' for name in columns)
        settings = ", ".join(f'"{name}" = d."{name}"' for name in columns)
        parts.append(
            f"changed AS (UPDATE runs AS r SET {settings} "
            f"FROM unnest({', '.join(arrays)}) AS d(number, {names}) WHERE r.number = d.number)"
        )
    if chunks:
        now = parameter("timestamptz")
        kinds = ("bigint", "bigint", "integer", "integer", "text", "bigint", "text")
        arrays = [parameter(f"{kind}[]") for kind in kinds]
        parts.append(
            'appended AS (INSERT INTO events (run_number, last_seq, recorded_at, "count", types, worker_id, attempt, '
            f"body) SELECT run_number, last_seq, {now}, count, types, worker_id, attempt, body FROM unnest("
            f"{', '.join(arrays)}) AS d(run_number, last_seq, count, types, worker_id, attempt, body))"
        )
    payload = parameter("text")
    return f"WITH {', '.join(parts)} SELECT pg_notify('{CHANNEL}', {payload}) WHERE {payload} <> ''"


_STATEMENTS: Final = {
    (columns, chunks): _writing_statement(columns, chunks)
    for columns in (None, *COLUMN_SETS)
    for chunks in (False, True)
    if columns is not None or chunks
}


def connect_arguments(url: str) -> dict[str, Any]:
    """What every connection is opened with. asyncpg reads the URL itself, and so takes all that libpq's URLs may say
    (`?sslmode=verify-full`, several hosts, …); SQLAlchemy's own reading would not."""
    return {
        "dsn": url,
        "timeout": CONNECT_SECONDS,
        "command_timeout": BATCH_SECONDS,
        "server_settings": {
            "application_name": "heartlane",
            "timezone": "UTC",
            "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
            "idle_in_transaction_session_timeout": "30000",
            "jit": "off",
        },
    }


async def connect(url: str) -> asyncpg.Connection[Any]:
    """A connection as the ledger uses it: ids as text, UTC, and a limit on how long a statement may take."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(**connect_arguments(url))
    await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str, format="text")
    return connection


class PostgresBatch:
    """One open transaction of the ledger; a `BatchTransaction`."""

    def __init__(self, connection: asyncpg.Connection[Any], clock: Clock, server_id: str, audience: Audience) -> None:
        self._connection = connection
        self._clock = clock
        self._server_id = server_id
        self._audience = audience
        self.told = False

    async def lock_holders(self, holders: Sequence[Holder]) -> Sequence[str]:
        await self._connection.execute(LOCK_HOLDERS, sorted(map(_lock_key, holders)))
        accounts, workers = zip(*holders, strict=True)
        return [row[0] for row in await self._connection.fetch(HELD_BY, accounts, workers)]

    async def lock_runs(self, run_ids: Sequence[str], shipping_ids: Sequence[str]) -> LockedRuns:
        waiting: dict[str, list[str]] = {}
        rows: list[Any] = []
        if shipping_ids:
            for blocker_id, run_id in await self._connection.fetch(WAITING, shipping_ids):
                waiting.setdefault(blocker_id, []).append(run_id)
        if waiting:
            rows = await self._connection.fetch(LOCK_RUNS_AND_WAITING, run_ids, shipping_ids)
        elif run_ids:
            rows = await self._connection.fetch(LOCK_RUNS, run_ids)
        if rows:
            now = max(row[0] for row in rows)
        else:
            now = await self._connection.fetchval("SELECT clock_timestamp()")
        found = {row[2]: Run._make(row[1:]) for row in map(tuple, rows)}
        return LockedRuns(self._clock.adjusted(now.astimezone(UTC)), found, waiting)

    async def label_keys(self, account_id: str) -> Sequence[str]:
        return [row[0] for row in await self._connection.fetch(LABEL_KEYS, account_id)]

    async def lock_limits(self, account_ids: Sequence[str]) -> Sequence[Limits]:
        limited = [row[0] for row in await self._connection.fetch(LOCK_LIMITED, account_ids)]
        rows = await self._connection.fetch(LIMITS, limited) if limited else ()
        return [Limits.of_row(tuple(row)) for row in rows]

    async def active(self, project_ids: Sequence[str]) -> Mapping[str, Mapping[tuple[str, str], int]]:
        return by_project([tuple(row) for row in await self._connection.fetch(ACTIVE, project_ids)])

    async def sources(self, account_id: str) -> Sequence[tuple[str, str]]:
        return [(row[0], row[1]) for row in await self._connection.fetch(SOURCES, account_id)]

    async def lock_claimable(
        self, wanted: ClaimNext, label_keys: Sequence[str], count: int, now: datetime, probes: Sequence[Probe] | None
    ) -> Offer:
        statement, kinds = ACCOUNT_CANDIDATES, [[str(role) for role in wanted.roles or tuple(Role)], wanted.account_id]
        if probes is not None:
            statement = PROBED_CANDIDATES
            kinds = [[probe.role for probe in probes], [probe.source for probe in probes]]
            kinds.append([probe.project_id for probe in probes])
        slack = CLAIM_SLACK
        while True:
            candidates = await self._connection.fetch(statement, label_keys, count + slack, now, *kinds)
            if not candidates:
                return Offer(())
            numbers = [row[0] for row in candidates]
            rows = await self._connection.fetch(LOCK_CLAIMABLE, numbers, wanted.account_id, count)
            # Fewer than wanted although there were more to look at: others hold them, so look further down the queue.
            if len(rows) >= count or len(candidates) < count + slack:
                lanes = [Run._make(tuple(row)) for row in rows]
                return Offer(lanes, len(lanes) < min(count, len(candidates)))
            slack *= 8

    async def lock_tickets(self, ticket_ids: Sequence[str]) -> Mapping[str, Ticket]:
        rows = await self._connection.fetch(LOCK_TICKETS, ticket_ids)
        return {row[0]: Ticket._make(tuple(row)) for row in rows}

    async def record(self, entries: Sequence[Entry]) -> None:
        await self._connection.executemany(INSERT_ENTRY, entries)

    async def write(self, writes: Writes) -> None:
        announcement = writes.announcement
        payload = encode(self._server_id, announcement) if announcement.names_something else ""
        pending: list[tuple[tuple[str, ...] | None, Sequence[Run]]] = [*writes.rows.items()] or [(None, ())]
        for place, (columns, rows) in enumerate(pending):
            last = place == len(pending) - 1
            arguments: list[Any] = []
            if columns is not None:
                arguments.append([row.number for row in rows])
                arguments += [[getattr(row, name) for row in rows] for name in columns]
            chunks = bool(writes.chunks) and last
            if chunks:
                arguments += [writes.now, *map(list, zip(*writes.chunks, strict=True))]
            arguments.append(payload if last else "")
            await self._connection.execute(_STATEMENTS[columns, chunks], *arguments)
        for ticket in writes.tickets:
            await self._connection.execute(UPDATE_TICKET, *ticket)
        if writes.tallies is not None:
            shard = self._connection.get_server_pid() % SHARDS
            for statement, added in tally_rows(writes.tallies, shard):
                await self._connection.executemany(numbered(statement), added)
        for budget in writes.budgets:
            await self._connection.execute(numbered(UPDATE_BUDGET), *budget_row(budget, writes.now))
        if writes.happened:
            self.told = await tell_of_runs(
                PostgresRows(self._connection), writes.happened, writes.now, self._audience.projects
            )


@cache
def numbered(statement: str) -> str:
    """A statement whose parameters are `$`, with their numbers."""
    parts = statement.split("$")
    return "".join(f"{part}${place}" for place, part in enumerate(parts[:-1], 1)) + parts[-1]


def _lock_key(holder: Holder) -> int:
    digest = hashlib.blake2b("\0".join(holder).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _means_unavailable(error: Exception) -> bool:
    """Whether to ask again later. asyncpg's word for an argument or a URL that it can't read is a ValueError, too, and
    no waiting mends that."""
    return isinstance(error, UNAVAILABLE) and not isinstance(error, ValueError)


class PostgresEngine:
    """Applies batches on connections of its own, one for each committer.

    Raises StoreUnavailable while the database is away; the next batch connects again.
    """

    def __init__(self, url: str, clock: Clock, server_id: str, audience: Audience) -> None:
        self._url = url
        self._clock = clock
        self._server_id = server_id
        self._audience = audience
        self._idle: list[asyncpg.Connection[Any]] = []

    async def apply(self, entries: Sequence[OnRun | ClaimNext]) -> Applied:
        committing = False
        try:
            async with asyncio.timeout(BATCH_SECONDS), self._transaction() as connection:
                tx = PostgresBatch(connection, self._clock, self._server_id, self._audience)
                outcomes, announcement = await run_batch(tx, entries)
                committing = True
                await connection.execute("COMMIT")
        except UNAVAILABLE as error:
            if not _means_unavailable(error):
                raise
            raise StoreUnavailable("PostgreSQL can't be used now.", cause=error, maybe_done=committing) from error
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise StoreUnavailable("PostgreSQL refuses the login.", 5.0, cause=error) from error
        return Applied(outcomes, announcement, tx.told)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """A connection with a transaction open, for the block to commit. After a fault it is rolled back and kept; a
        connection that broke or was interrupted is dropped, which rolls back too."""
        connection = await self._begin()
        try:
            yield connection
        except Exception as error:
            if _means_unavailable(error) or connection.is_closed():
                connection.terminate()
            else:
                await self._execute(connection, "ROLLBACK")
                self._idle.append(connection)
            raise
        except BaseException:
            connection.terminate()
            raise
        self._idle.append(connection)

    async def _begin(self) -> asyncpg.Connection[Any]:
        """A connection with a transaction open. An idle one that turns out dead (a restart) is replaced: nothing was
        asked of it yet, so there is nothing to lose."""
        while self._idle:
            connection = self._idle.pop()
            try:
                await self._execute(connection, "BEGIN", CONNECT_SECONDS)
            except UNAVAILABLE:
                continue
            return connection
        connection = await connect(self._url)
        await self._execute(connection, "BEGIN")
        return connection

    async def _execute(self, connection: asyncpg.Connection[Any], statement: str, seconds: float | None = None) -> None:
        """Execute a statement on a connection, which is dropped when that fails or is interrupted."""
        try:
            await connection.execute(statement, timeout=seconds)
        except BaseException:
            connection.terminate()
            raise

    async def close(self) -> None:
        """Close the idle connections, politely where PostgreSQL answers."""
        while self._idle:
            with contextlib.suppress(*UNAVAILABLE):
                await self._idle.pop().close(timeout=CLOSE_SECONDS)
