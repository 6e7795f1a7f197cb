"""`heartlane.store.check`: nothing is said of a database that is well, and each thing that is wrong is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from heartlane.store.check import check, check_async
from tests.harness import Harness


async def lived(harness: Harness) -> dict[str, str]:
    """Lanes that went every way that there is: by what became of them, their ids."""
    names = ("queued", "running", "paused", "shipped", "failed", "cancelled", "lost", "released", "retried", "quiet")
    runs = await harness.approved(len(names), max_failures=2)
    ids = {name: str(run["id"]) for name, run in zip(names, runs, strict=True)}
    for name in names[1:]:
        await harness.claim(ids[name], name, lease_seconds=60 if name == "lost" else 3600)
    usage = {"agent": "claude", "model": "m", "input_tokens": 7, "output_tokens": 5, "cost_usd": 0.25}
    actions = [{"type": "action", "payload": {"n": 1, "usage": usage}}, {"type": "log_line", "payload": {"line": "x"}}]

    async def said(name: str, **fields: Any) -> None:
        response = await harness.report(ids[name], name, **fields)
        assert response.status_code == 200, response.text

    async def done(name: str, verb: str, **fields: Any) -> None:
        response = await harness.operator.post(f"/api/agents/runs/{ids[name]}/{verb}", json=fields or None)
        assert response.status_code == 200, response.text

    await said("running", events=actions, phase="tests", seq=1)
    await said("running", log_line="beside")
    await said("paused", events=actions)
    await done("paused", "pause")
    await said("shipped", events=[*actions, {"type": "phase_change", "payload": {"phase": "shipping"}}])
    await said("shipped", events=[{"type": "ship_complete", "payload": {"pr_url": "https://x.test/1", "summary": "s"}}])
    await said("failed", events=[{"type": "error", "payload": {"message": "no", "fatal": True, "reason": "crash"}}])
    await done("cancelled", "cancel")
    await done("retried", "cancel")
    await done("retried", "retry")
    await harness.claim(ids["retried"], "again", lease_seconds=3600)
    await done("released", "release", retry_after=30, reason="later", failed=True)
    await harness.let_pass(90)
    assert (await harness.read(ids["lost"]))["state"] == "queued"
    await done("running", "pause")
    await done("running", "resume")
    return ids


async def test_all_is_well_after_every_way_that_a_lane_can_go(harness: Harness, database_url: str) -> None:
    await lived(harness)
    found = await check_async(database_url)
    assert [str(problem) for problem in found.problems] == []
    assert found.runs == 10
    assert found.events > 20
    assert not found.damaged


async def test_what_is_wrong_with_a_row_is_found(harness: Harness, database_url: str) -> None:
    ids = await lived(harness)
    async with harness.store.writing() as tx:
        for name, change in {
            "running": "lease_expires_at = NULL",
            "queued": "worker_id = 'nobody'",
            "shipped": "summary = 'another'",
            "failed": "finished_at = NULL",
            "cancelled": "failures = 1",
            "quiet": "event_count = event_count + 1",
            "released": "blockers_left = 3",
        }.items():
            await tx.conn.execute(text(f"UPDATE runs SET {change} WHERE id = '{ids[name]}'"))
    found = await check_async(database_url)
    assert found.damaged
    said = {(problem.kind, problem.run_id) for problem in found.problems}
    for kind, name in (
        *(("rule", "running"), ("rule", "queued"), ("log", "queued"), ("log", "shipped"), ("rule", "failed")),
        *(("log", "failed"), ("log", "cancelled"), ("log", "quiet"), ("rule", "released")),
    ):
        assert (kind, ids[name]) in said, (kind, name)
    assert not {ids[name] for name in ("paused", "lost", "retried")} & {run_id for _, run_id in said}


async def test_what_is_wrong_with_the_log_is_found(harness: Harness, database_url: str) -> None:
    ids = await lived(harness)
    async with harness.store.writing() as tx:
        numbers = {str(run_id): number for run_id, number in await tx.conn.execute(text("SELECT id, number FROM runs"))}
        of = {name: numbers[run_id] for name, run_id in ids.items()}
        first = f"DELETE FROM events WHERE run_number = {of['shipped']} AND last_seq = 1"
        last = f"UPDATE events SET body = '[]' WHERE run_number = {of['running']} AND last_seq = 1"
        body = json.dumps([{"type": "claimed", "payload": {"worker_id": "x", "attempt": 9, "lease_seconds": 60}}])
        other = f"UPDATE events SET body = '{body}' WHERE run_number = {of['quiet']}".replace(":", r"\:")
        orphan = f"UPDATE events SET run_number = 1000000 WHERE run_number = {of['failed']}"
        for statement in (first, last, other, orphan):
            await tx.conn.execute(text(statement))
    found = await check_async(database_url)
    said = {problem.run_id: str(problem) for problem in found.problems if problem.kind == "log"}
    assert set(said) == {ids[name] for name in ("shipped", "running", "quiet", "failed")}
    assert "goes on with event 2 after 0" in said[ids["shipped"]]
    assert "others than their row says" in said[ids["running"]]
    assert "attempt 9 was claimed" in said[ids["quiet"]]
    assert any("run 1000000" in str(problem) for problem in found.problems)


async def test_a_quick_check_leaves_the_logs_out(harness: Harness, database_url: str) -> None:
    ids = await lived(harness)
    async with harness.store.writing() as tx:
        await tx.conn.execute(text(f"UPDATE runs SET summary = 'another' WHERE id = '{ids['shipped']}'"))
    assert (await check_async(database_url, quick=True)).problems == []
    assert (await check_async(database_url)).damaged


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_damaged_page_is_found(sqlite_template: Path, tmp_path: Path, place: float) -> None:
    path = tmp_path / "damaged.db"
    content = bytearray(sqlite_template.read_bytes())
    page = int(len(content) // 4096 * place)
    content[page * 4096 : (page + 1) * 4096] = bytes([0x5A]) * 4096
    path.write_bytes(content)
    found = check(f"sqlite:///{path}")
    assert found.damaged
    assert {problem.kind for problem in found.problems} >= {"page"}
