"""How long a request may take to send its body: what nobody hears the end of would be held open for ever.

A timer for each body would cost a report more than reading it does. So the bodies under way are only noted, and one
timer looks now and then, while there are any, for those that are late.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

from heartlane.server.errors import Issue, invalid_request

BODY_SECONDS: Final = 60.0
"""Longest a body may take, from when it is asked for; as it is by default, 4 MiB come in that at 70 KB/s."""


class Patience:
    """The bodies that are being read, for one event loop. Used as `with patience:` around reading one.

    seconds     longest a body may take; it is interrupted at most a tenth later
    """

    def __init__(self, seconds: float = BODY_SECONDS) -> None:
        self.seconds = seconds
        self._reading: dict[asyncio.Task[Any] | None, float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._reading[asyncio.current_task()] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self.seconds / 10, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises the ApiError of a body that was interrupted for being late."""
        task = asyncio.current_task()
        self._reading.pop(task, None)
        if task is None or task not in self._late:
            return
        self._late.discard(task)
        if isinstance(error, asyncio.CancelledError) and not task.uncancel():
            raise invalid_request([Issue("body", f"must arrive within {self.seconds:g} s")]) from None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, began in self._reading.items():
            if task is not None and task not in self._late and now - began >= self.seconds:
                self._late.add(task)
                task.cancel()
        self._timer = loop.call_later(self.seconds / 10, self._look) if self._reading else None
