"""Who did what: every entry in the transaction of what it tells of, and nothing that changes one."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import structlog
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from heartlane.server import sessions as server_sessions
from heartlane.store import audit, tokens
from heartlane.store.audit import Actor
from heartlane.store.schema import audit as audit_table
from heartlane.store.store import Store
from tests.browser import Browser
from tests.harness import Harness, assert_error

LANES = [{"laneKey": "a", "title": "Build it", "role": "backend"}]


async def entries(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """What was done, newest first; the harness's own tokens left out."""
    answer = await client.get("/api/audit", params={"limit": 200, **query})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entries"]
    return [each for each in found if each["actor_kind"] != "command_line"]


async def count(store: Store) -> int:
    async with store.reading() as conn:
        found: int = (await conn.execute(select(func.count()).select_from(audit_table))).scalar_one()
    return found


async def pending_plan(harness: Harness, project_id: str) -> str:
    answer = await harness.operator.post(
        "/api/agents/plan", json={"projectId": project_id, "title": "Sign in", "lanes": LANES}
    )
    plan_id: str = answer.json()["plan"]["id"]
    return plan_id


async def test_everything_that_an_operator_does_is_there(harness: Harness) -> None:
    project = await harness.project(name="Shop")
    await harness.admin.patch(f"/api/projects/{project['id']}", json={"max_failures": 2, "name": "Shop"})
    plan_id = await pending_plan(harness, project["id"])
    rejected = await pending_plan(harness, project["id"])
    run_id = (await harness.operator.post(f"/api/agents/plans/{plan_id}/approve")).json()["runs"][0]["id"]
    await harness.operator.post(f"/api/agents/plans/{rejected}/reject", json={"reason": "Too large."})
    await harness.claim(run_id, "w1")
    for verb in ("pause", "resume"):
        assert (await harness.operator.post(f"/api/agents/runs/{run_id}/{verb}")).status_code == 200
    await harness.operator.post(f"/api/agents/runs/{run_id}/release", json={"reason": "wrong machine"})
    for verb in ("cancel", "retry"):
        assert (await harness.operator.post(f"/api/agents/runs/{run_id}/{verb}")).status_code == 200
    found = await entries(harness.admin, project_id=project["id"])
    assert [each["action"] for each in reversed(found)] == [
        "project.created",
        "project.changed",
        "plan.created",
        "plan.created",
        "plan.approved",
        "plan.rejected",
        "run.paused",
        "run.resumed",
        "run.released",
        "run.cancelled",
        "run.retried",
    ]
    by_action = {each["action"]: each for each in found}
    assert by_action["project.changed"]["details"] == {"before": {"max_failures": 5}, "after": {"max_failures": 2}}
    assert by_action["plan.rejected"]["details"]["reason"] == "Too large."
    assert (by_action["plan.approved"]["object_id"], by_action["plan.approved"]["object_name"]) == (plan_id, "Sign in")
    paused = by_action["run.paused"]
    assert (paused["object_type"], paused["object_id"], paused["object_name"]) == ("run", run_id, "Build it")
    assert paused["details"] | {"plan_id": None} == {
        "lane_key": "a",
        "plan_id": None,
        "before": {"state": "claimed"},
        "after": {"state": "paused"},
        "worker_id": "w1",
        "attempt": 1,
    }
    assert by_action["run.released"]["details"]["reason"] == "wrong machine"
    me = (await harness.operator.get("/api/me")).json()["me"]
    assert (paused["actor_kind"], paused["actor_name"], paused["token_id"]) == ("token", me["name"], me["token_id"])
    assert (paused["session_id"], paused["address"]) == (None, "127.0.0.1")
    assert paused["user_agent"].startswith("python-httpx/")
    run = await harness.read(run_id)
    assert by_action["run.retried"]["at"] == run["updated_at"], "the entry has the time of the change itself"


async def test_what_is_refused_or_changes_nothing_leaves_nothing(harness: Harness) -> None:
    (run,) = await harness.approved()
    plan_id, project_id = run["plan_id"], run["project_id"]
    await harness.claim(run["id"], "w1")
    await harness.operator.post(f"/api/agents/runs/{run['id']}/pause")
    before = await count(harness.store)
    assert (await harness.operator.post(f"/api/agents/plans/{plan_id}/approve")).status_code == 200
    assert (await harness.operator.post(f"/api/agents/runs/{run['id']}/pause")).status_code == 200
    unchanged = await harness.admin.patch(f"/api/projects/{project_id}", json={"max_failures": 5})
    assert unchanged.status_code == 200
    refused = [
        await harness.operator.post(f"/api/agents/plans/{plan_id}/reject", json={"reason": "late"}),
        await harness.operator.post(f"/api/agents/runs/{run['id']}/retry"),
        await harness.operator.post(f"/api/agents/runs/{plan_id}/cancel"),
        await harness.viewer.post(f"/api/agents/runs/{run['id']}/cancel"),
        await harness.admin.patch(f"/api/projects/{project_id}", json={"max_failures": 0}),
        await harness.worker.post(f"/api/agents/runs/{run['id']}/release", json={"worker_id": "other"}),
    ]
    assert [answer.status_code for answer in refused] == [409, 409, 404, 403, 400, 409]
    # What workers do is in the run's own log.
    await harness.report(run["id"], phase="tests")
    await harness.worker.post(f"/api/agents/runs/{run['id']}/release", json={"worker_id": "w1"})
    assert await count(harness.store) == before


async def test_an_entry_that_cant_be_written_undoes_what_it_tells_of(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same transaction: no change without its entry."""
    (run,) = await harness.approved()
    await harness.claim(run["id"], "w1")
    project = await harness.project()
    plan_id = await pending_plan(harness, project["id"])
    taken = (await entries(harness.admin))[0]["id"]
    monkeypatch.setattr(audit, "new_id", lambda: taken)  # an id that is there already
    with structlog.testing.capture_logs():  # three tracebacks, which take seconds to print
        answers = [
            await harness.operator.post(f"/api/agents/runs/{run['id']}/cancel"),
            await harness.operator.post(f"/api/agents/plans/{plan_id}/approve"),
            await harness.admin.patch(f"/api/projects/{project['id']}", json={"name": "Other"}),
        ]
    assert [answer.status_code for answer in answers] == [500, 500, 500]
    assert (await harness.read(run["id"]))["state"] == "claimed"
    assert [event["type"] for event in await harness.events(run["id"])] == ["claimed"]
    assert (await harness.viewer.get(f"/api/agents/plans/{plan_id}")).json()["plan"]["status"] == "pending"
    assert (await harness.viewer.get(f"/api/projects/{project['id']}")).json()["project"]["name"] == "Project"


async def test_many_hands_at_once_leave_one_entry_each(harness: Harness) -> None:
    """One batch of the ledger carries commands of several people, reports, and refusals."""
    lanes = await harness.approved(8)
    for run in lanes:
        await harness.claim(run["id"], "w1")
    answers = await asyncio.gather(
        *(harness.operator.post(f"/api/agents/runs/{run['id']}/pause") for run in lanes),
        *(harness.admin.post(f"/api/agents/runs/{run['id']}/retry") for run in lanes),
        *(harness.report(run["id"]) for run in lanes),
    )
    assert [answer.status_code for answer in answers[8:16]] == [409] * 8
    found = await entries(harness.admin, action="run")
    assert sorted(each["object_id"] for each in found) == sorted(run["id"] for run in lanes)
    assert {each["action"] for each in found} == {"run.paused"}


async def test_tokens_and_sessions_are_there_without_their_secrets(harness: Harness) -> None:
    token, secret = await tokens.create(harness.store, "anna", "operator")
    browser = Browser(harness)
    await browser.log_in(secret)
    link = (await harness.client_with(secret).post("/api/login-links")).json()["login_link"]["url"].partition("=")[2]
    await browser.log_in(link)
    assert (await browser.log_in(link)).status_code == 401
    await browser.change("POST", "/api/agents/plan", json={"lanes": []})
    (run,) = await harness.approved()
    assert (await browser.change("POST", f"/api/agents/runs/{run['id']}/cancel")).status_code == 200
    await browser.post("/logout", data={"csrf_token": await browser.csrf()})
    new, new_secret = await tokens.rotate(harness.store, token.id)
    await tokens.revoke(harness.store, new.id)
    answer = await harness.admin.get("/api/audit", params={"limit": 200})
    for kept_back in (secret, new_secret, link, tokens.hash_of(secret), tokens.hash_of(link)):
        assert kept_back not in answer.text
    about = {token.id, new.id}
    found = [each for each in answer.json()["entries"] if each["token_id"] in about or each["object_id"] in about]
    assert [each["action"] for each in reversed(found)] == [
        "token.created",
        "session.started",
        "login_link.created",
        "session.started",
        "session.ended",
        "login.failed",
        "run.cancelled",
        "session.ended",
        "token.revoked",
        "token.created",
        "token.revoked",
    ]
    started, failed, cancelled = found[-2], found[5], found[4]
    assert (started["actor_kind"], started["actor_name"], started["user_agent"]) == ("session", "anna", "Tests/1.0")
    assert started["details"]["method"] == "token"
    assert (failed["actor_kind"], failed["object_name"], failed["details"]) == ("anonymous", "anna", {"reason": "used"})
    assert (cancelled["actor_kind"], cancelled["session_id"]) == ("session", found[-4]["session_id"])
    assert found[0]["actor_kind"] == "command_line"
    assert "@" in found[0]["actor_name"]


async def test_failed_logins_are_there_but_dont_fill_the_disk(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_sessions, "FAILURES_RECORDED_A_MINUTE", 3)
    for _ in range(6):
        assert (await Browser(harness).log_in(tokens.new_secret())).status_code == 401
    found = await entries(harness.admin, action="login.failed")
    assert len(found) == 3
    assert (found[0]["address"], found[0]["details"]) == ("127.0.0.1", {"reason": "unknown"})
    assert (found[0]["object_id"], found[0]["token_id"]) == (None, None)


# --- who reads it -------------------------------------------------------------------------------------------------


async def test_who_sees_what(harness: Harness) -> None:
    mine, other = await harness.project(), await harness.project()
    elsewhere = await harness.client("admin", account="acme")
    await elsewhere.post("/api/projects", json={"name": "Theirs"})
    for client in (harness.viewer, harness.worker):
        assert_error(await client.get("/api/audit"), 403, "FORBIDDEN")
    limited = await harness.client("operator", project_id=mine["id"])
    assert {each["object_id"] for each in await entries(harness.operator)} == {mine["id"], other["id"]}
    assert {each["object_id"] for each in await entries(limited)} == {mine["id"]}
    assert await entries(limited, project_id=other["id"]) == []
    assert {each["object_name"] for each in await entries(elsewhere)} == {"Theirs"}


async def test_filters_and_pages(harness: Harness) -> None:
    runs = await harness.approved(5)
    for run in runs:
        await harness.operator.post(f"/api/agents/runs/{run['id']}/cancel")
    await harness.admin.post(f"/api/agents/runs/{runs[0]['id']}/retry")
    me = (await harness.admin.get("/api/me")).json()["me"]
    for actor in (me["name"], me["token_id"]):
        assert [each["action"] for each in await entries(harness.admin, actor=actor)][:1] == ["run.retried"]
    assert len(await entries(harness.admin, action="run.cancelled")) == 5
    every = await entries(harness.admin, action="run")
    assert len(every) == 6
    middle = every[2]["at"]
    since = await entries(harness.admin, action="run", since=middle)
    until = await entries(harness.admin, action="run", until=middle)
    assert since + until == every
    assert until == every[3:]
    query: dict[str, Any] = {"limit": 4, "action": "run"}
    paged: list[str] = []
    while True:
        page = (await harness.admin.get("/api/audit", params=query)).json()
        paged += [each["id"] for each in page["entries"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert paged == [each["id"] for each in every]
    for wrong in ({"action": "Run;"}, {"since": "yesterday"}, {"cursor": "cnVuczoxNw"}, {"limit": 0}):
        assert_error(await harness.admin.get("/api/audit", params=wrong), 400, "INVALID_REQUEST")


# --- nothing changes it -------------------------------------------------------------------------------------------


async def test_the_database_itself_refuses_to_change_or_delete_an_entry(store: Store) -> None:
    await tokens.create(store, "anna", "viewer")
    statements = ["UPDATE audit SET action = 'nothing'", "DELETE FROM audit"]
    if store.dialect == "sqlite":
        statements += [
            "INSERT OR REPLACE INTO audit SELECT * FROM audit",
            "REPLACE INTO audit (number, id, at, action, object_type, actor_kind) VALUES (1, 'x', 0, 'a', 'b', 'c')",
        ]
    else:
        statements += ["TRUNCATE audit", "UPDATE audit SET action = 'x' WHERE false"]
    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"):
            async with store.writing() as tx:
                await tx.conn.execute(text(statement))
    async with store.reading() as conn:
        (row,) = await conn.execute(select(audit_table))
    assert row.action == "token.created"


async def test_no_route_changes_an_entry(harness: Harness) -> None:
    entry_id = (await harness.admin.get("/api/audit")).json()["entries"][0]["id"]
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert_error(await harness.admin.request(method, "/api/audit"), 405, "METHOD_NOT_ALLOWED")
        assert_error(await harness.admin.request(method, f"/api/audit/{entry_id}"), 404, "NOT_FOUND")


async def test_any_text_that_a_client_sends_is_kept_tame(harness: Harness) -> None:
    browser = Browser(harness)
    browser.headers["user-agent"] = "x" * 1000
    _, secret = await tokens.create(harness.store, "anna", "viewer")
    await browser.log_in(secret)
    (session,) = (await browser.get("/api/sessions")).json()["sessions"]
    assert len(session["user_agent"]) == 300
    entry = audit.make_entry(
        await harness.store.now(),
        Actor("token", "na\x1b[31mme\0", user_agent="a\nb"),
        "project.changed",
        account_id=None,
        object_type="project",
        object_id=None,
        object_name="t" * 5000,
        details={"prompt": "x" * 50_000},
    )
    assert (entry.actor_name, entry.user_agent) == ("na [31mme ", "a b")
    assert len(entry.object_name or "") == 300
    assert "left_out" in entry.details_json
