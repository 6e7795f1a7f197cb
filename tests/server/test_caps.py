"""Caps: so many lanes of a project, a role or a source are worked at once, and never one more, whoever claims."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from heartlane.lanes.commands import Claim, Release
from heartlane.lanes.decisions import Decision
from heartlane.store.batch import ClaimNext
from heartlane.store.store import Store
from tests.harness import Harness, assert_error
from tests.store.fleet import Fleet, lane

LANES = [
    {"laneKey": f"{role}-{number}", "title": "Lane", "role": role} for role in ("backend", "qa") for number in range(4)
]


async def claim_next(harness: Harness, worker_id: str = "w1", **fields: Any) -> dict[str, Any]:
    response = await harness.worker.post("/api/agents/runs/claim", json={"worker_id": worker_id, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def claim_all(harness: Harness, **fields: Any) -> list[dict[str, Any]]:
    """What many claims at once get."""
    answers = await asyncio.gather(*(claim_next(harness, f"w{number}", **fields) for number in range(12)))
    return [answer["run"] for answer in answers if answer["run"] is not None]


async def release(harness: Harness, run: dict[str, Any]) -> None:
    body = {"worker_id": run["worker_id"]}
    response = await harness.worker.post(f"/api/agents/runs/{run['id']}/release", json=body)
    assert response.status_code == 200, response.text


async def cap(harness: Harness, project_id: str, **caps: Any) -> dict[str, Any]:
    response = await harness.admin.patch(f"/api/projects/{project_id}", json=caps)
    assert response.status_code == 200, response.text
    project: dict[str, Any] = response.json()["project"]
    return project


@pytest.mark.parametrize("by_project", [True, False])
async def test_a_project_has_no_more_active_lanes_than_it_may(harness: Harness, by_project: bool) -> None:
    runs = await harness.approved(LANES, max_active=3)
    project_id = runs[0]["project_id"]
    where = {"project_id": project_id} if by_project else {}
    taken = await claim_all(harness, **where)
    assert len(taken) == 3
    answer = await claim_next(harness, **where)
    assert answer["run"] is None
    assert "3 lane(s) of its project are active" in answer["words"]
    free = next(run for run in runs if run["id"] not in {each["id"] for each in taken})
    refused = await harness.worker.post(f"/api/agents/runs/{free['id']}/claim", json={"worker_id": "w"})
    assert "max_active" in assert_error(refused, 409, "LANE_BLOCKED")["error"]
    # A lane that is paused or shipping is active; the holder's own claim renews it whatever the cap.
    await harness.claim(taken[0]["id"], taken[0]["worker_id"])
    await release(harness, taken[0])
    assert len(await claim_all(harness, **where)) == 1
    # Another project's lanes are not in its way.
    other = await harness.approved(1)
    assert (await claim_next(harness))["run"]["id"] == other[0]["id"]
    assert (await cap(harness, project_id, max_active=None))["max_active"] is None
    assert len(await claim_all(harness, **where)) == 5


async def test_a_role_has_no_more(harness: Harness) -> None:
    runs = await harness.approved(LANES, max_active_by_role={"backend": 2})
    taken = Counter(run["role"] for run in await claim_all(harness))
    assert taken == {"backend": 2, "qa": 4}
    answer = await claim_next(harness, roles=["backend"])
    assert answer["run"] is None
    assert "2 lane(s) of role backend are active" in answer["words"]
    assert await cap(harness, runs[0]["project_id"], max_active_by_role={}) | {"max_active_by_role": {}}
    assert len(await claim_all(harness)) == 2


async def test_a_source_has_no_more(harness: Harness) -> None:
    project = await harness.project(max_active_by_source={"github.com": 1})
    milestone = (
        await harness.admin.post(f"/api/projects/{project['id']}/milestones", json={"name": "Milestone"})
    ).json()["milestone"]
    ids = []
    for number, url in enumerate(("https://GitHub.com/a/b/1", "https://github.com/a/b/2", "https://x.test/3", None)):
        ticket = {
            "title": f"Ticket {number}",
            "description": "Something to be done",
            "request_type": "feature",
            "priority": "high",
            "blocking": False,
            "roles": ["backend"],
            "milestone_id": milestone["id"],
            "external_url": url,
        }
        response = await harness.operator.post(f"/api/projects/{project['id']}/tickets", json=ticket)
        assert response.status_code == 201, response.text
        ids.append(response.json()["ticket"]["id"])
    for ticket_id in ids:
        plan = await harness.operator.post(
            "/api/agents/plan", json={"milestoneId": milestone["id"], "ticketIds": [ticket_id]}
        )
        approve = f"/api/agents/plans/{plan.json()['plan']['id']}/approve"
        assert (await harness.operator.post(approve)).status_code == 200
    taken = await claim_all(harness)
    assert [ids.index(run["ticket_ids"][0]) for run in sorted(taken, key=lambda run: run["id"])] == [0, 2, 3]
    assert "from github.com" in (await claim_next(harness))["words"]
    await release(harness, next(run for run in taken if run["ticket_ids"] == [ids[0]]))
    assert len(await claim_all(harness)) == 1


async def test_a_waiting_claim_wakes_when_a_cap_frees(harness: Harness) -> None:
    await harness.approved(3, max_active=1)
    first = (await claim_next(harness))["run"]
    waiting = asyncio.create_task(claim_next(harness, "w2", roles=["backend"], wait_seconds=20))
    await harness.waiting_claims(1)
    began = asyncio.get_running_loop().time()
    await harness.report(first["id"], events=[{"type": "ship_complete"}])
    assert (await waiting)["run"] is not None
    assert asyncio.get_running_loop().time() - began < 3


async def test_every_problem_of_caps_is_told_at_once(harness: Harness) -> None:
    bad = {"max_active": -1, "max_active_by_role": {"chef": 1, "qa": "2"}, "max_active_by_source": {"": 1}}
    response = await harness.admin.post("/api/projects", json={"name": "Project", **bad})
    paths = set(assert_error(response, 400, "INVALID_REQUEST")["fieldErrors"])
    assert len(paths) == 4
    assert {path.split(".")[0] for path in paths} == set(bad)


async def test_a_cap_holds_while_lanes_come_and_go_on_several_servers(postgres_database_url: str) -> None:
    stores = [await Store.open(postgres_database_url, pool_size=3) for _ in range(3)]
    try:
        fleet = await Fleet.found(stores[0], max_active=5, max_active_by_role_json='{"qa": 2}', limited=True)
        await fleet.lanes([lane(f"{role}-{number}", role) for role in ("backend", "qa") for number in range(30)])
        most: Counter[str] = Counter()
        active: Counter[str] = Counter()

        async def work(number: int) -> None:
            store = stores[number % 3]
            claim = ClaimNext(f"w{number}", 300, fleet.account_id)
            for _ in range(6):
                outcome = await store.ledger.claim_next(claim)
                if outcome.run is None:
                    continue
                role = outcome.run.role
                active.update(["all", role])
                for name in ("all", role):
                    most[name] = max(most[name], active[name])
                await asyncio.sleep(0.005)
                # Counted as gone before it is: the next may be taken before this answer comes.
                active.subtract(["all", role])
                released = await store.ledger.submit(outcome.run.id, Release(f"w{number}"))
                assert isinstance(released.decision, Decision)

        await asyncio.gather(*(work(number) for number in range(18)))
        assert most["all"] <= 5
        assert most["qa"] <= 2
        assert most["all"] == 5
        assert isinstance((await stores[1].ledger.claim_next(ClaimNext("w", 300, fleet.account_id))).decision, Decision)
    finally:
        for store in stores:
            await store.close()


async def test_single_claims_race_against_a_cap(harness: Harness) -> None:
    runs = await harness.approved(10, max_active=4)
    ledger = harness.store.ledger
    outcomes = await asyncio.gather(
        *(ledger.submit(run["id"], Claim(f"w{place}")) for place, run in enumerate(runs)),
        *(claim_next(harness, f"n{place}") for place in range(5)),
    )
    taken = sum(
        outcome["run"] is not None if isinstance(outcome, dict) else isinstance(outcome.decision, Decision)
        for outcome in outcomes
    )
    assert taken == 4


async def test_the_audit_log_tells_caps_by_their_names(harness: Harness) -> None:
    project = await harness.project(max_active=2)
    await cap(harness, project["id"], max_active_by_role={"qa": 1})
    query = {"project_id": project["id"], "action": "project"}
    changed, created = (await harness.operator.get("/api/audit", params=query)).json()["entries"]
    assert changed["details"] == {"before": {"max_active_by_role": {}}, "after": {"max_active_by_role": {"qa": 1}}}
    after = created["details"]["after"]
    assert (after["max_active"], after["max_active_by_role"], "limited" in after) == (2, {}, False)
