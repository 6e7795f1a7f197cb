"""What a spool keeps in memory while the disk takes nothing. Not for several threads."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator
from typing import NamedTuple


class Remembered(NamedTuple):
    """An event: its number in the spool, its type, its JSON."""

    number: int
    kind: str
    event: bytes


class Memory:
    """Events in their order. `size`: bytes of them together."""

    def __init__(self) -> None:
        self.size = 0
        self._events: deque[Remembered] = deque()

    def __bool__(self) -> bool:
        return bool(self._events)

    def add(self, number: int, kind: str, event: bytes) -> None:
        """Keep one more."""
        self._events.append(Remembered(number, kind, event))
        self.size += len(event)

    @property
    def first(self) -> Remembered:
        """The oldest. There must be one."""
        return self._events[0]

    def pop(self) -> None:
        """Forget the oldest."""
        self.size -= len(self._events.popleft().event)

    def forget(self, last: int) -> None:
        """Forget all up to this number."""
        while self._events and self._events[0].number <= last:
            self.pop()

    def after(self, number: int) -> Iterator[Remembered]:
        """Those with a higher number."""
        return (held for held in self._events if held.number > number)

    def evict(self, kinds: Collection[str], after: int) -> Counter[str]:
        """Forget all of these kinds with a number above `after`; returns how many of each."""
        evicted: Counter[str] = Counter()
        kept: deque[Remembered] = deque()
        for held in self._events:
            if held.kind in kinds and held.number > after:
                evicted[held.kind] += 1
                self.size -= len(held.event)
            else:
                kept.append(held)
        self._events = kept
        return evicted
