"""The open streams of one server, whatever they tell of: how many there may be, and when they end.

    a run's stream          heartlane.server.run_topics
    a project's, all        heartlane.server.hub

Each second the tokens of all open streams are looked at again, each token once, however many streams it has.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final, NamedTuple, TypeVar

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from heartlane.server.auth import Authenticator
from heartlane.server.errors import ApiError
from heartlane.server.gate import Gate
from heartlane.server.hub import Hub
from heartlane.server.page_reads import PageReads
from heartlane.server.run_topics import RunRead, RunTopics
from heartlane.server.sse import Reader
from heartlane.server.work_reader import Following
from heartlane.store.batch import Announcement
from heartlane.store.errors import StoreError
from heartlane.store.pages import Reach
from heartlane.store.store import Store

MEDIA_TYPE: Final = "text/event-stream"
HEAD_ONLY: Final = "heartlane.head_only"
"""Key in the scope of a request that wants the head of the answer alone."""
KEEP_ALIVE_SECONDS: Final = 15.0
POLL_SECONDS: Final = 3.0
"""How often everything that is followed is looked at, in case an announcement was lost or time alone has changed it."""
TICK_SECONDS: Final = 0.45
"""How often tokens are looked at again."""
TRUSTED_SECONDS: Final = 1.0
"""How long a stream goes on telling after its token was found good. What was found may be a second old by then
(`auth.TRUST_SECONDS`), so that nothing is told two seconds after a token was revoked, whatever a look-up takes."""
TOO_MANY_SECONDS: Final = 10
"""When to come back where there are too many streams: none of them is known to end."""

R = TypeVar("R", bound=Reader)
log = structlog.get_logger(__name__)


class Bounds(NamedTuple):
    """How many streams may be open: in all, and of one token or one address."""

    total: int
    each: int


class Opening(NamedTuple):
    """Who opens a stream: what the request authenticated itself with, and the address it came from."""

    credential: bytes
    address: str


class Caller:
    """A token that streams were opened with: the address of the first of them, and the streams."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.readers: set[Reader] = set()


class Streams:
    """The open streams of one server. Works only while there are any.

    keep_alive_seconds, poll_seconds    as the constants above say; tests shorten them
    """

    def __init__(self, store: Store, auth: Authenticator, gate: Gate, bounds: Bounds) -> None:
        self.keep_alive_seconds = KEEP_ALIVE_SECONDS
        self.poll_seconds = POLL_SECONDS
        self.bounds = bounds
        self._reads = PageReads(store)
        self.runs = RunTopics(self._reads)
        self.hub = Hub(self._reads)
        self._auth = auth
        self._gate = gate
        self._callers: dict[bytes, Caller] = {}
        self._addresses: Counter[str] = Counter()
        self._closed = False
        self._clocks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return self._addresses.total()

    def hear(self, announcement: Announcement) -> None:
        """Look at what an announcement names."""
        self.runs.hear(announcement)
        self.hub.hear(announcement)

    @asynccontextmanager
    async def of_run(self, read: RunRead, opening: Opening, *, after: int, heartbeats: bool) -> AsyncIterator[Reader]:
        """A stream of the run's events behind the `seq` after. Raises ApiError when there are too many."""
        self._check_room(opening)
        with self.runs.following(read, after=after, heartbeats=heartbeats) as reader, self._open(reader, opening):
            yield reader

    @asynccontextmanager
    async def of_work(self, reach: Reach, opening: Opening, following: Following) -> AsyncIterator[Reader]:
        """A stream of all the work within reach. Raises ApiError when there are too many, StoreError."""
        self._check_room(opening)
        async with self.hub.following(reach, following) as reader:
            self._check_room(opening)
            with self._open(reader, opening):
                yield reader

    def _check_room(self, opening: Opening) -> None:
        if len(self) >= self.bounds.total:
            raise ApiError(
                "UNAVAILABLE",
                f"This server has {self.bounds.total} open streams already; try another one, or later.",
                retry_after=TOO_MANY_SECONDS,
            )
        caller = self._callers.get(opening.credential)
        for whose, count in (
            ("with this token", 0 if caller is None else len(caller.readers)),
            ("from this address", self._addresses[opening.address]),
        ):
            if count >= self.bounds.each:
                raise ApiError(
                    "RATE_LIMITED",
                    f"There are {count} open streams {whose} already; end some, or ask an operator for more.",
                    retry_after=TOO_MANY_SECONDS,
                )

    @contextmanager
    def _open(self, reader: R, opening: Opening) -> Iterator[R]:
        caller = self._callers.setdefault(opening.credential, Caller(opening.address))
        reader.trusted_until = asyncio.get_running_loop().time() + TRUSTED_SECONDS
        caller.readers.add(reader)
        self._addresses[opening.address] += 1
        self._start()
        try:
            yield reader
        finally:
            caller.readers.discard(reader)
            self._addresses[opening.address] -= 1
            if not self._addresses[opening.address]:
                del self._addresses[opening.address]
            if not caller.readers:
                del self._callers[opening.credential]
            if not self._callers:
                self._stop()

    async def close(self) -> None:
        """Let go of the store, which is about to be closed: a connection that outlived it would hold up the loop's end.

        Streams are no requests that a shutdown waits for, so that some may be open yet; they read nothing any more.
        """
        if self._closed:
            return
        self._closed = True
        for task in self._clocks:
            task.cancel()
        await asyncio.gather(*self._clocks, return_exceptions=True)
        await self.runs.close()
        await self.hub.close()
        await self._reads.close()

    # --- time ---

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._clocks:
            self._clocks = [loop.create_task(self._tick_forever()), loop.create_task(self._end_with_the_server())]

    def _stop(self) -> None:
        for task in self._clocks:
            task.cancel()
        self._clocks = []

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
            self.runs.forget()
            self.hub.forget()
            if now - polled_at >= self.poll_seconds:
                polled_at = now
                self.runs.look_at_all()
                self.hub.look_at_all()

    async def _check_tokens(self) -> None:
        now = asyncio.get_running_loop().time()
        unsure: list[bytes] = []
        for credential, caller in self._callers.items():
            if self._auth.known(credential, caller.address) is None:
                unsure.append(credential)
            else:
                _trust(caller, now)
        await asyncio.gather(*(self._check(credential, self._callers[credential], now) for credential in unsure))

    async def _check(self, credential: bytes, caller: Caller, now: float) -> None:
        """Look a token up again. While that can't be done its streams stay open, and tell nothing once trust is up."""
        try:
            await self._auth.authenticate(credential, caller.address)
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


class StreamResponse(Response):
    """The answer of a route that streams. It is out of the gate's count while it lasts.

    follow      enters the stream: its reader, until the block ends
    """

    media_type = MEDIA_TYPE

    def __init__(self, gate: Gate, follow: AbstractAsyncContextManager[Reader]) -> None:
        super().__init__(headers={"cache-control": "no-store, no-transform", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._gate = gate
        self._follow = follow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope.get(HEAD_ONLY):
            await send(head)
            await send({"type": "http.response.body", "body": b""})
            return
        async with self._follow as reader:
            with self._gate.stepped_out():
                gone = asyncio.create_task(_leave_when_gone(receive, reader))
                try:
                    await send(head)
                    await reader.run(send)
                except TimeoutError:
                    log.info("stream_dropped", path=scope["path"], place=str(reader.last_place))
                finally:
                    gone.cancel()


async def _leave_when_gone(receive: Receive, reader: Reader) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.leave()
