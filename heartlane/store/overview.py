"""How the work goes, of a project or of all within reach: read from the counts of the days.

What is read are the days' rows of what was counted (`heartlane.store.tallies`), however many lanes these were, and one
count of the lanes there are now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.run import State
from heartlane.lanes.usage import MICROS
from heartlane.store.columns import EPOCH
from heartlane.store.pages import Reach
from heartlane.store.schema import failure_days, phase_days, projects, runs, usage_days
from heartlane.store.tallies import DayUsage, day_of, seconds_of

NAMES_MAX: Final = 50
"""Phases, and reasons of failures, that are told of."""
ROWS_MAX: Final = 100
"""Projects, and agents with their models, that are told of."""

Json = dict[str, Any]


async def read_overview(conn: AsyncConnection, reach: Reach, project_id: str | None, days: int, now: datetime) -> Json:
    """The overview of the last `days` days (UTC), today included. The caller has looked up the project, if any."""
    today = day_of(now)
    first = today - days + 1
    mine = select(projects.c.id).where(reach.of_projects())
    if project_id is not None:
        mine = mine.where(projects.c.id == project_id)
    used = await _usage(conn, mine, first)
    by_day = _grouped(used, "day")
    shown = [{"day": _date(day), **_figures(by_day.get((day,), DayUsage()))} for day in range(first, today + 1)]
    whole_days = shown[:-1] or shown
    return {
        "project_id": project_id or reach.project_id,
        "since": _date(first),
        "until": _date(today),
        "lanes": await _lanes_now(conn, reach, project_id),
        "shipped_per_day": sum(day["shipped"] for day in whole_days) / len(whole_days),
        "days": shown,
        "total": _figures(_sum([amounts for _, amounts in used])),
        "projects": await _projects(conn, _grouped(used, "project_id")),
        "roles": [{"role": role, **_figures(amounts)} for (role,), amounts in _dearest(_grouped(used, "role"))],
        "agents": [
            {"agent": agent or None, "model": model or None, **_figures(amounts)}
            for (agent, model), amounts in _dearest(_grouped(used, "agent", "model"))
        ],
        "phases": await _phases(conn, mine, first),
        "failures": await _failures(conn, mine, first),
    }


_KEYS: Final = ("project_id", "day", "role", "agent", "model")
Used = Sequence[tuple[Sequence[Any], DayUsage]]


async def _usage(conn: AsyncConnection, mine: Select[Any], first: int) -> Used:
    keys = [usage_days.c[name] for name in _KEYS]
    sums = [func.sum(usage_days.c[name]) for name in DayUsage._fields]
    query = select(*keys, *sums).where(usage_days.c.project_id.in_(mine), usage_days.c.day >= first).group_by(*keys)
    rows = [tuple(row) for row in await conn.execute(query)]
    return [(row[: len(_KEYS)], DayUsage(*map(int, row[len(_KEYS) :]))) for row in rows]


def _grouped(used: Used, *names: str) -> dict[tuple[Any, ...], DayUsage]:
    places = [_KEYS.index(name) for name in names]
    found: dict[tuple[Any, ...], list[DayUsage]] = {}
    for key, amounts in used:
        found.setdefault(tuple(key[place] for place in places), []).append(amounts)
    return {key: _sum(amounts) for key, amounts in found.items()}


def _sum(amounts: Sequence[DayUsage]) -> DayUsage:
    return DayUsage(*map(sum, zip(DayUsage(), *amounts, strict=True)))


def _dearest(groups: Mapping[tuple[Any, ...], DayUsage]) -> list[tuple[tuple[Any, ...], DayUsage]]:
    def order(item: tuple[tuple[Any, ...], DayUsage]) -> tuple[Any, ...]:
        key, amounts = item
        return (-amounts.cost_micros, -(amounts.input_tokens + amounts.output_tokens), -amounts.attempts, key)

    return sorted(groups.items(), key=order)[:ROWS_MAX]


def _figures(amounts: DayUsage) -> Json:
    figures: Json = amounts._asdict()
    micros = figures.pop("cost_micros")
    return {**figures, "cost_usd": micros / MICROS}


def _date(day: int) -> date:
    return (EPOCH + timedelta(days=day)).date()


async def _lanes_now(conn: AsyncConnection, reach: Reach, project_id: str | None) -> dict[str, int]:
    wanted: list[ColumnElement[bool]] = [runs.c.billing_account_id == reach.account_id]
    if reach.project_id is not None or project_id is not None:
        wanted = [runs.c.project_id == (project_id or reach.project_id)]
    rows = await conn.execute(select(runs.c.state, func.count()).where(*wanted).group_by(runs.c.state))
    found = dict([tuple(row) for row in rows])
    return {str(state): found.get(str(state), 0) for state in State}


async def _projects(conn: AsyncConnection, groups: Mapping[tuple[Any, ...], DayUsage]) -> list[Json]:
    shown = _dearest(groups)
    query = select(projects.c.id, projects.c.name).where(projects.c.id.in_([key[0] for key, _ in shown]))
    names = dict([tuple(row) for row in await conn.execute(query)])
    return [{"project_id": key[0], "name": names[key[0]], **_figures(amounts)} for key, amounts in shown]


async def _phases(conn: AsyncConnection, mine: Select[Any], first: int) -> list[Json]:
    keys = (phase_days.c.phase, phase_days.c.bucket)
    query = (
        select(*keys, func.sum(phase_days.c["count"]))
        .where(phase_days.c.project_id.in_(mine), phase_days.c.day >= first)
        .group_by(*keys)
    )
    found: dict[str, Counter[int]] = {}
    for phase, bucket, count in await conn.execute(query):
        found.setdefault(phase, Counter())[bucket] += int(count)
    most = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))[:NAMES_MAX]
    return [
        {
            "phase": phase,
            "count": counts.total(),
            "median_seconds": quantile(counts, 0.5),
            "p90_seconds": quantile(counts, 0.9),
        }
        for phase, counts in most
    ]


def quantile(counts: Mapping[int, int], share: float) -> float:
    """The duration within which so large a share of all lies, in seconds; counts: step of the scale → how many.

    >>> quantile({0: 1, 24: 8, 90: 1}, 0.5)
    58.7
    """
    whole = sum(counts.values())
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= whole * share:
            return round(seconds_of(bucket), 1)
    return 0.0


async def _failures(conn: AsyncConnection, mine: Select[Any], first: int) -> list[Json]:
    count = func.sum(failure_days.c["count"])
    query = (
        select(failure_days.c.reason, count)
        .where(failure_days.c.project_id.in_(mine), failure_days.c.day >= first)
        .group_by(failure_days.c.reason)
        .order_by(count.desc(), failure_days.c.reason)
        .limit(NAMES_MAX)
    )
    return [{"reason": reason, "count": int(number)} for reason, number in await conn.execute(query)]
