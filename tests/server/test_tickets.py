"""Tickets through HTTP: made, listed, moved by people one by one or in batches, and along by lanes."""

from __future__ import annotations

from typing import Any

import pytest

from heartlane.wire.answers import TicketAnswer, TicketList
from tests.harness import Harness, assert_error

NOBODY = "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40"
FIELDS: dict[str, Any] = {
    "title": "Totals without a reload",
    "description": "The total follows when a line changes.",
    "request_type": "feature",
    "priority": "high",
    "blocking": False,
}


class Desk:
    """One project, and short ways to its tickets."""

    def __init__(self, harness: Harness, project: dict[str, Any]) -> None:
        self.harness = harness
        self.project_id: str = project["id"]
        self.path = f"/api/projects/{self.project_id}/tickets"

    async def ticket(self, *roles: str, **fields: Any) -> dict[str, Any]:
        response = await self.harness.operator.post(self.path, json={**FIELDS, "roles": list(roles), **fields})
        assert response.status_code == 201, response.text
        TicketAnswer.model_validate(response.json(), extra="forbid")
        ticket: dict[str, Any] = response.json()["ticket"]
        return ticket

    async def patch(self, ticket_id: str, **fields: Any) -> Any:
        return await self.harness.operator.patch(f"{self.path}/{ticket_id}", json=fields)

    async def patched(self, ticket_id: str, **fields: Any) -> dict[str, Any]:
        response = await self.patch(ticket_id, **fields)
        assert response.status_code == 200, response.text
        ticket: dict[str, Any] = response.json()["ticket"]
        return ticket

    async def read(self, ticket_id: str) -> dict[str, Any]:
        ticket: dict[str, Any] = (await self.harness.viewer.get(f"{self.path}/{ticket_id}")).json()["ticket"]
        return ticket

    async def batch(self, ticket_ids: list[str], **fields: Any) -> Any:
        return await self.harness.operator.post(f"{self.path}/batch", json={"ticket_ids": ticket_ids, **fields})

    async def milestone(self) -> str:
        response = await self.harness.admin.post(
            f"/api/projects/{self.project_id}/milestones", json={"name": "Milestone"}
        )
        milestone_id: str = response.json()["milestone"]["id"]
        return milestone_id

    async def lanes(self, *tickets: dict[str, Any]) -> dict[str, str]:
        """An approved plan from the tickets: lane key → run."""
        body = {"milestoneId": await self.milestone(), "ticketIds": [ticket["id"] for ticket in tickets]}
        plan = (await self.harness.operator.post("/api/agents/plan", json=body)).json()["plan"]
        approved = await self.harness.operator.post(f"/api/agents/plans/{plan['id']}/approve")
        return {run["lane_key"]: run["id"] for run in approved.json()["runs"]}


@pytest.fixture
async def desk(harness: Harness) -> Desk:
    return Desk(harness, await harness.project())


async def test_a_ticket_is_made_and_read(desk: Desk) -> None:
    evidence = {"links": ["https://example.com"], "count": 2**70, "nul": "\0"}
    ticket = await desk.ticket(
        "frontend",
        "backend",
        evidence=evidence,
        actor_role="product",
        suggested_resolution="A stream.",
        external_url="https://tracker.example.com/1",
        milestone_id=(await desk.milestone()).upper(),
    )
    assert ticket["roles"] == {"frontend": "pending", "backend": "pending", "merged": "pending"}
    assert (ticket["status"], ticket["stage"], ticket["resolution_type"]) == ("open", "backlog", None)
    assert ticket["evidence"] == evidence
    assert await desk.read(ticket["id"].upper()) == ticket


async def test_a_ticket_without_a_role_gets_other(desk: Desk) -> None:
    assert (await desk.ticket())["roles"] == {"other": "pending", "merged": "pending"}


async def test_verified_existing_skips_merge_and_test(desk: Desk) -> None:
    ticket = await desk.ticket("backend", "test", verified_existing=True)
    assert ticket["roles"] == {"backend": "pending", "test": "skipped", "merged": "skipped"}
    done = await desk.patched(ticket["id"], roles={"backend": "done"})
    assert (done["status"], done["stage"], done["resolution_type"]) == ("closed", "live", "completed")


async def test_any_stage_to_any_stage(desk: Desk) -> None:
    ticket = await desk.ticket()
    for stage in ("validation", "backlog", "in_progress", "up_next"):
        assert (await desk.patched(ticket["id"], stage=stage))["stage"] == stage


async def test_closing_early_is_refused_and_changes_nothing(desk: Desk) -> None:
    ticket = await desk.ticket("backend")
    for fields in ({"status": "closed"}, {"stage": "live"}, {"status": "closed", "title": "Another title"}):
        body = assert_error(await desk.patch(ticket["id"], **fields), 409, "ROLES_INCOMPLETE")
        assert "backend (pending)" in body["error"]
    assert await desk.read(ticket["id"]) == ticket


async def test_closing_with_a_resolution_and_opening_again(desk: Desk) -> None:
    ticket = await desk.ticket("backend")
    closed = await desk.patched(
        ticket["id"], roles={"backend": "skipped", "merged": "skipped"}, status="closed", resolution_type="wont_fix"
    )
    assert (closed["stage"], closed["resolution_type"]) == ("live", "wont_fix")
    assert closed["closed_at"] is not None
    opened = await desk.patched(ticket["id"], stage="validation")
    assert (opened["status"], opened["resolution_type"], opened["closed_at"]) == ("open", None, None)


async def test_a_resolution_without_a_close_is_refused(desk: Desk) -> None:
    ticket = await desk.ticket()
    body = assert_error(await desk.patch(ticket["id"], resolution_type="duplicate"), 400, "INVALID_REQUEST")
    assert body["issues"][0]["path"] == "resolution_type"


async def test_a_patch_changes_what_it_names(desk: Desk) -> None:
    ticket = await desk.ticket("qa", evidence="seen", actor_role="product")
    changed = await desk.patched(ticket["id"], title="A better title", evidence=None, actor_role=None)
    assert (changed["title"], changed["evidence"], changed["actor_role"]) == ("A better title", None, None)
    assert {**changed, "updated_at": 0} == {
        **ticket,
        "title": "A better title",
        "evidence": None,
        "actor_role": None,
        "updated_at": 0,
    }
    assert await desk.patched(ticket["id"]) == changed


async def test_a_milestone_must_be_the_projects(desk: Desk) -> None:
    stranger = Desk(desk.harness, await desk.harness.project())
    milestone_id = await stranger.milestone()
    ticket = await desk.ticket()
    created = await desk.harness.operator.post(desk.path, json={**FIELDS, "milestone_id": milestone_id})
    for response in (
        created,
        await desk.patch(ticket["id"], milestone_id=milestone_id),
        await desk.batch([ticket["id"]], milestone_id=NOBODY),
    ):
        assert assert_error(response, 400, "INVALID_REQUEST")["issues"][0]["path"] == "milestone_id"
    mine = await desk.milestone()
    assert (await desk.patched(ticket["id"], milestone_id=mine))["milestone_id"] == mine
    assert (await desk.patched(ticket["id"], milestone_id=None))["milestone_id"] is None


async def test_lists_are_narrowed_and_paged(desk: Desk) -> None:
    milestone_id = await desk.milestone()
    tickets = [await desk.ticket(title=f"Ticket {number}") for number in range(3)]
    await desk.patched(tickets[1]["id"], stage="up_next", milestone_id=milestone_id)
    await desk.patched(tickets[2]["id"], roles={"other": "done", "merged": "done"})

    async def listed(**query: Any) -> list[str]:
        response = await desk.harness.viewer.get(desk.path, params=query)
        TicketList.model_validate(response.json(), extra="forbid")
        return [ticket["title"] for ticket in response.json()["tickets"]]

    assert await listed() == ["Ticket 2", "Ticket 1", "Ticket 0"]
    assert await listed(status="open") == ["Ticket 1", "Ticket 0"]
    assert await listed(stage="live") == ["Ticket 2"]
    assert await listed(milestone_id=milestone_id.upper()) == ["Ticket 1"]
    page = (await desk.harness.viewer.get(desk.path, params={"limit": 2})).json()
    assert await listed(cursor=page["next_cursor"]) == ["Ticket 0"]


async def test_a_batch_moves_all(desk: Desk) -> None:
    first, second = await desk.ticket(), await desk.ticket()
    response = await desk.batch([second["id"], first["id"].upper(), second["id"]], stage="up_next")
    assert response.status_code == 200
    TicketList.model_validate(response.json(), extra="forbid")
    moved = [(ticket["id"], ticket["stage"]) for ticket in response.json()["tickets"]]
    assert moved == [(second["id"], "up_next"), (first["id"], "up_next")]


async def test_a_batch_moves_all_or_none(desk: Desk) -> None:
    ready, not_ready = await desk.ticket(), await desk.ticket()
    ready = await desk.patched(ready["id"], roles={"other": "done", "merged": "done"}, status="open", stage="up_next")
    response = await desk.batch([ready["id"], not_ready["id"]], status="closed", resolution_type="completed")
    body = assert_error(response, 409, "ROLES_INCOMPLETE")
    assert not_ready["id"] in body["error"]
    assert ready["id"] not in body["error"]
    response = await desk.batch([ready["id"], NOBODY], stage="backlog")
    assert assert_error(response, 400, "INVALID_REQUEST")["issues"][0]["path"] == "ticket_ids.1"
    assert (await desk.read(ready["id"]), await desk.read(not_ready["id"])) == (ready, not_ready)
    response = await desk.batch([ready["id"]], status="closed", resolution_type="completed")
    assert response.json()["tickets"][0]["status"] == "closed"


async def test_a_ticket_of_another_project_is_not_there(desk: Desk) -> None:
    stranger = Desk(desk.harness, await desk.harness.project())
    ticket = await desk.ticket()
    assert_error(await stranger.patch(ticket["id"], stage="up_next"), 404, "NOT_FOUND")
    assert_error(await desk.harness.viewer.get(f"{stranger.path}/{ticket['id']}"), 404, "NOT_FOUND")
    assert_error(await desk.patch(NOBODY, stage="up_next"), 404, "NOT_FOUND")


async def test_only_operators_write(desk: Desk) -> None:
    ticket = await desk.ticket()
    for client in (desk.harness.viewer, desk.harness.worker):
        assert_error(await client.post(desk.path, json=FIELDS), 403, "FORBIDDEN")
        assert_error(await client.patch(f"{desk.path}/{ticket['id']}", json={}), 403, "FORBIDDEN")
        assert_error(await client.post(f"{desk.path}/batch", json={"ticket_ids": [ticket["id"]]}), 403, "FORBIDDEN")


# --- lanes move them along ----------------------------------------------------------------------------------------


async def test_a_lane_moves_its_tickets_along(desk: Desk) -> None:
    first, second = await desk.ticket("frontend", "backend"), await desk.ticket("backend")
    lanes = await desk.lanes(first, second)
    await desk.harness.claim(lanes["backend"])
    for ticket in (first, second):
        moved = await desk.read(ticket["id"])
        assert (moved["roles"]["backend"], moved["stage"]) == ("in_progress", "in_progress")
    assert (await desk.read(first["id"]))["roles"]["frontend"] == "pending"

    url = "https://git.example.com/pulls/1"
    shipped = {"type": "ship_complete", "payload": {"pr_url": url}}
    assert (await desk.harness.report(lanes["backend"], events=[shipped])).status_code == 200
    moved = await desk.read(second["id"])
    assert (moved["roles"], moved["pr_urls"]) == ({"backend": "done", "merged": "pending"}, [url])
    assert (moved["stage"], moved["status"]) == ("validation", "open")
    assert (await desk.read(first["id"]))["stage"] == "in_progress"
    merged = await desk.patched(second["id"], roles={"merged": "done"})
    assert (merged["status"], merged["resolution_type"], merged["pr_urls"]) == ("closed", "completed", [url])


async def test_a_lane_given_back_puts_its_tickets_back(desk: Desk) -> None:
    ticket = await desk.ticket("backend")
    run = (await desk.lanes(ticket))["backend"]

    async def role() -> str:
        state: str = (await desk.read(ticket["id"]))["roles"]["backend"]
        return state

    await desk.harness.claim(run)
    assert await role() == "in_progress"
    released = await desk.harness.worker.post(f"/api/agents/runs/{run}/release", json={"worker_id": "w1"})
    assert released.status_code == 200
    assert await role() == "pending"
    await desk.harness.claim(run)
    await desk.harness.let_pass(301)
    assert await role() == "pending"
    await desk.harness.claim(run)
    fatal = {"type": "error", "payload": {"message": "no way", "fatal": True}}
    await desk.harness.report(run, events=[fatal])
    assert await role() == "pending"


async def test_a_run_read_alone_and_a_claim_carry_prompt_and_tickets(desk: Desk) -> None:
    ticket = await desk.ticket("backend")
    run_id = (await desk.lanes(ticket))["backend"]
    claimed = await desk.harness.claim(run_id)
    read = await desk.harness.read(run_id)
    for run in (claimed, read):
        assert run["prompt"] == f"# {ticket['title']}\n\n{ticket['description']}"
        assert [each["id"] for each in run["tickets"]] == [ticket["id"]]
    listed = (await desk.harness.viewer.get("/api/agents/runs")).json()["runs"]
    assert "prompt" not in listed[0]
    assert "tickets" not in listed[0]
