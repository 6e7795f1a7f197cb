"""Lets requests in, counts those inside, and closes when the server shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Open until `close`; then new requests are refused with 503, and `emptied` waits for those inside."""

    def __init__(self) -> None:
        self.inside = 0
        self._closed = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def is_open(self) -> bool:
        """Whether new requests may enter."""
        return not self._closed.is_set()

    def enter(self) -> None:
        """Count one request in."""
        self.inside += 1
        if self.inside == 1:
            self._empty.clear()

    def leave(self) -> None:
        """Count it out again."""
        self.inside -= 1
        if self.inside == 0:
            self._empty.set()

    @contextmanager
    def stepped_out(self) -> Iterator[None]:
        """Somebody inside doesn't count for the length of this block: a stream, which ends when the gate closes."""
        self.leave()
        try:
            yield
        finally:
            self.enter()

    def close(self) -> None:
        """Refuse new requests from now on."""
        self._closed.set()

    async def closed(self) -> None:
        """Return once the gate is closed."""
        await self._closed.wait()

    async def emptied(self, seconds: float) -> bool:
        """Wait until nobody is inside, for `seconds` at most; whether that came to be."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
