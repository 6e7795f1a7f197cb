"""Reads of the event log as a whole, in the order of its positions: what a project's or an account's stream tells.

A row of the log is one report with up to a hundred events. `Place` names an event in it, and is what such a stream is
resumed by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import orjson
from sqlalchemy import TextualSelect, bindparam, case, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.run import HELD_STATES, Run
from heartlane.store.columns import Timestamp
from heartlane.store.pages import Reach
from heartlane.store.plans import PLAN_COLUMNS, Plan
from heartlane.store.runs import CLOCK_BACK_MAX, LoggedEvent, expand
from heartlane.store.schema import control, events, plans, runs

ROWS_AT_ONCE: Final = 128
SMALL_BODY_MAX: Final = 16 * 1024
"""Characters of a row's events up to which they come with the row; larger ones are read one by one."""
WHOLE: Final = 1_000_000
"""The place behind all events of a row: more than any row holds."""
_PLACE: Final = re.compile(r"(\d{1,18})(?:\.(\d{1,6}))?", re.ASCII)


class Place(NamedTuple):
    """Behind which event a stream goes on: the row's position, and how many of its events have been told.

    >>> str(Place(17, 3)), str(Place(17))
    ('17.3', '17')
    >>> Place.parse("17.3"), Place.parse("17"), Place.parse("17.")
    (Place(position=17, told=3), Place(position=17, told=1000000), None)
    """

    position: int
    told: int = WHOLE

    def __str__(self) -> str:
        return str(self.position) if self.told == WHOLE else f"{self.position}.{self.told}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """The place that a text says; None where it says none."""
        found = _PLACE.fullmatch(text)
        if found is None:
            return None
        return cls(int(found[1]), WHOLE if found[2] is None else int(found[2]))


class LogRow(NamedTuple):
    """One row of the log and whose it is. `body` is None where it holds none of the types that were asked for, and
    where it is too large to come with the others (`is_large`)."""

    position: int
    last_seq: int
    recorded_at: datetime
    types: int
    worker_id: str | None
    attempt: int
    body: str | None
    is_large: bool
    run_id: str
    account_id: str
    project_id: str


class HeldRun(NamedTuple):
    """What time and heartbeats change on a run that a worker holds, and what tells that more has changed."""

    number: int
    id: str
    account_id: str
    project_id: str
    state: str
    attempt: int
    event_count: int
    phase: str | None
    progress_at: datetime | None
    stalled_after_seconds: int
    waiting_for: str | None
    over_budget: bool
    lease_expires_at: datetime | None
    last_heartbeat: datetime | None
    budget_hold: str | None


async def read_log(
    conn: AsyncConnection,
    *,
    after: int,
    mask: int,
    upto: int | None = None,
    reach: Reach | None = None,
    since: datetime | None = None,
    limit: int = ROWS_AT_ONCE,
) -> list[LogRow]:
    """Up to `limit` rows of the log behind the position `after`, in order.

    mask        the types that matter, as bits: rows without any of them come without their events and, where `reach`
                is given, don't come at all
    reach       only rows of this account or project
    since       no row is older than this: lets PostgreSQL leave out the partitions of earlier weeks
    """
    wanted = events.c.types.op("&")(mask) != 0
    small = func.length(events.c.body) <= SMALL_BODY_MAX
    query = (
        select(
            events.c.position,
            events.c.last_seq,
            events.c.recorded_at,
            events.c.types,
            events.c.worker_id,
            events.c.attempt,
            case((wanted & small, events.c.body)),
            case((wanted, func.length(events.c.body) > SMALL_BODY_MAX), else_=False),
            runs.c.id,
            runs.c.billing_account_id,
            runs.c.project_id,
        )
        .join(runs, runs.c.number == events.c.run_number)
        .where(events.c.position > after)
    )
    if upto is not None:
        query = query.where(events.c.position <= upto)
    if reach is not None:
        query = query.where(wanted, runs.c.billing_account_id == reach.account_id)
        if reach.project_id is not None:
            query = query.where(runs.c.project_id == reach.project_id)
    if since is not None:
        query = query.where(events.c.recorded_at >= since - CLOCK_BACK_MAX)
    rows = await conn.execute(query.order_by(events.c.position).limit(limit))
    return [LogRow._make(row) for row in rows]


async def read_events_of(conn: AsyncConnection, row: LogRow) -> list[LoggedEvent]:
    """The events of a row, in order; none where it holds none that was asked for."""
    body = row.body
    if body is None:
        if not row.is_large:
            return []
        query = select(events.c.body).where(events.c.position == row.position, events.c.recorded_at == row.recorded_at)
        body = (await conn.execute(query)).scalar_one_or_none()
        if body is None:  # taken away meanwhile
            return []
    return expand(body, row.last_seq, row.recorded_at, row.worker_id, row.attempt)


class NewRow(NamedTuple):
    """A row of one run's log; `body` is None where it is too large to come with the others."""

    run_number: int
    last_seq: int
    recorded_at: datetime
    worker_id: str | None
    attempt: int
    body: str | None


def _new(wanted: str) -> TextualSelect:
    return (
        text(f"""
        SELECT e.run_number, e.last_seq, e.recorded_at, e.worker_id, e.attempt,
            CASE WHEN length(e.body) <= :small THEN e.body END AS body
        FROM {wanted}
        JOIN events AS e ON e.run_number = w.number AND e.last_seq > w.seq AND e.recorded_at >= :since
        ORDER BY e.run_number, e.last_seq LIMIT :limit
    """)
        .bindparams(bindparam("since", type_=Timestamp))
        .columns(recorded_at=Timestamp)
    )


NEW_SQLITE: Final = _new(
    "(SELECT json_extract(value, '$[0]') AS number, json_extract(value, '$[1]') AS seq FROM json_each(:wanted)) AS w"
)
NEW_POSTGRESQL: Final = _new("unnest(CAST(:numbers AS bigint[]), CAST(:afters AS bigint[])) AS w(number, seq)")


class Span(NamedTuple):
    """What the log holds around a place.

    oldest, newest      positions; 0 for an empty log
    recorded_at         when the row at the place was written, or else the one before it; None where there is none
    pruned_before       events older than this may have been taken out; None: none ever were
    """

    oldest: int
    newest: int
    recorded_at: datetime | None
    pruned_before: datetime | None = None

    @property
    def is_pruned(self) -> bool:
        """Whether events behind the place may have been taken out."""
        return self.pruned_before is not None and (self.recorded_at is None or self.recorded_at < self.pruned_before)


async def span_at(conn: AsyncConnection, position: int) -> Span:
    """What the log holds, as seen from a position."""
    oldest, newest, pruned_before = (
        await conn.execute(
            select(
                func.coalesce(select(func.min(events.c.position)).scalar_subquery(), 0),
                func.coalesce(select(func.max(events.c.position)).scalar_subquery(), 0),
                select(control.c.events_pruned_before).scalar_subquery(),
            )
        )
    ).one()
    before = select(events.c.recorded_at).where(events.c.position <= position).order_by(events.c.position.desc())
    recorded_at: datetime | None = (await conn.execute(before.limit(1))).scalar_one_or_none()
    return Span(oldest, newest, recorded_at, pruned_before)


async def read_new(
    conn: AsyncConnection, wanted: Mapping[int, int], *, since: datetime, limit: int = ROWS_AT_ONCE
) -> list[NewRow]:
    """New rows of many runs' logs: up to `limit`, by run and in order.

    wanted      run number → the `seq` behind which its rows are new
    since       none of the runs is older than this
    """
    bound = {"since": since - CLOCK_BACK_MAX, "limit": limit, "small": SMALL_BODY_MAX}
    if conn.dialect.name == "sqlite":
        bound["wanted"] = orjson.dumps(list(wanted.items())).decode()
        rows = await conn.execute(NEW_SQLITE, bound)
    else:
        bound["numbers"], bound["afters"] = list(wanted), list(wanted.values())
        rows = await conn.execute(NEW_POSTGRESQL, bound)
    return [NewRow._make(row) for row in rows]


async def held_runs(conn: AsyncConnection, account_id: str, *, after: int, limit: int) -> list[HeldRun]:
    """Up to `limit` of the account's runs that a worker holds, by number, beyond the number `after`."""
    names = [name for name in HeldRun._fields if name != "account_id"]
    columns = [runs.c[name] for name in names]
    columns.insert(2, runs.c.billing_account_id)
    query = select(*columns).where(
        runs.c.billing_account_id == account_id, runs.c.state.in_(sorted(HELD_STATES)), runs.c.number > after
    )
    return [HeldRun._make(row) for row in await conn.execute(query.order_by(runs.c.number).limit(limit))]


async def full_held_runs(conn: AsyncConnection, reach: Reach, *, after: int, limit: int) -> list[Run]:
    """The same within reach, whole."""
    query = select(runs).where(
        runs.c.billing_account_id == reach.account_id, runs.c.state.in_(sorted(HELD_STATES)), runs.c.number > after
    )
    if reach.project_id is not None:
        query = query.where(runs.c.project_id == reach.project_id)
    return [Run._make(row) for row in await conn.execute(query.order_by(runs.c.number).limit(limit))]


async def plans_changed_since(
    conn: AsyncConnection, reach: Reach, since: datetime, *, after: str | None = None, limit: int
) -> list[Plan]:
    """Up to `limit` of the plans within reach that were made, approved or rejected since then, by id."""
    query = select(*PLAN_COLUMNS).where(plans.c.billing_account_id == reach.account_id, plans.c.updated_at >= since)
    if reach.project_id is not None:
        query = query.where(plans.c.project_id == reach.project_id)
    if after is not None:
        query = query.where(plans.c.id > after)
    return [Plan._make(row) for row in await conn.execute(query.order_by(plans.c.id).limit(limit))]


async def plans_by_id(conn: AsyncConnection, plan_ids: list[str]) -> list[Plan]:
    """The plans that are there, whoever may see them: for callers that find that out themselves."""
    return [Plan._make(row) for row in await conn.execute(select(*PLAN_COLUMNS).where(plans.c.id.in_(plan_ids)))]
