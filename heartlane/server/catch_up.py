"""What a reader missed, from the database, page by page: its events in full, and the newest state of what changed.

The log alone tells which runs have changed, but for what changes without an event: the phase, line and lease of runs
that are held. So after the events every held run is told as it is now, and so are the plans that were changed since,
with the runs that they made. A state told once more than needed does no harm.

Between two pages nothing is held: no connection, no transaction, and no more than the page that is being sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.run import Run
from heartlane.server.page_reads import PageReads
from heartlane.server.scope_topic import ALL_EVENTS, PLAN, RUN, Message
from heartlane.server.work_messages import (
    ResetReason,
    event_messages,
    plan_message,
    reset_frame,
    run_message,
)
from heartlane.store.log import (
    ROWS_AT_ONCE,
    WHOLE,
    LogRow,
    Place,
    Span,
    full_held_runs,
    plans_changed_since,
    read_events_of,
    read_log,
    span_at,
)
from heartlane.store.pages import Reach
from heartlane.store.runs import read_runs, runs_of_plan_page

PAGE_BYTES_MAX: Final = 128 * 1024
"""Bytes of events read for one reader at once, besides the last event."""
RUNS_A_PAGE: Final = 100
ROWS_BEHIND_MAX: Final = 50_000
"""Rows of the whole server's log that a reader may be behind; one that is further behind had better load the lists."""
LATE: Final = timedelta(seconds=60)
"""How long after its time a change may become visible: the longest transaction, and then some."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Piece(NamedTuple):
    """What comes next, and up to where events have then been told.

    is_reset    whether it says that the place that was asked for is none to go on from
    """

    data: bytes
    place: Place
    is_reset: bool = False


async def catch_up(
    reads: PageReads, reach: Reach, *, after: Place, upto: Place, mask: int
) -> AsyncGenerator[Piece, None]:
    """Everything behind `after` and up to `upto`, or else the message that it isn't to be had. Raises StoreError."""
    async with reads.turn() as conn:
        span = await span_at(conn, after.position)
    reason = _hopeless(after, upto, span)
    if reason is not None:
        yield Piece(reset_frame(reason, upto), upto, is_reset=True)
        return
    async for piece in _events(reads, reach, after, upto, mask):
        yield piece
    since = EPOCH if span.recorded_at is None else span.recorded_at - LATE
    if mask & (PLAN | RUN):
        async for piece in _plans(reads, reach, since, upto, mask):
            yield piece
    if mask & RUN:
        number = 0
        while True:
            async with reads.turn() as conn:
                now = await reads.store.now_on(conn)
                held = await full_held_runs(conn, reach, after=number, limit=RUNS_A_PAGE)
            if held:
                yield Piece(_told(held, now), upto)
            if len(held) < RUNS_A_PAGE:
                return
            number = held[-1].number


def _hopeless(after: Place, upto: Place, span: Span) -> ResetReason | None:
    if after.position > max(span.newest, upto.position):
        return "unknown"
    if after.position + 1 < span.oldest or (span.is_pruned and after.position < span.newest):
        return "too_old"
    return "too_far" if upto.position - after.position > ROWS_BEHIND_MAX else None


async def _events(reads: PageReads, reach: Reach, after: Place, upto: Place, mask: int) -> AsyncGenerator[Piece, None]:
    """The events, page by page, each followed by the runs that they are of."""
    place = after
    # Without the events that aren't wanted, their rows say all the same which runs have changed.
    log_mask = ALL_EVENTS if mask & RUN else mask & ALL_EVENTS
    while place < upto and log_mask:
        async with reads.turn() as conn:
            # The row in which it broke off comes again, for the rest of it.
            first = place.position if place.told == WHOLE else place.position - 1
            rows = await read_log(conn, after=first, upto=upto.position, reach=reach, mask=log_mask)
            messages, place, told_rows = await _page(conn, rows, place, mask)
            if told_rows == len(rows) < ROWS_AT_ONCE:
                place = max(place, upto)
            data = b"".join(message.data for message in messages)
            if mask & RUN:
                now = await reads.store.now_on(conn)
                found = await read_runs(conn, sorted({row.run_id for row in rows[: told_rows + 1]}))
                data += _told(list(found.values()), now)
        yield Piece(data, place)


async def _page(
    conn: AsyncConnection, rows: Sequence[LogRow], place: Place, mask: int
) -> tuple[list[Message], Place, int]:
    """As many messages as fit on a page, up to where that is, and how many rows were told to their end."""
    messages: list[Message] = []
    size = 0
    for count, row in enumerate(rows):
        events = await read_events_of(conn, row) if row.types & mask else []
        for message in event_messages(row, events, mask, place):
            messages.append(message)
            size += len(message.data)
            if size > PAGE_BYTES_MAX and message.place is not None:
                return messages, message.place, count + (message.place.told == WHOLE)
        place = Place(row.position)
    return messages, place, len(rows)


async def _plans(
    reads: PageReads, reach: Reach, since: datetime, upto: Place, mask: int
) -> AsyncGenerator[Piece, None]:
    """The plans that have changed since, each with the runs that it made since."""
    last: str | None = None
    while True:
        async with reads.turn() as conn:
            plans = await plans_changed_since(conn, reach, since, after=last, limit=1)
        if not plans:
            return
        (plan,) = plans
        last = plan.id
        if mask & PLAN:
            yield Piece(plan_message(plan).data, upto)
        if mask & RUN and plan.approved_at is not None and plan.approved_at >= since:
            async for piece in _runs_of(reads, plan.id, upto):
                yield piece


async def _runs_of(reads: PageReads, plan_id: str, upto: Place) -> AsyncGenerator[Piece, None]:
    number = 0
    while True:
        async with reads.turn() as conn:
            now = await reads.store.now_on(conn)
            runs = await runs_of_plan_page(conn, plan_id, after=number, limit=RUNS_A_PAGE)
        if runs:
            yield Piece(_told(runs, now), upto)
        if len(runs) < RUNS_A_PAGE:
            return
        number = runs[-1].number


def _told(runs: Sequence[Run], now: datetime) -> bytes:
    return b"".join(run_message(run, now).data for run in runs)
