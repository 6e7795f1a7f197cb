"""What a batch adds to the counts of the day: attempts, their ends, what they used, and how long phases took.

Counts are kept by project and day in the transaction of the change itself, so that figures over months are read from
few rows. Whatever a heartbeat changes adds nothing here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Table

from heartlane.lanes.run import Run
from heartlane.lanes.usage import Usage
from heartlane.store.columns import EPOCH
from heartlane.store.schema import failure_days, phase_days, usage_days

TALLIED: Final = frozenset({"state", "phase", "attempt_usage_json"})
"""Columns whose changes may add to a count."""
STEPS_A_DOUBLING: Final = 4
"""Steps of the scale of durations for each doubling: a figure read from it is within 10 percent of the true one."""
BUCKET_MAX: Final = 100
PHASE_MAX: Final = 60
"""Characters of a phase's name by which it is counted; they are the worker's own words."""
NO_REASON: Final = "unknown"
SHARDS: Final = 16
"""Rows for each count: those who count at the same moment mostly write to different ones."""


def _adding(table: Table) -> str:
    """The statement that adds to a count, its parameters `$`, in the order of the table's columns."""
    names = [column.name for column in table.columns]
    key = [column.name for column in table.primary_key.columns]
    added = ", ".join(f'"{name}" = {table.name}."{name}" + excluded."{name}"' for name in names if name not in key)
    quoted = ", ".join(f'"{name}"' for name in names)
    marks = ", ".join("$" for _ in names)
    return f"INSERT INTO {table.name} ({quoted}) VALUES ({marks}) ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"


ADD_USAGE: Final = _adding(usage_days)
ADD_FAILURES: Final = _adding(failure_days)
ADD_PHASES: Final = _adding(phase_days)


class UsageKey(NamedTuple):
    """What usage is counted by. `agent` and `model` are "" where nobody said them."""

    project_id: str
    day: int
    role: str
    agent: str
    model: str


class DayUsage(NamedTuple):
    """What is added to a day."""

    attempts: int = 0
    shipped: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_micros: int = 0


class FailureKey(NamedTuple):
    """What failures are counted by."""

    project_id: str
    day: int
    reason: str


class PhaseKey(NamedTuple):
    """What phases that ended are counted by."""

    project_id: str
    day: int
    phase: str
    bucket: int


def day_of(moment: datetime) -> int:
    """Days since 1970 (UTC).

    >>> from datetime import UTC
    >>> day_of(datetime(1970, 1, 2, 23, 59, tzinfo=UTC))
    1
    """
    return (moment - EPOCH).days


def bucket_of(seconds: float) -> int:
    """The place of a duration on the scale: 0 below a second, then four steps for each doubling.

    >>> bucket_of(0.2), bucket_of(1.0), bucket_of(2.0), bucket_of(60.0)
    (0, 1, 5, 24)
    """
    return 0 if seconds < 1 else min(BUCKET_MAX, 1 + int(math.log2(seconds) * STEPS_A_DOUBLING))


def seconds_of(bucket: int) -> float:
    """The duration in the middle of a step, in seconds.

    >>> round(seconds_of(bucket_of(60.0)), 1)
    58.7
    """
    return 0.5 if bucket == 0 else 2.0 ** ((bucket - 0.5) / STEPS_A_DOUBLING)


class Tallies:
    """What one batch adds."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._day = day_of(now)
        self.usage: dict[UsageKey, DayUsage] = {}
        self.failures: Counter[FailureKey] = Counter()
        self.phases: Counter[PhaseKey] = Counter()
        self.spent: dict[str, tuple[int, int]] = {}
        """Project → micro-dollars and tokens."""

    def __bool__(self) -> bool:
        return bool(self.usage or self.failures or self.phases)

    def note(self, before: Run, after: Run, changed: Collection[str], last_event: str) -> None:
        """Count what has become of a run. `last_event` is the type of the last event that was appended, "" for none."""
        ended = before.held and not after.held
        if "attempt_usage_json" in changed and before.attempt == after.attempt:
            self._note_usage(before, after)
        if ended:
            self._note_end(before, after, last_event)
        if before.held and before.phase is not None and (ended or after.phase != before.phase):
            since = before.phase_at or before.claimed_at or self._now
            bucket = bucket_of((self._now - since).total_seconds())
            self.phases[PhaseKey(before.project_id, self._day, before.phase[:PHASE_MAX], bucket)] += 1

    def _note_usage(self, before: Run, after: Run) -> None:
        used = Usage(*((getattr(after, name) or 0) - (getattr(before, name) or 0) for name in Usage._fields))
        self._add(
            after,
            DayUsage(
                input_tokens=used.input_tokens or 0,
                output_tokens=used.output_tokens or 0,
                cached_tokens=used.cached_tokens or 0,
                cost_micros=used.cost_micros or 0,
            ),
        )
        usd, tokens = self.spent.get(after.project_id, (0, 0))
        self.spent[after.project_id] = (usd + (used.cost_micros or 0), tokens + used.tokens)

    def _note_end(self, before: Run, after: Run, last_event: str) -> None:
        failed = after.failures > before.failures or after.state == "failed"
        self._add(after, DayUsage(attempts=1, shipped=int(after.state == "shipped"), failed=int(failed)))
        if failed:
            reason = last_event if last_event in ("lease_expired", "cancelled") else after.failure_reason
            self.failures[FailureKey(after.project_id, self._day, reason or NO_REASON)] += 1

    def _add(self, run: Run, more: DayUsage) -> None:
        key = UsageKey(run.project_id, self._day, run.role, run.agent or "", run.model or "")
        old = self.usage.get(key)
        self.usage[key] = more if old is None else DayUsage(*map(sum, zip(old, more, strict=True)))


def tally_rows(tallies: Tallies, shard: int) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """What to execute, and with which rows: in one order for all, so that no two batches wait for each other."""
    return [
        (statement, rows)
        for statement, rows in (
            (ADD_USAGE, [(*key, shard, *more) for key, more in sorted(tallies.usage.items())]),
            (ADD_FAILURES, [(*key, shard, count) for key, count in sorted(tallies.failures.items())]),
            (ADD_PHASES, [(*key, shard, count) for key, count in sorted(tallies.phases.items())]),
        )
        if rows
    ]
