"""Fills a fresh database in bulk: runs and stored events of a past, or a long queue, in the shapes that real ones have.

Straight SQL, because a million lanes through HTTP would take the better part of an hour. What it writes is what the
server writes: only the clock and the way to make ids differ between the engines.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import asyncpg

from bench import processes
from bench.bodies import EVENTS_PER_REPORT, payload_events
from bench.fleet import make_token
from heartlane.lanes.run import EVENT_TYPE_BITS, Role
from heartlane.store.columns import to_micros

BODIES: Final = 64
"""Different event bodies that stored reports take turns with."""
PRIORITIES: Final = 10
ROLES: Final = [str(role) for role in Role]
LEASE_AHEAD_SECONDS: Final = 4 * 3_600
"""When the seeded holders' leases run out: after the bench."""


Kind = Literal["past", "queue", "live"]
"""What seeded lanes are: the mixture that a past leaves behind, all waiting in the queue, or all held by workers."""


def live_worker(number: int) -> str:
    """Who holds the seeded lane of this number, from 0."""
    return f"builder-{number % 500}:4711:1f"


def live_run(number: int) -> str:
    """The id of the seeded run of this number, from 0."""
    return f"0190a9ad-{number // 1000 % 65536:04x}-7{number % 1000:03x}-8000-{number:012x}"


LIVE_SEQ: Final = 40
"""The last `seq` that seeded lanes had applied."""


class Size(NamedTuple):
    """How much a database holds before it is measured."""

    runs: int = 0
    events: int = 0

    def __str__(self) -> str:
        return f"{self.runs:,} runs, {self.events:,} events"


class Dialect(NamedTuple):
    """How one engine writes what standard SQL has no word for. `n` is the row's number from 0."""

    rows: str
    id: str
    past: str


SQLITE: Final = Dialect(
    rows="WITH RECURSIVE row(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM row WHERE n + 1 < {count})",
    id="printf('0190a9ad-%04x-7%03x-8000-%012x', n / 1000 % 65536, n % 1000, n)",
    past="(:now - {seconds} * 1000000)",
)
POSTGRES: Final = Dialect(
    rows="WITH row AS (SELECT n FROM generate_series(0, {count} - 1) AS n)",
    id="format('0190a9ad-%s-7%s-8000-%s', lpad(to_hex(n / 1000 % 65536), 4, '0'), "
    "lpad(to_hex(n % 1000), 3, '0'), lpad(to_hex(n), 12, '0'))::uuid",
    past="(:now - {seconds} * interval '1 second')",
)

_PROJECT: Final = """
INSERT INTO projects (id, billing_account_id, name, max_failures, stalled_after_seconds, created_at, updated_at)
VALUES ({})
"""
_PLAN: Final = """
INSERT INTO plans (id, billing_account_id, project_id, title, status, source_ticket_ids_json, lanes_json, prompts_json,
    approved_at, created_at, updated_at)
VALUES ({})
"""
_SOURCE: Final = "INSERT INTO lane_sources (billing_account_id, project_id, source) VALUES ({})"
_LABEL_SET: Final = "INSERT INTO label_sets (billing_account_id, label_key) VALUES ({}) ON CONFLICT DO NOTHING"

# Of the past, eight in ten are shipped, one failed; of the rest a half is held by workers and a half waits its turn.
_STATE: Final = """CASE WHEN {queue} THEN 'queued' WHEN {live} THEN 'running'
 WHEN n % 20 < 16 THEN 'shipped' WHEN n % 20 < 18 THEN 'failed'
 WHEN n % 20 = 18 THEN 'running' ELSE 'queued' END"""

_RUNS: Final = """
{rows}
INSERT INTO runs (id, billing_account_id, project_id, plan_id, lane_key, title, role, priority, ticket_ids_json,
    labels_json, label_key, blocked_by_json, max_failures, stalled_after_seconds, created_at, state, phase, log_line,
    error, worker_id, last_worker_id, attempt, last_seq, lease_seconds, claimed_at, lease_expires_at, last_heartbeat,
    take_back_at, progress_at, over_budget, failures, blockers_left, event_count, updated_at, finished_at)
SELECT id, :account, :project, :plan, 'lane-' || n, 'Change number ' || n || ' of a long row of changes', role,
    n % {priorities}, '["' || id || '"]', '{{}}', '', '[]', 5, 900, {long_ago}, state,
    CASE WHEN started THEN 'tests' END, CASE WHEN started THEN 'collected 412 items, 411 passed, 1 skipped' END,
    CASE WHEN state = 'failed' THEN 'The tests still fail after three tries.' END,
    worker, worker, CASE WHEN started THEN 1 ELSE 0 END, CASE WHEN started THEN 40 ELSE 0 END,
    CASE WHEN started THEN 300 ELSE 0 END, CASE WHEN started THEN {long_ago} END,
    CASE WHEN held THEN {ahead} END, CASE WHEN held THEN {now} WHEN started THEN {long_ago} END,
    CASE WHEN held THEN {ahead} END, CASE WHEN held THEN {now} WHEN started THEN {long_ago} END,
    {false}, 0, 0, {event_count}, {long_ago}, CASE WHEN started AND NOT held THEN {long_ago} END
FROM (
    SELECT n, {id} AS id, state, state <> 'queued' AS started, state = 'running' AS held,
        CASE WHEN state <> 'queued' THEN 'builder-' || (n % 500) || ':4711:1f' END AS worker,
        {role} AS role
    FROM (SELECT n, {state} AS state FROM row) AS with_state
) AS lane
ORDER BY n
"""

# The same report of ten events again and again, over all seeded runs in turns, all of it in the last half hour.
_EVENTS: Final = """
{rows}
INSERT INTO events (run_number, last_seq, recorded_at, "count", types, worker_id, attempt, body)
SELECT :first_run + n % :runs, (n / :runs + 1) * {per_report}, {recorded}, {per_report}, {types},
    'builder-' || (n % 500) || ':4711:1f', 1, bodies.body
FROM row JOIN seed_bodies AS bodies ON bodies.place = n % {bodies}
"""


class Seed(NamedTuple):
    """One statement with its named values, in the order in which they stand."""

    sql: str
    values: dict[str, Any]


def _run_seed(dialect: Dialect, size: Size, owner: dict[str, Any], kind: Kind) -> Seed:
    reports = size.events // EVENTS_PER_REPORT
    role = "CASE n % 7 " + " ".join(f"WHEN {place} THEN '{name}'" for place, name in enumerate(ROLES)) + " END"
    sql = _RUNS.format(
        rows=dialect.rows.format(count=size.runs),
        id=dialect.id,
        role=role,
        state=_STATE.format(queue="1 = 1" if kind == "queue" else "1 = 0", live="1 = 1" if kind == "live" else "1 = 0"),
        priorities=PRIORITIES,
        long_ago=dialect.past.format(seconds="(86400 + n % 86400)"),
        ahead=dialect.past.format(seconds=f"(-{LEASE_AHEAD_SECONDS})"),
        now=":now",
        false="0" if dialect is SQLITE else "false",
        event_count=f"CASE WHEN n < {reports} THEN (({reports} - 1 - n) / {size.runs} + 1) * {EVENTS_PER_REPORT} "
        "ELSE 0 END",
    )
    return Seed(sql, owner)


def _event_seed(dialect: Dialect, size: Size, now: Any, first_run: int) -> Seed:
    sql = _EVENTS.format(
        rows=dialect.rows.format(count=size.events // EVENTS_PER_REPORT),
        per_report=EVENTS_PER_REPORT,
        types=EVENT_TYPE_BITS["log_line"] | EVENT_TYPE_BITS["action"],
        bodies=BODIES,
        recorded=dialect.past.format(seconds=f"(1800 - n * 1800.0 / {max(1, size.events // EVENTS_PER_REPORT)})"),
    )
    return Seed(sql, {"now": now, "first_run": first_run, "runs": size.runs})


def event_bodies() -> list[tuple[int, str]]:
    """Numbered bodies of ten events each, as the event log stores them."""
    source = random.Random(5)
    return [(place, json.dumps(payload_events(source), separators=(",", ":"))) for place in range(BODIES)]


async def prepare(url: str, folder: Path, size: Size, progress: Callable[[str], None], *, kind: Kind = "past") -> str:
    """Bring an empty database to its schema, make a token, and fill it to `size`; returns the token."""
    await processes.command("db", "upgrade", database_url=url)
    token = await make_token(url)
    if size.runs == 0:
        return token
    if size.events:
        # What the server itself prepares for today's events has to be there before events of today are.
        async with processes.heartlane(url, folder):
            pass
    started = time.perf_counter()
    if url.startswith("sqlite:"):
        _fill_sqlite(Path(url.removeprefix("sqlite:///")), size, kind)
    else:
        await _fill_postgres(url, size, kind)
    progress(f"filled with {size} in {time.perf_counter() - started:.0f} s")
    return token


def _rows_of_owner(now: Any, account_id: str) -> tuple[dict[str, Any], list[tuple[str, Sequence[Any]]]]:
    """The seeded runs' project and plan: what identifies them, and the rows of either."""
    project_id, plan_id = str(uuid.uuid4()), str(uuid.uuid4())
    project = (project_id, account_id, "Seeded", 5, 900, now, now)
    plan = (plan_id, account_id, project_id, "Seeded", "approved", "[]", "[]", "{}", now, now, now)
    statements: list[tuple[str, Sequence[Any]]] = [
        (_PROJECT, project),
        (_PLAN, plan),
        (_LABEL_SET, (account_id, "")),
        (_SOURCE, (account_id, project_id, "")),
    ]
    return {"account": account_id, "project": project_id, "plan": plan_id, "now": now}, statements


def _fill_sqlite(path: Path, size: Size, kind: Kind) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA cache_size = -200000")
        connection.execute("BEGIN IMMEDIATE")
        account_id = connection.execute("SELECT account_id FROM tokens").fetchone()[0]
        now = to_micros(datetime.now(UTC))
        owner, statements = _rows_of_owner(now, account_id)
        for sql, values in statements:
            connection.execute(sql.format(", ".join("?" * len(values))), values)
        connection.execute(*_run_seed(SQLITE, size, owner, kind))
        if size.events:
            first_run = connection.execute("SELECT min(number) FROM runs").fetchone()[0]
            connection.execute("CREATE TEMP TABLE seed_bodies (place INTEGER PRIMARY KEY, body TEXT)")
            connection.executemany("INSERT INTO seed_bodies VALUES (?, ?)", event_bodies())
            connection.execute(*_event_seed(SQLITE, size, now, first_run))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _numbered(seed: Seed, types: dict[str, str]) -> tuple[str, list[Any]]:
    """PostgreSQL's own parameters for the named ones of a statement."""
    sql, values = seed.sql, []
    for name, value in seed.values.items():
        values.append(value)
        sql = sql.replace(f":{name}", f"${len(values)}::{types[name]}")
    return sql, values


_TYPES: Final = {
    "account": "uuid",
    "project": "uuid",
    "plan": "uuid",
    "now": "timestamptz",
    "first_run": "bigint",
    "runs": "bigint",
}


async def _fill_postgres(url: str, size: Size, kind: Kind) -> None:
    connection = await asyncpg.connect(url, command_timeout=None)
    try:
        async with connection.transaction():
            account_id = str(await connection.fetchval("SELECT account_id FROM tokens"))
            now = datetime.now(UTC)
            owner, statements = _rows_of_owner(now, account_id)
            for sql, values in statements:
                marks = ", ".join(f"${place}" for place in range(1, len(values) + 1))
                await connection.execute(sql.format(marks), *values)
            sql, arguments = _numbered(_run_seed(POSTGRES, size, owner, kind), _TYPES)
            await connection.execute(sql, *arguments)
            if size.events:
                first_run = await connection.fetchval("SELECT min(number) FROM runs")
                await connection.execute("CREATE TEMP TABLE seed_bodies (place int PRIMARY KEY, body text)")
                await connection.executemany("INSERT INTO seed_bodies VALUES ($1, $2)", event_bodies())
                sql, arguments = _numbered(_event_seed(POSTGRES, size, now, first_run), _TYPES)
                await connection.execute(sql, *arguments)
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
