"""Runs and workers as people see them: listed, read, and steered by an operator."""

from __future__ import annotations

from typing import Any

import pytest

from heartlane.wire.answers import EventList, RunAnswer, RunChanged, RunList, WorkerList
from tests.harness import Harness, assert_error

NOBODY = "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40"


async def listed(harness: Harness, **query: Any) -> list[str]:
    response = await harness.viewer.get("/api/agents/runs", params=query)
    assert response.status_code == 200, response.text
    RunList.model_validate(response.json(), extra="forbid")
    return [run["lane_key"] for run in response.json()["runs"]]


async def steer(harness: Harness, run: dict[str, Any], verb: str, **body: Any) -> Any:
    return await harness.operator.post(f"/api/agents/runs/{run['id']}/{verb}", json=body)


def lane(key: str, role: str = "backend", **fields: Any) -> dict[str, Any]:
    return {"laneKey": key, "title": f"Lane {key}", "role": role, **fields}


# --- lists ---------------------------------------------------------------------------------------------------------


async def test_runs_are_listed_newest_first_by_cursor(harness: Harness) -> None:
    await harness.approved([lane(key) for key in "abcde"])
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = (await harness.viewer.get("/api/agents/runs", params=query)).json()
        found += [run["lane_key"] for run in page["runs"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == list("edcba")


async def test_runs_that_come_between_two_pages_shift_nothing(harness: Harness) -> None:
    await harness.approved([lane(key) for key in "abcd"])
    first = (await harness.viewer.get("/api/agents/runs", params={"limit": 2})).json()
    await harness.approved([lane("new")])
    assert await listed(harness, cursor=first["next_cursor"]) == ["b", "a"]


async def test_filters(harness: Harness) -> None:
    first = await harness.approved([lane("a"), lane("b", "qa"), lane("c")])
    second = await harness.approved([lane("d", "qa")])
    await harness.claim(first[0]["id"], "w1")
    await harness.claim(second[0]["id"], "w2")
    await harness.report(second[0]["id"], "w2")
    assert await listed(harness, project_id=first[0]["project_id"].upper()) == ["c", "b", "a"]
    assert await listed(harness, plan_id=second[0]["plan_id"]) == ["d"]
    assert await listed(harness, role="qa") == ["d", "b"]
    assert await listed(harness, worker_id="w1") == ["a"]
    assert await listed(harness, state="claimed") == ["a"]
    assert await listed(harness, state=["claimed", "running", "claimed"]) == ["d", "a"]
    assert await listed(harness, project_id=NOBODY) == []
    assert await listed(harness, role="qa", state="queued", worker_id="w1") == []


async def test_stalled_runs(harness: Harness) -> None:
    runs = await harness.approved([lane("quiet"), lane("busy"), lane("free")], stalled_after_seconds=60)
    for run in runs[:2]:
        await harness.claim(run["id"], lease_seconds=3600)
    await harness.let_pass(61)
    await harness.report(runs[0]["id"])
    await harness.report(runs[1]["id"], log_line="still here")
    assert await listed(harness, stalled="true") == ["quiet"]
    assert await listed(harness, stalled="false") == ["free", "busy"]
    quiet = await harness.read(runs[0]["id"])
    assert (quiet["stalled"], quiet["needs_attention"]) == (True, "stalled")


async def test_a_run_read_alone(harness: Harness) -> None:
    run = (await harness.approved([lane("a", prompt="Do it.", labels={"os": "linux"})]))[0]
    response = await harness.viewer.get(f"/api/agents/runs/{run['id'].upper()}")
    RunAnswer.model_validate(response.json(), extra="forbid")
    assert response.json()["run"] == {**run, "prompt": "Do it.", "tickets": []}


async def test_events_are_paged_and_narrowed(harness: Harness) -> None:
    run = (await harness.approved(1))[0]
    await harness.claim(run["id"])
    for number in range(3):
        events = [{"type": "action", "payload": {"n": number}}, {"type": "heartbeat"}]
        await harness.report(run["id"], events=events)
    path = f"/api/agents/runs/{run['id']}/events"

    async def page(**query: Any) -> tuple[list[int], str | None]:
        response = await harness.viewer.get(path, params=query)
        EventList.model_validate(response.json(), extra="forbid")
        body = response.json()
        return [event["seq"] for event in body["events"]], body["next_cursor"]

    assert await page() == ([1, 2, 3, 4, 5, 6, 7], None)
    assert await page(limit=3) == ([1, 2, 3], "3")
    assert await page(limit=3, after=3) == ([4, 5, 6], "6")
    assert await page(limit=3, cursor="6") == ([7], None)
    assert await page(after=7) == ([], None)
    assert await page(after=2**63 - 1) == ([], None)
    assert await page(type="claimed") == ([1], None)
    assert await page(type=["action", "claimed"]) == ([1, 2, 4, 6], None)
    assert (await page(type="action", limit=2))[0] == [2, 4]
    assert await harness.events(run["id"], type="action", limit=1) == [
        event for event in await harness.events(run["id"]) if event["type"] == "action"
    ]


async def test_workers(harness: Harness) -> None:
    runs = await harness.approved(3)
    other = await harness.approved(1)
    for run, worker in ((runs[0], "w1"), (runs[1], "w1"), (runs[2], "w:2/ü"), (other[0], "w3")):
        await harness.claim(run["id"], worker)
    response = await harness.viewer.get("/api/agents/workers")
    WorkerList.model_validate(response.json(), extra="forbid")
    workers = {each["worker_id"]: each for each in response.json()["workers"]}
    assert {name: len(each["runs"]) for name, each in workers.items()} == {"w1": 2, "w3": 1, "w:2/ü": 1}
    first = workers["w1"]
    assert first["since"] == min(run["claimed_at"] for run in first["runs"])
    assert first["last_heard"] == max(run["last_heartbeat"] for run in first["runs"])

    names: list[str] = []
    query: dict[str, Any] = {"limit": 1}
    while True:
        page = (await harness.viewer.get("/api/agents/workers", params=query)).json()
        names += [each["worker_id"] for each in page["workers"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert sorted(names) == sorted(workers)
    narrowed = await harness.viewer.get("/api/agents/workers", params={"project_id": other[0]["project_id"]})
    assert [each["worker_id"] for each in narrowed.json()["workers"]] == ["w3"]


async def test_another_account_or_project_sees_nothing(harness: Harness) -> None:
    run = (await harness.approved(1))[0]
    await harness.claim(run["id"])
    other = await harness.project()
    for client in (
        await harness.client("admin", account="another"),
        await harness.client("admin", project_id=other["id"]),
    ):
        path = f"/api/agents/runs/{run['id']}"
        assert_error(await client.get(path), 404, "NOT_FOUND")
        assert_error(await client.get(f"{path}/events"), 404, "NOT_FOUND")
        for verb in ("release", "pause", "resume", "cancel", "retry"):
            assert_error(await client.post(f"{path}/{verb}", json={}), 404, "NOT_FOUND")
        for query in ({}, {"project_id": run["project_id"]}):
            assert (await client.get("/api/agents/runs", params=query)).json() == {"runs": [], "next_cursor": None}
            found = (await client.get("/api/agents/workers", params=query)).json()
            assert found == {"workers": [], "next_cursor": None}
    assert (await harness.read(run["id"]))["state"] == "claimed"


# --- the operator's hand -------------------------------------------------------------------------------------------


async def test_pause_and_resume(harness: Harness) -> None:
    run = (await harness.approved(1))[0]
    await harness.claim(run["id"])
    response = await steer(harness, run, "pause")
    RunChanged.model_validate(response.json(), extra="forbid")
    paused = response.json()["run"]
    assert (paused["state"], paused["worker_id"], paused["needs_attention"]) == ("paused", "w1", "paused")
    assert (await harness.report(run["id"])).json()["directive"] == "pause"
    assert (await steer(harness, run, "resume")).json()["run"]["state"] == "running"
    assert (await harness.report(run["id"])).json()["directive"] == "continue"
    kinds = [event["type"] for event in await harness.events(run["id"])]
    assert kinds == ["claimed", "paused", "resumed"]


async def test_cancel_and_retry(harness: Harness) -> None:
    run = (await harness.approved(1))[0]
    await harness.claim(run["id"])
    cancelled = (await steer(harness, run, "cancel")).json()["run"]
    assert (cancelled["state"], cancelled["lease_expires_at"], cancelled["attempt"]) == ("failed", None, 1)
    assert_error(await harness.report(run["id"]), 409, "RUN_FINISHED")
    assert_error(await steer(harness, run, "pause"), 409, "RUN_FINISHED")
    retried = (await steer(harness, run, "retry")).json()["run"]
    assert (retried["state"], retried["failures"], retried["attempt"], retried["worker_id"]) == ("queued", 0, 1, None)
    assert (await harness.claim(run["id"], "w2"))["attempt"] == 2


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_a_lane_that_nobody_holds_cannot_be_paused(harness: Harness, verb: str) -> None:
    run = (await harness.approved(1))[0]
    body = assert_error(await steer(harness, run, verb), 409, "NOT_CLAIMED")
    assert body["run"]["state"] == "queued"


async def test_release_by_the_holder(harness: Harness) -> None:
    run = (await harness.approved(1))[0]
    await harness.claim(run["id"])
    path = f"/api/agents/runs/{run['id']}/release"
    body = assert_error(await harness.worker.post(path, json={"worker_id": "w2"}), 409, "CLAIM_HELD_BY_OTHER")
    assert "w1" in body["error"]
    assert body["run"]["worker_id"] == "w1"
    stale = await harness.worker.post(path, json={"worker_id": "w1", "attempt": 7})
    assert_error(stale, 409, "STALE_ATTEMPT")
    response = await harness.worker.post(
        path, json={"worker_id": "w1", "attempt": 1, "reason": "quota", "retry_after": 60.5}
    )
    released = response.json()["run"]
    assert (released["state"], released["worker_id"], released["failures"]) == ("released", None, 0)
    assert released["not_before"] is not None
    assert_error(
        await harness.worker.post(f"/api/agents/runs/{run['id']}/claim", json={"worker_id": "w2"}), 409, "LANE_BLOCKED"
    )
    event = (await harness.events(run["id"]))[-1]
    assert (event["type"], event["payload"]["reason"]) == ("released", "quota")


async def test_release_without_a_worker_is_the_operators(harness: Harness) -> None:
    run = (await harness.approved(1))[0]
    await harness.claim(run["id"])
    path = f"/api/agents/runs/{run['id']}/release"
    assert_error(await harness.worker.post(path, json={}), 403, "FORBIDDEN")
    assert_error(await harness.viewer.post(path, json={"worker_id": "w1"}), 403, "FORBIDDEN")
    released = await harness.operator.post(path)
    assert released.json()["run"]["state"] == "released"
    assert (await harness.claim(run["id"], "w2"))["attempt"] == 2


async def test_only_operators_steer(harness: Harness) -> None:
    run = (await harness.approved(1))[0]
    for client in (harness.viewer, harness.worker):
        for verb in ("pause", "resume", "cancel", "retry"):
            assert_error(await client.post(f"/api/agents/runs/{run['id']}/{verb}"), 403, "FORBIDDEN")


async def test_a_server_that_shuts_down_refuses_new_work(harness: Harness) -> None:
    harness.context.gate.close()
    for path in ("/api/agents/runs", "/readyz"):
        assert_error(await harness.viewer.get(path), 503, "UNAVAILABLE")
    assert_error(await harness.admin.post("/api/projects", json={"name": "x"}), 503, "UNAVAILABLE")
    assert (await harness.viewer.get("/healthz")).status_code == 200
