"""Lists by keyset, while rows come, go and change: no row that was there all along is skipped, and none is repeated."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.lanes.commands import Cancel, Report
from heartlane.lanes.run import WORKER_EVENT_TYPES, Event, Run
from heartlane.store.pages import (
    CURSOR_MAX,
    BadCursor,
    Reach,
    cursor_id,
    cursor_number,
    cursor_text,
    encode_cursor,
    page,
)
from heartlane.store.plans import list_plans
from heartlane.store.projects import list_milestones, list_projects
from heartlane.store.runs import CHUNKS_AT_ONCE, LoggedEvent, RunFilter, list_runs, read_events
from heartlane.store.tickets import TicketFilter, list_tickets
from heartlane.store.workers import WorkerFilter, list_workers
from tests.store.fleet import Fleet, lane

Look = Callable[[str | None], Awaitable[tuple[Sequence[str], str | None]]]
"""Reads the page behind a cursor: its rows' names, and the next cursor."""


async def walk(look: Look, between: Callable[[int], Awaitable[None]]) -> list[str]:
    """The names on all pages, with something done between each two."""
    found: list[str] = []
    cursor: str | None = None
    for number in range(1_000):
        names, cursor = await look(cursor)
        found += names
        if cursor is None:
            return found
        await between(number)
    raise AssertionError("the list never ends")


async def nothing(_: int) -> None:
    """Leave the list alone."""


def runs_page(fleet: Fleet, limit: int, **narrowed: Any) -> Look:
    async def look(cursor: str | None) -> tuple[Sequence[str], str | None]:
        after = None if cursor is None else cursor_number("runs", cursor)
        wanted = RunFilter(fleet.account_id, **narrowed)
        async with fleet.store.reading() as conn:
            rows = await list_runs(conn, wanted, after=after, limit=limit + 1, now=await fleet.store.now())
        shown = page(rows, limit, "runs", lambda run: run.number)
        return [run.lane_key for run in shown.rows], shown.next_cursor

    return look


# --- runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_every_run_once_newest_first_whatever_the_page(fleet: Fleet, limit: int) -> None:
    await fleet.lanes([lane(str(number)) for number in range(7)])
    assert await walk(runs_page(fleet, limit), nothing) == [str(number) for number in reversed(range(7))]


async def test_runs_that_come_and_change_meanwhile_shift_nothing(fleet: Fleet) -> None:
    runs = await fleet.lanes([lane(str(number)) for number in range(9)])

    async def busy(number: int) -> None:
        await fleet.lanes([lane(f"new-{number}")])
        await fleet.claim(runs[number], f"w{number}")
        await fleet.report(runs[number], Event("log_line", {"line": "12"}), worker_id=f"w{number}")

    assert await walk(runs_page(fleet, 2), busy) == [str(number) for number in reversed(range(9))]


async def test_runs_that_leave_a_narrowed_list_take_no_other_with_them(fleet: Fleet) -> None:
    runs = await fleet.lanes([lane(str(number)) for number in range(12)])
    left: list[str] = []

    async def leave(number: int) -> None:
        # The last one shown, whose place the cursor names, and one that is still to come.
        for place in (11 - 2 * number, number):
            await fleet.command(runs[place], Cancel())
            left.append(str(place))

    found = await walk(runs_page(fleet, 2, states=("queued",)), leave)
    assert len(found) == len(set(found))
    assert set(found) >= {str(number) for number in range(12)} - set(left)


async def test_workers_by_name(fleet: Fleet) -> None:
    runs = await fleet.lanes(8)
    names = ["ann", "Bob", "cät", "d:e", "f g", "ann", "zoë", "1"]
    for run, name in zip(runs, names, strict=True):
        await fleet.claim(run, name)

    async def look(cursor: str | None) -> tuple[Sequence[str], str | None]:
        after = None if cursor is None else cursor_text("workers", cursor)
        async with fleet.store.reading() as conn:
            now = await fleet.store.now_on(conn)
            reach = Reach(fleet.account_id)
            rows = await list_workers(conn, reach, WorkerFilter(), after=after, limit=3, now=now)
        shown = page(rows, 2, "workers", lambda worker: worker.worker_id)
        return [worker.worker_id for worker in shown.rows], shown.next_cursor

    async def come_and_go(number: int) -> None:
        (run,) = await fleet.lanes()
        await fleet.claim(run, f"{number}-new")

    found = await walk(look, come_and_go)
    assert len(found) == len(set(found))
    assert set(found) >= set(names)


# --- what goes by id ----------------------------------------------------------------------------------------------


async def test_projects_plans_milestones_and_tickets_while_more_come(fleet: Fleet) -> None:
    reach = Reach(fleet.account_id)
    lists: dict[str, Callable[[Any, str | None], Awaitable[Any]]] = {
        "projects": lambda conn, cursor: list_projects(conn, reach, cursor=cursor, limit=2),
        "plans": lambda conn, cursor: list_plans(conn, reach, project_id=None, status=None, cursor=cursor, limit=2),
        "tickets": lambda conn, cursor: list_tickets(conn, fleet.project_id, TicketFilter(), cursor=cursor, limit=2),
        "milestones": lambda conn, cursor: list_milestones(conn, fleet.project_id, status=None, cursor=cursor, limit=2),
    }

    async def more() -> None:
        await fleet.new_project()
        await fleet.lanes()
        await fleet.ticket()
        await fleet.milestone()

    for _ in range(5):
        await more()
    for name, read in lists.items():
        async with fleet.store.reading() as conn:
            everything: list[str] = []
            cursor = None
            while True:
                shown = await read(conn, cursor)
                everything += [row.id for row in shown.rows]
                cursor = shown.next_cursor
                if cursor is None:
                    break
        assert len(everything) >= 5, name
        assert everything == sorted(everything, reverse=True), f"{name}: newest first"

        async def look(cursor: str | None, read: Any = read) -> tuple[Sequence[str], str | None]:
            async with fleet.store.reading() as conn:
                shown = await read(conn, cursor)
            return [row.id for row in shown.rows], shown.next_cursor

        async def come(_: int) -> None:
            await more()

        assert await walk(look, come) == everything, name


# --- cursors ------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=200).filter(lambda text: "\0" not in text))
def test_a_cursor_is_read_as_it_was_made_by_its_own_list_alone(key: str) -> None:
    cursor = encode_cursor("workers", key)
    assert len(cursor) <= CURSOR_MAX
    assert cursor_text("workers", cursor) == key
    with pytest.raises(BadCursor):
        cursor_text("runs", cursor)


@given(st.text(max_size=40))
def test_what_isnt_a_cursor_is_told_so(text: str) -> None:
    for read in (cursor_number, cursor_id):
        with pytest.raises(BadCursor):
            read("runs", text)


# --- events -------------------------------------------------------------------------------------------------------


async def long_log(fleet: Fleet, reports: int) -> Run:
    """A run with reports of all sizes and mixtures of types."""
    (run,) = await fleet.lanes()
    await fleet.claim(run)
    dice = random.Random(7)
    kinds = [kind for kind in WORKER_EVENT_TYPES if kind != "ship_complete"]
    for number in range(reports):
        events = [Event(dice.choice(kinds), {"report": number, "place": place}) for place in range(dice.randrange(6))]
        await fleet.command(run, Report("w1", events=events))
    return await fleet.read(run)


async def pages_of_log(fleet: Fleet, run: Run, types: Sequence[str], limit: int) -> list[LoggedEvent]:
    found: list[LoggedEvent] = []
    after = 0
    while after < run.event_count:
        async with fleet.store.reading() as conn:
            events, seen = await read_events(conn, run, after=after, types=types, limit=limit)
        assert len(events) <= limit
        assert seen > after, "the next page must go on"
        found += events
        after = seen
    return found


async def test_a_log_read_page_by_page_is_the_log(fleet: Fleet) -> None:
    run = await long_log(fleet, 2 * CHUNKS_AT_ONCE + 5)
    whole = await fleet.log(run)
    assert [event.seq for event in whole] == list(range(1, run.event_count + 1))
    for limit in (1, 3, 50, 200, 10_000):
        assert await pages_of_log(fleet, run, (), limit) == whole
    for types in [("action",), ("claimed",), ("error", "heartbeat"), ("released",)]:
        wanted = [event for event in whole if event.type in types]
        for limit in (1, 4, 200):
            assert await pages_of_log(fleet, run, types, limit) == wanted


async def test_a_page_begins_behind_any_number(fleet: Fleet) -> None:
    run = await long_log(fleet, 12)
    whole = await fleet.log(run)
    async with fleet.store.reading() as conn:
        for after in range(run.event_count + 2):
            events, seen = await read_events(conn, run, after=after, types=(), limit=3)
            assert events == whole[after : after + 3]
            assert seen == max(after, events[-1].seq if len(events) == 3 else run.event_count)


async def test_what_comes_between_two_pages_follows(fleet: Fleet) -> None:
    run = await long_log(fleet, 5)
    async with fleet.store.reading() as conn:
        _, seen = await read_events(conn, run, after=0, types=(), limit=1_000)
    assert seen == run.event_count
    await fleet.report(run, Event("action", {"of": "later"}))
    run = await fleet.read(run)
    async with fleet.store.reading() as conn:
        events, seen = await read_events(conn, run, after=seen, types=(), limit=1_000)
    assert [event.payload for event in events] == [{"of": "later"}]
    assert seen == run.event_count


async def test_a_clock_that_goes_back_hides_no_event(fleet: Fleet) -> None:
    # A standby that takes over may well be a little behind the server that planned the lanes.
    (run,) = await fleet.lanes()
    fleet.store.clock.advance(-3600)
    await fleet.claim(run)
    await fleet.report(run, Event("action", {}))
    assert [event.type for event in await fleet.log(run)] == ["claimed", "action"]
