"""Lets requests in, knows those inside, closes when the server shuts down, and at last gives up what takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

INTERRUPTED_SECONDS: Final = 0.2
"""How long a request that is interrupted gets to answer that it was, before it is interrupted once more."""


class Gate:
    """Open until `close`; then new requests are refused with 503, and `emptied` waits for those inside.

    gave_up     whether those inside have been interrupted: one that sees itself cancelled answers 503 then
    """

    def __init__(self) -> None:
        self.gave_up = False
        self._inside: set[asyncio.Task[Any] | None] = set()
        self._closed = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def inside(self) -> int:
        """How many requests are inside."""
        return len(self._inside)

    @property
    def is_open(self) -> bool:
        """Whether new requests may enter."""
        return not self._closed.is_set()

    def enter(self) -> asyncio.Task[Any] | None:
        """Let the request of this task in. Returns the task, for `leave`: it costs the most to look up."""
        if not self._inside:
            self._empty.clear()
        task = asyncio.current_task()
        self._inside.add(task)
        return task

    def leave(self, task: asyncio.Task[Any] | None) -> None:
        """Let it out again."""
        self._inside.discard(task)
        if not self._inside:
            self._empty.set()

    @contextmanager
    def stepped_out(self) -> Iterator[None]:
        """Somebody inside doesn't count for the length of this block: a stream, which ends when the gate closes."""
        self.leave(asyncio.current_task())
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

    async def give_up(self) -> None:
        """Interrupt the requests inside, so that each of them answers that it was."""
        self.gave_up = True
        # A database driver that is interrupted takes leave of its connection politely, for seconds if nobody answers;
        # it does so no longer when it is interrupted in that.
        for _ in range(2):
            for task in list(self._inside):
                if task is not None:
                    task.cancel()
            if await self.emptied(INTERRUPTED_SECONDS):
                return
