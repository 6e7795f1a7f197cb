"""Notices: each told once for each episode, closed by progress or by hand, and only where the rules want it."""

from __future__ import annotations

from typing import Any

import pytest

from heartlane.server.watch import Watch
from heartlane.store.notices import Notice, add_notices, close_by_key
from heartlane.wire.news import NoticeAnswer, NoticeList, NoticeRulesAnswer
from tests.harness import Harness, assert_error


async def listed(harness: Harness, **query: Any) -> list[dict[str, Any]]:
    """The notices, oldest first."""
    response = await harness.viewer.get("/api/agents/notices", params=query)
    assert response.status_code == 200, response.text
    NoticeList.model_validate(response.json(), extra="forbid")
    found: list[dict[str, Any]] = response.json()["notices"]
    return found[::-1]


async def kinds(harness: Harness, **query: Any) -> list[str]:
    return [each["kind"] for each in await listed(harness, **query)]


async def held(harness: Harness, lease_seconds: int = 3_600, **project: Any) -> dict[str, Any]:
    """A lane of a new project that w1 holds and has reported on."""
    (run,) = await harness.approved(**project)
    await harness.claim(run["id"], lease_seconds=lease_seconds)
    await harness.report(run["id"], log_line="begun")
    return run


async def test_a_lane_that_stalls_is_told_once_and_again_when_it_stalls_again(harness: Harness) -> None:
    run = await held(harness, stalled_after_seconds=600)
    await harness.watch.round()
    assert await listed(harness) == []
    harness.store.clock.advance(601)
    await harness.report(run["id"])
    # Heartbeats, more looks and another server don't tell it again.
    for _ in range(3):
        await harness.watch.round()
        await Watch(harness.store).round()
        await harness.report(run["id"])
    (notice,) = await listed(harness, open="true")
    assert (notice["kind"], notice["run_id"], notice["worker_id"]) == ("lane_stalled", run["id"], "w1")
    assert "10 min" in notice["text"]
    await harness.report(run["id"], log_line="on again")
    await harness.watch.round()
    (closed,) = await listed(harness)
    assert (closed["closed_by"], closed["dismissed_by"]) == ("progress", None)
    assert await listed(harness, open="true") == []
    harness.store.clock.advance(601)
    await harness.report(run["id"])
    await harness.watch.round()
    assert len(await listed(harness, open="true")) == 1
    assert len(await listed(harness)) == 2


async def test_a_paused_lane_and_one_that_waits_for_a_person_have_not_stalled(harness: Harness) -> None:
    run = await held(harness, stalled_after_seconds=60)
    await harness.operator.post(f"/api/agents/runs/{run['id']}/pause")
    harness.store.clock.advance(600)
    await harness.watch.round()
    assert await listed(harness) == []
    await harness.operator.post(f"/api/agents/runs/{run['id']}/resume")
    await harness.report(run["id"], phase="waiting")
    harness.store.clock.advance(600)
    await harness.report(run["id"], phase="waiting")
    await harness.watch.round()
    assert await kinds(harness) == ["lane_waiting"]


async def test_a_worker_that_waits_for_a_person_is_told_once_until_it_goes_on(harness: Harness) -> None:
    run = await held(harness)
    waiting = {"type": "phase_change", "payload": {"phase": "waiting", "for": "permission"}}
    for _ in range(3):
        await harness.report(run["id"], events=[waiting])
    (notice,) = await listed(harness, open="true")
    assert (notice["kind"], "(permission)" in notice["text"]) == ("lane_waiting", True)
    await harness.report(run["id"], phase="tests")
    await harness.watch.round()
    assert await listed(harness, open="true") == []
    await harness.report(run["id"], events=[waiting])
    assert len(await listed(harness, open="true")) == 1


async def test_a_worker_that_falls_silent_is_told_once_for_all_its_lanes(harness: Harness) -> None:
    first, second = await harness.approved(2)
    for run in (first, second):
        await harness.claim(run["id"], lease_seconds=90)
    harness.store.clock.advance(59)
    await harness.watch.round()
    assert await listed(harness) == []
    harness.store.clock.advance(5)
    for _ in range(2):
        await harness.watch.round()
        await Watch(harness.store).round()
    (notice,) = await listed(harness)
    assert (notice["kind"], notice["worker_id"], notice["run_id"]) == ("worker_silent", "w1", first["id"])
    # Taken back and taken over: somebody works on it again.
    await harness.let_pass(40)
    await harness.watch.round()
    assert len(await listed(harness, open="true")) == 1
    await harness.claim(first["id"], "w2")
    await harness.watch.round()
    assert await listed(harness, open="true") == []


async def test_a_worker_that_is_heard_again_is_silent_no_more(harness: Harness) -> None:
    run = await held(harness, lease_seconds=90)
    harness.store.clock.advance(70)
    await harness.watch.round()
    assert await kinds(harness, open="true") == ["worker_silent"]
    await harness.report(run["id"])
    await harness.watch.round()
    assert await listed(harness, open="true") == []


async def test_failures_are_told_but_not_what_an_operator_cancels(harness: Harness) -> None:
    fatal = {"type": "error", "payload": {"message": "out of tokens", "fatal": True}}
    run = await held(harness)
    await harness.report(run["id"], events=[fatal])
    (notice,) = await listed(harness)
    assert (notice["kind"], "out of tokens" in notice["text"]) == ("lane_failed", True)
    await harness.operator.post(f"/api/agents/runs/{run['id']}/retry")
    await harness.watch.round()
    assert await listed(harness, open="true") == []
    await harness.operator.post(f"/api/agents/runs/{run['id']}/cancel")
    assert len(await listed(harness)) == 1
    await harness.operator.post(f"/api/agents/runs/{run['id']}/retry")
    await harness.claim(run["id"])
    await harness.report(run["id"], events=[fatal])
    assert await kinds(harness) == ["lane_failed", "lane_failed"]

    (last,) = await harness.approved(max_failures=1)
    await harness.claim(last["id"])
    released = {"worker_id": "w1", "failed": True, "reason": "no"}
    await harness.worker.post(f"/api/agents/runs/{last['id']}/release", json=released)
    assert (await kinds(harness, project_id=last["project_id"])) == ["attempts_used_up"]


async def test_a_plan_that_nobody_decides_is_told_once(harness: Harness) -> None:
    project = await harness.project()
    rules = {"plan_waiting": {"after_seconds": 120}}
    path = f"/api/projects/{project['id']}/notice-rules"
    assert (await harness.admin.put(path, json=rules)).status_code == 200
    body = {"projectId": project["id"], "title": "Plan", "lanes": [{"laneKey": "a", "title": "A", "role": "qa"}]}
    plan = (await harness.operator.post("/api/agents/plan", json=body)).json()["plan"]
    harness.store.clock.advance(119)
    await harness.watch.round()
    assert await listed(harness) == []
    harness.store.clock.advance(1)
    for _ in range(2):
        await harness.watch.round()
        await Watch(harness.store).round()
    (notice,) = await listed(harness)
    assert (notice["kind"], notice["plan_id"]) == ("plan_waiting", plan["id"])
    await harness.operator.post(f"/api/agents/plans/{plan['id']}/reject", json={"reason": "no"})
    await harness.watch.round()
    assert [each["closed_by"] for each in await listed(harness)] == ["progress"]


async def test_rules_say_what_is_told(harness: Harness) -> None:
    project = await harness.project(stalled_after_seconds=60)
    path = f"/api/projects/{project['id']}/notice-rules"
    defaults = await harness.viewer.get(path)
    NoticeRulesAnswer.model_validate(defaults.json(), extra="forbid")
    assert defaults.json()["notice_rules"]["plan_waiting"] == {"enabled": True, "after_seconds": 3_600}
    changed = await harness.admin.put(
        path, json={"lane_stalled": {"enabled": False}, "lane_waiting": {"enabled": False}}
    )
    assert changed.json()["notice_rules"]["lane_stalled"] == {"enabled": False}
    assert (await harness.viewer.get(path)).json() == changed.json()
    (run,) = await harness.approved(project_id=project["id"])
    await harness.claim(run["id"], lease_seconds=3_600)
    await harness.report(run["id"], phase="waiting")
    await harness.report(run["id"], phase="tests")
    harness.store.clock.advance(600)
    await harness.report(run["id"])
    await harness.watch.round()
    assert await listed(harness) == []
    assert (await harness.admin.put(path, json={})).json() == defaults.json()
    await Watch(harness.store).round()
    assert await kinds(harness) == ["lane_stalled"]
    assert_error(await harness.operator.put(path, json={}), 403, "FORBIDDEN")
    bad = {"plan_waiting": {"after_seconds": 1}, "lane_failed": {"enabled": "yes"}}
    issues = assert_error(await harness.admin.put(path, json=bad), 400, "INVALID_REQUEST")["issues"]
    assert {issue["path"] for issue in issues} == {"plan_waiting.after_seconds", "lane_failed.enabled"}


async def test_a_notice_is_dismissed_by_hand_and_stays_so(harness: Harness) -> None:
    run = await held(harness, stalled_after_seconds=60)
    harness.store.clock.advance(61)
    await harness.report(run["id"])
    await harness.watch.round()
    (notice,) = await listed(harness)
    path = f"/api/agents/notices/{notice['id']}/dismiss"
    assert_error(await harness.viewer.post(path), 403, "FORBIDDEN")
    elsewhere = await harness.client("admin", account="elsewhere")
    assert_error(await elsewhere.post(path), 404, "NOT_FOUND")
    assert (await elsewhere.get("/api/agents/notices")).json()["notices"] == []
    dismissed = await harness.operator.post(path)
    NoticeAnswer.model_validate(dismissed.json(), extra="forbid")
    assert dismissed.json()["notice"]["closed_by"] == "dismissed"
    assert dismissed.json()["notice"]["dismissed_by"].startswith("operator-")
    assert (await harness.admin.post(path)).json() == dismissed.json()
    await Watch(harness.store).round()
    assert [each["id"] for each in await listed(harness)] == [notice["id"]], "the same standstill is not told again"
    assert await listed(harness, open="true") == []
    assert [each["id"] for each in await listed(harness, open="false")] == [notice["id"]]
    assert await listed(harness, kind="budget_80") == []


@pytest.mark.parametrize("times", [1, 3])
async def test_the_key_of_a_notice_makes_it_one(harness: Harness, times: int) -> None:
    project = await harness.project()
    notice = Notice("budget_80", "budget_80:today", project["billing_account_id"], project["id"], "80 % is used.")
    for place in range(times):
        async with harness.store.writing() as tx:
            assert await add_notices(tx, [notice, notice]) == (1 if place == 0 else 0)
    async with harness.store.writing() as tx:
        await close_by_key(tx, project["id"], ["budget_80:today"])
    (found,) = await listed(harness)
    assert (found["text"], found["closed_by"]) == ("80 % is used.", "progress")
