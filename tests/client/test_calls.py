"""Every call of the client: none is missing, each reaches the route it is meant for, and reads what comes back."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from heartlane.client import KEEP, AsyncClient, BadAnswer, Client, calls, project_calls
from heartlane.client.call import Call, read_answer, to_json
from heartlane.client.errors import CLASSES, ApiError, InternalError, InvalidRequest, StaleAttempt, api_error
from heartlane.client.routes import Listing, Method, Routes
from heartlane.server.app import api_routes
from heartlane.server.openapi import build_document
from heartlane.wire.answers import ErrorAnswer
from heartlane.wire.errors import CODES
from heartlane.wire.examples import ANSWERS, REQUESTS, RUNNING_RUN
from tests.client.faults import client_on, faulty, page, says
from tests.harness import Harness

DOCUMENT = build_document(api_routes())
ID = "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40"
PAGES = {"/", "/docs", "/api/hooks/github", "/schemas/plan.json"}
"""For browsers, and for GitHub; no client asks for them."""


def sample(build: Callable[..., Call[Any]]) -> Call[Any]:
    """The call with an id wherever one is asked for, and some text elsewhere."""
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(build).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            arguments[name] = [] if name in ("lanes", "ticket_ids", "tickets") else True if name == "blocking" else ID
    return build(**arguments)


BUILDERS: dict[str, Callable[..., Call[Any]]] = {
    name: each._build for name, each in vars(Routes).items() if isinstance(each, Method | Listing)
}


def operations_of(call: Call[Any]) -> list[str]:
    """The operations that the document has for a call."""
    return [
        operation["operationId"]
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method == call.method.lower() and re.fullmatch(re.sub(r"\{\w+\}", ID, path), call.path)
    ]


def test_every_operation_has_a_call_and_every_call_an_operation() -> None:
    found = [operation for build in BUILDERS.values() for operation in operations_of(sample(build))]
    everything = {
        operation["operationId"]
        for path, item in DOCUMENT["paths"].items()
        if path not in PAGES
        for operation in item.values()
    }
    assert set(found) | {"stream_run", "stream_work"} == everything
    twice = {operation for operation in found if found.count(operation) > 1}
    assert twice == {"create_plan"}, "two ways to plan, and no other call twice"
    assert calls.stream_path(ID) == f"/api/agents/runs/{ID}/stream"


def test_both_clients_have_every_call_with_its_parameters() -> None:
    for name, build in BUILDERS.items():
        assert getattr(AsyncClient, name) is build
        assert getattr(Client, name) is build
    with Client("http://127.0.0.1:9", "hlt_x") as client:
        assert inspect.signature(client.read_run) == inspect.signature(calls.read_run)
        assert client.runs.__doc__ == calls.runs.__doc__


def all_of(build: Callable[..., Call[Any]]) -> dict[str, Any]:
    """A value for everything that may be left out, of about the right kind."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(build).parameters.items():
        wanted = str(parameter.annotation)
        if parameter.default is inspect.Parameter.empty:
            continue
        if wanted.startswith("Mapping["):
            found[name] = {"x": "y"}
        elif wanted.startswith(("Sequence", "Iterable")):
            found[name] = [{"type": "heartbeat"}] if name == "events" else ["x"]
        else:
            found[name] = True if "bool" in wanted else 1 if "int" in wanted or "float" in wanted else "x"
    return found


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_each_sends_what_the_document_knows(build: Callable[..., Call[Any]]) -> None:
    optional = all_of(build)
    call = partial(build, **optional)
    made = sample(call)
    (name, *_) = operations_of(made)
    operation = next(
        each for item in DOCUMENT["paths"].values() for each in item.values() if each["operationId"] == name
    )
    known = {parameter["name"] for parameter in operation.get("parameters", ())}
    assert {name for name, _ in made.query} == known & set(optional)
    if isinstance(made.body, dict):
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        schemas = [each["$ref"] for each in schema.get("anyOf", [schema])]
        fields = [set(DOCUMENT["components"]["schemas"][ref.rpartition("/")[2]]["properties"]) for ref in schemas]
        assert any(set(made.body) <= each for each in fields), made.body
    assert made.content() is None or made.method != "GET"


def test_what_may_be_sent_again() -> None:
    again = {name for name, build in BUILDERS.items() if sample(build).repeatable}
    assert again == {
        *(name for name, build in BUILDERS.items() if sample(build).method in ("GET", "PATCH", "PUT", "DELETE")),
        *("claim_run", "approve_plan", "reject_plan", "pause_run", "resume_run", "change_tickets", "dismiss_notice"),
        "import_github",
        "report",  # without events it is a renewal
    }
    event = [{"type": "action", "payload": {}}]
    assert not calls.report(ID, "w1", events=event).repeatable
    assert calls.report(ID, "w1", events=event, seq=1).repeatable
    assert calls.release_run(ID, worker_id="w1", attempt=1).repeatable


def test_ids_stay_one_part_of_the_path() -> None:
    assert calls.read_run("a/../b?c#d").path == "/api/agents/runs/a%2F..%2Fb%3Fc%23d"
    assert calls.read_run(UUID(ID)).path == f"/api/agents/runs/{ID}"


def test_left_out_and_cleared() -> None:
    assert project_calls.patch_project(ID, repo_url=None).body == {"repo_url": None}
    assert project_calls.patch_project(ID, name="x", repo_url=KEEP).body == {"name": "x"}
    assert project_calls.create_project("x").body == {"name": "x"}


def test_times_need_their_offset() -> None:
    due = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert project_calls.create_milestone(ID, "x", due_at=due).content() == (
        b'{"name":"x","due_at":"2026-01-02T03:04:05+00:00"}'
    )
    with pytest.raises(ValueError, match="offset"):
        project_calls.create_milestone(ID, "x", due_at=due.replace(tzinfo=None)).content()


# --- on the real application ---------------------------------------------------------------------------------------


async def test_the_whole_story_through_the_client(harness: Harness) -> None:
    async with client_on(harness) as client:
        project = await client.create_project("Shop", max_failures=3)
        assert (await client.patch_project(project.id, name="The shop")).name == "The shop"
        assert [each.id async for each in client.projects()] == [project.id]
        assert (await client.read_project(str(project.id).upper())).max_failures == 3
        milestone = await client.create_milestone(project.id, "Checkout", due_at="2026-03-01T00:00:00Z")
        milestone = await client.patch_milestone(project.id, milestone.id, description="In one page")
        assert await client.read_milestone(project.id, milestone.id) == milestone
        assert [each async for each in client.milestones(project.id, status="open")] == [milestone]
        ticket = await client.create_ticket(
            project.id,
            title="Totals without a reload",
            description="The total follows at once.",
            request_type="feature",
            priority="high",
            blocking=True,
            roles=["backend", "qa"],
            milestone_id=milestone.id,
        )
        ticket = await client.patch_ticket(project.id, ticket.id, evidence={"seen": 3})
        assert ticket.evidence == {"seen": 3}
        assert await client.read_ticket(project.id, ticket.id) == ticket
        assert [each.id async for each in client.tickets(project.id, stage="backlog")] == [ticket.id]
        (moved,) = await client.change_tickets(project.id, [ticket.id], stage="up_next")
        assert moved.stage == "up_next"

        plan = await client.plan_tickets(milestone.id, [ticket.id], title="From tickets")
        assert (plan.status, [lane.role for lane in plan.lanes]) == ("pending", ["backend", "qa"])
        other = await client.create_plan(project.id, "By hand", [{"laneKey": "a", "title": "A", "role": "other"}])
        assert await client.read_prompts(other.id) == {}
        assert (await client.reject_plan(other.id, "not now")).rejection_reason == "not now"
        assert [each.id async for each in client.plans(project_id=project.id, status="rejected")] == [other.id]
        runs = (await client.approve_plan(plan.id)).runs
        assert (await client.read_plan(plan.id)).runs == runs
        assert [run.id async for run in client.runs(plan_id=plan.id, state=["queued", "claimed"])] == [
            runs[1].id,
            runs[0].id,
        ]

        claimed = await client.claim_next("w1", roles=["backend"], lease_seconds=60)
        assert claimed.run is not None
        assert (claimed.run.id, claimed.run.attempt, claimed.last_seq) == (runs[0].id, 1, 0)
        assert [each.id for each in claimed.run.tickets] == [ticket.id]
        answer = await client.report(
            claimed.run.id, "w1", attempt=1, seq=1, phase="tests", events=[{"type": "action", "payload": {"n": 1}}]
        )
        assert (answer.directive, answer.duplicate, answer.run.phase) == ("continue", False, "tests")
        assert (await client.pause_run(claimed.run.id)).state == "paused"
        assert (await client.resume_run(claimed.run.id)).state == "running"
        assert [each.type async for each in client.events(claimed.run.id, after=1, type=["action", "paused"])] == [
            "action",
            "paused",
        ]
        assert [each.worker_id async for each in client.workers()] == ["w1"]
        released = await client.release_run(claimed.run.id, worker_id="w1", attempt=1, reason="quota")
        assert (released.state, released.worker_id) == ("released", None)
        again = await client.claim_run(claimed.run.id, "w2")
        assert again.run is not None
        assert again.run.attempt == 2
        assert (await client.cancel_run(claimed.run.id)).state == "failed"
        assert (await client.retry_run(claimed.run.id)).state == "queued"
        assert (await client.read_run(claimed.run.id)).attempt == 2

        assert (await client.health()).status == "ok"
        assert (await client.ready()).status == "ready"
        assert "heartlane_runs" in await client.metrics()
        assert (await client.openapi())["openapi"] == "3.1.0"


async def test_lists_are_read_page_by_page(harness: Harness) -> None:
    await harness.approved(5)
    transport = faulty(harness)
    async with client_on(harness, transport) as client:
        runs = client.runs(limit=2)
        assert transport.sent == []
        assert (await anext(runs)).lane_key == "lane-5"
        assert (await anext(runs)).lane_key == "lane-4"
        assert len(transport.sent) == 1
        assert [run.lane_key async for run in runs] == ["lane-3", "lane-2", "lane-1"]
        assert len(transport.sent) == 3


async def test_errors_carry_what_the_server_said(harness: Harness) -> None:
    (run,) = await harness.approved(1)
    await harness.claim(run["id"], "w1")
    async with client_on(harness) as client:
        with pytest.raises(StaleAttempt) as stale:
            await client.report(run["id"], "w1", attempt=7)
        assert stale.value.status == 409
        assert stale.value.run is not None
        assert stale.value.run.worker_id == "w1"
        assert "attempt 1" in stale.value.error
        assert str(stale.value).endswith("(STALE_ATTEMPT)")
        with pytest.raises(InvalidRequest) as invalid:
            await client.create_ticket(
                run["project_id"], title="x", description="y", request_type="", priority="", blocking=True
            )
        assert {issue.path for issue in invalid.value.issues} >= {"title", "description"}
        assert set(invalid.value.field_errors) == {issue.path for issue in invalid.value.issues}


# --- reading -------------------------------------------------------------------------------------------------------


def test_every_code_has_a_class_of_its_own() -> None:
    assert set(CLASSES) == set(CODES)
    assert len(set(CLASSES.values())) == len(CODES)
    for code, row in CODES.items():
        error = api_error(row.status, ErrorAnswer(error="x", code=code))
        assert type(error).__name__ == code.title().replace("_", "")
        assert isinstance(error, ApiError)
        assert f"{row.status}: " in (type(error).__doc__ or "")
    unknown = api_error(418, ErrorAnswer(error="x", code="LATER"))
    assert (type(unknown), unknown.code) == (ApiError, "LATER")


@pytest.mark.parametrize("name", ANSWERS.keys() - {"hear_github"})
def test_every_example_is_read(name: str) -> None:
    call = next(
        call for call in map(sample, BUILDERS.values()) if name in operations_of(call) and call.answer is not None
    )
    assert read_answer(call, 200, {}, to_json(ANSWERS[name])) is not None
    assert name not in REQUESTS or call.body is not None


def test_a_newer_server_is_understood() -> None:
    run = {**RUNNING_RUN, "state": "hibernating", "needs_attention": "snoring", "mood": "good"}
    found = read_answer(calls.pause_run(ID), 200, {}, to_json({"ok": True, "run": run}))
    assert (found.state, found.needs_attention) == ("hibernating", "snoring")


def test_a_code_counts_even_where_its_run_cannot_be_read() -> None:
    body = to_json({"error": "Gone.", "code": "CLAIM_LOST", "run": {"id": 5}})
    with pytest.raises(CLASSES["CLAIM_LOST"]) as lost:
        read_answer(calls.report(ID, "w1"), 409, {}, body)
    assert lost.value.run is None


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b""),
        (200, b"<html>Please log in</html>"),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"ok": true, "run": {}}'),
        (200, b'{"ok": true'),
        (200, b"\xff\xfe"),
        (301, b"<html>Moved</html>"),
        (404, b"<html>No such page</html>"),
        (502, b""),
        (502, b'{"message": "upstream"}'),
        (503, b'"down"'),
        (409, b'{"error": "Conflict"}'),
        (409, b'{"code": "CLAIM_LOST"}'),
        (500, b"\x80"),
    ],
)
def test_what_is_not_heartlanes_is_said_to_be_so(status: int, content: bytes) -> None:
    call = calls.pause_run(ID)
    with pytest.raises(BadAnswer) as bad:
        read_answer(call, status, {"content-type": "text/html", "retry-after": "7"}, content)
    assert bad.value.status == status
    assert "not by Heartlane" in str(bad.value)
    assert len(str(bad.value)) < 400
    if status >= 300:
        assert bad.value.retry_after == 7


def test_text_that_is_no_text() -> None:
    with pytest.raises(BadAnswer):
        read_answer(calls.metrics(), 200, {}, b"\xff")
    with pytest.raises(BadAnswer):
        read_answer(calls.openapi(), 200, {}, b"<html>")


async def test_a_redirect_is_not_followed(harness: Harness) -> None:
    transport = faulty(harness)
    transport.always("/healthz", page(308, "Moved", location="https://elsewhere.example/healthz"))
    async with client_on(harness, transport) as client:
        with pytest.raises(BadAnswer, match=r"redirects to 'https://elsewhere\.example/healthz'"):
            await client.send_once(calls.health())
    assert transport.sent == ["GET /healthz"]


async def test_a_500_is_not_asked_again(harness: Harness) -> None:
    transport = faulty(harness)
    transport.always("/healthz", says(500, "INTERNAL_ERROR"))
    async with client_on(harness, transport) as client:
        with pytest.raises(InternalError):
            await client.health()
    assert transport.count("/healthz") == 1
