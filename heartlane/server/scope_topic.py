"""What is new in a project or an account, shared by all who follow it: one bounded line of messages in memory.

A reader takes from the line at its own pace, by the number of the message it comes to next. What every reader has taken
is let go of; a reader that is so far behind that its next message is gone catches up from the database
(`heartlane.server.catch_up`), as if it had come back after a break.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from heartlane.lanes.run import EVENT_TYPE_BITS
from heartlane.store.log import Place
from heartlane.store.pages import Reach

if TYPE_CHECKING:
    from heartlane.server.work_reader import WorkReader

LINE_BYTES_MAX: Final = 1024 * 1024
"""Bytes of messages that one scope keeps for its readers, besides the newest message."""
LINE_BYTES_MIN: Final = 64 * 1024
LINES_BYTES_MAX: Final = 48 * 1024 * 1024
"""Bytes that the lines of all scopes may have together; with very many scopes each has LINE_BYTES_MIN all the same."""

RUN: Final = 1 << 20
"""Kinds of messages beside the types of events, as bits; event types have the bits of `EVENT_TYPE_BITS`."""
PLAN: Final = 1 << 21
LEASES: Final = 1 << 22
HEARTBEAT: Final = EVENT_TYPE_BITS["heartbeat"]
ALL_EVENTS: Final = sum(EVENT_TYPE_BITS.values())


class Message(NamedTuple):
    """One message as it is sent. `kind` is one bit; events have a place, states (runs, plans, leases) have none."""

    kind: int
    place: Place | None
    data: bytes


class Taken(NamedTuple):
    """What a reader takes: the bytes, the number of the message it comes to next, and up to where it then is."""

    data: bytes
    number: int
    place: Place


class ScopeTopic:
    """The newest messages of one scope.

    place       up to where all events of the scope are in the line, or were
    number      of the next message
    """

    def __init__(self, reach: Reach, place: Place) -> None:
        self.reach = reach
        self.place = place
        self.readers: set[WorkReader] = set()
        self.bytes_max = LINE_BYTES_MAX
        self._line: deque[Message] = deque()
        self._first = 0
        self._bytes = 0
        self._taken: dict[tuple[int, int], Taken] = {}

    @property
    def number(self) -> int:
        return self._first + len(self._line)

    @property
    def mask(self) -> int:
        """All kinds that any reader wants."""
        mask = 0
        for reader in self.readers:
            mask |= reader.mask
        return mask

    def put(self, messages: Sequence[Message]) -> None:
        """Put messages at the end of the line, and wake whom they concern."""
        self._taken.clear()
        kinds = 0
        for message in messages:
            kinds |= message.kind
            self._line.append(message)
            self._bytes += len(message.data)
        while self._bytes > self.bytes_max and len(self._line) > 1:
            self._drop_first()
        for reader in self.readers:
            if reader.mask & kinds:
                reader.woken.set()

    def forget(self) -> None:
        """Let go of what every reader has taken."""
        upto = min((reader.number for reader in self.readers), default=self.number)
        while self._line and self._first < upto:
            self._drop_first()
        self._taken.clear()

    def take(self, number: int, mask: int) -> Taken | None:
        """What comes from that number on, of the kinds in the mask; None where that is no longer all there.

        Readers that are side by side, as most are, are given the same bytes.
        """
        if number < self._first:
            return None
        taken = self._taken.get((number, mask))
        if taken is None:
            data = b"".join(message.data for message in self._from(number) if message.kind & mask)
            taken = self._taken[number, mask] = Taken(data, self.number, self.place)
        return taken

    def take_behind(self, number: int, mask: int, place: Place) -> Taken | None:
        """The same without the events up to `place`: for a reader who heard of them from a server that is ahead."""
        if number < self._first:
            return None
        data = b"".join(
            message.data
            for message in self._from(number)
            if message.kind & mask and (message.place is None or message.place > place)
        )
        return Taken(data, self.number, max(self.place, place))

    def _from(self, number: int) -> Iterator[Message]:
        return islice(self._line, number - self._first, None)

    def _drop_first(self) -> None:
        self._bytes -= len(self._line.popleft().data)
        self._first += 1
