"""Who made and changed tickets and milestones: in the log as everything else that people do."""

from __future__ import annotations

from typing import Any

from tests.harness import Harness
from tests.server.test_audit import count, entries

TICKET = {
    "title": "Order totals",
    "description": "Totals leave the discount out.",
    "request_type": "bug",
    "priority": "high",
    "roles": ["backend"],
    "blocking": False,
}


async def told(harness: Harness, project_id: str, action: str) -> list[dict[str, Any]]:
    """What was done to tickets and milestones, oldest first."""
    return list(reversed(await entries(harness.admin, project_id=project_id, action=action)))


async def made(harness: Harness, path: str, **fields: Any) -> dict[str, Any]:
    response = await harness.operator.post(path, json={**TICKET, **fields})
    assert response.status_code == 201, response.text
    ticket: dict[str, Any] = response.json()["ticket"]
    return ticket


async def test_tickets(harness: Harness) -> None:
    project = (await harness.project())["id"]
    path = f"/api/projects/{project}/tickets"
    first = await made(harness, path, evidence={"trace": "x" * 19_000}, external_url="https://t.example/1")
    other = await made(harness, path, title="Another one")
    body = {"title": "Order totals again", "priority": "high", "roles": {"backend": "done", "merged": "skipped"}}
    assert (await harness.operator.patch(f"{path}/{first['id']}", json=body)).status_code == 200
    batch = {"ticket_ids": [first["id"], other["id"]], "stage": "live", "resolution_type": "completed"}
    refused = await harness.operator.post(f"{path}/batch", json=batch)
    assert refused.status_code == 409, refused.text
    batch = {"ticket_ids": [other["id"], first["id"]], "stage": "validation"}
    assert (await harness.operator.post(f"{path}/batch", json=batch)).status_code == 200
    found = await told(harness, project, "ticket")
    assert [(each["action"], each["object_id"]) for each in found][:3] == [
        ("ticket.created", first["id"]),
        ("ticket.created", other["id"]),
        ("ticket.changed", first["id"]),
    ]
    assert {(each["action"], each["object_id"]) for each in found[3:]} == {
        ("ticket.changed", first["id"]),
        ("ticket.changed", other["id"]),
    }
    created = found[0]
    assert (created["object_type"], created["object_name"]) == ("ticket", "Order totals")
    after = created["details"]["after"]
    assert (after["external_url"], after["roles"]) == (
        "https://t.example/1",
        {"backend": "pending", "merged": "pending"},
    )
    assert len(after["evidence"]) == 500, "an entry stays small, whatever the ticket holds"
    changed = found[2]["details"]
    assert changed["before"]["title"] == "Order totals"
    assert changed["after"]["title"] == "Order totals again"
    assert changed["after"]["status"] == "closed", "what follows from it by the rules is told with it"
    assert "priority" not in changed["after"]
    me = (await harness.operator.get("/api/me")).json()["me"]
    assert {(each["actor_kind"], each["actor_name"]) for each in found} == {("token", me["name"])}


async def test_what_is_brought_from_elsewhere_is_one_entry(harness: Harness) -> None:
    project = (await harness.project())["id"]
    path = f"/api/projects/{project}/tickets"
    tickets = [
        {**TICKET, "external_url": f"https://t.example/{number}", "status": "open", "blocking": False}
        for number in range(3)
    ]
    response = await harness.operator.put(path, json={"tickets": tickets[:2]})
    assert response.status_code == 200, response.text
    ids = [each["ticket"]["id"] for each in response.json()["results"]]
    # The same once more changes nothing, and is no entry.
    assert (await harness.operator.put(path, json={"tickets": tickets[:2]})).status_code == 200
    tickets[0] = {**tickets[0], "title": "Told anew"}
    response = await harness.operator.put(path, json={"tickets": tickets})
    new = response.json()["results"][2]["ticket"]["id"]
    found = await told(harness, project, "ticket")
    assert [(each["action"], each["object_type"], each["details"]) for each in found] == [
        ("ticket.imported", "project", {"created": 2, "updated": 0, "ticket_ids": {"created": ids, "updated": []}}),
        (
            "ticket.imported",
            "project",
            {"created": 1, "updated": 1, "ticket_ids": {"created": [new], "updated": ids[:1]}},
        ),
    ]


async def test_milestones(harness: Harness) -> None:
    project = (await harness.project())["id"]
    path = f"/api/projects/{project}/milestones"
    body = {"name": "Checkout", "due_at": "2026-12-01T00:00:00Z"}
    milestone = (await harness.admin.post(path, json=body)).json()["milestone"]
    for change in ({"status": "closed"}, {"status": "closed"}):
        assert (await harness.admin.patch(f"{path}/{milestone['id']}", json=change)).status_code == 200
    found = await told(harness, project, "milestone")
    assert [(each["action"], each["object_id"], each["object_name"], each["details"]) for each in found] == [
        (
            "milestone.created",
            milestone["id"],
            "Checkout",
            {
                "after": {
                    "name": "Checkout",
                    "description": None,
                    "status": "open",
                    "due_at": "2026-12-01T00:00:00+00:00",
                }
            },
        ),
        (
            "milestone.changed",
            milestone["id"],
            "Checkout",
            {"before": {"status": "open"}, "after": {"status": "closed"}},
        ),
    ]


async def test_what_is_refused_changes_nothing_or_is_done_by_lanes_leaves_no_entry(harness: Harness) -> None:
    project = (await harness.project())["id"]
    path = f"/api/projects/{project}/tickets"
    milestone = (await harness.admin.post(f"/api/projects/{project}/milestones", json={"name": "M"})).json()[
        "milestone"
    ]
    ticket = await made(harness, path, external_url="https://t.example/1", milestone_id=milestone["id"])
    plan = (
        await harness.operator.post(
            "/api/agents/plan", json={"milestoneId": milestone["id"], "ticketIds": [ticket["id"]]}
        )
    ).json()["plan"]
    (run,) = (await harness.operator.post(f"/api/agents/plans/{plan['id']}/approve")).json()["runs"]
    before = await count(harness.store)
    again = await harness.operator.post(path, json={**TICKET, "external_url": "https://t.example/1"})
    assert again.status_code == 200
    assert (await harness.operator.patch(f"{path}/{ticket['id']}", json={"status": "closed"})).status_code == 409
    assert (await harness.operator.patch(f"{path}/{ticket['id']}", json={"title": ticket["title"]})).status_code == 200
    assert (await harness.viewer.patch(f"{path}/{ticket['id']}", json={"stage": "live"})).status_code == 403
    await harness.claim(run["id"])
    await harness.report(run["id"], events=[{"type": "ship_complete"}])
    moved = (await harness.viewer.get(f"{path}/{ticket['id']}")).json()["ticket"]
    assert moved["roles"]["backend"] == "done"
    assert await count(harness.store) == before
