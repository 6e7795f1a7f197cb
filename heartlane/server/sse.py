"""Server-Sent Events: what one open stream is, whatever it tells of.

A stream's reader never has a queue of its own. What is new lies in its source, shared by all who read the same, and is
bounded there; a reader takes from it at its own pace, and one that has fallen behind what the source keeps reads the
database page by page instead. So a slow reader costs the one page that is under way to it. One that takes nothing at
all for `SEND_SECONDS` is dropped, and can resume where it stopped.

While nothing happens a stream is one task that waits for its `woken`: no timer, no database connection, no transaction.
It isn't counted by the gate, so that it never holds up a shutdown.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from starlette.types import Send

from heartlane.server.errors import ApiError, error_body
from heartlane.store.errors import StoreError

KEEP_ALIVE: Final = b": keep-alive\n\n"
SEND_SECONDS: Final = 30.0
"""How long a reader may take nothing at all before it is dropped."""
PIECE_BYTES_MAX: Final = 64 * 1024
"""Bytes handed to Granian at once. It holds four such pieces, then `send` waits for the reader."""
RECENT_BYTES_MAX: Final = 128 * 1024
"""Bytes of events that a source keeps for its readers, besides the newest one; also the bytes of a page."""
RETRY_MILLISECONDS: Final = (1_000, 3_000)
"""How long a browser waits before it comes back; apart from each other, so that a restart brings no rush."""
READ_AGAIN_SECONDS: Final = 1.0


class Frame(NamedTuple):
    """One event as it is sent. A reader that has taken it has everything up to `place`."""

    place: int
    data: bytes


class Page(NamedTuple):
    """What comes after some place: events in order, and up to which place there are no others."""

    frames: Sequence[Frame]
    place: int


def frame(event: str, data: bytes, *, place: object = None) -> bytes:
    r"""One event in the stream's format; `data` is JSON, which has no line breaks. Without `place` it has no `id`.

    >>> frame("log_line", b'{"seq":3}', place=3)
    b'id: 3\nevent: log_line\ndata: {"seq":3}\n\n'
    """
    head = "" if place is None else f"id: {place}\n"
    return b"%sevent: %s\ndata: %s\n\n" % (head.encode(), event.encode(), data)


def first_of(page: Page) -> Page:
    """As much of a page as a reader may hold: up to the bound in bytes, one event at least."""
    held = 0
    for count, each in enumerate(page.frames):
        held += len(each.data)
        if held > RECENT_BYTES_MAX and count:
            return Page(page.frames[:count], page.frames[count - 1].place)
    return page


class Recent:
    """The newest events of a source: all with a place above `floor`, up to `end`, and no more bytes than the bound."""

    def __init__(self, end: int) -> None:
        self.floor = end
        self.end = end
        self._frames: deque[Frame] = deque()
        self._bytes = 0

    def add(self, page: Page) -> None:
        """What came after `end`."""
        for each in page.frames:
            self._frames.append(each)
            self._bytes += len(each.data)
        self.end = max(self.end, page.place)
        while self._bytes > RECENT_BYTES_MAX and len(self._frames) > 1:
            self._drop_oldest()

    def forget(self, place: int) -> None:
        """Let go of everything up to `place`: every reader has it."""
        while self._frames and self._frames[0].place <= place:
            self._drop_oldest()

    def after(self, place: int) -> Page | None:
        """Everything after `place`; None where that is no longer kept."""
        if place < self.floor:
            return None
        found: list[Frame] = []
        for each in reversed(self._frames):
            if each.place <= place:
                break
            found.append(each)
        return Page(found[::-1], max(place, self.end))

    def _drop_oldest(self) -> None:
        oldest = self._frames.popleft()
        self._bytes -= len(oldest.data)
        self.floor = oldest.place


class Source(Protocol):
    """What a stream tells of: events that have places, and a state that the events change.

    state       the newest state, as it is sent
    version     grows with every change of the state
    recent      the newest events
    """

    state: bytes
    version: int
    recent: Recent

    async def read(self, place: int) -> Page:
        """One page from the database of what came after `place`. Raises StoreError."""


class Reader(ABC):
    """One open stream; what it tells is its subclass's affair.

    trusted_until   until when (the event loop's time) its token counts as good; past it nothing is told
    """

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.woken.set()
        self.trusted_until = float("inf")
        self.sent_at = 0.0
        self._keep_alive = False
        self._ended: ApiError | None = None
        self._gone = False

    @property
    @abstractmethod
    def last_place(self) -> object:
        """What it can be resumed by, for the log."""

    def first(self) -> bytes:
        """What is told before anything else."""
        return b""

    @abstractmethod
    async def tell(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Tell what is new. Sets `woken` where there may be more to tell at once. Raises StoreError."""

    def sign_of_life(self) -> bytes:
        """What is sent when nothing else has been for a while."""
        return KEEP_ALIVE

    def end(self, error: ApiError) -> None:
        """Have the stream end by itself, with a last event that says why."""
        self._ended = self._ended or error
        self.woken.set()

    def leave(self) -> None:
        """The client has closed the connection."""
        self._gone = True
        self.woken.set()

    def keep_alive(self) -> None:
        """Have a sign of life sent."""
        self._keep_alive = True
        self.woken.set()

    async def run(self, send: Send) -> None:
        """Tell what there is until the stream ends. Raises TimeoutError for a reader that takes nothing."""
        now = asyncio.get_running_loop().time

        async def send_pieces(whole: bytes) -> None:
            for piece in _pieces(whole):
                await self._send(send, piece)

        retry = b"retry: %d\n\n" % random.randint(*RETRY_MILLISECONDS)  # noqa: S311 - jitter, not a secret
        await send_pieces(retry + self.first())
        while True:
            await self.woken.wait()
            # Before the look, not after it: what comes meanwhile is for the next one.
            self.woken.clear()
            if self._gone:
                return
            if self._ended is not None:
                await self._send(send, frame("end", error_body(self._ended)), last=True)
                return
            if self._keep_alive:
                self._keep_alive = False
                await self._send(send, self.sign_of_life())
            if now() < self.trusted_until:
                try:
                    await self.tell(send_pieces)
                except StoreError:
                    asyncio.get_running_loop().call_later(READ_AGAIN_SECONDS, self.woken.set)

    async def _send(self, send: Send, data: bytes, *, last: bool = False) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": data, "more_body": not last})
        self.sent_at = asyncio.get_running_loop().time()


class LogReader(Reader):
    """A reader of one source: its newest state, and its events from some place on.

    place           up to where it has been told everything
    """

    def __init__(self, source: Source, place: int) -> None:
        super().__init__()
        self.source = source
        self.place = place
        self._version = source.version

    @property
    def last_place(self) -> object:
        return self.place

    def first(self) -> bytes:
        self._version = self.source.version
        return self.source.state

    async def tell(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        page = self.source.recent.after(self.place)
        if page is None:
            page = first_of(await self.source.read(self.place))
            self.woken.set()  # there may be more behind this page
        told = [each.data for each in page.frames]
        if self.source.version != self._version:
            self._version = self.source.version
            told.append(self.source.state)
        await send(b"".join(told))
        self.place = max(self.place, page.place)


def _pieces(whole: bytes) -> Iterator[bytes]:
    """The same bytes in pieces of bounded size."""
    for start in range(0, len(whole), PIECE_BYTES_MAX):
        yield whole[start : start + PIECE_BYTES_MAX]
