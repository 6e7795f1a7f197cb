"""What only time tells: lanes that have stalled, workers that have fallen silent, plans that nobody decides.

Nothing here stands on a column that heartbeats write: the held lanes are found by the index that the take-back has, and
of those only the few that are of interest leave the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.run import HELD_STATES, Run, is_stalled, needs_attention
from heartlane.store.columns import Timestamp
from heartlane.store.news_schema import OPEN, notice_rules, notices
from heartlane.store.notices import NoticeRow, rules_of
from heartlane.store.schema import PLANS_PENDING, plans, runs
from heartlane.store.store import Store

SEEN_MAX: Final = 2_000
"""Lanes, plans and notices of each kind that one look takes in."""
PLAN_WAITS_MIN: Final = timedelta(seconds=60)
"""No rule lets a plan count as waiting earlier."""

# A lane is silent when less than a third of its lease is left, counted from its last renewal: two renewals are missing.
QUIET: Final = """
runs.take_back_at IS NOT NULL AND runs.state <> 'paused' AND (
    (runs.waiting_for IS NULL AND :now - runs.progress_at > runs.stalled_after_seconds * {second})
    OR (runs.lease_expires_at - :now) * 3 < runs.lease_expires_at - runs.last_heartbeat
)
"""
SECONDS: Final = {"sqlite": "1000000", "postgresql": "interval '1 second'"}


class WaitingPlan(NamedTuple):
    """A plan that may have waited too long, and the rules of its project."""

    id: str
    billing_account_id: str
    project_id: str
    title: str
    created_at: datetime
    rules_json: str | None

    def waits(self, now: datetime) -> bool:
        """Whether it has waited longer than its project's rule lets it."""
        rule = rules_of(self.rules_json)["plan_waiting"]
        return bool(rule["enabled"]) and now - self.created_at >= timedelta(seconds=rule["after_seconds"])


class Standing(NamedTuple):
    """An open notice, and how what it is about stands now; None where that is gone."""

    notice: NoticeRow
    run: Run | None
    plan_status: str | None


class Watched(NamedTuple):
    """Everything that one look saw at `now`."""

    now: datetime
    quiet: Sequence[Run]
    plans: Sequence[WaitingPlan]
    open: Sequence[Standing]


async def look_around(store: Store) -> Watched:
    """See what there may be to tell, and which notices are open. Raises StoreUnavailable."""
    async with store.reading() as conn:
        now = await store.now_on(conn)
        quiet = text(QUIET.format(second=SECONDS[store.dialect])).bindparams(bindparam("now", now, Timestamp))
        rows = await conn.execute(select(runs).where(quiet).order_by(runs.c.take_back_at).limit(SEEN_MAX))
        lanes = [Run._make(row) for row in rows]
        return Watched(now, lanes, await _waiting_plans(conn, now), await _open(conn))


async def _waiting_plans(conn: AsyncConnection, now: datetime) -> list[WaitingPlan]:
    """Pending plans that are old enough and were not told of yet."""
    told = and_(notices.c.plan_id == plans.c.id, notices.c.project_id == plans.c.project_id)
    known = select(notices.c.number).where(told, notices.c.kind == "plan_waiting").exists()
    names = [plans.c[name] for name in WaitingPlan._fields if name != "rules_json"]
    query = (
        select(*names, notice_rules.c.rules_json)
        .outerjoin(notice_rules, notice_rules.c.project_id == plans.c.project_id)
        .where(PLANS_PENDING, plans.c.created_at <= now - PLAN_WAITS_MIN, ~known)
        .order_by(plans.c.created_at)
        .limit(SEEN_MAX)
    )
    return [WaitingPlan._make(row) for row in await conn.execute(query)]


async def _open(conn: AsyncConnection) -> list[Standing]:
    closed_by_others = ("budget_80", "budget_100", "webhook_disabled")
    query = (
        select(*notices.c, plans.c.status, *runs.c)
        .outerjoin(runs, runs.c.id == notices.c.run_id)
        .outerjoin(plans, plans.c.id == notices.c.plan_id)
        .where(OPEN, notices.c.kind.not_in(closed_by_others))
        .order_by(notices.c.number)
        .limit(SEEN_MAX)
    )
    found: list[Standing] = []
    width = len(NoticeRow._fields)
    for row in await conn.execute(query):
        values: list[Any] = list(row)
        run = None if values[width + 1] is None else Run._make(values[width + 1 :])
        found.append(Standing(NoticeRow._make(values[:width]), run, values[width]))
    return found


def is_silent(run: Run, now: datetime) -> bool:
    """Whether the holder has missed two renewals.

    A paused lane counts as paused, and one that waits for a person is renewed all the same.
    """
    calm = run._replace(waiting_for=None, over_budget=False, state="running") if run.state in HELD_STATES else run
    return needs_attention(calm, now, stalled=False) == "lease_running_out"


def is_over(standing: Standing, now: datetime) -> bool:
    """Whether what an open notice is about holds no more."""
    notice, run = standing.notice, standing.run
    if notice.kind == "plan_waiting":
        return standing.plan_status != "pending"
    if run is None:
        return True
    if notice.kind in ("lane_failed", "attempts_used_up"):
        return run.state != "failed"
    if notice.kind == "lane_waiting":
        return run.waiting_for is None
    if notice.kind == "lane_stalled":
        return not is_stalled(run, now)
    # A silent worker's lane: it is heard again, or another worker has the lane, or it ended.
    return run.finished or (run.held and run.last_heartbeat is not None and run.last_heartbeat > notice.raised_at)
