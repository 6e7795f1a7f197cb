"""Plans through HTTP: from tickets, lane by lane, approved once, rejected once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heartlane.wire.answers import PlanAnswer, PlanList, PlanPrompts, PlanWithRuns
from tests.harness import Harness, assert_error
from tests.server.test_tickets import NOBODY, Desk

LANE: dict[str, Any] = {"laneKey": "a", "title": "Lane A", "role": "backend"}


@pytest.fixture
async def desk(harness: Harness) -> Desk:
    return Desk(harness, await harness.project(max_failures=2, stalled_after_seconds=60))


async def planned(desk: Desk, *lanes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"projectId": desk.project_id, "title": "Plan", "lanes": list(lanes) or [LANE], **fields}
    response = await desk.harness.operator.post("/api/agents/plan", json=body)
    assert response.status_code == 201, response.text
    PlanAnswer.model_validate(response.json(), extra="forbid")
    plan: dict[str, Any] = response.json()["plan"]
    return plan


async def approve(desk: Desk, plan: dict[str, Any]) -> Any:
    return await desk.harness.operator.post(f"/api/agents/plans/{plan['id']}/approve")


async def reject(desk: Desk, plan: dict[str, Any], reason: str = "Not now.") -> Any:
    return await desk.harness.operator.post(f"/api/agents/plans/{plan['id']}/reject", json={"reason": reason})


# --- from tickets -------------------------------------------------------------------------------------------------


async def test_a_plan_from_tickets_has_one_lane_per_role(desk: Desk) -> None:
    first = await desk.ticket("frontend", "backend")
    second = await desk.ticket("backend", priority="critical")
    third = await desk.ticket()
    milestone_id = await desk.milestone()
    body = {
        "milestoneId": milestone_id.upper(),
        "ticketIds": [first["id"], second["id"].upper(), third["id"], first["id"]],
    }
    response = await desk.harness.operator.post("/api/agents/plan", json=body)
    assert response.status_code == 201
    PlanAnswer.model_validate(response.json(), extra="forbid")
    plan = response.json()["plan"]
    assert [(lane["laneKey"], lane["role"], lane["ticketIds"]) for lane in plan["lanes"]] == [
        ("frontend", "frontend", [first["id"]]),
        ("backend", "backend", [first["id"], second["id"]]),
        ("other", "other", [third["id"]]),
    ]
    assert [lane["priority"] for lane in plan["lanes"]] == [10, 20, 10]
    assert (plan["title"], plan["status"], plan["milestone_id"]) == ("Milestone", "pending", milestone_id)
    assert set(plan["source_ticket_ids"]) == {first["id"], second["id"], third["id"]}
    assert plan["created_by_user_id"] is plan["approved_at"] is plan["rejected_at"] is plan["rejection_reason"] is None


async def test_tickets_that_cannot_be_planned_are_all_named(desk: Desk) -> None:
    stranger = Desk(desk.harness, await desk.harness.project())
    closed = await desk.ticket("qa")
    await desk.patched(closed["id"], roles={"qa": "skipped", "merged": "skipped"})
    worked = await desk.ticket("qa")
    await desk.patched(worked["id"], roles={"qa": "done"})
    elsewhere = await stranger.ticket("qa")
    good = await desk.ticket("qa")
    ids = [closed["id"], good["id"], worked["id"], elsewhere["id"], NOBODY]
    body = {"milestoneId": await desk.milestone(), "ticketIds": ids}
    problems = assert_error(await desk.harness.operator.post("/api/agents/plan", json=body), 400, "INVALID_REQUEST")
    assert [issue["path"] for issue in problems["issues"]] == [f"ticketIds.{place}" for place in (0, 2, 3, 4)]


async def test_a_role_that_is_done_gets_no_lane(desk: Desk) -> None:
    ticket = await desk.ticket("frontend", "backend")
    await desk.patched(ticket["id"], roles={"frontend": "done"})
    assert list(await desk.lanes(ticket)) == ["backend"]


async def test_a_milestone_or_project_that_is_not_there(desk: Desk) -> None:
    ticket = await desk.ticket()
    for body in (
        {"milestoneId": NOBODY, "ticketIds": [ticket["id"]]},
        {"projectId": NOBODY, "title": "Plan", "lanes": [LANE]},
    ):
        assert_error(await desk.harness.operator.post("/api/agents/plan", json=body), 404, "NOT_FOUND")


# --- lane by lane -------------------------------------------------------------------------------------------------


async def test_a_plan_lane_by_lane(desk: Desk) -> None:
    ticket = await desk.ticket("backend")
    plan = await planned(
        desk,
        {**LANE, "ticketIds": [ticket["id"]], "labels": {"os": "linux"}, "priority": -3, "prompt": "Do it."},
        {"laneKey": "b", "title": "Lane B", "role": "qa", "after": ["a", "a"]},
        milestoneId=await desk.milestone(),
    )
    assert plan["lanes"] == [
        {
            "laneKey": "a",
            "title": "Lane A",
            "role": "backend",
            "ticketIds": [ticket["id"]],
            "labels": {"os": "linux"},
            "priority": -3,
            "after": [],
        },
        {
            "laneKey": "b",
            "title": "Lane B",
            "role": "qa",
            "ticketIds": [],
            "labels": {},
            "priority": 0,
            "after": ["a"],
        },
    ]
    runs = (await approve(desk, plan)).json()["runs"]
    assert [(run["lane_key"], run["state"], run["max_failures"], run["attempt"]) for run in runs] == [
        ("a", "queued", 2, 0),
        ("b", "queued", 2, 0),
    ]
    assert runs[1]["blocked_by"] == [runs[0]["id"]]
    assert (runs[0]["labels"], runs[0]["priority"], runs[0]["ticket_ids"]) == ({"os": "linux"}, -3, [ticket["id"]])
    assert (await desk.harness.read(runs[0]["id"]))["prompt"] == "Do it."
    assert (await desk.harness.read(runs[1]["id"]))["prompt"] is None


async def test_what_a_plan_asks_for_can_be_read_before_it_is_approved_and_after(desk: Desk) -> None:
    plan = await planned(desk, {**LANE, "prompt": "Do <this>.\n"}, {**LANE, "laneKey": "b"})
    path = f"/api/agents/plans/{plan['id']}/prompts"
    for _ in range(2):
        answer = await desk.harness.viewer.get(path)
        PlanPrompts.model_validate(answer.json(), extra="forbid")
        assert (answer.status_code, answer.json()) == (200, {"prompts": {"a": "Do <this>.\n"}})
        await approve(desk, plan)
    assert_error(await desk.harness.viewer.get(f"/api/agents/plans/{NOBODY}/prompts"), 404, "NOT_FOUND")


async def test_all_problems_of_the_lanes_at_once(desk: Desk) -> None:
    lanes = [
        {**LANE, "after": ["b"]},
        {**LANE, "laneKey": "b", "after": ["a"]},
        {**LANE, "after": ["c"]},
        {**LANE, "laneKey": "d", "ticketIds": [NOBODY]},
    ]
    body = {"projectId": desk.project_id, "title": "Plan", "lanes": lanes, "milestoneId": NOBODY}
    problems = assert_error(await desk.harness.operator.post("/api/agents/plan", json=body), 400, "INVALID_REQUEST")
    assert {issue["path"] for issue in problems["issues"]} == {
        "lanes.2.laneKey",
        "lanes.2.after.0",
        "lanes.0.after",
        "lanes.3.ticketIds.0",
        "milestoneId",
    }
    assert (await desk.harness.viewer.get("/api/agents/plans")).json()["plans"] == []


async def test_a_lane_waits_for_others_to_ship(desk: Desk) -> None:
    plan = await planned(desk, LANE, {**LANE, "laneKey": "b", "after": ["a"]})
    first, second = [run["id"] for run in (await approve(desk, plan)).json()["runs"]]
    early = await desk.harness.worker.post(f"/api/agents/runs/{second}/claim", json={"worker_id": "w2"})
    assert assert_error(early, 409, "LANE_BLOCKED")["run"]["blocked_by"] == [first]
    await desk.harness.claim(first)
    await desk.harness.report(first, events=[{"type": "ship_complete"}])
    assert (await desk.harness.claim(second, "w2"))["state"] == "claimed"


# --- approve and reject -------------------------------------------------------------------------------------------


async def test_approving_again_answers_the_same_runs(desk: Desk) -> None:
    plan = await planned(desk, LANE, {**LANE, "laneKey": "b"})
    answers = await asyncio.gather(*(approve(desk, plan) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        PlanWithRuns.model_validate(answer.json(), extra="forbid")
        assert answer.json() == answers[0].json()
    approved = answers[0].json()
    assert (approved["plan"]["status"], len(approved["runs"])) == ("approved", 2)
    assert approved["plan"]["approved_at"] is not None
    read = await desk.harness.viewer.get(f"/api/agents/plans/{plan['id'].upper()}")
    assert read.json() == approved
    assert len((await desk.harness.viewer.get("/api/agents/runs")).json()["runs"]) == 2


async def test_a_rejected_plan_stays_rejected(desk: Desk) -> None:
    plan = await planned(desk)
    first = await reject(desk, plan, "Too much at once.")
    assert first.status_code == 200
    PlanAnswer.model_validate(first.json(), extra="forbid")
    rejected = first.json()["plan"]
    assert (rejected["status"], rejected["rejection_reason"]) == ("rejected", "Too much at once.")
    assert (await reject(desk, plan, "Another reason")).json() == first.json()
    assert_error(await approve(desk, plan), 409, "PLAN_REJECTED")
    read = (await desk.harness.viewer.get(f"/api/agents/plans/{plan['id']}")).json()
    assert read == {"plan": rejected, "runs": []}


async def test_an_approved_plan_cannot_be_rejected(desk: Desk) -> None:
    plan = await planned(desk)
    await approve(desk, plan)
    assert_error(await reject(desk, plan), 409, "PLAN_APPROVED")


async def test_approve_and_reject_at_once_leave_one_of_the_two(desk: Desk) -> None:
    for _ in range(5):
        plan = await planned(desk)
        approved, rejected = await asyncio.gather(approve(desk, plan), reject(desk, plan))
        assert sorted((approved.status_code, rejected.status_code)) == [200, 409]
        runs = (await desk.harness.viewer.get("/api/agents/runs", params={"plan_id": plan["id"]})).json()["runs"]
        assert len(runs) == (1 if approved.status_code == 200 else 0)


async def test_a_plan_that_is_not_there(desk: Desk) -> None:
    plan = {"id": NOBODY}
    assert_error(await approve(desk, plan), 404, "NOT_FOUND")
    assert_error(await reject(desk, plan), 404, "NOT_FOUND")
    assert_error(await desk.harness.viewer.get(f"/api/agents/plans/{NOBODY}"), 404, "NOT_FOUND")


async def test_lists_are_narrowed_and_paged(desk: Desk) -> None:
    plans = [(await planned(desk, title=f"Plan {number}"))["id"] for number in range(3)]
    other = Desk(desk.harness, await desk.harness.project())
    elsewhere = (await planned(other))["id"]
    await desk.harness.operator.post(f"/api/agents/plans/{plans[1]}/approve")

    async def listed(**query: Any) -> list[str]:
        response = await desk.harness.viewer.get("/api/agents/plans", params=query)
        PlanList.model_validate(response.json(), extra="forbid")
        return [plan["id"] for plan in response.json()["plans"]]

    assert await listed() == [elsewhere, *plans[::-1]]
    assert await listed(project_id=desk.project_id) == plans[::-1]
    assert await listed(status="approved") == [plans[1]]
    page = (await desk.harness.viewer.get("/api/agents/plans", params={"limit": 3})).json()
    assert await listed(cursor=page["next_cursor"]) == [plans[0]]


async def test_who_may_see_and_decide(desk: Desk) -> None:
    plan = await planned(desk)
    for client in (desk.harness.viewer, desk.harness.worker):
        assert (await client.get(f"/api/agents/plans/{plan['id']}")).status_code == 200
        assert_error(await client.post("/api/agents/plan", json={}), 403, "FORBIDDEN")
        assert_error(await client.post(f"/api/agents/plans/{plan['id']}/approve"), 403, "FORBIDDEN")
    other = await desk.harness.project()
    for client in (
        await desk.harness.client("admin", account="another"),
        await desk.harness.client("admin", project_id=other["id"]),
    ):
        assert_error(await client.get(f"/api/agents/plans/{plan['id']}"), 404, "NOT_FOUND")
        assert_error(await client.post(f"/api/agents/plans/{plan['id']}/approve"), 404, "NOT_FOUND")
        assert_error(
            await client.post(f"/api/agents/plans/{plan['id']}/reject", json={"reason": "x"}), 404, "NOT_FOUND"
        )
        assert (await client.get("/api/agents/plans")).json()["plans"] == []
