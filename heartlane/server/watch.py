"""Watches for what only time tells, raises notices of it, and closes those whose condition is gone.

Every server on a database does this. The key of a notice names its episode, so that whichever server is first, it is
told once: a lane that shows progress and stalls again has another key, the same standstill has the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import structlog

from heartlane.lanes.run import Run, is_stalled
from heartlane.store.errors import StoreError
from heartlane.store.notices import Notice, add_notices, close_notices
from heartlane.store.store import Store
from heartlane.store.watching import WaitingPlan, Watched, is_over, is_silent, look_around

log = structlog.get_logger(__name__)

WATCH_SECONDS: Final = 10.0
"""Time between two looks, and so how late a notice may come or go."""
RETRY_SECONDS: Final = 5.0


class Watch:
    """Runs rounds until it is closed."""

    def __init__(self, store: Store, *, watch_seconds: float = WATCH_SECONDS) -> None:
        self._store = store
        self._seconds = watch_seconds
        self._known: frozenset[str] = frozenset()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on in a task of its own."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            wait = self._seconds
            try:
                await self.round()
            except StoreError as error:
                log.warning("watch_waits", error=str(error))
                wait = RETRY_SECONDS
            except Exception:
                log.exception("watch_failed")
            # Servers that started together drift apart.
            await asyncio.sleep(wait * random.uniform(0.8, 1.0))  # noqa: S311 - jitter, not a secret

    async def round(self) -> None:
        """One look, and what comes of it. Raises StoreError."""
        seen = await look_around(self._store)
        over = [standing.notice.id for standing in seen.open if is_over(standing, seen.now)]
        wanted = {notice.key: notice for notice in _wanted(seen)}
        # A condition that lasts is seen again with each look: what was written the last time is not tried again.
        new = [notice for key, notice in wanted.items() if key not in self._known]
        if new or over:
            async with self._store.writing() as tx:
                await close_notices(tx, over)
                await add_notices(tx, new)
        self._known = frozenset(wanted)


def _wanted(seen: Watched) -> Iterator[Notice]:
    silent_already = {
        (standing.notice.project_id, standing.notice.worker_id)
        for standing in seen.open
        if standing.notice.kind == "worker_silent" and not is_over(standing, seen.now)
    }
    for run in sorted(seen.quiet, key=lambda run: run.number):
        if is_silent(run, seen.now):
            # One notice for a worker, however many lanes it holds.
            if (run.project_id, run.worker_id) not in silent_already:
                silent_already.add((run.project_id, run.worker_id))
                yield _silent(run)
        elif is_stalled(run, seen.now):
            yield _stalled(run)
    for plan in seen.plans:
        if plan.waits(seen.now):
            yield _waiting(plan, seen.now)


def _stalled(run: Run) -> Notice:
    since = run.progress_at.isoformat() if run.progress_at else ""
    minutes = max(1, round(run.stalled_after_seconds / 60))
    return _of_run(
        "lane_stalled",
        run,
        f"{run.id}:{run.attempt}:{since}",
        f"{run.title!r} has shown nothing but heartbeats for {minutes} min; worker {run.worker_id!r} has it in phase "
        f"{run.phase or 'none'!r}.",
    )


def _silent(run: Run) -> Notice:
    heard = f"{run.last_heartbeat:%Y-%m-%d %H:%M:%S} UTC" if run.last_heartbeat else "never"
    last = run.last_heartbeat.isoformat() if run.last_heartbeat else ""
    until = f" until {run.lease_expires_at:%H:%M:%S} UTC" if run.lease_expires_at else ""
    text = f"Worker {run.worker_id!r} was last heard {heard}; it holds {run.title!r}{until}."
    return _of_run("worker_silent", run, f"{run.id}:{run.attempt}:{last}", text)


def _of_run(kind: str, run: Run, episode: str, text: str) -> Notice:
    return Notice(
        kind,
        f"{kind}:{episode}",
        run.billing_account_id,
        run.project_id,
        text,
        run_id=run.id,
        plan_id=run.plan_id,
        worker_id=run.worker_id,
        details={"title": run.title, "attempt": run.attempt, "phase": run.phase, "log_line": run.log_line},
    )


def _waiting(plan: WaitingPlan, now: datetime) -> Notice:
    minutes = int((now - plan.created_at).total_seconds() // 60)
    span = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
    return Notice(
        "plan_waiting",
        f"plan_waiting:{plan.id}",
        plan.billing_account_id,
        plan.project_id,
        f"The plan {plan.title!r} has waited for approval for {span}.",
        plan_id=plan.id,
        details={"title": plan.title, "created_at": plan.created_at.isoformat()},
    )
