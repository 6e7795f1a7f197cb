"""What a lane's end does beside itself: it lets others begin and moves its tickets, all in one transaction."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import select

from heartlane.lanes.commands import Cancel, Release, Retry, TakeBack
from heartlane.lanes.run import Event, Run
from heartlane.store.schema import runs, tickets
from tests.store.fleet import Fleet, lane

PR = "https://git.test/1"
SHIP = Event("ship_complete", {"pr_url": PR})


async def roles(fleet: Fleet, ticket_id: str) -> dict[str, str]:
    states: dict[str, str] = json.loads((await fleet.read_ticket(ticket_id)).roles_json)
    return states


async def blockers(fleet: Fleet, *lanes: Run) -> list[int]:
    return [(await fleet.read(run)).blockers_left for run in lanes]


# --- lanes that wait ----------------------------------------------------------------------------------------------


async def test_shipping_counts_down_for_each_lane_that_waits(fleet: Fleet) -> None:
    a, b, one, both = await fleet.lanes(
        [lane("a"), lane("b"), lane("one", after=("a",)), lane("both", after=("a", "b"))]
    )
    assert await blockers(fleet, one, both) == [1, 2]
    for run in (a, b):
        await fleet.claim(run)
    await fleet.report(a, SHIP)
    assert await blockers(fleet, one, both) == [0, 1]
    await fleet.report(b, SHIP)
    assert await blockers(fleet, one, both) == [0, 0]


async def test_two_blockers_that_ship_together_both_count(fleet: Fleet) -> None:
    *before, behind = await fleet.lanes([*map(lane, "abc"), lane("behind", after=("a", "b", "c"))])
    for run in before:
        await fleet.claim(run)
    await asyncio.gather(*(fleet.report(run, SHIP) for run in before))
    assert await blockers(fleet, behind) == [0]


async def test_only_shipping_counts(fleet: Fleet) -> None:
    first, behind = await fleet.lanes([lane("first"), lane("behind", after=("first",))])
    await fleet.claim(first)
    await fleet.report(first, Event("error", {"fatal": True}))
    await fleet.command(first, Retry())
    await fleet.claim(first)
    await fleet.command(first, Cancel())
    assert await blockers(fleet, behind) == [1]


async def test_a_replayed_ship_counts_once(fleet: Fleet) -> None:
    first, second, behind = await fleet.lanes(
        [lane("first"), lane("second"), lane("behind", after=("first", "second"))]
    )
    await fleet.claim(first)
    for _ in range(3):
        await fleet.report(first, SHIP, seq=1)
    assert await blockers(fleet, behind) == [1]
    await fleet.claim(second)


async def test_a_lane_that_was_cancelled_while_it_waited_stays_so(fleet: Fleet) -> None:
    first, behind = await fleet.lanes([lane("first"), lane("behind", after=("first",))])
    await fleet.command(behind, Cancel())
    await fleet.claim(first)
    await fleet.report(first, SHIP)
    assert (await fleet.read(behind)).state == "failed"
    await fleet.command(behind, Retry())
    assert (await fleet.claim(behind)).state == "claimed", "tried again, it waits for nobody any more"


# --- tickets ------------------------------------------------------------------------------------------------------


async def test_a_lane_moves_its_tickets_along(fleet: Fleet) -> None:
    tickets = [await fleet.ticket("backend", "qa"), await fleet.ticket("backend")]
    backend, qa = await fleet.lanes([lane("b", ticket_ids=tickets), lane("q", "qa", ticket_ids=tickets[:1])])
    await fleet.claim(backend)
    for ticket_id in tickets:
        assert (await roles(fleet, ticket_id))["backend"] == "in_progress"
        assert (await fleet.read_ticket(ticket_id)).stage == "in_progress"
    await fleet.command(backend, Release("w1"))
    assert (await roles(fleet, tickets[0]))["backend"] == "pending"
    await fleet.claim(backend, lease_seconds=10)
    fleet.store.clock.advance(10)
    await fleet.command(backend, TakeBack())
    assert (await roles(fleet, tickets[0]))["backend"] == "pending"
    await fleet.claim(backend)
    await fleet.report(backend, SHIP)
    assert await roles(fleet, tickets[0]) == {"backend": "done", "qa": "pending", "merged": "pending"}
    assert await roles(fleet, tickets[1]) == {"backend": "done", "merged": "pending"}
    for ticket_id in tickets:
        assert json.loads((await fleet.read_ticket(ticket_id)).pr_urls_json) == [PR]
    await fleet.claim(qa)
    await fleet.report(qa, SHIP)
    assert (await roles(fleet, tickets[0]))["qa"] == "done"
    assert (await fleet.read_ticket(tickets[0])).stage == "validation"


async def test_two_lanes_of_one_ticket_that_ship_together_both_leave_their_mark(fleet: Fleet) -> None:
    ticket_id = await fleet.ticket("backend", "qa")
    lanes = await fleet.lanes([lane("b", ticket_ids=[ticket_id]), lane("q", "qa", ticket_ids=[ticket_id])])
    for run in lanes:
        await fleet.claim(run)
    addresses = [f"https://git.test/{run.lane_key}" for run in lanes]
    ships = [Event("ship_complete", {"pr_url": address}) for address in addresses]
    await asyncio.gather(*(fleet.report(run, ship) for run, ship in zip(lanes, ships, strict=True)))
    assert await roles(fleet, ticket_id) == {"backend": "done", "qa": "done", "merged": "pending"}
    assert sorted(json.loads((await fleet.read_ticket(ticket_id)).pr_urls_json)) == addresses


# --- all in one ---------------------------------------------------------------------------------------------------


async def test_a_ship_is_done_whole_or_not_at_all(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket_id = await fleet.ticket("backend")
    first, behind = await fleet.lanes([lane("first", ticket_ids=[ticket_id]), lane("behind", after=("first",))])
    await fleet.claim(first)
    before = [await fleet.read(first), await fleet.read(behind)]
    ticket = await fleet.read_ticket(ticket_id)

    def at_fault(*arguments: object) -> object:
        raise ZeroDivisionError

    # The tickets come last: by then the rules have decided the run and the lane that waits for it.
    monkeypatch.setattr("heartlane.store.run_batch.advance", at_fault)
    with pytest.raises(ZeroDivisionError):
        await fleet.report(first, SHIP)
    monkeypatch.undo()
    assert [await fleet.read(first), await fleet.read(behind)] == before
    assert await fleet.read_ticket(ticket_id) == ticket
    assert [event.type for event in await fleet.log(first)] == ["claimed"]
    await fleet.report(first, SHIP)
    assert await blockers(fleet, behind) == [0]


async def test_nobody_ever_sees_a_part_of_it(fleet: Fleet) -> None:
    ticket_id = await fleet.ticket("backend")
    first, behind = await fleet.lanes([lane("first", ticket_ids=[ticket_id]), lane("behind", after=("first",))])
    await fleet.claim(first)
    # One statement, and so one moment, on either engine.
    all_three = select(
        select(runs.c.state).where(runs.c.id == first.id).scalar_subquery(),
        select(runs.c.blockers_left).where(runs.c.id == behind.id).scalar_subquery(),
        select(tickets.c.roles_json).where(tickets.c.id == ticket_id).scalar_subquery(),
    )
    before = ("claimed", 1, '{"backend":"in_progress","merged":"pending"}')
    after = ("shipped", 0, '{"backend":"done","merged":"pending"}')
    shipping = asyncio.ensure_future(fleet.report(first, SHIP))
    over, seen = False, before
    while not over:
        over = shipping.done()
        async with fleet.store.reading() as conn:
            seen = tuple((await conn.execute(all_three)).one())
        assert seen in (before, after)
    assert seen == after
