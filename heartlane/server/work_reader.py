"""One open stream of a project's or an account's work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple

from heartlane.server.catch_up import Piece, catch_up
from heartlane.server.page_reads import PageReads
from heartlane.server.scope_topic import ScopeTopic
from heartlane.server.sse import KEEP_ALIVE, Reader
from heartlane.server.work_messages import reset_frame
from heartlane.store.log import Place


class Following(NamedTuple):
    """What a stream is asked for.

    mask    kinds of messages, as bits of `scope_topic`
    after   where it broke off; None for one that begins
    """

    mask: int
    after: Place | None


class WorkReader(Reader):
    """Tells what its scope's line holds; what came before, or is gone from there, it reads from the database.

    number      of the message in the line that comes next
    place       up to where it has been told every event
    """

    def __init__(self, topic: ScopeTopic, reads: PageReads, following: Following) -> None:
        super().__init__()
        self.mask = following.mask
        self.number = topic.number
        self.place = following.after or topic.place
        self._topic = topic
        self._reads = reads
        self._begins = following.after is None
        self._ahead: Place | None = None
        self._catching_up: AsyncGenerator[Piece, None] | None = None

    @property
    def last_place(self) -> Place:
        return self.place

    def begin(self) -> None:
        """The line holds everything from here on: what comes before it is caught up with, or not told at all."""
        self.number = self._topic.number
        if self._begins:
            self.place = self._topic.place
        else:
            if self.place > self._topic.place:
                self._ahead = self.place  # another server has read further than this one
            self._begin_to_catch_up()

    def first(self) -> bytes:
        return reset_frame("start", self.place) if self._begins else b""

    def sign_of_life(self) -> bytes:
        # An `id` without data moves what the client comes back with, past all that was none of its business.
        if self._catching_up is None and self.number == self._topic.number and self._topic.place > self.place:
            self.place = self._topic.place
        return KEEP_ALIVE + b"id: %s\n\n" % str(self.place).encode()

    async def tell(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        if self._catching_up is not None:
            await self._catch_up(self._catching_up, send)
            return
        topic = self._topic
        if self._ahead is None:
            taken = topic.take(self.number, self.mask)
        else:
            taken = topic.take_behind(self.number, self.mask, self._ahead)
        if taken is None:
            self._begin_to_catch_up()
            return
        if self._ahead is not None and self._ahead <= topic.place:
            self._ahead = None
        if taken.data:
            await send(taken.data)
        self.number = taken.number
        self.place = max(self.place, taken.place)

    def _begin_to_catch_up(self) -> None:
        # The number first: what is put in the line from now on comes after what is read from now on.
        self.number = self._topic.number
        self._catching_up = catch_up(
            self._reads, self._topic.reach, after=self.place, upto=self._topic.place, mask=self.mask
        )
        self.woken.set()

    async def _catch_up(self, pieces: AsyncGenerator[Piece, None], send: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            piece = await anext(pieces, None)
        except BaseException:
            self._begin_to_catch_up()
            self.woken.clear()
            raise
        self.woken.set()
        if piece is None:
            self._catching_up = None
            return
        await send(piece.data)
        if piece.is_reset:
            self.place, self._ahead = piece.place, None
        else:
            self.place = max(self.place, piece.place)
