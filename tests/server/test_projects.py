"""Projects and milestones: made, listed by keyset, read, changed, and seen only by those who may."""

from __future__ import annotations

import pytest

from heartlane.wire.answers import MilestoneAnswer, MilestoneList, ProjectAnswer, ProjectList
from tests.harness import Harness, assert_error

NOBODY = "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40"


async def test_a_project_is_made_and_read(harness: Harness) -> None:
    response = await harness.admin.post(
        "/api/projects", json={"name": "Shop", "repo_url": "git@example.com:shop.git", "unknown": [1]}
    )
    assert response.status_code == 201
    project = response.json()["project"]
    ProjectAnswer.model_validate(response.json(), extra="forbid")
    assert (project["name"], project["repo_url"]) == ("Shop", "git@example.com:shop.git")
    assert (project["max_failures"], project["stalled_after_seconds"], project["default_branch"]) == (5, 900, None)
    assert project["created_at"].endswith("Z")
    assert project["id"] == project["id"].lower()
    assert project["id"][14] == "7"
    for spelling in (project["id"], project["id"].upper()):
        read = await harness.viewer.get(f"/api/projects/{spelling}")
        assert read.json() == {"project": project}


async def test_a_patch_changes_what_it_names(harness: Harness) -> None:
    project = await harness.project(repo_url="https://example.com/shop", max_failures=3)
    path = f"/api/projects/{project['id']}"
    changed = (await harness.admin.patch(path, json={"repo_url": None, "name": "Other"})).json()["project"]
    assert (changed["name"], changed["repo_url"], changed["max_failures"]) == ("Other", None, 3)
    assert changed["updated_at"] > project["updated_at"]
    unchanged = (await harness.admin.patch(path, json={})).json()["project"]
    assert unchanged == changed


async def test_lists_go_by_cursor_newest_first(harness: Harness) -> None:
    made = [(await harness.project(name=f"Project {number}"))["id"] for number in range(5)]
    found: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    while True:
        page = (await harness.viewer.get("/api/projects", params=query)).json()
        ProjectList.model_validate(page, extra="forbid")
        found += [project["id"] for project in page["projects"]]
        if page["next_cursor"] is None:
            break
        assert len(page["projects"]) == 2
        query["cursor"] = page["next_cursor"]
    assert found == made[::-1]


@pytest.mark.parametrize("cursor", ["x", "AAAA", "bnVsbA", "cHJvamVjdHM6eA", "cnVuczoxNw"])
async def test_a_cursor_of_nobody_is_refused(harness: Harness, cursor: str) -> None:
    for path in ("/api/projects", "/api/agents/plans", "/api/agents/runs", "/api/agents/workers"):
        if (path, cursor) == ("/api/agents/runs", "cnVuczoxNw"):
            continue
        response = await harness.viewer.get(path, params={"cursor": cursor})
        assert assert_error(response, 400, "INVALID_REQUEST")["issues"][0]["path"] == "cursor"


async def test_milestones(harness: Harness) -> None:
    project = await harness.project()
    path = f"/api/projects/{project['id']}/milestones"
    response = await harness.admin.post(path, json={"name": "One", "due_at": "2026-03-01T01:00:00+01:00"})
    assert response.status_code == 201
    MilestoneAnswer.model_validate(response.json(), extra="forbid")
    milestone = response.json()["milestone"]
    assert (milestone["status"], milestone["due_at"]) == ("open", "2026-03-01T00:00:00Z")
    other = (await harness.admin.post(path, json={"name": "Two"})).json()["milestone"]

    listed = (await harness.viewer.get(path)).json()
    MilestoneList.model_validate(listed, extra="forbid")
    assert [each["id"] for each in listed["milestones"]] == [other["id"], milestone["id"]]
    closed = await harness.admin.patch(f"{path}/{milestone['id'].upper()}", json={"status": "closed", "due_at": None})
    assert (closed.json()["milestone"]["status"], closed.json()["milestone"]["due_at"]) == ("closed", None)
    assert (await harness.viewer.get(f"{path}/{milestone['id']}")).json() == closed.json()
    still_open = (await harness.viewer.get(path, params={"status": "open"})).json()
    assert [each["id"] for each in still_open["milestones"]] == [other["id"]]


async def test_a_milestone_belongs_to_its_project(harness: Harness) -> None:
    project, other = await harness.project(), await harness.project()
    made = await harness.admin.post(f"/api/projects/{project['id']}/milestones", json={"name": "One"})
    path = f"/api/projects/{other['id']}/milestones/{made.json()['milestone']['id']}"
    assert_error(await harness.viewer.get(path), 404, "NOT_FOUND")
    assert_error(await harness.admin.patch(path, json={"name": "Two"}), 404, "NOT_FOUND")
    nobody = f"/api/projects/{NOBODY}/milestones"
    assert_error(await harness.viewer.get(nobody), 404, "NOT_FOUND")
    assert_error(await harness.admin.post(nobody, json={"name": "One"}), 404, "NOT_FOUND")


async def test_only_admins_make_and_change(harness: Harness) -> None:
    project = await harness.project()
    path = f"/api/projects/{project['id']}"
    for client in (harness.viewer, harness.worker, harness.operator):
        assert_error(await client.post("/api/projects", json={"name": "x"}), 403, "FORBIDDEN")
        assert_error(await client.patch(path, json={"name": "x"}), 403, "FORBIDDEN")
        assert_error(await client.post(f"{path}/milestones", json={"name": "x"}), 403, "FORBIDDEN")
        assert (await client.get(path)).status_code == 200


async def test_another_account_or_project_sees_nothing(harness: Harness) -> None:
    project, other = await harness.project(), await harness.project()
    stranger = await harness.client("admin", account="another")
    limited = await harness.client("admin", project_id=other["id"])
    for client, visible in ((stranger, []), (limited, [other["id"]])):
        path = f"/api/projects/{project['id']}"
        for response in (
            await client.get(path),
            await client.patch(path, json={"name": "x"}),
            await client.get(f"{path}/milestones"),
            await client.post(f"{path}/milestones", json={"name": "x"}),
            await client.get(f"{path}/tickets"),
        ):
            assert_error(response, 404, "NOT_FOUND")
        listed = (await client.get("/api/projects")).json()["projects"]
        assert [each["id"] for each in listed] == visible
    assert_error(await limited.post("/api/projects", json={"name": "x"}), 403, "FORBIDDEN")
    assert (await limited.patch(f"/api/projects/{other['id']}", json={"name": "Mine"})).status_code == 200
