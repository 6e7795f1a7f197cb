"""Carries out what a budget's verdict means: workers stand still or stop, lanes go on again, and people are told.

Any server may do it, and several at once: the rules hold a lane once, and a notice is told once by its key.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

import structlog

from heartlane.lanes.commands import Hold, Lift
from heartlane.store import budgets
from heartlane.store.store import Store

log = structlog.get_logger(__name__)


async def carry_out(store: Store, now: datetime) -> None:
    """Bring every project whose verdict has changed to what it means. Raises StoreError."""
    for project_id, told in await budgets.due(store, now):
        standing = await budgets.refresh(store, project_id)
        if standing is None or standing.verdict.state == told:
            continue
        verdict = standing.verdict
        action = standing.budget.on_exceeded
        while run_ids := await (
            budgets.lanes_to_hold(store, project_id, action)
            if verdict.shut
            else budgets.lanes_to_lift(store, project_id)
        ):
            command = Hold(action, verdict.words or "") if verdict.shut else Lift()
            await asyncio.gather(*(store.ledger.submit(run_id, command, urgent=True) for run_id in run_ids))
        if await budgets.mark_told(store, project_id, standing):
            log.info("budget_verdict", project_id=project_id, state=verdict.state, words=verdict.words)
