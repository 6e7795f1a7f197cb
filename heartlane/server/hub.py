"""Who follows the work of a project or an account: `GET /api/agents/stream`, from a commit to all its readers.

    store.feed ─► hear ─► looker: the log, the runs and plans that were named ─► topics ─► readers woken
                              every few seconds: what is held, for leases, stalled lanes and lost announcements

One looker reads once for all readers of this server, whatever they follow, and hands each message to the topics of its
project and its account. The feed only says that it is time to look, and which runs and plans to look at; the log is
read from where the last look ended, as far as nothing can come in between any more (`heartlane.store.horizon`), so that
no event is missed or told twice whatever becomes of announcements. Changes of runs that come without an event are found
by looking at what is held.

After a look that had something to tell, the next one waits the longer the more readers there are: many changes then go
out together, a run that changed twice is told once, and telling takes a bounded share of the server's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.run import Run
from heartlane.server.bodies import dump
from heartlane.server.catch_up import LATE
from heartlane.server.held import Held
from heartlane.server.page_reads import PageReads
from heartlane.server.run_topics import RENEWED
from heartlane.server.scope_topic import (
    ALL_EVENTS,
    HEARTBEAT,
    LEASES,
    LINE_BYTES_MAX,
    LINE_BYTES_MIN,
    LINES_BYTES_MAX,
    Message,
    ScopeTopic,
)
from heartlane.server.work_messages import event_messages, leases_message, plan_message, run_message
from heartlane.server.work_reader import Following, WorkReader
from heartlane.store.batch import Announcement
from heartlane.store.errors import StoreError, StoreUnavailable
from heartlane.store.horizon import LOOK_AGAIN_SECONDS, Horizon, newest_whole
from heartlane.store.log import (
    ROWS_AT_ONCE,
    HeldRun,
    Place,
    held_runs,
    plans_by_id,
    plans_changed_since,
    read_events_of,
    read_log,
)
from heartlane.store.pages import Reach
from heartlane.store.plans import Plan
from heartlane.store.runs import ids_of_plan, read_runs
from heartlane.wire.run_json import run_body

RUNS_AT_ONCE: Final = 200
LOOK_BYTES_MAX: Final = 256 * 1024
"""Bytes of events that one look puts in a line: a part of what the line holds, so that readers keep up."""
LEASES_AT_ONCE: Final = 1_000
"""Leases in one message."""
PACE_SECONDS: Final = (0.05, 0.5)
"""Shortest and longest wait between two looks that have something to tell."""
PACE_SECONDS_A_READER: Final = 0.00025
FAILED_SECONDS: Final = 1.0
READY_SECONDS: Final = 5.0
"""How long a stream may take to begin before it is answered 503."""
HELD_AT_ONCE: Final = 1_000
PLANS_AT_ONCE: Final = 100
TOLD_MAX: Final = 50_000
"""Runs whose last told state is remembered (as a hash), so that the same is not told again."""

log = structlog.get_logger(__name__)


class Hub:
    """The followed scopes of one server. Works only while there are any."""

    def __init__(self, reads: PageReads) -> None:
        self._reads = reads
        self._store = reads.store
        self._topics: dict[Reach, ScopeTopic] = {}
        self._held: dict[str, Held] = {}
        self._due_runs: dict[str, bool] = {}  # whether it was seen already that it has changed
        self._due_plans: dict[str, None] = {}
        self._told: dict[int, int] = {}
        self._arrival = asyncio.Event()
        self._looker: asyncio.Task[None] | None = None
        self._horizon = Horizon()
        self._position = 0
        self._read_at: datetime | None = None
        self._sweep_due = False
        self._begun = False
        self._puts = 0

    def hear(self, announcement: Announcement) -> None:
        """Look, above all at what an announcement names; one that names nothing may mean anything."""
        if not self._topics:
            return
        for run_id in announcement.run_ids:
            self._due_runs.setdefault(run_id, False)
        self._due_plans.update(dict.fromkeys(announcement.plan_ids))
        if not announcement.names_something:
            self._sweep_due = True
        self._arrival.set()

    def look_at_all(self) -> None:
        """Look at everything that is held: an announcement may be lost, and time alone changes a run."""
        if self._topics:
            self._sweep_due = True
            self._arrival.set()

    @asynccontextmanager
    async def following(self, reach: Reach, following: Following) -> AsyncIterator[WorkReader]:
        """A reader of all the work within reach. Raises StoreError when it can't begin."""
        topic = self._topics.get(reach)
        if topic is None:
            topic = self._topics[reach] = ScopeTopic(reach, Place(self._position))
            self._share_memory()
        reader = WorkReader(topic, self._reads, following)
        topic.readers.add(reader)
        held = self._held.get(reach.account_id)
        if held is None:
            held = self._held[reach.account_id] = Held(reach.account_id)
        if self._looker is None or self._looker.done():
            self._looker = asyncio.get_running_loop().create_task(self._look_while_followed())
        self._arrival.set()
        try:
            try:
                async with asyncio.timeout(READY_SECONDS):
                    await held.known.wait()
            except TimeoutError:
                raise StoreUnavailable("The database didn't answer in time.") from None
            reader.begin()
            yield reader
        finally:
            topic.readers.discard(reader)
            if not topic.readers and self._topics.get(reach) is topic:
                del self._topics[reach]
                self._share_memory()
                if all(other.account_id != reach.account_id for other in self._topics):
                    self._held.pop(reach.account_id, None)
            if not self._topics:
                self._arrival.set()  # the looker ends by itself: it may have a database connection in hand

    def forget(self) -> None:
        """Let go of what every reader has been told."""
        for topic in self._topics.values():
            topic.forget()

    async def close(self) -> None:
        """Look no more."""
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)

    def _share_memory(self) -> None:
        share = LINES_BYTES_MAX // max(1, len(self._topics))
        for topic in self._topics.values():
            topic.bytes_max = max(LINE_BYTES_MIN, min(LINE_BYTES_MAX, share))

    # --- looking ---

    async def _look_while_followed(self) -> None:
        while self._topics:
            await self._arrival.wait()
            self._arrival.clear()
            wait = 0.0
            try:
                again, told = await self._look()
                if again:
                    self._arrival.set()
                    wait = LOOK_AGAIN_SECONDS
                if told:
                    shortest, longest = PACE_SECONDS
                    readers = sum(len(topic.readers) for topic in self._topics.values())
                    wait = min(longest, max(shortest, readers * PACE_SECONDS_A_READER))
            except Exception as error:
                if isinstance(error, StoreError):
                    log.warning("streams_wait", error=str(error))
                else:
                    log.exception("look_failed")
                self._arrival.set()
                wait = FAILED_SECONDS
            await asyncio.sleep(wait)
        self._begun = False
        self._due_runs.clear()
        self._due_plans.clear()
        self._told.clear()

    async def _look(self) -> tuple[bool, bool]:
        """Look at everything that is due. Answers whether there is more to look at, and whether anything was told."""
        self._puts = 0
        if not self._begun:
            self._position = await newest_whole(self._store)
            self._horizon, self._read_at, self._begun = Horizon(), None, True
            for topic in self._topics.values():
                topic.place = Place(self._position)
        for held in list(self._held.values()):
            if not held.known.is_set():
                await self._sweep(held)
                held.known.set()
        more = await self._read_log()
        await self._tell_plans()
        await self._tell_runs()
        if self._sweep_due:
            self._sweep_due = False
            for held in list(self._held.values()):
                await self._sweep(held)
        return bool(more or self._due_runs or self._due_plans), self._puts > 0

    async def _read_log(self) -> bool:
        """What has been added to the log; whether there is more."""
        mask = self._events_wanted()
        new: dict[ScopeTopic, list[Message]] = {}
        size = 0
        async with self._store.reading() as conn:
            await self._horizon.before_reading(conn)
            rows = await read_log(conn, after=self._position, mask=mask, since=self._read_at)
            whole = await self._horizon.whole(conn, rows, self._position)
            position, read_at = self._position, self._read_at
            for row in whole:
                topics = self._topics_of(row.account_id, row.project_id)
                if topics and row.types & ~HEARTBEAT:
                    self._due_runs.setdefault(row.run_id, False)
                if topics and row.types & mask:
                    for message in event_messages(row, await read_events_of(conn, row), mask):
                        size += len(message.data)
                        for topic in topics:
                            new.setdefault(topic, []).append(message)
                position, read_at = row.position, row.recorded_at
                if size > LOOK_BYTES_MAX:
                    break
        if self._events_wanted() & ~mask:
            return True  # a reader has begun meanwhile that wants what was not read: the same once more, with that
        self._position, self._read_at = position, read_at
        for topic in self._topics.values():
            topic.place = max(topic.place, Place(position))
        for topic, messages in new.items():
            self._put(topic, messages)
        return self._horizon.waits or len(rows) == ROWS_AT_ONCE or (bool(whole) and position < whole[-1].position)

    def _events_wanted(self) -> int:
        """The types of events that any reader wants, as bits."""
        mask = 0
        for topic in self._topics.values():
            mask |= topic.mask & ALL_EVENTS
        return mask

    async def _tell_plans(self) -> None:
        due = list(self._due_plans)[:PLANS_AT_ONCE]
        if not due:
            return
        async with self._store.reading() as conn:
            for plan in await plans_by_id(conn, due):
                await self._tell_plan(conn, plan)
        for plan_id in due:
            del self._due_plans[plan_id]

    async def _tell_plan(self, conn: AsyncConnection, plan: Plan) -> None:
        topics = self._topics_of(plan.billing_account_id, plan.project_id)
        held = self._held.get(plan.billing_account_id)
        if not topics or held is None or not held.is_news(plan):
            return
        for topic in topics:
            self._put(topic, [plan_message(plan)])
        if plan.approved_at is not None:
            self._due_runs.update(dict.fromkeys(await ids_of_plan(conn, plan.id), True))

    async def _tell_runs(self) -> None:
        due = list(self._due_runs)[:RUNS_AT_ONCE]
        if not due:
            return
        async with self._store.reading() as conn:
            now = await self._store.now_on(conn)
            found = await read_runs(conn, due)
        new: dict[ScopeTopic, list[Message]] = {}
        for run_id in due:
            has_changed = self._due_runs.pop(run_id)
            run = found.get(run_id)
            topics = () if run is None else self._topics_of(run.billing_account_id, run.project_id)
            if run is not None and topics and self._is_news(run, now, has_changed):
                for topic in topics:
                    new.setdefault(topic, []).append(run_message(run, now))
        for topic, messages in new.items():
            self._put(topic, messages)

    def _is_news(self, run: Run, now: datetime, has_changed: bool) -> bool:
        """Whether more has changed on a run than a heartbeat changes, since it was told last."""
        held = self._held.get(run.billing_account_id)
        has_changed |= held is None or held.has_changed(run, now)
        body = run_body(run, now)
        known = hash(dump({name: body[name] for name in body if name not in RENEWED}))
        before = self._told.pop(run.number, None)
        self._told[run.number] = known
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        return has_changed if before is None else before != known

    async def _sweep(self, held: Held) -> None:
        """Look at what the workers of an account hold, and at its plans; the first time only to know them."""
        first = not held.known.is_set()
        leases: dict[ScopeTopic, list[HeldRun]] = {}
        number = 0
        held.begin()
        while True:
            async with self._store.reading() as conn:
                now = await self._store.now_on(conn)
                page = await held_runs(conn, held.account_id, after=number, limit=HELD_AT_ONCE)
            for run in page:
                changed, renewed = held.look(run, now)
                if changed and not first:
                    self._due_runs[run.id] = True
                if renewed and not first:
                    for topic in self._topics_of(run.account_id, run.project_id):
                        if topic.mask & LEASES:
                            leases.setdefault(topic, []).append(run)
            if len(page) < HELD_AT_ONCE:
                break
            number = page[-1].number
        held.end()
        for topic, runs in leases.items():
            for start in range(0, len(runs), LEASES_AT_ONCE):
                self._put(topic, [leases_message(runs[start : start + LEASES_AT_ONCE])])
        await self._sweep_plans(held, now, first=first)

    async def _sweep_plans(self, held: Held, now: datetime, *, first: bool) -> None:
        since, last = (held.plans_at or now) - LATE, None
        while True:
            async with self._store.reading() as conn:
                plans = await plans_changed_since(conn, Reach(held.account_id), since, after=last, limit=PLANS_AT_ONCE)
                for plan in plans:
                    if first:
                        held.is_news(plan)
                    else:
                        await self._tell_plan(conn, plan)
            if len(plans) < PLANS_AT_ONCE:
                break
            last = plans[-1].id
        held.plans_at = now
        held.forget_plans(since)

    def _topics_of(self, account_id: str, project_id: str) -> list[ScopeTopic]:
        """The topics that something of this project is told in."""
        found = (self._topics.get(Reach(account_id)), self._topics.get(Reach(account_id, project_id)))
        return [topic for topic in found if topic is not None]

    def _put(self, topic: ScopeTopic, messages: Sequence[Message]) -> None:
        topic.put(messages)
        self._puts += 1
