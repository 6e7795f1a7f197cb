"""What the servers on one database know of each other: when any of them was last alive, and since when one is again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import exists, func, select, update

from heartlane.store.schema import DELAYED, budgets, control, runs
from heartlane.store.store import Store

GAP_SECONDS: Final = 3.0
"""No sign of life for this long means that no server ran (or none could reach the database)."""

EXPIRED_AT_ONCE: Final = 500
"""Runs looked at in one round of the take-back; the next round follows at once while there are more."""


async def sign_of_life(store: Store, *, first: bool) -> datetime | None:
    """Note that a server runs now; the moment since which one does, if there was a time without any before it.

    first   whether this process has just opened a database that no other server can have open (SQLite)
    """
    async with store.writing() as tx:
        row = (await tx.conn.execute(select(control.c.alive_at, control.c.resumed_at).with_for_update())).one()
        alive_at, resumed_at = row
        gap = alive_at is None or tx.now - alive_at > timedelta(seconds=GAP_SECONDS)
        if gap or first:
            resumed_at = tx.now
        await tx.conn.execute(update(control).values(alive_at=tx.now, resumed_at=resumed_at))
    moment: datetime | None = resumed_at
    return moment


async def due_for_take_back(store: Store, now: datetime) -> list[str]:
    """Ids of runs whose deadline, as last looked at, has passed: the rules decide what that means."""
    async with store.reading() as conn:
        query = select(runs.c.id).where(runs.c.take_back_at <= now).order_by(runs.c.take_back_at).limit(EXPIRED_AT_ONCE)
        return list((await conn.execute(query)).scalars())


async def due_again(store: Store, now: datetime) -> list[str]:
    """Ids of lanes that were held back until a time that has passed."""
    async with store.reading() as conn:
        query = (
            select(runs.c.id)
            .where(runs.c.not_before <= now, DELAYED)
            .order_by(runs.c.not_before)
            .limit(EXPIRED_AT_ONCE)
        )
        return list((await conn.execute(query)).scalars())


class Upcoming(NamedTuple):
    """What the server's own hand has to do next: `now`, when the first lease is to be looked at, and when the first
    lane that is held back becomes claimable (None: there is none); and whether a budget's verdict is to be carried
    out, or changes by itself."""

    now: datetime
    take_back_at: datetime | None
    not_before: datetime | None
    budgets: bool = False


async def upcoming(store: Store) -> Upcoming:
    """The first moment of each kind, from the heads of two indexes, in one look."""
    first_lease = select(runs.c.take_back_at).where(runs.c.take_back_at.is_not(None)).order_by(runs.c.take_back_at)
    first_held_back = select(runs.c.not_before).where(DELAYED).order_by(runs.c.not_before)
    untold = exists().where(budgets.c.state != budgets.c.told)
    query = select(
        first_lease.limit(1).scalar_subquery(),
        first_held_back.limit(1).scalar_subquery(),
        untold,
        select(func.min(budgets.c.reopens_at)).scalar_subquery(),
    )
    async with store.reading() as conn:
        take_back_at, not_before, changed, changes_at = (await conn.execute(query)).one()
        now = await store.now_on(conn)
        due = bool(changed) or (changes_at is not None and changes_at <= now)
        return Upcoming(now, take_back_at, not_before, due)
