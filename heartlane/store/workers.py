"""The workers that are known: by the lanes they hold, and by their asking for one, as servers have noted it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import case, delete, func, or_, select, tuple_, union
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.run import HELD_STATES, Run
from heartlane.store.fleet_schema import workers_seen
from heartlane.store.pages import Reach
from heartlane.store.schema import runs
from heartlane.store.store import Store, WriteTransaction
from heartlane.store.watching import is_silent

SHOWN: Final = timedelta(days=1)
"""A worker that neither holds a lane nor asks for one is listed for this long after it was last heard."""
KEPT: Final = timedelta(days=2)
KEPT_MAX: Final = 10_000
"""Workers of one account that are remembered beside those that hold lanes: the last heard of them."""

Status = Literal["working", "silent", "waiting", "idle"]


class Ask(NamedTuple):
    """A worker's last word on whether it wants a lane, as far as one server knows.

    project_id      it asks for lanes of this project alone; None: for any of the account
    asks_until      it counts as waiting so long, unless it asks again; not after `seen_at` where it asks no more
    """

    account_id: str
    worker_id: str
    project_id: str | None
    roles: Sequence[str]
    labels: Mapping[str, str]
    asks_since: datetime
    asks_until: datetime
    seen_at: datetime


class Worker(NamedTuple):
    """A worker: the lanes it holds, since when it holds the first of them, when it was last heard, what it asks for."""

    worker_id: str
    runs: Sequence[Run]
    since: datetime | None
    last_heard: datetime | None
    ask: Ask | None

    def status(self, now: datetime) -> Status:
        """`working` or, when two renewals of every lane are missing, `silent`; without a lane `waiting` while it asks
        for one, else `idle`."""
        if self.runs:
            return "silent" if all(is_silent(run, now) for run in self.runs) else "working"
        return "waiting" if self.ask is not None and self.ask.asks_until > now else "idle"


class WorkerFilter(NamedTuple):
    """Which workers to list.

    project_id  those that hold lanes of this project, or would take one
    holding     True for those that hold lanes alone, False for all others
    """

    project_id: str | None = None
    holding: bool | None = None


async def note_asks(tx: WriteTransaction, asks: Sequence[Ask]) -> None:
    """Write down what one server has heard. What another server has heard later stays."""
    insert = postgresql.insert if tx.conn.dialect.name == "postgresql" else sqlite.insert
    statement = insert(workers_seen)
    new = statement.excluded
    # It has asked all the while, here and at other servers, if its word before still holds at this one.
    asks_on = workers_seen.c.asks_until >= new.asks_since
    changes: dict[str, Any] = {name: new[name] for name in ("roles_json", "labels_json", "asks_until", "seen_at")}
    changes["asks_since"] = case((asks_on, workers_seen.c.asks_since), else_=new.asks_since)
    statement = statement.on_conflict_do_update(
        index_elements=workers_seen.primary_key.columns, set_=changes, where=workers_seen.c.seen_at <= new.seen_at
    )
    # In one order for all servers, so that no two of them wait for each other.
    await tx.conn.execute(statement, sorted(map(_row, asks), key=lambda row: (row["billing_account_id"], *_key(row))))


def _row(ask: Ask) -> dict[str, Any]:
    return {
        "billing_account_id": ask.account_id,
        "worker_id": ask.worker_id,
        "scope": ask.project_id or "",
        "roles_json": json.dumps(list(ask.roles)),
        "labels_json": json.dumps(dict(ask.labels), ensure_ascii=False),
        "asks_since": ask.asks_since,
        "asks_until": ask.asks_until,
        "seen_at": ask.seen_at,
    }


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["worker_id"], row["scope"]


async def forget_workers(store: Store) -> None:
    """Forget who hasn't asked for days, and of an account with too many those that haven't for longest.

    Raises StoreUnavailable.
    """
    key = tuple(workers_seen.primary_key.columns)
    place = func.row_number().over(
        partition_by=workers_seen.c.billing_account_id, order_by=workers_seen.c.seen_at.desc()
    )
    numbered = select(*key, place.label("place")).subquery()
    too_many = select(*(numbered.c[column.name] for column in key)).where(numbered.c.place > KEPT_MAX)
    async with store.writing() as tx:
        await tx.conn.execute(delete(workers_seen).where(workers_seen.c.seen_at < tx.now - KEPT))
        await tx.conn.execute(delete(workers_seen).where(tuple_(*key).in_(too_many)))


async def list_workers(
    conn: AsyncConnection, reach: Reach, wanted: WorkerFilter, *, after: str | None, limit: int, now: datetime
) -> list[Worker]:
    """The workers within reach, by name, up to `limit` beyond the name `after`.

    Who is limited to a project sees those that ask for its lanes alone: a worker of the account at large is not its.
    """
    project_id = reach.project_id or wanted.project_id
    held = [
        runs.c.billing_account_id == reach.account_id,
        runs.c.worker_id.is_not(None),
        runs.c.state.in_(sorted(HELD_STATES)),
    ]
    seen = [workers_seen.c.billing_account_id == reach.account_id, workers_seen.c.seen_at > now - SHOWN]
    if project_id is not None:
        held.append(runs.c.project_id == project_id)
        own = workers_seen.c.scope == project_id
        seen.append(own if reach.project_id is not None else or_(own, workers_seen.c.scope == ""))
    holders = select(runs.c.worker_id.label("name")).where(*held)
    others = select(workers_seen.c.worker_id.label("name")).where(*seen)
    if wanted.holding is False:
        others = others.where(~holders.where(runs.c.worker_id == workers_seen.c.worker_id).exists())
    if after is not None:
        holders = holders.where(runs.c.worker_id > after)
        others = others.where(workers_seen.c.worker_id > after)
    # Each of the two is read in the order of its own index, and no further than needed.
    parts = {True: [holders], False: [others], None: [holders, others]}[wanted.holding]
    first = [
        select(part.distinct().order_by(column).limit(limit).subquery().c.name)
        for part, column in ((part, part.selected_columns.name) for part in parts)
    ]
    found = union(*first).subquery()
    names = list((await conn.execute(select(found.c.name).order_by(found.c.name).limit(limit))).scalars())
    asks: dict[str, Ask] = {}
    last = select(workers_seen).where(*seen, workers_seen.c.worker_id.in_(names)).order_by(workers_seen.c.seen_at)
    for row in await conn.execute(last):
        asks[row.worker_id] = _ask(row)
    lanes: dict[str, list[Run]] = {}
    query = select(runs).where(*held, runs.c.worker_id.in_(names)).order_by(runs.c.worker_id, runs.c.number)
    for row in await conn.execute(query):
        run = Run._make(row)
        lanes.setdefault(run.worker_id or "", []).append(run)
    return [_worker(name, lanes.get(name, ()), asks.get(name)) for name in names]


def _ask(row: Any) -> Ask:
    return Ask(
        row.billing_account_id,
        row.worker_id,
        row.scope or None,
        json.loads(row.roles_json),
        json.loads(row.labels_json),
        row.asks_since,
        row.asks_until,
        row.seen_at,
    )


def _worker(name: str, held: Sequence[Run], ask: Ask | None) -> Worker:
    heard = [run.last_heartbeat for run in held if run.last_heartbeat is not None]
    if ask is not None:
        heard.append(ask.seen_at)
    return Worker(
        name,
        held,
        min((run.claimed_at for run in held if run.claimed_at is not None), default=None),
        max(heard, default=None),
        ask,
    )
