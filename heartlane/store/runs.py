"""Reads of runs and their events. Lists go by keyset and never load a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import jiter
from sqlalchemy import BigInteger, ColumnElement, Select, and_, false, func, literal, not_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.run import EVENT_TYPE_BITS, Run
from heartlane.store.columns import to_micros
from heartlane.store.schema import events, run_prompts, runs

CHUNKS_AT_ONCE: Final = 32
"""Rows of the log read at a time: each holds up to a hundred events."""

CLOCK_BACK_MAX: Final = timedelta(days=1)
"""How far the database's clock may go back (a standby takes over, a machine's time is put right) and hide no event."""

STALLABLE_STATES: Final = ("claimed", "running", "shipping")


class RunFilter(NamedTuple):
    """Which runs to list. None (or an empty tuple) doesn't narrow.

    stalled     True for stalled runs alone, False for all others
    """

    account_id: str
    project_id: str | None = None
    plan_id: str | None = None
    states: Sequence[str] = ()
    role: str | None = None
    worker_id: str | None = None
    stalled: bool | None = None


class LoggedEvent(NamedTuple):
    """One event of a run's log. `at` is the worker's own time as it was sent, None where it sent none."""

    seq: int
    type: str
    payload: dict[str, Any]
    at: str | None
    recorded_at: datetime
    worker_id: str | None
    attempt: int


async def list_runs(
    conn: AsyncConnection, wanted: RunFilter, *, after: int | None, limit: int, now: datetime, newest_first: bool = True
) -> list[Run]:
    """Up to `limit` runs, newest first (or oldest first), beyond the run number `after` of the page before."""
    query = _narrowed(select(runs), wanted, now, conn.dialect.name)
    if after is not None:
        query = query.where(runs.c.number < after if newest_first else runs.c.number > after)
    query = query.order_by(runs.c.number.desc() if newest_first else runs.c.number).limit(limit)
    return [Run._make(row) for row in await conn.execute(query)]


def _narrowed(query: Select[Any], wanted: RunFilter, now: datetime, dialect: str) -> Select[Any]:
    query = query.where(runs.c.billing_account_id == wanted.account_id)
    if wanted.project_id is not None:
        query = query.where(runs.c.project_id == wanted.project_id)
    if wanted.plan_id is not None:
        query = query.where(runs.c.plan_id == wanted.plan_id)
    if wanted.states:
        query = query.where(runs.c.state.in_(wanted.states))
    if wanted.role is not None:
        query = query.where(runs.c.role == wanted.role)
    if wanted.worker_id is not None:
        query = query.where(runs.c.worker_id == wanted.worker_id)
    if wanted.stalled is not None:
        quiet = and_(runs.c.progress_at.is_not(None), _stalled_since(dialect, now))
        stalled = and_(runs.c.state.in_(STALLABLE_STATES), runs.c.waiting_for.is_(None), func.coalesce(quiet, false()))
        query = query.where(stalled if wanted.stalled else not_(stalled))
    return query


def _stalled_since(dialect: str, now: datetime) -> ColumnElement[bool]:
    """`progress_at` older than the run's own `stalled_after_seconds`, in either engine's arithmetic."""
    if dialect == "sqlite":
        return type_coerce(runs.c.progress_at, BigInteger) + runs.c.stalled_after_seconds * 1_000_000 < to_micros(now)
    quiet = func.make_interval(0, 0, 0, 0, 0, 0, runs.c.stalled_after_seconds)
    return runs.c.progress_at + quiet < literal(now, runs.c.progress_at.type)


async def read_run(conn: AsyncConnection, run_id: str, account_id: str, project_id: str | None) -> Run | None:
    """The run, or None where there is none that this account (and project) may see."""
    query = select(runs).where(runs.c.id == run_id, runs.c.billing_account_id == account_id)
    if project_id is not None:
        query = query.where(runs.c.project_id == project_id)
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else Run._make(row)


async def read_runs(conn: AsyncConnection, run_ids: Sequence[str]) -> dict[str, Run]:
    """The runs that are there, by id, whoever may see them: for callers that have found that out before."""
    rows = await conn.execute(select(runs).where(runs.c.id.in_(run_ids)))
    return {run.id: run for run in (Run._make(row) for row in rows)}


async def runs_of_plan_page(conn: AsyncConnection, plan_id: str, *, after: int, limit: int) -> list[Run]:
    """Up to `limit` of the plan's runs, by number, beyond the number `after`."""
    query = select(runs).where(runs.c.plan_id == plan_id, runs.c.number > after).order_by(runs.c.number).limit(limit)
    return [Run._make(row) for row in await conn.execute(query)]


async def ids_of_plan(conn: AsyncConnection, plan_id: str) -> Sequence[str]:
    """The ids of the plan's runs, in the order of its lanes."""
    query = select(runs.c.id).where(runs.c.plan_id == plan_id).order_by(runs.c.number)
    return (await conn.execute(query)).scalars().all()


async def read_prompt(conn: AsyncConnection, run_id: str) -> str | None:
    """The lane's prompt, if it has one."""
    prompt: str | None = (
        await conn.execute(select(run_prompts.c.prompt).where(run_prompts.c.run_id == run_id))
    ).scalar_one_or_none()
    return prompt


async def read_events(
    conn: AsyncConnection,
    run: Run,
    *,
    after: int,
    types: Sequence[str],
    limit: int,
    bytes_max: int | None = None,
) -> tuple[list[LoggedEvent], int]:
    """Up to `limit` events of the run with a `seq` above `after`, of the given types (none given: all).

    bytes_max   stop once so many bytes of the log have been read: for callers that come back for the rest at once

    Also answers the `seq` up to which the log has been looked through, from where the next page goes on. A run's
    events become visible in the order of their `seq`, without gaps: its row is locked while they are written.
    """
    mask = bits_of(types)
    found: list[LoggedEvent] = []
    chunks = CHUNKS_AT_ONCE if bytes_max is None else CHUNKS_AT_ONCE // 4
    bytes_read = 0
    while len(found) < limit:
        rows = await _chunks(conn, run, after, mask, chunks)
        for row in rows:
            bytes_read += len(row.body)
            for event in expand(row.body, row.last_seq, row.recorded_at, row.worker_id, row.attempt):
                if event.seq > after and (not types or event.type in types):
                    found.append(event)
                    if len(found) == limit:
                        return found, event.seq
            after = max(after, row.last_seq)
            if bytes_max is not None and bytes_read >= bytes_max:
                return found, after
        if len(rows) < chunks:
            return found, max(after, run.event_count)
    return found, after


async def pruned_seq(conn: AsyncConnection, run: Run) -> int:
    """Up to which `seq` the run's events were taken out of the log; 0: none were."""
    query = select(events.c.last_seq - events.c["count"]).where(events.c.run_number == run.number)
    query = query.where(events.c.recorded_at >= run.created_at - CLOCK_BACK_MAX)
    found: int | None = (await conn.execute(query.order_by(events.c.last_seq).limit(1))).scalar_one_or_none()
    return run.event_count if found is None else found


def bits_of(types: Iterable[str]) -> int:
    """Event types as the bits that the log's rows are marked with."""
    mask = 0
    for kind in types:
        mask |= EVENT_TYPE_BITS[kind]
    return mask


async def _chunks(conn: AsyncConnection, run: Run, after: int, mask: int, count: int) -> Sequence[Any]:
    query = select(events).where(events.c.run_number == run.number, events.c.last_seq > after)
    # The log can't be older than its run: lets PostgreSQL leave out the partitions of earlier weeks.
    query = query.where(events.c.recorded_at >= run.created_at - CLOCK_BACK_MAX)
    if mask:
        query = query.where(events.c.types.op("&")(mask) != 0)
    return (await conn.execute(query.order_by(events.c.last_seq).limit(count))).all()


def expand(body: str, last_seq: int, recorded_at: datetime, worker_id: str | None, attempt: int) -> list[LoggedEvent]:
    """The events of one row of the log, in order."""
    stored = jiter.from_json(body.encode())  # unlike orjson, it keeps every digit of a long integer
    first = last_seq - len(stored) + 1
    return [
        LoggedEvent(first + place, item["type"], item["payload"], item.get("at"), recorded_at, worker_id, attempt)
        for place, item in enumerate(stored)
    ]
