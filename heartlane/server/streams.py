"""Who follows a run: `GET /api/agents/runs/{id}/stream`, from the announcement of a commit to the reader.

    store.feed ─► hear: which followed runs to look at ─► looker: one query for all of them ─► topic ─► readers woken

The feed only says where to look; what is told comes from the database. So nothing is missed when an announcement is
lost (every run that is followed is looked at every few seconds anyway), and the same stream can be resumed on any
server. A run's events become visible in the order of their `seq`, without gaps, so that `seq` alone is the cursor.

Each second the tokens of all open streams are looked at again, each token once, however many streams it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from heartlane.lanes.run import EventType, Run
from heartlane.server.auth import Authenticator
from heartlane.server.bodies import dump, event_body
from heartlane.server.errors import ApiError
from heartlane.server.gate import Gate
from heartlane.server.sse import RECENT_BYTES_MAX, Frame, Page, Reader, Recent, frame
from heartlane.store.batch import Announcement
from heartlane.store.errors import StoreError, StoreUnavailable
from heartlane.store.runs import LoggedEvent, read_events, read_runs
from heartlane.store.store import Store
from heartlane.wire.run_json import run_body

MEDIA_TYPE: Final = "text/event-stream"
HEAD_ONLY: Final = "heartlane.head_only"
"""Key in the scope of a request that wants the head of the answer alone."""
STREAMS_MAX: Final = 10_000
"""Open streams of one server; one more is a 503."""
KEEP_ALIVE_SECONDS: Final = 15.0
POLL_SECONDS: Final = 3.0
"""How often every followed run is looked at, in case an announcement was lost or time alone has changed it."""
TICK_SECONDS: Final = 0.45
"""How often tokens are looked at again."""
TRUSTED_SECONDS: Final = 1.0
"""How long a stream goes on telling after its token was found good. What was found may be a second old by then
(`auth.TRUST_SECONDS`), so that nothing is told two seconds after a token was revoked, whatever a look-up takes."""
LOOK_AGAIN_SECONDS: Final = 1.0
RUNS_AT_ONCE: Final = 100
"""Runs looked at on one connection, before the next look takes its turn."""
EVENTS_AT_ONCE: Final = 200
READS_AT_ONCE: Final = 3
"""Database connections that readers of old events may use together."""
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

    def __init__(self, streams: Streams, first: RunRead, *, heartbeats: bool) -> None:
        self._streams = streams
        self._last = first
        self._known = b""
        self._heartbeats = heartbeats
        self.types: Sequence[str] = () if heartbeats else WITHOUT_HEARTBEATS
        self.recent = Recent(first.run.event_count)
        self.readers: set[Reader] = set()
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
        return await self._streams.read(self, place)


class Caller:
    """A token that streams were opened with: the address of the first of them, and the streams."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.readers: set[Reader] = set()


class Streams:
    """The open streams of one server. Works only while there are any.

    keep_alive_seconds, poll_seconds    as the constants above say; tests shorten them
    """

    def __init__(self, store: Store, auth: Authenticator, gate: Gate) -> None:
        self.keep_alive_seconds = KEEP_ALIVE_SECONDS
        self.poll_seconds = POLL_SECONDS
        self._store = store
        self._auth = auth
        self._gate = gate
        self._topics: dict[tuple[str, bool], Topic] = {}
        self._callers: dict[bytes, Caller] = {}
        self._due: dict[Topic, None] = {}
        self._arrival = asyncio.Event()
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._closed = False
        self._looker: asyncio.Task[None] | None = None
        self._clocks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return sum(len(caller.readers) for caller in self._callers.values())

    def hear(self, announcement: Announcement) -> None:
        """Look at the followed runs that an announcement names; one that names nothing may mean any."""
        if not self._topics:
            return
        if not (announcement.openings or announcement.run_ids):
            self._look_at(self._topics.values())
        for run_id in announcement.run_ids:
            self._look_at(topic for flag in (False, True) if (topic := self._topics.get((run_id, flag))) is not None)

    @contextmanager
    def following(
        self, read: RunRead, *, after: int, heartbeats: bool, header: bytes, address: str
    ) -> Iterator[Reader]:
        """A reader of the run's events behind the `seq` after. Raises ApiError when there are too many.

        header, address     the request's `Authorization` and where it came from, to look at again while it lasts
        """
        if len(self) >= STREAMS_MAX:
            raise ApiError("UNAVAILABLE", f"This server has {STREAMS_MAX} open streams already; try again later.")
        key = (read.run.id, heartbeats)
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(self, read, heartbeats=heartbeats)
        else:
            topic.tell(read)
            topic.wake()
        caller = self._callers.setdefault(header, Caller(address))
        reader = Reader(topic, after)
        reader.trusted_until = asyncio.get_running_loop().time() + TRUSTED_SECONDS
        topic.readers.add(reader)
        caller.readers.add(reader)
        # The run was read before it was followed: what was committed in between is found by this.
        self._look_at([topic])
        self._start()
        try:
            yield reader
        finally:
            topic.readers.discard(reader)
            caller.readers.discard(reader)
            if not topic.readers:
                del self._topics[key]
            if not caller.readers:
                del self._callers[header]
            if not self._callers:
                self._stop()

    async def close(self) -> None:
        """Let go of the store, which is about to be closed: a connection that outlived it would hold up the loop's end.

        Streams are no requests that a shutdown waits for, so that some may be open yet; they read nothing any more.
        """
        if self._closed:
            return
        self._closed = True
        tasks = [*self._clocks, *([self._looker] if self._looker is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(READS_AT_ONCE):
            await self._reads.acquire()

    async def read(self, topic: Topic, place: int) -> Page:
        """One page of old events for a reader that is behind. Raises StoreError."""
        if self._closed:
            raise StoreUnavailable("The server is shutting down.")
        async with self._reads, self._store.reading() as conn:
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
        async with self._store.reading() as conn:
            now = await self._store.now_on(conn)
            found = await read_runs(conn, sorted({topic.run.id for topic in topics}))
            for topic in topics:
                run = found.get(topic.run.id)
                if run is None:
                    for reader in topic.readers:
                        reader.end(ApiError("NOT_FOUND", "There is no such run any more."))
                    continue
                version = topic.version
                topic.tell(RunRead(run, now, began_at))
                if topic.behind:
                    topic.add(await self._page(conn, topic, topic.recent.end))
                    if topic.behind:
                        self._look_at([topic])
                if topic.version != version:
                    topic.wake()

    async def _page(self, conn: AsyncConnection, topic: Topic, after: int) -> Page:
        events, seen = await read_events(
            conn, topic.run, after=after, types=topic.types, limit=EVENTS_AT_ONCE, bytes_max=RECENT_BYTES_MAX
        )
        return Page([_frame(event) for event in events], seen)

    # --- time ---

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._looker is None or self._looker.done():
            self._looker = loop.create_task(self._look_while_followed())
        if not self._clocks:
            self._clocks = [loop.create_task(self._tick_forever()), loop.create_task(self._end_with_the_server())]

    def _stop(self) -> None:
        for task in self._clocks:
            task.cancel()
        self._clocks = []
        # The looker ends by itself: it may have a database connection in hand.
        self._due.clear()
        self._arrival.set()

    async def _end_with_the_server(self) -> None:
        await self._gate.closed()
        goodbye = ApiError("UNAVAILABLE", "The server is shutting down; go on at another one, or at this one again.")
        for caller in self._callers.values():
            for reader in caller.readers:
                reader.end(goodbye)

    async def _tick_forever(self) -> None:
        loop = asyncio.get_running_loop()
        polled_at = loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._check_tokens()
            except Exception:
                log.exception("tokens_not_checked")
            now = loop.time()
            for caller in self._callers.values():
                for reader in caller.readers:
                    if now - reader.sent_at >= self.keep_alive_seconds:
                        reader.keep_alive()
            for topic in self._topics.values():
                topic.recent.forget(min(reader.place for reader in topic.readers))
            if now - polled_at >= self.poll_seconds:
                polled_at = now
                self._look_at(self._topics.values())

    async def _check_tokens(self) -> None:
        now = asyncio.get_running_loop().time()
        unsure: list[bytes] = []
        for header, caller in self._callers.items():
            if self._auth.known(header) is None:
                unsure.append(header)
            else:
                _trust(caller, now)
        await asyncio.gather(*(self._check(header, self._callers[header], now) for header in unsure))

    async def _check(self, header: bytes, caller: Caller, now: float) -> None:
        """Look a token up again. While that can't be done its streams stay open, and tell nothing once trust is up."""
        try:
            await self._auth.authenticate(header, caller.address)
        except StoreError:
            return
        except ApiError as error:
            if error.status == 401:
                for reader in caller.readers:
                    reader.end(error)
        else:
            _trust(caller, now)


def _trust(caller: Caller, now: float) -> None:
    for reader in caller.readers:
        if reader.trusted_until <= now:
            reader.woken.set()
        reader.trusted_until = now + TRUSTED_SECONDS


def _frame(event: LoggedEvent) -> Frame:
    return Frame(event.seq, frame(event.type, dump(event_body(event)), place=event.seq))


class StreamResponse(Response):
    """The answer of a route that streams. It is out of the gate's count while it lasts.

    follow      enters the stream: its reader, until the block ends
    """

    media_type = MEDIA_TYPE

    def __init__(self, gate: Gate, follow: AbstractContextManager[Reader]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._gate = gate
        self._follow = follow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope.get(HEAD_ONLY):
            await send(head)
            await send({"type": "http.response.body", "body": b""})
            return
        with self._follow as reader, self._gate.stepped_out():
            gone = asyncio.create_task(_leave_when_gone(receive, reader))
            try:
                await send(head)
                await reader.run(send)
            except TimeoutError:
                log.info("stream_dropped", path=scope["path"], place=reader.place)
            finally:
                gone.cancel()


async def _leave_when_gone(receive: Receive, reader: Reader) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.leave()
