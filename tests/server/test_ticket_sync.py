"""`PUT /api/projects/{id}/tickets`: what a source says of tickets, against what people and lanes did to them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from heartlane.wire.github_answers import SyncedTickets
from tests.harness import Harness, assert_error

URL = "https://tracker.example.com/1"
FIELDS: dict[str, Any] = {
    "external_url": URL,
    "title": "Totals without a reload",
    "description": "The total follows when a line changes.",
    "request_type": "feature",
    "priority": "high",
    "roles": ["backend"],
}


class Desk:
    """One project, and short ways to its tickets."""

    def __init__(self, harness: Harness, project_id: str) -> None:
        self.harness = harness
        self.project_id = project_id
        self.path = f"/api/projects/{project_id}/tickets"

    async def put(self, *tickets: dict[str, Any]) -> httpx.Response:
        body = {"tickets": [{**FIELDS, **ticket} for ticket in tickets]}
        return await self.harness.operator.put(self.path, json=body)

    async def told(self, **fields: Any) -> tuple[str, Any]:
        """What became of the one ticket of which the source says this."""
        response = await self.put(fields)
        assert response.status_code == 200, response.text
        SyncedTickets.model_validate(response.json(), extra="forbid")
        result = response.json()["results"][0]
        return result["outcome"], result["ticket"]

    async def patch(self, ticket: dict[str, Any], **fields: Any) -> dict[str, Any]:
        response = await self.harness.operator.patch(f"{self.path}/{ticket['id']}", json=fields)
        assert response.status_code == 200, response.text
        changed: dict[str, Any] = response.json()["ticket"]
        return changed

    async def all(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await self.harness.viewer.get(self.path)).json()["tickets"]
        return listed

    async def milestone(self) -> str:
        path = f"/api/projects/{self.project_id}/milestones"
        response = await self.harness.admin.post(path, json={"name": "Spring"})
        milestone_id: str = response.json()["milestone"]["id"]
        return milestone_id


@pytest.fixture
async def desk(harness: Harness) -> Desk:
    return Desk(harness, (await harness.project())["id"])


async def test_new_then_unchanged_then_changed(desk: Desk) -> None:
    outcome, made = await desk.told()
    assert (outcome, made["stage"], made["roles"]) == (
        "created",
        "backlog",
        {"backend": "pending", "merged": "pending"},
    )
    assert await desk.told() == ("unchanged", made)
    outcome, changed = await desk.told(title="A better title", priority="low")
    assert (outcome, changed["id"], changed["title"], changed["priority"]) == (
        "updated",
        made["id"],
        "A better title",
        "low",
    )
    assert await desk.all() == [changed]


async def test_what_people_changed_stays_until_the_source_changes_too(desk: Desk) -> None:
    _, made = await desk.told()
    await desk.patch(made, title="What we call it", stage="up_next", roles={"qa": "pending"})
    outcome, kept = await desk.told()
    assert (outcome, kept["title"], kept["stage"]) == ("unchanged", "What we call it", "up_next")
    _, changed = await desk.told(description="Another text, from there.")
    assert (changed["title"], changed["description"]) == ("What we call it", "Another text, from there.")
    assert changed["roles"] == {"backend": "pending", "qa": "pending", "merged": "pending"}
    _, changed = await desk.told(description="Another text, from there.", title="What they call it")
    assert changed["title"] == "What they call it"


async def test_roles_come_and_go_with_their_labels(desk: Desk) -> None:
    await desk.told(roles=[])
    _, ticket = await desk.told(roles=["backend", "frontend"])
    assert ticket["roles"] == {"frontend": "pending", "backend": "pending", "other": "skipped", "merged": "pending"}
    await desk.patch(ticket, roles={"backend": "done"})
    _, ticket = await desk.told(roles=["qa"])
    states = {"frontend": "skipped", "backend": "done", "qa": "pending", "other": "skipped", "merged": "pending"}
    assert (ticket["roles"], ticket["status"]) == (states, "open")
    _, ticket = await desk.told(roles=["qa", "frontend"])
    assert ticket["roles"] == states | {"frontend": "pending"}


async def test_closed_there_is_closed_here_and_opened_again(desk: Desk) -> None:
    await desk.told(roles=["backend", "qa"])
    outcome, closed = await desk.told(roles=["backend", "qa"], status="closed", resolution_type="wont_fix")
    assert (outcome, closed["status"], closed["stage"], closed["resolution_type"]) == (
        "updated",
        "closed",
        "live",
        "wont_fix",
    )
    assert set(closed["roles"].values()) == {"skipped"}
    assert await desk.told(roles=["backend", "qa"], status="closed", resolution_type="wont_fix") == (
        "unchanged",
        closed,
    )
    _, opened = await desk.told(roles=["backend", "qa"])
    assert (opened["status"], opened["stage"], opened["closed_at"]) == ("open", "up_next", None)
    assert set(opened["roles"].values()) == {"pending"}


async def test_an_open_issue_does_not_open_what_lanes_have_closed(desk: Desk) -> None:
    _, ticket = await desk.told()
    done = await desk.patch(ticket, roles={"backend": "done", "merged": "done"})
    assert done["status"] == "closed"
    assert await desk.told() == ("unchanged", done)
    assert (await desk.told(title="Renamed all the same"))[1]["status"] == "closed"


async def test_closed_there_while_a_lane_works_on_it(desk: Desk) -> None:
    milestone_id = await desk.milestone()
    _, ticket = await desk.told(roles=["backend", "qa"], milestone_id=milestone_id)
    body = {"milestoneId": milestone_id, "ticketIds": [ticket["id"]]}
    plan = (await desk.harness.operator.post("/api/agents/plan", json=body)).json()["plan"]
    runs = (await desk.harness.operator.post(f"/api/agents/plans/{plan['id']}/approve")).json()["runs"]
    backend = next(run["id"] for run in runs if run["role"] == "backend")
    await desk.harness.claim(backend)
    closed = {"roles": ["backend", "qa"], "status": "closed", "resolution_type": "completed"}
    _, held = await desk.told(**closed)
    assert (held["status"], held["roles"]) == (
        "open",
        {"backend": "in_progress", "qa": "skipped", "merged": "skipped"},
    )
    await desk.harness.worker.post(f"/api/agents/runs/{backend}/release", json={"worker_id": "w1"})
    _, ended = await desk.told(**closed)
    assert (ended["status"], ended["roles"]["backend"]) == ("closed", "skipped")


async def test_closed_there_after_its_pull_request_counts_as_merged(desk: Desk) -> None:
    milestone_id = await desk.milestone()
    _, ticket = await desk.told(milestone_id=milestone_id)
    body = {"milestoneId": milestone_id, "ticketIds": [ticket["id"]]}
    plan = (await desk.harness.operator.post("/api/agents/plan", json=body)).json()["plan"]
    run = (await desk.harness.operator.post(f"/api/agents/plans/{plan['id']}/approve")).json()["runs"][0]["id"]
    await desk.harness.claim(run)
    shipped = {"type": "ship_complete", "payload": {"pr_url": "https://git.example.com/pulls/1"}}
    await desk.harness.report(run, events=[shipped])
    _, closed = await desk.told(status="closed", resolution_type="completed")
    assert (closed["roles"], closed["resolution_type"]) == ({"backend": "done", "merged": "done"}, "completed")


async def test_what_is_not_to_be_made_is_skipped(desk: Desk) -> None:
    assert await desk.told(status="closed", create=False) == ("skipped", None)
    assert await desk.all() == []
    outcome, ticket = await desk.told(status="closed", resolution_type="duplicate")
    assert (outcome, ticket["status"], ticket["resolution_type"]) == ("created", "closed", "duplicate")


async def test_tickets_without_an_address_go_by_their_key(desk: Desk) -> None:
    unnamed = {name: value for name, value in FIELDS.items() if name != "external_url"}
    for outcome in ("created", "unchanged"):
        body = {"tickets": [{**unnamed, "external_key": "T-1"}]}
        result = (await desk.harness.operator.put(desk.path, json=body)).json()["results"][0]
        assert (result["outcome"], result["ticket"]["external_key"]) == (outcome, "T-1")
    body = assert_error(await desk.harness.operator.put(desk.path, json={"tickets": [unnamed]}), 400, "INVALID_REQUEST")
    assert body["issues"] == [{"path": "tickets.0", "message": "needs an external_url or an external_key"}]


async def test_all_or_none_and_all_problems_at_once(desk: Desk) -> None:
    stranger = Desk(desk.harness, (await desk.harness.project())["id"])
    foreign = await stranger.milestone()
    response = await desk.put({"title": "x"}, {"status": "closed", "external_url": "javascript:alert(1)"})
    assert [issue["path"] for issue in assert_error(response, 400, "INVALID_REQUEST")["issues"]] == [
        "tickets.0.title",
        "tickets.1.external_url",
    ]
    other = {"external_url": f"{URL}2"}
    response = await desk.put({}, {**other, "milestone_id": foreign})
    assert assert_error(response, 400, "INVALID_REQUEST")["issues"] == [
        {"path": "tickets.1.milestone_id", "message": "is not a milestone of this project"}
    ]
    response = await desk.put({}, other, {})
    assert assert_error(response, 400, "INVALID_REQUEST")["issues"] == [
        {"path": "tickets.2.external_url", "message": "must be unique: tickets.0 has it too"}
    ]
    assert await desk.all() == []
    for client in (desk.harness.viewer, desk.harness.worker):
        assert_error(await client.put(desk.path, json={"tickets": [FIELDS]}), 403, "FORBIDDEN")


async def test_an_address_is_one_tickets_alone(desk: Desk) -> None:
    _, ticket = await desk.told()
    created = FIELDS | {"blocking": False, "title": "Another title"}
    again = await desk.harness.operator.post(desk.path, json=created)
    assert (again.status_code, again.json()["ticket"]) == (200, ticket)
    other = await desk.harness.operator.post(desk.path, json=created | {"external_url": f"{URL}?2"})
    assert other.status_code == 201
    path = f"{desk.path}/{other.json()['ticket']['id']}"
    body = assert_error(await desk.harness.operator.patch(path, json={"external_url": URL}), 400, "INVALID_REQUEST")
    assert body["issues"] == [{"path": "external_url", "message": f"is that of the ticket {ticket['id']} already"}]
    await desk.patch(ticket, external_url=None)
    moved = await desk.patch(other.json()["ticket"], external_url=URL)
    assert (await desk.told(title=moved["title"]))[1]["id"] == moved["id"]
    stranger = Desk(desk.harness, (await desk.harness.project())["id"])
    assert (await stranger.told())[0] == "created"


async def test_a_long_address_of_many_bytes(desk: Desk) -> None:
    url = "https://tracker.example.com/" + "ü" * 1_900
    assert [(await desk.told(external_url=url))[0] for _ in range(2)] == ["created", "unchanged"]


async def test_racing_imports_make_each_ticket_once(desk: Desk) -> None:
    page = [{"external_url": f"{URL}{number}", "title": f"Ticket {number}"} for number in range(20)]
    created = FIELDS | {"blocking": False}
    answers = await asyncio.gather(
        *(desk.put(*(page if number % 2 else reversed(page))) for number in range(6)),
        *(desk.harness.operator.post(desk.path, json=created | ticket) for ticket in page[:6]),
    )
    assert {answer.status_code for answer in answers} <= {200, 201}
    outcomes = [each["outcome"] for answer in answers[:6] for each in answer.json()["results"]]
    made = outcomes.count("created") + sum(answer.status_code == 201 for answer in answers[6:])
    assert made == 20
    assert sorted(ticket["title"] for ticket in await desk.all()) == sorted(ticket["title"] for ticket in page)
