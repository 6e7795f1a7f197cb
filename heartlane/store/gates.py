"""Caps and budgets of the projects that a batch concerns: read under lock, asked by its claims, written at its end.

A project without a cap or a budget costs a batch nothing beyond one look at an index for its claims. The row of one
that has some is locked by every batch that claims in its account, which makes the caps exact however many servers
there are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

from heartlane.lanes.limits import Budget, Caps, Gate, Verdict, spend, verdict
from heartlane.lanes.run import Run

CAPS_COLUMNS: Final = ("max_active", "max_active_by_role_json", "max_active_by_source_json")
BUDGET_COLUMNS: Final = (
    "usd_day",
    "usd_total",
    "tokens_day",
    "tokens_total",
    "on_exceeded",
    "spent_usd_day",
    "spent_usd_total",
    "spent_tokens_day",
    "spent_tokens_total",
    "day",
    "waived_until",
)
VERDICT_COLUMNS: Final = ("state", "words", "reopens_at")

LIMITED_QUERY: Final = "SELECT id FROM projects WHERE billing_account_id {accounts} AND limited ORDER BY id {lock}"
LIMITS_QUERY: Final = f"""
SELECT p.id, {", ".join(f"p.{name}" for name in CAPS_COLUMNS)}, {", ".join(f"b.{name}" for name in BUDGET_COLUMNS)}
FROM projects AS p LEFT JOIN budgets AS b ON b.project_id = p.id WHERE {{wanted}} ORDER BY p.id
"""
"""`waived_until` comes last, the only time."""
ACTIVE_QUERY: Final = """
SELECT project_id, role, source, count(*) FROM runs
WHERE project_id {projects} AND state IN ('claimed', 'running', 'paused', 'shipping') GROUP BY project_id, role, source
"""
_SPENT: Final = ("spent_usd_day", "spent_usd_total", "spent_tokens_day", "spent_tokens_total", "day", *VERDICT_COLUMNS)
UPDATE_BUDGET: Final = (
    f"UPDATE budgets SET {', '.join(f'{name} = $' for name in _SPENT)}, updated_at = $ WHERE project_id = $"
)
WORDS_MAX: Final = 5
"""Reasons that a claim is told of which it found no lane."""
FIRST_DAY: Final = date(1970, 1, 1)


class Limits(NamedTuple):
    """What bounds a project, as read under lock. budget: None where it has none."""

    project_id: str
    caps: Caps
    budget: Budget | None

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Limits:
        """A row of the project's id, CAPS_COLUMNS and BUDGET_COLUMNS (all null without a budget)."""
        project_id, max_active, by_role, by_source, *budget = row
        caps = Caps(max_active, json.loads(by_role), json.loads(by_source))
        return cls(project_id, caps, None if budget[4] is None else read_budget(budget))


def read_budget(values: Sequence[Any]) -> Budget:
    """The budget of a row's BUDGET_COLUMNS."""
    budget = Budget._make(values)
    return budget._replace(day=FIRST_DAY + timedelta(days=values[9]))


def budget_values(budget: Budget) -> dict[str, Any]:
    """The columns of a budget."""
    return dict(zip(BUDGET_COLUMNS, budget, strict=True)) | {"day": (budget.day - FIRST_DAY).days}


class Probe(NamedTuple):
    """Lanes of one kind in one project, found by an exact key of the claimable index."""

    project_id: str
    source: str
    role: str


class BudgetWrite(NamedTuple):
    """A budget after a batch has spent of it, and the verdict on it."""

    project_id: str
    budget: Budget
    verdict: Verdict


class Gates:
    """The gates of a batch, by project; projects without one stand open."""

    def __init__(self, limits: Sequence[Limits], active: Mapping[str, Mapping[tuple[str, str], int]], now: datetime):
        self._now = now
        self._budgets = {one.project_id: one.budget for one in limits if one.budget is not None}
        self._gates: dict[str, Gate] = {}
        for one in limits:
            standing = Verdict("none") if one.budget is None else verdict(one.budget, now)
            shut = standing.words if standing.shut else None
            self._gates[one.project_id] = Gate(one.caps, shut, active.get(one.project_id, {}))

    def __bool__(self) -> bool:
        return bool(self._gates)

    def capped(self, project_id: str) -> bool:
        """Whether a lane that ends may let another one of the project begin."""
        gate = self._gates.get(project_id)
        return gate is not None and gate.caps.any

    def refusal(self, run: Run) -> str | None:
        """Why the lane can't become active now, in words; None where it can."""
        gate = self._gates.get(run.project_id)
        return None if gate is None else gate.refusal(run.role, run.source)

    def moved(self, before: Run, after: Run) -> None:
        """A lane became active, or is no longer."""
        gate = self._gates.get(after.project_id)
        if gate is not None and before.held != after.held:
            gate.count(after.role, after.source, 1 if after.held else -1)

    def probes(self, sources: Sequence[tuple[str, str]], roles: Collection[str], project_id: str | None) -> list[Probe]:
        """Every kind of lane that may become active. `sources`: project and source of all lanes of the account."""
        return [
            Probe(project, source, role)
            for project, source in sources
            if project_id in (None, project)
            for role in roles
            if (gate := self._gates.get(project)) is None or gate.refusal(role, source) is None
        ]

    def shuts_any(self, sources: Sequence[tuple[str, str]], roles: Collection[str]) -> bool:
        """Whether any kind of lane can't become active now."""
        return any(
            (gate := self._gates.get(project)) is not None and gate.refusal(role, source) is not None
            for project, source in sources
            for role in roles
        )

    def words(self, sources: Sequence[tuple[str, str]], roles: Collection[str], project_id: str | None) -> str | None:
        """What keeps lanes of these kinds from becoming active, each reason once; None where nothing does."""
        found = [
            refusal
            for project, source in sources
            if project_id in (None, project) and (gate := self._gates.get(project)) is not None
            for role in roles
            if (refusal := gate.refusal(role, source)) is not None
        ]
        return " ".join(list(dict.fromkeys(found))[:WORDS_MAX]) or None

    def spend(self, spent: Mapping[str, tuple[int, int]]) -> list[BudgetWrite]:
        """The budgets after so many micro-dollars and tokens were spent, by project."""
        writes = []
        for project_id, (usd, tokens) in sorted(spent.items()):
            budget = self._budgets.get(project_id)
            if budget is not None and (usd or tokens):
                after = spend(budget, usd, tokens, self._now)
                writes.append(BudgetWrite(project_id, after, verdict(after, self._now)))
        return writes


def by_project(rows: Sequence[Any]) -> dict[str, dict[tuple[str, str], int]]:
    """The counts of ACTIVE_QUERY by project."""
    found: dict[str, dict[tuple[str, str], int]] = {}
    for project_id, role, source, count in rows:
        found.setdefault(str(project_id), {})[role, source] = count
    return found


def budget_row(write: BudgetWrite, now: datetime) -> list[Any]:
    """The parameters of UPDATE_BUDGET."""
    values = budget_values(write.budget) | write.verdict._asdict()
    return [*(values[name] for name in _SPENT), now, write.project_id]
