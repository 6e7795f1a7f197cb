"""Old events go, and nothing else: lanes that have not ended keep their log, and what is missing is said."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from heartlane.store.check import check_async
from heartlane.store.partitions import week_of
from heartlane.store.prune import Pruned, prune_events
from tests.harness import Harness
from tests.server.test_work_stream import follow

AGE = timedelta(days=30)


async def pruned(url: str, **options: Any) -> Pruned:
    """Prune what is older than 30 days."""
    return await asyncio.to_thread(prune_events, url, AGE, **options)


async def grow_old(harness: Harness, run_ids: list[str], days: int) -> None:
    """Let all that these runs' logs hold so far be so much older."""
    postgres = harness.store.dialect == "postgresql"
    moved = timedelta(days=days)
    async with harness.store.writing() as tx:
        if postgres:
            week = week_of(tx.now - moved)
            for start in (week, week + timedelta(weeks=1)):
                bounds = f"FROM ('{start.isoformat()}') TO ('{(start + timedelta(weeks=1)).isoformat()}')"
                name = f"events_{start:%Y%m%d}"
                await tx.conn.execute(
                    text(f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF events FOR VALUES {bounds}")
                )
        by = f"interval '{days} days'" if postgres else str(int(moved.total_seconds()) * 1_000_000)
        for run_id in run_ids:
            of = f"(SELECT number FROM runs WHERE id = '{run_id}')"
            await tx.conn.execute(text(f"UPDATE events SET recorded_at = recorded_at - {by} WHERE run_number = {of}"))
            await tx.conn.execute(
                text(
                    f"UPDATE runs SET created_at = created_at - {by}, claimed_at = claimed_at - {by}, "
                    f"finished_at = finished_at - {by} WHERE id = '{run_id}'"
                )
            )


async def ship(harness: Harness, run_id: str) -> None:
    await harness.claim(run_id, lease_seconds=3600)
    for count in range(3):
        assert (await harness.report(run_id, events=[{"type": "action", "payload": {"n": count}}])).status_code == 200
    assert (await harness.report(run_id, events=[{"type": "ship_complete"}])).status_code == 200


async def test_old_events_of_ended_lanes_go_and_all_others_stay(harness: Harness, database_url: str) -> None:
    old, young, working = [run["id"] for run in await harness.approved(3)]
    await ship(harness, old)
    await harness.claim(working, lease_seconds=3600)
    await grow_old(harness, [old, working], 60)
    await ship(harness, young)
    assert (await harness.report(working, events=[{"type": "action"}])).status_code == 200

    would = await pruned(database_url, dry_run=True)
    assert (would.rows, would.events) == (5, 5)
    assert len(await harness.events(old)) == 5
    assert await check_problems(database_url) == []

    gone = await pruned(database_url)
    assert (gone.rows, gone.events) == (5, 5)
    assert not gone.waiting
    assert await harness.events(old) == []
    assert len(await harness.events(young)) == 5
    assert [event["type"] for event in await harness.events(working)] == ["claimed", "action"]
    assert (await harness.read(old))["event_count"] == 5
    assert await pruned_seq(harness, old) == 5
    assert await pruned_seq(harness, young) == await pruned_seq(harness, working) == 0
    assert await check_problems(database_url) == []
    assert (await pruned(database_url)).rows == 0
    # The lane that was kept goes when it has ended.
    assert (await harness.report(working, events=[{"type": "ship_complete"}])).status_code == 200
    assert (await pruned(database_url)).events == 1
    assert [event["seq"] for event in await harness.events(working)] == [2, 3]
    assert await pruned_seq(harness, working) == 1
    assert await check_problems(database_url) == []


async def test_what_is_missing_otherwise_is_still_found(harness: Harness, database_url: str) -> None:
    old, young = [run["id"] for run in await harness.approved(2)]
    await ship(harness, old)
    await grow_old(harness, [old], 60)
    await ship(harness, young)
    await pruned(database_url)
    async with harness.store.writing() as tx:
        await tx.conn.execute(
            text(
                f"DELETE FROM events WHERE last_seq = 1 AND run_number = (SELECT number FROM runs WHERE id = '{young}')"
            )
        )
    assert await check_problems(database_url) == [f"Run {young}: its log goes on with event 2 after 0."]


async def test_a_retried_lane_goes_on_behind_what_was_pruned(harness: Harness, database_url: str) -> None:
    (run,) = await harness.approved(1)
    await harness.claim(run["id"], lease_seconds=3600)
    assert (await harness.operator.post(f"/api/agents/runs/{run['id']}/cancel")).status_code == 200
    await grow_old(harness, [run["id"]], 60)
    assert (await pruned(database_url)).events == 2
    assert (await harness.operator.post(f"/api/agents/runs/{run['id']}/retry")).status_code == 200
    await ship(harness, run["id"])
    assert [event["seq"] for event in await harness.events(run["id"])] == [3, 4, 5, 6, 7, 8]
    assert await check_problems(database_url) == []


async def test_a_stream_that_was_left_before_says_that_events_are_gone(harness: Harness, database_url: str) -> None:
    old, working = [run["id"] for run in await harness.approved(2)]
    await harness.claim(working, lease_seconds=3600)
    await grow_old(harness, [working], 61)
    await ship(harness, old)
    await grow_old(harness, [old], 60)
    await pruned(database_url)
    (young,) = await harness.approved(1)
    await ship(harness, young["id"])
    async with follow(harness, last="2") as stream:
        told = await stream.next()
        assert (told.event, told.data["reason"]) == ("reset", "too_old")


async def check_problems(url: str) -> list[str]:
    return [str(problem) for problem in (await check_async(url)).problems]


async def pruned_seq(harness: Harness, run_id: str) -> int:
    answer = (await harness.viewer.get(f"/api/agents/runs/{run_id}/events")).json()
    seq: int = answer["pruned_seq"]
    return seq
