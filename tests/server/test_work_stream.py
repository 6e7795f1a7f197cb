"""The stream of all work: what it tells, how it is resumed, and to whom."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from heartlane.store import tokens
from heartlane.wire.answers import EventObject, PlanObject, RunObject
from tests.harness import Harness, assert_error
from tests.streaming import Tap, Told, tapped

PATH = "/api/agents/stream"


def follow(
    harness: Harness, client: httpx.AsyncClient | None = None, last: str | None = None, **query: Any
) -> AbstractAsyncContextManager[Tap]:
    """A stream of all work with a client's token."""
    headers = dict((client or harness.viewer).headers)
    if last is not None:
        headers["last-event-id"] = last
    return tapped(harness.app, PATH, headers, **query)


def actions(*numbers: int) -> list[dict[str, Any]]:
    return [{"type": "action", "payload": {"n": number}} for number in numbers]


async def held_run(harness: Harness, project_id: str | None = None) -> dict[str, Any]:
    """A lane that w1 holds and works on."""
    (run,) = await harness.approved(1, project_id=project_id)
    run = await harness.claim(run["id"], lease_seconds=3600)
    await harness.report(run["id"])
    return run


def is_event(number: int) -> Any:
    return lambda told: told.event == "event" and told.data["payload"].get("n") == number


async def started(stream: Tap) -> Told:
    """The message with which a stream begins."""
    told = await stream.next()
    assert (told.event, told.data["reason"]) == ("reset", "start")
    assert told.id == told.data["cursor"]
    return told


async def test_it_begins_with_a_reset_and_tells_what_happens(harness: Harness) -> None:
    run = await held_run(harness)
    async with follow(harness) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].split(";")[0] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert (await stream.block()).text.startswith("retry: ")
        await started(stream)
        await stream.quiet(0.1)
        await harness.report(run["id"], events=actions(1, 2), phase="tests")
        for number in (1, 2):
            told = await stream.next()
            assert told.event == "event"
            assert told.data.pop("run_id") == run["id"]
            EventObject.model_validate(told.data, extra="forbid")
            assert told.data["payload"] == {"n": number}
            assert told.id is not None
        told = await stream.next()
        assert (told.event, told.id, told.data["phase"]) == ("run", None, "tests")
        RunObject.model_validate(told.data, extra="forbid")
        (listed,) = (await harness.viewer.get("/api/agents/runs")).json()["runs"]
        assert told.data == listed


async def test_plans_and_the_runs_they_make(harness: Harness) -> None:
    project = await harness.project()
    async with follow(harness, project_id=project["id"]) as stream:
        await started(stream)
        runs = await harness.approved(3, project_id=project["id"])
        told = await stream.next()
        assert told.event == "plan"
        while told.data["status"] == "pending":
            told = await stream.next()
        PlanObject.model_validate(told.data, extra="forbid")
        assert told.data["status"] == "approved"
        assert [(await stream.next()).data for _ in runs] == runs
        other = {"projectId": project["id"], "title": "No", "lanes": [{"laneKey": "a", "title": "A", "role": "qa"}]}
        plan = (await harness.operator.post("/api/agents/plan", json=other)).json()["plan"]
        await stream.until(lambda told: told.event == "plan" and told.data["id"] == plan["id"])
        await harness.operator.post(f"/api/agents/plans/{plan['id']}/reject", json={"reason": "no"})
        await stream.until(lambda told: told.event == "plan" and told.data["rejection_reason"] == "no")


async def test_resumed_within_a_report(harness: Harness) -> None:
    run = await held_run(harness)
    async with follow(harness) as stream:
        await started(stream)
        await harness.report(run["id"], events=actions(*range(9)))
        await stream.until(is_event(3))
        last = stream.last_id
    await harness.report(run["id"], events=actions(9, 10))
    async with follow(harness, last=last) as stream:
        await stream.until(is_event(10))
        assert [event["payload"]["n"] for event in stream.told_events()] == list(range(4, 11))
        assert all(told.event != "reset" for told in stream.all)
        assert any(told.event == "run" and told.data["event_count"] == 12 for told in stream.all)
        await harness.report(run["id"], events=actions(11))
        await stream.until(is_event(11))
        assert [event["payload"]["n"] for event in stream.told_events()] == list(range(4, 12))


async def test_what_changed_without_an_event_is_told_on_return(harness: Harness) -> None:
    run, ended = await held_run(harness), await held_run(harness)
    async with follow(harness) as stream:
        last = (await started(stream)).id
    await harness.report(run["id"], phase="review")
    await harness.report(ended["id"], events=[{"type": "ship_complete", "payload": {}}])
    (queued,) = await harness.approved(1)
    async with follow(harness, last=last) as stream:
        newest: dict[str, Any] = {}
        while len(newest) < 3:
            told = await stream.next()
            if told.event == "run":
                newest[told.data["id"]] = told.data
        assert newest[run["id"]]["phase"] == "review"
        assert newest[ended["id"]]["state"] == "shipped"
        assert newest[queued["id"]] == queued


async def test_who_sees_what(harness: Harness) -> None:
    mine, other = await harness.project(), await harness.project()
    run, foreign = await held_run(harness, mine["id"]), await held_run(harness, other["id"])
    limited = await harness.client("viewer", project_id=mine["id"])
    stranger = await harness.client("admin", account="another")
    async with (
        follow(harness, limited) as narrow,
        follow(harness, project_id=other["id"]) as one,
        follow(harness) as everything,
        follow(harness, stranger) as nothing,
    ):
        for stream in (narrow, one, everything, nothing):
            await started(stream)
        await harness.report(foreign["id"], events=actions(1))
        await harness.report(run["id"], events=actions(2))
        await everything.until(is_event(2))
        for stream, seen in ((narrow, run), (one, foreign)):
            await stream.until(lambda told: told.event == "event")
            await harness.report(seen["id"], events=actions(3))
            await stream.until(is_event(3))
            assert {event["run_id"] for event in stream.told_events()} == {seen["id"]}
            assert {told.data["id"] for told in stream.all if told.event == "run"} <= {seen["id"]}
        await nothing.quiet(0.2)
    for client in (limited, stranger):
        assert_error(await client.get(PATH, params={"project_id": other["id"]}), 404, "NOT_FOUND")


@pytest.mark.parametrize("bad", ["x", "-1", "", "1.", "1.5.2", str(10**19), "1 2"])
async def test_a_bad_place_to_go_on_from(harness: Harness, bad: str) -> None:
    body = assert_error(await harness.viewer.get(PATH, params={"after": bad}), 400, "INVALID_REQUEST")
    assert list(body["fieldErrors"]) == ["after"]
    body = assert_error(await harness.viewer.get(PATH, headers={"Last-Event-ID": bad}), 400, "INVALID_REQUEST")
    assert list(body["fieldErrors"]) == ["Last-Event-ID"]


async def test_a_revoked_token_ends_it(harness: Harness) -> None:
    token, secret = await tokens.create(harness.store, "to be revoked", "viewer", account="default")
    async with follow(harness, harness.client_with(secret)) as stream:
        await started(stream)
        began = asyncio.get_running_loop().time()
        await tokens.revoke(harness.store, token.id)
        told = await stream.until(lambda told: told.event == "end")
        assert told.data["code"] == "TOKEN_REVOKED"
        assert asyncio.get_running_loop().time() - began < 5
