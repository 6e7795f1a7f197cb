"""The server's own hand: takes expired leases back, ripens lanes that were held back, and says that a server runs.

Every server on a database does this by itself and at its own moments. That is safe: the rules decide again under the
row's lock, so a run that was renewed, released or taken back meanwhile is left alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import datetime, timedelta
from typing import Final

import structlog

from heartlane.lanes.commands import Ripen, TakeBack
from heartlane.lanes.decisions import Decision
from heartlane.server.budgets import carry_out
from heartlane.server.metrics import Metrics
from heartlane.store.control import EXPIRED_AT_ONCE, GAP_SECONDS, due_again, due_for_take_back, sign_of_life, upcoming
from heartlane.store.errors import StoreError
from heartlane.store.partitions import ensure_partitions
from heartlane.store.store import Store

log = structlog.get_logger(__name__)

SIGN_EVERY: Final = timedelta(seconds=0.9)
"""How often a server says that it runs; `GAP_SECONDS` without any such sign is a time without servers."""
PARTITION_CHECK_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 1.0


class TakeBackLoop:
    """Runs rounds until it is closed.

    interval_seconds    longest time between two rounds; a lane that is held back shortens it to its moment
    """

    def __init__(self, store: Store, metrics: Metrics, interval_seconds: float) -> None:
        self._store = store
        self._metrics = metrics
        self._interval = interval_seconds
        # A SQLite file has one server at a time: when this one starts, none was running.
        self._first = store.dialect == "sqlite"
        self._signed_at: datetime | None = None
        self._resumed_at: datetime | None = None
        self._knows_until: datetime | None = None
        self._partitions_checked = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on in a task of its own."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop after the round under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                wait = await self.round()
            except StoreError as error:
                log.warning("take_back_waits", error=str(error))
                wait = RETRY_SECONDS
            except Exception:
                log.exception("take_back_failed")
                wait = RETRY_SECONDS
            await asyncio.sleep(wait)

    async def round(self) -> float:
        """One round; how many seconds until the next one is due. Raises StoreError."""
        if time.monotonic() - self._partitions_checked > PARTITION_CHECK_SECONDS:
            await ensure_partitions(self._store, await self._store.now())
            self._partitions_checked = time.monotonic()
        now, take_back_at, not_before, budgets = await upcoming(self._store)
        # Always before the take-back: it tells whether there was a time without a server just now.
        if self._signed_at is None or not timedelta() <= now - self._signed_at < SIGN_EVERY:
            self._resumed_at = await sign_of_life(self._store, first=self._first)
            self._signed_at = now
            self._knows_until = now + timedelta(seconds=GAP_SECONDS)
            self._first = False
        if take_back_at is not None and take_back_at <= now and await self._take_back(now):
            return 0.0
        if not_before is not None and not_before <= now:
            for run_id in await due_again(self._store, now):
                await self._store.ledger.submit(run_id, Ripen(), urgent=True)
            return 0.0
        if budgets:
            await carry_out(self._store, now)
        # Servers that started together drift apart, so that they don't look at the same rows at the same moment.
        wait = self._interval * random.uniform(0.8, 1.0)  # noqa: S311 - jitter, not a secret
        moments = [moment for moment in (take_back_at, not_before) if moment is not None and moment > now]
        return min([wait, *((moment - now).total_seconds() for moment in moments)])

    async def _take_back(self, now: datetime) -> bool:
        run_ids = await due_for_take_back(self._store, now)
        command = TakeBack(self._resumed_at, self._knows_until)
        outcomes = await asyncio.gather(
            *(self._store.ledger.submit(run_id, command, urgent=True) for run_id in run_ids)
        )
        for outcome in outcomes:
            if outcome.run is not None and isinstance(outcome.decision, Decision) and outcome.decision.events:
                self._metrics.taken_back()
                payload = outcome.decision.events[0].payload
                log.warning(
                    "lease_expired",
                    run_id=outcome.run.id,
                    worker_id=payload["worker_id"],
                    attempt=payload["attempt"],
                    last_heard=payload["last_heard"],
                    state=outcome.run.state,
                )
        return len(run_ids) == EXPIRED_AT_ONCE
