"""What the changes of runs in one batch mean to the world outside: notices and news, written in its transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from heartlane.lanes.run import Event, Run
from heartlane.store.notices import Notice, write_notices
from heartlane.store.outbox import News, tell
from heartlane.store.rows import Rows
from heartlane.wire.run_json import run_body

CAUSE_MAX: Final = 300


class Happened(NamedTuple):
    """One piece of news about a run: its type, the run before and after, and the event that it stands for."""

    type: str
    before: Run
    after: Run
    event: Event | None


async def tell_of_runs(rows: Rows, happened: Sequence[Happened], now: datetime, listening: Collection[str]) -> bool:
    """Write what a batch has to tell; whether anything went into the outbox.

    listening   the projects that have webhooks: for others there is nothing to write but notices
    """
    told = False
    heard = [each for each in happened if each.after.project_id in listening]
    if heard:
        told = await tell(rows, [_news(each, now) for each in heard], now)
    wanted = [notice for each in happened if (notice := notice_of(each, now)) is not None]
    if wanted:
        _, sent = await write_notices(rows, wanted, now)
        told = told or sent
    return told


def _news(happened: Happened, now: datetime) -> News:
    data: dict[str, Any] = {"run": run_body(happened.after, now)}
    if happened.event is not None:
        data["event"] = {"type": happened.event.type, "payload": happened.event.payload}
    return News(happened.type, happened.after.project_id, data)


def notice_of(happened: Happened, now: datetime) -> Notice | None:
    """The notice that a change of a run is, where it is one."""
    before, run = happened.before, happened.after
    if happened.type == "run.waiting":
        what = "" if run.waiting_for in (None, "person") else f" ({run.waiting_for})"
        text = f"{run.title!r} waits for a person{what}: worker {run.worker_id!r} goes on when it has an answer."
        return _notice("lane_waiting", run, f"{run.attempt}:{now.isoformat()}", text)
    if happened.type != "run.failed" or (happened.event is not None and happened.event.type == "cancelled"):
        return None  # who cancels a lane knows of it
    cause = (run.error or "no reason was given")[:CAUSE_MAX]
    episode = f"{run.attempt}:{run.event_count}"
    if run.failures > before.failures and run.failures >= run.max_failures:
        text = f"{run.title!r} failed for good, after {run.failures} failures: {cause}"
        return _notice("attempts_used_up", run, episode, text)
    return _notice("lane_failed", run, episode, f"{run.title!r} failed: {cause}")


def _notice(kind: str, run: Run, episode: str, text: str) -> Notice:
    return Notice(
        kind,
        f"{kind}:{run.id}:{episode}",
        run.billing_account_id,
        run.project_id,
        text,
        run_id=run.id,
        plan_id=run.plan_id,
        worker_id=run.worker_id or run.last_worker_id,
        details={"title": run.title, "attempt": run.attempt, "error": run.error, "waiting_for": run.waiting_for},
    )
