"""The overview: counted as things change, told by day, phase, reason, project, role and agent."""

from __future__ import annotations

from typing import Any

import pytest

from heartlane.wire.overview import OverviewAnswer
from tests.harness import Harness, StandingClock, assert_error

DAY = 24 * 3_600


async def overview(harness: Harness, **query: Any) -> dict[str, Any]:
    response = await harness.viewer.get("/api/agents/overview", params=query)
    assert response.status_code == 200, response.text
    OverviewAnswer.model_validate(response.json(), extra="forbid")
    found: dict[str, Any] = response.json()["overview"]
    return found


@pytest.fixture
def standing_clock(harness: Harness) -> StandingClock:
    clock = StandingClock()
    clock.moment = clock.moment.replace(hour=1)
    harness.store.clock.adjusted = clock.adjusted  # type: ignore[method-assign]
    harness.store.clock.host_time = lambda: clock.moment  # type: ignore[method-assign]
    return clock


def event(kind: str, **payload: Any) -> dict[str, Any]:
    return {"type": kind, "payload": payload}


async def test_nothing_has_happened(harness: Harness) -> None:
    found = await overview(harness)
    assert len(found["days"]) == 14
    assert (found["phases"], found["failures"], found["total"]["cost_usd"]) == ([], [], 0)
    assert sum(found["lanes"].values()) == 0


async def test_what_happens_is_counted(harness: Harness, standing_clock: StandingClock) -> None:
    runs = await harness.approved(4)
    project_id = runs[0]["project_id"]
    for run in runs[:3]:
        await harness.claim(run["id"], lease_seconds=3_600)
        await harness.report(run["id"], events=[event("phase_change", phase="code")])
    standing_clock.advance(100)
    await harness.report(runs[0]["id"], events=[event("phase_change", phase="tests")])
    standing_clock.advance(20)
    await harness.report(
        runs[0]["id"],
        events=[event("ship_complete", cost_usd=2, input_tokens=10, output_tokens=5, agent="codex", model="m")],
    )
    await harness.report(runs[1]["id"], events=[event("error", message="no", reason="auth", fatal=True, cost_usd=0.5)])
    standing_clock.advance(DAY)
    back = {"worker_id": "w1", "failed": True}
    await harness.worker.post(f"/api/agents/runs/{runs[2]['id']}/release", json=back)
    found = await overview(harness, project_id=project_id, days=2)
    lanes = {state: count for state, count in found["lanes"].items() if count}
    assert lanes == {"queued": 1, "released": 1, "shipped": 1, "failed": 1}
    assert found["shipped_per_day"] == 1
    rare = await overview(harness, project_id=project_id, days=90)
    assert rare["shipped_per_day"] == pytest.approx(1 / 89), "small, and no zero"
    assert found["failures"][0] == {"reason": "auth", "count": 1}
    assert sum(each["count"] for each in found["failures"]) == 2
    code, tests = found["phases"]
    assert (code["phase"], code["count"], tests["phase"], tests["count"]) == ("code", 3, "tests", 1)
    assert tests["median_seconds"] == pytest.approx(20, rel=0.1)
    assert code["median_seconds"] == pytest.approx(120, rel=0.1)
    assert found["total"] == {
        "attempts": 3,
        "shipped": 1,
        "failed": 2,
        "input_tokens": 10,
        "output_tokens": 5,
        "cached_tokens": 0,
        "cost_usd": 2.5,
    }
    assert [(day["cost_usd"], day["attempts"]) for day in found["days"]] == [(2.5, 2), (0.0, 1)]
    assert [(row["agent"], row["model"], row["cost_usd"]) for row in found["agents"]] == [
        ("codex", "m", 2.0),
        (None, None, 0.5),
    ]
    assert [row["role"] for row in found["roles"]] == ["backend"]
    assert [row["project_id"] for row in found["projects"]] == [project_id]
    # What lies before the days that are asked for isn't told.
    assert (await overview(harness, project_id=project_id, days=1))["total"]["attempts"] == 1


async def test_only_what_is_within_reach_is_told(harness: Harness) -> None:
    (run,) = await harness.approved()
    (other,) = await harness.approved()
    for each in (run, other):
        await harness.claim(each["id"])
        await harness.report(each["id"], events=[event("ship_complete", cost_usd=1)])
    assert (await overview(harness))["total"]["cost_usd"] == 2
    assert (await overview(harness, project_id=run["project_id"]))["total"]["cost_usd"] == 1
    limited = await harness.client("viewer", project_id=run["project_id"])
    answer = (await limited.get("/api/agents/overview")).json()["overview"]
    assert (answer["total"]["cost_usd"], answer["lanes"]["shipped"]) == (1, 1)
    hidden = await limited.get("/api/agents/overview", params={"project_id": other["project_id"]})
    assert_error(hidden, 404, "NOT_FOUND")
    stranger = await harness.client("viewer", account="other")
    answer = (await stranger.get("/api/agents/overview")).json()["overview"]
    assert (answer["total"]["cost_usd"], answer["lanes"]["shipped"]) == (0, 0)
    bad = await harness.viewer.get("/api/agents/overview", params={"days": "0", "project_id": "x"})
    assert set(assert_error(bad, 400, "INVALID_REQUEST")["fieldErrors"]) == {"days", "project_id"}
