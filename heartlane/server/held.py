"""What is known of an account whose work is followed: its held runs as they were looked at last, and its newest plans.

It serves to find what nobody announced: a lane that has gone quiet, a lease that was renewed, and whatever changed in
an announcement that was lost.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, NamedTuple

from heartlane.lanes.run import Run, Watched, is_stalled, needs_attention
from heartlane.store.log import HeldRun
from heartlane.store.plans import Plan


class Seen(NamedTuple):
    """One held run: what tells that it has changed, and its last renewal."""

    key: tuple[Any, ...]
    renewed_at: datetime | None


class Held:
    """One account.

    known       set once it has been looked at for the first time: what changes from then on is told
    plans_at    the database's time when its plans were looked at last
    """

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self.known = asyncio.Event()
        self.plans_at: datetime | None = None
        self._before: dict[int, Seen] = {}
        self._now: dict[int, Seen] = {}
        self._plans: dict[str, datetime] = {}

    def begin(self) -> None:
        """A look at all held runs begins."""
        self._now = {}

    def look(self, run: HeldRun, now: datetime) -> tuple[bool, bool]:
        """Whether the run has changed since it was looked at or told last, and whether its lease was renewed."""
        before = self._before.get(run.number)
        seen = self._now[run.number] = Seen(_key(run, run.attempt, run.phase, now), run.last_heartbeat)
        return before is None or before.key != seen.key, before is None or before.renewed_at != seen.renewed_at

    def end(self) -> None:
        """All held runs were looked at: those that were not are held no more."""
        self._before, self._now = self._now, {}

    def has_changed(self, run: Run, now: datetime) -> bool:
        """The same for a run that was read whole, which counts as looked at by that; its renewal doesn't."""
        before = self._before.get(run.number)
        if not run.held:
            return True
        key = _key(run, run.attempt, run.phase, now)
        self._before[run.number] = Seen(key, None if before is None else before.renewed_at)
        return before is None or before.key != key

    def is_news(self, plan: Plan) -> bool:
        """Whether the plan was not told as it is now."""
        if self._plans.get(plan.id) == plan.updated_at:
            return False
        self._plans[plan.id] = plan.updated_at
        return True

    def forget_plans(self, since: datetime) -> None:
        """Forget plans that no look comes across any more."""
        for plan_id in [plan_id for plan_id, updated_at in self._plans.items() if updated_at < since]:
            del self._plans[plan_id]


def _key(run: Watched, attempt: int, phase: str | None, now: datetime) -> tuple[Any, ...]:
    """What changes whenever a run that is held has changed beyond a heartbeat; time alone changes it, too."""
    attention = needs_attention(run, now, stalled=is_stalled(run, now))
    return (run.state, attempt, phase, run.progress_at, attention)
