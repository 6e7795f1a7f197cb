"""Usage, caps and budgets over HTTP: what lanes use is counted once, and what bounds a project holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.harness import Harness, assert_error

DAY = 86_400


async def budget(harness: Harness, project_id: str, **ceilings: Any) -> dict[str, Any]:
    response = await harness.admin.put(f"/api/projects/{project_id}/budget", json=ceilings)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["budget"]
    return found


async def state_of(harness: Harness, project_id: str) -> str:
    response = await harness.viewer.get(f"/api/projects/{project_id}/budget")
    assert response.status_code == 200, response.text
    state: str = response.json()["budget"]["state"]
    return state


async def claim_next(harness: Harness, worker_id: str = "w9", **fields: Any) -> dict[str, Any] | None:
    response = await harness.worker.post("/api/agents/runs/claim", json={"worker_id": worker_id, **fields})
    assert response.status_code == 200, response.text
    run: dict[str, Any] | None = response.json()["run"]
    return run


def used(**figures: Any) -> list[dict[str, Any]]:
    return [{"type": "heartbeat", "payload": {"usage": figures}}]


# --- usage --------------------------------------------------------------------------------------------------------


async def test_figures_are_of_the_attempt_so_far_and_sum_up_over_attempts(harness: Harness) -> None:
    (run,) = await harness.approved(1)
    await harness.claim(run["id"], "w1")
    figures = {"input_tokens": 100, "output_tokens": 10, "cost_usd": 0.5, "agent": "codex", "model": "m-1"}
    await harness.report(run["id"], events=used(**figures), seq=1)
    await harness.report(run["id"], events=used(**figures), seq=1)  # a replay
    await harness.report(run["id"], events=used(input_tokens=80, cost_usd=0.4), seq=2)  # late: less than is known
    now = await harness.read(run["id"])
    assert {name: now[name] for name in figures} == figures
    assert now["cached_tokens"] is None

    response = await harness.worker.post(f"/api/agents/runs/{run['id']}/release", json={"worker_id": "w1"})
    assert response.status_code == 200
    await harness.claim(run["id"], "w2")
    ship = {
        "type": "ship_complete",
        "payload": {"input_tokens": 50, "output_tokens": 5, "cost_usd": 0.25, "model": "m-2"},
    }
    await harness.report(run["id"], "w2", events=[ship])
    now = await harness.read(run["id"])
    assert (now["input_tokens"], now["output_tokens"], now["cost_usd"], now["model"]) == (150, 15, 0.75, "m-2")
    spent = (await harness.viewer.get(f"/api/projects/{run['project_id']}/budget")).json()["budget"]["spent"]
    assert spent == {"usd_today": 0.75, "usd_total": 0.75, "tokens_today": 165, "tokens_total": 165}


@pytest.mark.parametrize(
    "nonsense", [-1, 1e300, "12", True, None, [], {}, 10**40, 0.5], ids=lambda value: repr(value)[:12]
)
async def test_what_is_no_figure_is_left_out(harness: Harness, nonsense: Any) -> None:
    (run,) = await harness.approved(1)
    await harness.claim(run["id"])
    response = await harness.report(run["id"], events=used(input_tokens=nonsense, output_tokens=3, model=nonsense))
    assert response.status_code == 200, response.text
    now = await harness.read(run["id"])
    assert (now["input_tokens"], now["output_tokens"]) == (None, 3)
    assert now["model"] == ("12" if nonsense == "12" else None)


# --- caps ---------------------------------------------------------------------------------------------------------


async def test_no_more_lanes_are_active_than_the_project_allows(harness: Harness) -> None:
    runs = await harness.approved(4, max_active=2)
    project_id = runs[0]["project_id"]
    claimed = await asyncio.gather(*(claim_next(harness, f"w{n}", project_id=project_id) for n in range(4)))
    assert sum(run is not None for run in claimed) == 2
    taken = {run["id"] for run in claimed if run is not None}
    free = next(run["id"] for run in runs if run["id"] not in taken)
    refused = await harness.worker.post(f"/api/agents/runs/{free}/claim", json={"worker_id": "w5"})
    assert "max_active" in assert_error(refused, 409, "LANE_BLOCKED")["error"]

    held = next(run for run in claimed if run is not None)
    waiting = asyncio.create_task(claim_next(harness, "w6", wait_seconds=20))
    await asyncio.sleep(0.05)
    await harness.report(held["id"], held["worker_id"], events=[{"type": "ship_complete"}])
    async with asyncio.timeout(4):  # woken, not after the five seconds at which it looks by itself
        assert await waiting is not None
    assert await claim_next(harness, "w7") is None


async def test_caps_by_role_let_other_roles_pass(harness: Harness) -> None:
    lanes = [{"laneKey": f"{role}-{n}", "title": "Lane", "role": role} for role in ("qa", "backend") for n in (1, 2)]
    runs = await harness.approved(lanes, max_active_by_role={"qa": 1})
    roles = [run and run["role"] for run in [await claim_next(harness, f"w{n}") for n in range(4)]]
    assert roles == ["qa", "backend", "backend", None]
    patched = await harness.admin.patch(f"/api/projects/{runs[0]['project_id']}", json={"max_active_by_role": {}})
    assert patched.json()["project"]["max_active_by_role"] == {}
    assert await claim_next(harness, "w9") is not None


async def test_caps_by_source_count_the_host_of_the_tickets(harness: Harness) -> None:
    project = await harness.project(max_active_by_source={"github.com": 1})
    ids = []
    for number, host in enumerate(("github.com", "GitHub.com", "git.example.com")):
        body: dict[str, Any] = {"title": f"Ticket {number}", "description": "Long enough.", "roles": ["backend"]}
        body |= {"request_type": "feature", "priority": "low", "blocking": False}
        ticket = await harness.operator.post(
            f"/api/projects/{project['id']}/tickets", json=body | {"external_url": f"https://{host}/shop/{number}"}
        )
        assert ticket.status_code == 201, ticket.text
        ids.append(ticket.json()["ticket"]["id"])
    lanes = [{"laneKey": f"l{n}", "title": "Lane", "role": "backend", "ticketIds": [one]} for n, one in enumerate(ids)]
    lanes.append({"laneKey": "free", "title": "Lane", "role": "backend"})
    await harness.approved(lanes, project_id=project["id"])
    keys = [run and run["lane_key"] for run in [await claim_next(harness, f"w{n}") for n in range(4)]]
    assert keys == ["l0", "l2", "free", None]


async def test_a_cap_of_one_project_leaves_others_alone(harness: Harness) -> None:
    await harness.approved(2, max_active=1)
    await harness.approved(1)
    claimed = [await claim_next(harness, f"w{n}") for n in range(3)]
    assert [run is not None for run in claimed] == [True, True, False]


# --- budgets ------------------------------------------------------------------------------------------------------


async def test_a_budget_that_is_used_up_pauses_and_goes_on_by_a_persons_word(harness: Harness) -> None:
    runs = await harness.approved(3)
    project_id = runs[0]["project_id"]
    assert (await budget(harness, project_id, usd_per_day=1))["state"] == "ok"
    for number in (0, 1):
        await harness.claim(runs[number]["id"], f"w{number}")
    await harness.report(runs[0]["id"], "w0", events=used(cost_usd=0.8))
    assert await state_of(harness, project_id) == "warned"
    await harness.take_back.round()
    await harness.report(runs[1]["id"], "w1", events=used(cost_usd=0.2))
    assert await state_of(harness, project_id) == "exceeded"
    assert await claim_next(harness) is None
    refused = await harness.worker.post(f"/api/agents/runs/{runs[2]['id']}/claim", json={"worker_id": "w2"})
    assert "1.00 USD of 1.00 USD today" in assert_error(refused, 409, "LANE_BLOCKED")["error"]

    await harness.take_back.round()
    for number in (0, 1):
        answer = (await harness.report(runs[number]["id"], f"w{number}")).json()
        assert (answer["directive"], answer["run"]["needs_attention"]) == ("pause", "budget")
    notices = (await harness.viewer.get("/api/agents/notices", params={"project_id": project_id})).json()["notices"]
    assert sorted(notice["kind"] for notice in notices) == ["budget_100", "budget_80"]

    went_on = await harness.operator.post(f"/api/projects/{project_id}/budget/go-on", json={"hours": 1})
    assert went_on.json()["budget"]["state"] == "waived"
    await harness.take_back.round()
    answer = (await harness.report(runs[0]["id"], "w0")).json()
    assert (answer["directive"], answer["run"]["needs_attention"]) == ("continue", None)
    assert await claim_next(harness) is not None
    kinds = [event["type"] for event in await harness.events(runs[0]["id"])]
    assert kinds.count("budget_held") == kinds.count("budget_lifted") == 1


async def open_notices(harness: Harness, project_id: str) -> list[str]:
    query = {"project_id": project_id, "open": "true"}
    notices = (await harness.viewer.get("/api/agents/notices", params=query)).json()["notices"]
    return sorted(notice["kind"] for notice in notices)


async def test_each_time_that_a_budget_is_used_up_is_told_once_and_closed_when_it_is_over(harness: Harness) -> None:
    (run,) = await harness.approved(1)
    project_id = run["project_id"]
    await harness.claim(run["id"], lease_seconds=3600)
    spent = 0.0

    async def spend(usd: float) -> None:
        nonlocal spent
        spent += usd
        await harness.report(run["id"], events=used(cost_usd=spent))
        for _ in range(3):
            await harness.take_back.round()

    async def told() -> list[str]:
        found = (await harness.viewer.get("/api/agents/notices", params={"project_id": project_id})).json()["notices"]
        return [notice["text"] for notice in found]

    await budget(harness, project_id, usd_total=10)
    await spend(10)
    assert await open_notices(harness, project_id) == ["budget_100"]
    # Raised on the same day: what holds no more is closed, and the new ceiling is told of by itself.
    await budget(harness, project_id, usd_total=12)
    await harness.take_back.round()
    assert await open_notices(harness, project_id) == ["budget_80"]
    await spend(2)
    assert await open_notices(harness, project_id) == ["budget_100", "budget_80"]
    assert len(await told()) == 3
    # A person lets it go on for an hour; after that it stands again, and people are told again.
    await harness.operator.post(f"/api/projects/{project_id}/budget/go-on", json={"hours": 0.5})
    await harness.take_back.round()
    assert "budget_100" not in await open_notices(harness, project_id)
    harness.store.clock.advance(1801)
    await spend(0)
    assert len(await told()) == 4
    assert "budget_100" in await open_notices(harness, project_id)
    # Raised days later, it closes what was told then.
    for _ in range(3):
        harness.store.clock.advance(DAY)
        await harness.take_back.round()
    assert len(await told()) == 4
    await budget(harness, project_id, usd_total=1000)
    await harness.take_back.round()
    assert await open_notices(harness, project_id) == []


async def test_a_new_day_lets_a_project_go_on(harness: Harness) -> None:
    runs = await harness.approved(2)
    project_id = runs[0]["project_id"]
    await budget(harness, project_id, tokens_per_day=100)
    await harness.claim(runs[0]["id"], lease_seconds=3600)
    await harness.report(runs[0]["id"], events=used(input_tokens=90, output_tokens=10))
    await harness.take_back.round()
    assert await claim_next(harness) is None
    harness.store.clock.advance(DAY)
    await harness.report(runs[0]["id"])  # heard again, so that its lease is none of this test's
    await harness.take_back.round()
    assert await state_of(harness, project_id) == "ok"
    assert (await harness.report(runs[0]["id"])).json()["directive"] == "continue"
    assert await claim_next(harness) is not None


async def test_stop_tells_workers_to_stop_and_counts_nothing(harness: Harness) -> None:
    (run,) = await harness.approved(1)
    await budget(harness, run["project_id"], usd_total=1, on_exceeded="stop")
    await harness.claim(run["id"])
    await harness.report(run["id"], events=used(cost_usd=3))
    await harness.take_back.round()
    answer = await harness.report(run["id"], events=[{"type": "log_line", "payload": {"line": "the last one"}}])
    assert (answer.status_code, answer.json()["directive"]) == (200, "stop")
    now = answer.json()["run"]
    assert (now["state"], now["worker_id"], now["needs_attention"]) == ("running", "w1", "budget")
    held = [event["payload"] for event in await harness.events(run["id"], type="budget_held")]
    assert [each["directive"] for each in held] == ["stop"]
    released = await harness.worker.post(f"/api/agents/runs/{run['id']}/release", json={"worker_id": "w1"})
    assert released.status_code == 200
    now = await harness.read(run["id"])
    assert (now["state"], now["failures"], now["needs_attention"]) == ("released", 0, "budget")
    assert await claim_next(harness) is None
    await budget(harness, run["project_id"], usd_total=10)
    await harness.take_back.round()
    assert (await harness.read(run["id"]))["needs_attention"] is None
    assert await claim_next(harness) is not None


async def test_a_lane_whose_worker_was_told_to_stop_is_taken_back_uncounted(harness: Harness) -> None:
    (run,) = await harness.approved(1)
    await budget(harness, run["project_id"], usd_total=1, on_exceeded="stop")
    await harness.claim(run["id"], lease_seconds=60)
    await harness.report(run["id"], events=used(cost_usd=3))
    await harness.take_back.round()
    await harness.let_pass(61)
    now = await harness.read(run["id"])
    assert (now["state"], now["failures"], now["needs_attention"]) == ("queued", 0, "budget")
    assert_error(await harness.report(run["id"]), 409, "CLAIM_LOST")


async def test_what_was_spent_before_there_was_a_budget_counts(harness: Harness) -> None:
    (run,) = await harness.approved(1)
    await harness.claim(run["id"])
    await harness.report(run["id"], events=used(cost_usd=2))
    assert (await budget(harness, run["project_id"], usd_total=2))["state"] == "exceeded"


async def test_every_problem_of_a_budget_is_told_at_once(harness: Harness) -> None:
    project = await harness.project()
    body = {"usd_per_day": -1, "tokens_total": 1.5, "on_exceeded": "explode"}
    response = await harness.admin.put(f"/api/projects/{project['id']}/budget", json=body)
    assert set(assert_error(response, 400, "INVALID_REQUEST")["fieldErrors"]) == set(body)
    for client in (harness.operator, harness.worker, harness.viewer):
        assert_error(await client.put(f"/api/projects/{project['id']}/budget", json={}), 403, "FORBIDDEN")


async def test_who_changed_a_budget_is_written_down(harness: Harness) -> None:
    project = await harness.project()
    await budget(harness, project["id"], usd_per_day=5)
    entries = (await harness.admin.get("/api/audit", params={"project_id": project["id"]})).json()["entries"]
    entry = next(entry for entry in entries if entry["action"] == "budget.changed")
    assert (entry["details"]["before"]["usd_per_day"], entry["details"]["after"]["usd_per_day"]) == (None, 5.0)
    assert "tokens_per_day" in entry["details"]["after"]
    await harness.admin.patch(f"/api/projects/{project['id']}", json={"max_active_by_role": {"qa": 1}})
    (changed,) = (await harness.admin.get("/api/audit", params={"action": "project.changed"})).json()["entries"]
    assert changed["details"] == {"before": {"max_active_by_role": {}}, "after": {"max_active_by_role": {"qa": 1}}}
