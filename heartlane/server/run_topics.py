"""Who follows a run: `GET /api/agents/runs/{id}/stream`, from the announcement of a commit to the reader.

    store.feed ─► hear: which followed runs to look at ─► looker: two queries for all of them ─► topic ─► readers woken

The feed only says where to look; what is told comes from the database. So nothing is missed when an announcement is
lost (every run that is followed is looked at every few seconds anyway), and the same stream can be resumed on any
server. A run's events become visible in the order of their `seq`, without gaps, so that `seq` alone is the cursor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.run import EventType, Run
from heartlane.server.bodies import dump, event_body
from heartlane.server.errors import ApiError
from heartlane.server.page_reads import PageReads
from heartlane.server.sse import RECENT_BYTES_MAX, Frame, LogReader, Page, Recent, frame
from heartlane.store.batch import Announcement
from heartlane.store.errors import StoreError
from heartlane.store.log import ROWS_AT_ONCE, NewRow, read_new
from heartlane.store.runs import LoggedEvent, expand, read_events, read_runs
from heartlane.wire.run_json import run_body

RUNS_AT_ONCE: Final = 100
"""Runs looked at on one connection, before the next look takes its turn."""
EVENTS_AT_ONCE: Final = 200
LOOK_AGAIN_SECONDS: Final = 1.0
WITHOUT_HEARTBEATS: Final = tuple(str(kind) for kind in EventType if kind != EventType.HEARTBEAT)
RENEWED: Final = frozenset({"last_heartbeat", "lease_expires_at", "updated_at", "event_count"})
"""What a bare heartbeat changes on a run."""

log = structlog.get_logger(__name__)


class RunRead(NamedTuple):
    """A run as it was read: `now` is the database's time, `began_at` the event loop's before the read."""

    run: Run
    now: datetime
    began_at: float


class Topic:
    """One followed run; a `Source`. Streams with heartbeats and streams without have a topic each."""

    def __init__(self, topics: RunTopics, first: RunRead, *, heartbeats: bool) -> None:
        self._topics = topics
        self._last = first
        self._known = b""
        self._heartbeats = heartbeats
        self.types: Sequence[str] = () if heartbeats else WITHOUT_HEARTBEATS
        self.recent = Recent(first.run.event_count)
        self.readers: set[LogReader] = set()
        self.version = 0
        self.state = b""
        self.tell(first)

    @property
    def run(self) -> Run:
        """The run as it was last read."""
        return self._last.run

    @property
    def behind(self) -> bool:
        """Whether the log holds more than has been looked through."""
        return self.recent.end < self.run.event_count

    def tell(self, read: RunRead) -> None:
        """The run as it was just read. A bare renewal is news only to those who want heartbeats."""
        last = self._last
        if (read.run.event_count, read.began_at) < (last.run.event_count, last.began_at):
            return
        self._last = read
        body = run_body(read.run, read.now)
        known = dump(body if self._heartbeats else {name: body[name] for name in body if name not in RENEWED})
        if known != self._known:
            self._known = known
            self.version += 1
        # Even where it is no news: whoever comes next begins with the run as it is now.
        self.state = frame("run", dump(body))

    def add(self, page: Page) -> None:
        """Events that were found behind those known so far."""
        self.recent.add(page)
        if page.frames:
            self.version += 1

    def wake(self) -> None:
        """Have every reader look."""
        for reader in self.readers:
            reader.woken.set()

    async def read(self, place: int) -> Page:
        return await self._topics.read(self, place)


class RunTopics:
    """The followed runs of one server. Works only while there are any."""

    def __init__(self, reads: PageReads) -> None:
        self._reads = reads
        self._topics: dict[tuple[str, bool], Topic] = {}
        self._due: dict[Topic, None] = {}
        self._arrival = asyncio.Event()
        self._looker: asyncio.Task[None] | None = None

    def hear(self, announcement: Announcement) -> None:
        """Look at the followed runs that an announcement names; one that names nothing may mean any."""
        if not self._topics:
            return
        if not announcement.names_something:
            self.look_at_all()
        for run_id in announcement.run_ids:
            self._look_at(topic for flag in (False, True) if (topic := self._topics.get((run_id, flag))) is not None)

    @contextmanager
    def following(self, read: RunRead, *, after: int, heartbeats: bool) -> Iterator[LogReader]:
        """A reader of the run's events behind the `seq` after."""
        key = (read.run.id, heartbeats)
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(self, read, heartbeats=heartbeats)
        else:
            topic.tell(read)
            topic.wake()
        reader = LogReader(topic, after)
        topic.readers.add(reader)
        # The run was read before it was followed: what was committed in between is found by this.
        self._look_at([topic])
        if self._looker is None or self._looker.done():
            self._looker = asyncio.get_running_loop().create_task(self._look_while_followed())
        try:
            yield reader
        finally:
            topic.readers.discard(reader)
            if not topic.readers:
                del self._topics[key]
            if not self._topics:
                # The looker ends by itself: it may have a database connection in hand.
                self._due.clear()
                self._arrival.set()

    def look_at_all(self) -> None:
        """Look at every followed run: an announcement may be lost, and time alone changes a run."""
        self._look_at(self._topics.values())

    def forget(self) -> None:
        """Let go of what every reader has been told."""
        for topic in self._topics.values():
            topic.recent.forget(min(reader.place for reader in topic.readers))

    async def close(self) -> None:
        """Look no more."""
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)

    async def read(self, topic: Topic, place: int) -> Page:
        """One page of old events for a reader that is behind. Raises StoreError."""
        async with self._reads.turn() as conn:
            return await self._page(conn, topic, place)

    # --- looking ---

    def _look_at(self, topics: Iterable[Topic]) -> None:
        self._due.update(dict.fromkeys(topics))
        self._arrival.set()

    async def _look_while_followed(self) -> None:
        while self._topics:
            await self._arrival.wait()
            self._arrival.clear()
            while self._due:
                due = list(self._due)[:RUNS_AT_ONCE]
                for topic in due:
                    del self._due[topic]
                try:
                    await self._look([topic for topic in due if topic.readers])
                except Exception as error:
                    if isinstance(error, StoreError):
                        log.warning("streams_wait", error=str(error))
                    else:
                        log.exception("look_failed")
                    self._look_at(due)
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _look(self, topics: Sequence[Topic]) -> None:
        if not topics:
            return
        began_at = asyncio.get_running_loop().time()
        async with self._reads.store.reading() as conn:
            now = await self._reads.store.now_on(conn)
            found = await read_runs(conn, sorted({topic.run.id for topic in topics}))
            versions = {topic: topic.version for topic in topics}
            behind: list[Topic] = []
            for topic in topics:
                run = found.get(topic.run.id)
                if run is None:
                    for reader in topic.readers:
                        reader.end(ApiError("NOT_FOUND", "There is no such run any more."))
                    continue
                topic.tell(RunRead(run, now, began_at))
                if topic.behind:
                    behind.append(topic)
            if behind:
                await self._read_new(conn, behind)
        for topic, version in versions.items():
            if topic.version != version:
                topic.wake()

    async def _read_new(self, conn: AsyncConnection, topics: Sequence[Topic]) -> None:
        """What is new in the logs of these runs, by one query; whose new events are many or large gets a page."""
        new = {topic: topic.recent.end for topic in topics}
        wanted: dict[int, int] = {}
        for topic, end in new.items():
            wanted[topic.run.number] = min(end, wanted.get(topic.run.number, end))
        since = min(topic.run.created_at for topic in topics)
        rows: dict[int, list[NewRow]] = {}
        found = await read_new(conn, wanted, since=since)
        for row in found:
            rows.setdefault(row.run_number, []).append(row)
        for topic, end in new.items():
            own = [row for row in rows.get(topic.run.number, ()) if row.last_seq > end]
            if own and sum(len(row.body or "") for row in own) <= RECENT_BYTES_MAX and all(row.body for row in own):
                topic.add(_page_of(own, topic, end))
            elif own or len(found) < ROWS_AT_ONCE:
                topic.add(await self._page(conn, topic, end))
            if topic.behind:
                self._look_at([topic])

    async def _page(self, conn: AsyncConnection, topic: Topic, after: int) -> Page:
        events, seen = await read_events(
            conn, topic.run, after=after, types=topic.types, limit=EVENTS_AT_ONCE, bytes_max=RECENT_BYTES_MAX
        )
        return Page([_frame(event) for event in events], seen)


def _page_of(rows: Sequence[NewRow], topic: Topic, after: int) -> Page:
    """The events of these rows that the topic tells, behind `after`."""
    frames = [
        _frame(event)
        for row in rows
        for event in expand(row.body or "[]", row.last_seq, row.recorded_at, row.worker_id, row.attempt)
        if event.seq > after and (not topic.types or event.type in topic.types)
    ]
    return Page(frames, rows[-1].last_seq)


def _frame(event: LoggedEvent) -> Frame:
    return Frame(event.seq, frame(event.type, dump(event_body(event)), place=event.seq))
