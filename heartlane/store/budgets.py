"""Budgets of projects: set, read, let go on for a while; and what a verdict means for the project's lanes.

A batch that spends writes the new verdict beside what was spent. Carrying it out (holding lanes, letting them go on,
telling people) is the server's own hand, soon after and as often as it takes: `told` is the verdict that was carried
out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import false, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.limits import Budget, OnExceeded, Verdict, next_day, on_day, verdict
from heartlane.lanes.usage import MICROS
from heartlane.store.audit import Actor
from heartlane.store.batch import ANY_ROLE, OPENED_LANES, Opening
from heartlane.store.gates import BUDGET_COLUMNS, budget_values, read_budget
from heartlane.store.notices import Notice, add_notices, close_by_kind
from heartlane.store.projects import Project, has_budget, record, set_limited
from heartlane.store.schema import ACTIVE, BUDGET_HELD, budgets, projects, runs, usage_days
from heartlane.store.store import Store, WriteTransaction
from heartlane.store.tallies import day_of

AT_ONCE = 500
"""Lanes that are held or let go on in one round; the next follows while there are more."""
NOTICE_KINDS = {"warned": "budget_80", "exceeded": "budget_100"}
OVER: Final = {
    "none": ("budget_80", "budget_100"),
    "ok": ("budget_80", "budget_100"),
    "warned": ("budget_100",),
    "exceeded": (),
    "waived": ("budget_100",),
}
"""State → the kinds of notices whose condition is gone in it."""
LOOKING: Final = text("""
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'projects'::regclass AND mode = 'RowShareLock'
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")
"""PostgreSQL's transactions that have locked rows of projects or looked for some to lock: they take the lock on the
table before they see what is there, and keep it until they end."""
LOOK_AGAIN_SECONDS: Final = 0.005
NOT_TOLD: Final = ""
"""In the place of the verdict that was carried out: whatever it is, it is to be carried out anew."""


class Standing(NamedTuple):
    """A project's budget and where it stands now."""

    budget: Budget
    verdict: Verdict


_COLUMNS = [budgets.c[name] for name in BUDGET_COLUMNS]


async def read_standing(conn: AsyncConnection, project_id: str, now: datetime) -> Standing:
    """The budget of a project that the caller has looked up; one without ceilings where none was ever set."""
    row = (await conn.execute(select(*_COLUMNS).where(budgets.c.project_id == project_id))).one_or_none()
    budget = Budget() if row is None else read_budget(tuple(row))
    if not budget.bounded:  # batches add to a budget with ceilings alone
        budget = await _spent_so_far(conn, project_id, budget, now)
    return Standing(on_day(budget, now), verdict(budget, now))


async def _spent_so_far(conn: AsyncConnection, project_id: str, budget: Budget, now: datetime) -> Budget:
    """The budget with all that the project has ever spent, from the counts of the days."""
    tokens = usage_days.c.input_tokens + usage_days.c.output_tokens
    today = usage_days.c.day == day_of(now)
    mine = usage_days.c.project_id == project_id
    columns = [func.coalesce(func.sum(usage_days.c.cost_micros), 0), func.coalesce(func.sum(tokens), 0)]
    total = (await conn.execute(select(*columns).where(mine))).one()
    day = (await conn.execute(select(*columns).where(mine, today))).one()
    return on_day(budget, now)._replace(
        spent_usd_day=int(day[0]),
        spent_usd_total=int(total[0]),
        spent_tokens_day=int(day[1]),
        spent_tokens_total=int(total[1]),
    )


async def put_budget(store: Store, project: Project, ceilings: dict[str, Any], actor: Actor) -> Standing:
    """Set the project's ceilings (columns of the budget), whole. What was spent stays. Raises StoreUnavailable."""
    async with _changing(store, project.id) as (tx, locked):
        return await _change(tx, locked, ceilings, actor, "budget.changed")


async def let_go_on(store: Store, project: Project, hours: float | None, actor: Actor) -> Standing:
    """Let the project go on beyond its ceilings for so many hours; None: until the day (UTC) ends.

    Raises StoreUnavailable.
    """
    async with _changing(store, project.id) as (tx, locked):
        until = next_day(tx.now) if hours is None else tx.now + timedelta(hours=hours)
        return await _change(tx, locked, {"waived_until": until}, actor, "budget.waived")


@asynccontextmanager
async def _changing(store: Store, project_id: str) -> AsyncIterator[tuple[WriteTransaction, Project]]:
    """A transaction that has the project's row locked, which it gives as it is then, and knows all that was spent.

    A batch that spends adds to the budget of a project that is marked as limited, under the lock of its row; of any
    other it adds to the counts of the day alone, and locks nothing. So the first ceiling takes two steps: the project
    is marked, and once those who had looked before that have ended, what was spent is read from the counts. A batch
    that comes in between waits for the row. (SQLite has one writer: nothing is under way beside this.)
    """
    settled = store.dialect == "sqlite"
    while True:
        async with store.writing() as tx:
            locked = select(projects).where(projects.c.id == project_id).with_for_update()
            project = Project._make((await tx.conn.execute(locked)).one())
            if await has_budget(tx.conn, project_id) or (settled and (project.limited or store.dialect == "sqlite")):
                yield tx, project
                return
            await tx.conn.execute(update(projects).where(projects.c.id == project_id).values(limited=True))
        await _those_before_have_ended(store)
        settled = True


async def _those_before_have_ended(store: Store) -> None:
    """Return once every transaction has ended that may have looked for limited projects before now."""
    async with store.reading() as conn:
        waited_for = frozenset((await conn.execute(LOOKING)).scalars())
    while waited_for:
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        async with store.reading() as conn:
            waited_for &= frozenset((await conn.execute(LOOKING)).scalars())


async def _change(
    tx: WriteTransaction, project: Project, values: dict[str, Any], actor: Actor, action: str
) -> Standing:
    before = (await read_standing(tx.conn, project.id, tx.now)).budget
    after = before._replace(**values)
    standing = Standing(after, verdict(after, tx.now))
    row = budget_values(after) | standing.verdict._asdict() | {"updated_at": tx.now}
    if after.on_exceeded != before.on_exceeded:
        row["told"] = NOT_TOLD  # what it means for lanes has changed, though the state may be the same
    changed = await tx.conn.execute(update(budgets).where(budgets.c.project_id == project.id).values(row))
    if changed.rowcount == 0:
        await tx.conn.execute(insert(budgets).values(project_id=project.id, **{"told": "none", **row}))
    await set_limited(tx, project, has_budget=after.bounded)
    said = {name: (getattr(before, name), getattr(after, name)) for name in values}
    told = {
        "before": _as_answered({name: old for name, (old, _) in said.items()}),
        "after": _as_answered({name: new for name, (_, new) in said.items()}),
    }
    await record(tx, actor, action, project, told)
    return standing


def _as_answered(values: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of a budget by the names, and in the units, that the API has for them."""
    names = {"usd_day": "usd_per_day", "tokens_day": "tokens_per_day"}
    answered: dict[str, Any] = {}
    for name, value in values.items():
        plain: Any = value.isoformat() if isinstance(value, datetime) else value
        is_money = name.startswith("usd_") and value is not None
        answered[names.get(name, name)] = plain / MICROS if is_money else plain
    return answered


class Due(NamedTuple):
    """A budget whose verdict is to be looked at again, or to be carried out."""

    project_id: str
    told: str


async def due(store: Store, now: datetime) -> list[Due]:
    """Budgets whose verdict changed, or changes by itself about now."""
    wanted = or_(budgets.c.state != budgets.c.told, budgets.c.reopens_at <= now)
    async with store.reading() as conn:
        rows = await conn.execute(select(budgets.c.project_id, budgets.c.told).where(wanted))
        return [Due._make(row) for row in rows]


async def refresh(store: Store, project_id: str) -> Standing | None:
    """Look at the verdict again: a day has ended, or a person's word. None where the budget is gone."""
    async with store.writing() as tx:
        await tx.conn.execute(select(projects.c.id).where(projects.c.id == project_id).with_for_update())
        row = (await tx.conn.execute(select(*_COLUMNS).where(budgets.c.project_id == project_id))).one_or_none()
        if row is None:
            return None
        budget = on_day(read_budget(tuple(row)), tx.now)
        standing = Standing(budget, verdict(budget, tx.now))
        values = budget_values(budget) | standing.verdict._asdict()
        await tx.conn.execute(update(budgets).where(budgets.c.project_id == project_id).values(values))
        return standing


async def lanes_to_hold(store: Store, project_id: str, action: OnExceeded) -> list[str]:
    """Active lanes that nothing holds yet; those that stand still, too, where their workers are to stop now."""
    held = runs.c.budget_hold.is_not(None) if action == "pause" else runs.c.budget_hold == "stop"
    untold = ~func.coalesce(held, false())
    return await _ids(store, select(runs.c.id).where(runs.c.project_id == project_id, ACTIVE, untold))


async def lanes_to_lift(store: Store, project_id: str) -> list[str]:
    """Lanes that are held."""
    return await _ids(store, select(runs.c.id).where(runs.c.project_id == project_id, BUDGET_HELD))


async def _ids(store: Store, query: Any) -> list[str]:
    async with store.reading() as conn:
        return list((await conn.execute(query.limit(AT_ONCE))).scalars())


async def mark_told(store: Store, project_id: str, standing: Standing) -> bool:
    """The verdict is carried out: tell people, wake waiting claims.

    False where it has changed meanwhile, or another server has done so.
    """
    state = standing.verdict.state
    async with store.writing() as tx:
        untold = (budgets.c.project_id == project_id, budgets.c.state == state, budgets.c.told != state)
        marked = await tx.conn.execute(update(budgets).where(*untold).values(told=state))
        if marked.rowcount == 0:
            return False
        account_id = (
            await tx.conn.execute(select(projects.c.billing_account_id).where(projects.c.id == project_id))
        ).scalar_one()
        kind = NOTICE_KINDS.get(state)
        if kind is not None and standing.verdict.words is not None:
            notice = Notice(kind, _episode(kind, standing), account_id, project_id, standing.verdict.words)
            await add_notices(tx, [notice])
        await close_by_kind(tx, project_id, OVER[state])
        if not standing.verdict.shut:
            tx.announce([Opening(account_id, project_id, ANY_ROLE, "", OPENED_LANES)])
        return True


def _episode(kind: str, standing: Standing) -> str:
    """The key of a notice. Other ceilings are another episode, for who raised one wants to hear when that is used up as
    well; so is what stands again after a person let it go on. A ceiling in all isn't told again with each day.
    """
    budget = standing.budget
    ceilings = ":".join("-" if ceiling is None else str(ceiling) for ceiling in budget[:4])
    day = "in all" if standing.verdict.reopens_at is None else budget.day
    waived = "" if budget.waived_until is None else budget.waived_until.isoformat()
    return f"{kind}:{day}:{ceilings}:{waived}"
