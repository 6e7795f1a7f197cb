"""A run's stream through the client: one series of events, whatever breaks in between."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from heartlane.client import BadAnswer, following
from heartlane.client.errors import NotFound, TokenRevoked, Unavailable, Unreachable
from heartlane.client.retry import RetryPolicy
from heartlane.store import tokens
from heartlane.wire.answers import EventObject, Reset, RunObject, WorkEvent
from tests.client.faults import client_on, drop_request, faulty, page, says
from tests.client.worker import until
from tests.harness import Harness

NOBODY = "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "AGAIN_SECONDS", (0.01, 0.05))


async def claimed_run(harness: Harness) -> dict[str, Any]:
    (run,) = await harness.approved(1)
    return await harness.claim(run["id"], lease_seconds=3600)


def action(number: int) -> dict[str, Any]:
    return {"type": "action", "payload": {"n": number}}


async def test_the_run_and_its_events(harness: Harness) -> None:
    run = await claimed_run(harness)
    await harness.report(run["id"], events=[action(1)])
    async with client_on(harness) as client, aclosing(client.stream(run["id"])) as stream:
        first = await anext(stream)
        assert isinstance(first, RunObject)
        assert first.state == "running"
        assert [(await anext(stream)).seq for _ in range(2)] == [1, 2]  # type: ignore[union-attr]
        await harness.report(run["id"], phase="tests")
        changed = await anext(stream)
        assert isinstance(changed, RunObject)
        assert changed.phase == "tests"
    await until(lambda: len(harness.context.streams) == 0)


async def test_from_some_event_on_and_with_heartbeats(harness: Harness) -> None:
    run = await claimed_run(harness)
    await harness.report(run["id"], events=[action(1), {"type": "heartbeat"}, action(2)])
    async with client_on(harness) as client:
        for heartbeats, expected in ((False, [4]), (True, [3, 4])):
            found: list[int] = []
            async with aclosing(client.stream(run["id"], after=2, heartbeats=heartbeats)) as stream:
                while found[-1:] != [4]:
                    each = await anext(stream)
                    found += [each.seq] if isinstance(each, EventObject) else []
            assert found == expected


async def test_whatever_breaks_nothing_is_missed_or_doubled(harness: Harness) -> None:
    run = await claimed_run(harness)
    transport = faulty(harness)

    async def report() -> None:
        for number in range(80):
            await harness.report(run["id"], events=[action(number)])
            if number % 7 == 0:
                transport.inner.break_off()
            if number % 13 == 0:
                transport.next("/stream", drop_request, page(502), says(503, "UNAVAILABLE", retryAfter=0.01))
            await asyncio.sleep(0.01)
        await harness.report(run["id"], events=[{"type": "ship_complete"}])

    events: list[EventObject] = []
    async with client_on(harness, transport) as client, aclosing(client.stream(run["id"])) as stream:
        reporting = asyncio.ensure_future(report())
        async with asyncio.timeout(60):
            async for each in stream:
                if isinstance(each, EventObject):
                    events.append(each)
                    if each.type == "ship_complete":
                        break
        await reporting
    assert transport.count("/stream") > 5
    assert [each.seq for each in events] == list(range(1, 83))
    assert [each.payload["n"] for each in events[1:-1]] == list(range(80))


async def test_a_server_that_shuts_down_is_left_for_the_next(harness: Harness) -> None:
    run = await claimed_run(harness)
    transport = faulty(harness)
    async with client_on(harness, transport) as client, aclosing(client.stream(run["id"], give_up_seconds=0)) as stream:
        await anext(stream)
        await anext(stream)
        harness.context.gate.close()
        with pytest.raises(Unavailable):
            await anext(stream)
    assert transport.count("/stream") == 2


async def test_what_is_not_passing_is_raised(harness: Harness) -> None:
    run = await claimed_run(harness)
    token, secret = await tokens.create(harness.store, "to be revoked", "viewer", account="default")
    async with client_on(harness, token=secret) as client:
        with pytest.raises(NotFound):
            await anext(client.stream(NOBODY))
        async with aclosing(client.stream(run["id"])) as stream:
            await anext(stream)
            await anext(stream)
            await tokens.revoke(harness.store, token.id)
            with pytest.raises(TokenRevoked):
                await anext(stream)


async def test_the_first_time_it_is_tried_as_any_call_is(harness: Harness) -> None:
    transport = faulty(harness)
    policy = RetryPolicy(tries=3, first_seconds=0.01)
    async with client_on(harness, transport, retry=policy) as client:
        transport.always("/stream", drop_request)
        with pytest.raises(Unreachable):
            await anext(client.stream(NOBODY))
        assert transport.count("/stream") == 3
        transport.always("/stream", page(200, "<html>Log in first</html>"))
        with pytest.raises(BadAnswer, match="no event stream"):
            await anext(client.stream(NOBODY))


async def test_all_work_over_whatever_breaks(harness: Harness) -> None:
    run = await claimed_run(harness)
    transport = faulty(harness)

    async def report() -> None:
        for number in range(30):
            await harness.report(run["id"], events=[action(number)])
            if number % 7 == 0:
                transport.inner.break_off()
            await asyncio.sleep(0.01)
        await harness.report(run["id"], events=[{"type": "ship_complete"}])

    numbers: list[int] = []
    states: list[str] = []
    async with client_on(harness, transport) as client, aclosing(client.follow(run["project_id"])) as stream:
        first = await anext(stream)
        assert isinstance(first, Reset)
        reporting = asyncio.ensure_future(report())
        cursor = ""
        while "shipped" not in states or len(numbers) < 31:
            told = await anext(stream)
            if isinstance(told, WorkEvent):
                numbers.append(told.seq)
                cursor = told.cursor
            elif isinstance(told, RunObject):
                states.append(told.state)
        await reporting
    assert numbers == list(range(2, 33))
    async with client_on(harness) as client, aclosing(client.follow(cursor=cursor, messages=["event"])) as stream:
        (other,) = await harness.approved(1)
        await harness.claim(other["id"])
        told = await anext(stream)
        assert isinstance(told, WorkEvent)
        assert told.type == "claimed"
