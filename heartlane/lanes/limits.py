"""How much of a project may go on at once, and what it may cost: caps and budgets. Pure.

A *cap* bounds how many lanes are active (held by a worker) at once: in a project, of one role, and of one ticket
source. A *budget* bounds dollars and tokens, a day (UTC) and in all. When one of its ceilings is reached, the project
is shut: nothing of it can be claimed, and what is being worked is paused or released, as the budget says. It opens by
itself when the day ends or the ceiling is raised, and for a while when a person says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, NamedTuple

from heartlane.lanes.usage import MICROS

OnExceeded = Literal["pause", "stop"]
BudgetState = Literal["none", "ok", "warned", "exceeded", "waived"]
WARN_AT: Final = (8, 10)
"""A notice is due at this part of a ceiling: eight tenths."""


class Budget(NamedTuple):
    """A project's ceilings, and what it has spent. Amounts are micro-dollars and tokens; None: no such ceiling.

    day             the UTC day that the spending of the day belongs to
    waived_until    until when a person lets it go on beyond its ceilings
    """

    usd_day: int | None = None
    usd_total: int | None = None
    tokens_day: int | None = None
    tokens_total: int | None = None
    on_exceeded: OnExceeded = "pause"
    spent_usd_day: int = 0
    spent_usd_total: int = 0
    spent_tokens_day: int = 0
    spent_tokens_total: int = 0
    day: date = date(1970, 1, 1)
    waived_until: datetime | None = None

    @property
    def bounded(self) -> bool:
        """Whether it has any ceiling."""
        return any(ceiling is not None for ceiling in self[:4])


class Verdict(NamedTuple):
    """Where a project stands with its budget.

    words       one sentence for a person, or None where all is well
    reopens_at  when the verdict changes by itself, None: never
    """

    state: BudgetState
    words: str | None = None
    reopens_at: datetime | None = None

    @property
    def shut(self) -> bool:
        """Whether nothing more may be spent."""
        return self.state == "exceeded"


def spend(budget: Budget, usd_micros: int, tokens: int, now: datetime) -> Budget:
    """The budget after this was spent at `now`; a new day begins with nothing spent."""
    budget = on_day(budget, now)
    return budget._replace(
        spent_usd_day=budget.spent_usd_day + usd_micros,
        spent_usd_total=budget.spent_usd_total + usd_micros,
        spent_tokens_day=budget.spent_tokens_day + tokens,
        spent_tokens_total=budget.spent_tokens_total + tokens,
    )


def on_day(budget: Budget, now: datetime) -> Budget:
    """The budget as it stands on the day of `now`. A clock that went back by a day changes nothing."""
    today = now.astimezone(UTC).date()
    return budget._replace(day=today, spent_usd_day=0, spent_tokens_day=0) if today > budget.day else budget


def next_day(now: datetime) -> datetime:
    """The midnight (UTC) that ends the day of `now`."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC)


def verdict(budget: Budget, now: datetime) -> Verdict:
    """Where the project stands at `now`. The gravest ceiling speaks, those in all before those of a day."""
    budget = on_day(budget, now)
    tomorrow = next_day(now)
    rows = (
        (budget.spent_usd_total, budget.usd_total, "in all", True),
        (budget.spent_tokens_total, budget.tokens_total, "in all", False),
        (budget.spent_usd_day, budget.usd_day, "today", True),
        (budget.spent_tokens_day, budget.tokens_day, "today", False),
    )
    found: list[Verdict] = []
    for spent, ceiling, when, is_money in rows:
        if ceiling is None:
            continue
        words = f"{_amount(spent, is_money)} of {_amount(ceiling, is_money)} {when}"
        ends = tomorrow if when == "today" and ceiling > 0 else None  # a day of nothing is like the next
        if spent >= ceiling:
            found.append(Verdict("exceeded", f"The project's budget is used up: {words}.", ends))
        elif spent * WARN_AT[1] >= ceiling * WARN_AT[0]:
            found.append(Verdict("warned", f"The project's budget is nearly used up: {words}.", ends))
    exceeded = [one for one in found if one.shut]
    if exceeded and budget.waived_until is not None and now < budget.waived_until:
        return Verdict("waived", f"{exceeded[0].words} A person lets it go on.", budget.waived_until)
    if exceeded:
        # It opens when the last of the ceilings does; one in all doesn't by itself.
        moments = [one.reopens_at for one in exceeded]
        reopens = None if None in moments else max(moment for moment in moments if moment is not None)
        return exceeded[0]._replace(reopens_at=reopens)
    if found:
        return found[0]
    return Verdict("ok" if budget.bounded else "none")


def _amount(value: int, is_money: bool) -> str:
    return f"{value / MICROS:,.2f} USD" if is_money else f"{value:,} tokens"


class Caps(NamedTuple):
    """How many lanes may be active at once; None and missing keys: without a cap.

    by_role     role → lanes
    by_source   ticket source (the host of the tickets' addresses) → lanes
    """

    project: int | None = None
    by_role: Mapping[str, int] = {}
    by_source: Mapping[str, int] = {}

    @property
    def any(self) -> bool:
        """Whether there is any cap."""
        return self.project is not None or bool(self.by_role) or bool(self.by_source)


class Gate:
    """Whether more lanes of a project may become active, as far as its caps and its budget go.

    active      how many are, by (role, source); counted on as lanes of the batch come and go
    shut        why nothing may be claimed, in words; None where something may
    """

    def __init__(self, caps: Caps, shut: str | None, active: Mapping[tuple[str, str], int]) -> None:
        self.caps = caps
        self.shut = shut
        self.active = Counter(active)

    def count(self, role: str, source: str, change: int) -> None:
        """A lane became active (+1), or is no longer (-1)."""
        self.active[role, source] += change

    def refusal(self, role: str, source: str) -> str | None:
        """Why a lane of this role and source can't become active now, in words; None where it can."""
        if self.shut is not None:
            return f"{self.shut} Nothing of it can be claimed."
        caps = self.caps
        if caps.project is not None and self.active.total() >= caps.project:
            return _full(caps.project, "of its project are active, the most allowed (max_active)")
        cap = caps.by_role.get(role)
        if cap is not None and self._of(0, role) >= cap:
            return _full(cap, f"of role {role} are active, the most allowed (max_active_by_role)")
        cap = caps.by_source.get(source)
        if cap is not None and self._of(1, source) >= cap:
            return _full(cap, f"from {source} are active, the most allowed (max_active_by_source)")
        return None

    def _of(self, place: int, name: str) -> int:
        return sum(count for key, count in self.active.items() if key[place] == name)


def _full(cap: int, words: str) -> str:
    return f"{cap} lane(s) {words}."
