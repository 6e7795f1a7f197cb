"""Bursts of log lines: so many a second pass, the rest is counted, and said in one line.

Nobody reads a million lines, and no server wants them. What is left out is said where it was ("… 48,211 lines left
out"), followed by the last of them, which is the one that tells how far it got. Actions, phases, errors and results
always pass.
"""

from __future__ import annotations

import threading
from typing import Final

from heartlane.worker.event import Event

LINES_PER_SECOND: Final = 200
WINDOW_SECONDS: Final = 1.0

_ENDS: Final = frozenset({"error", "ship_complete"})
"""What may be the last event of a run: nothing that came before may come after it."""


class Coalescer:
    """Thins out log lines. For several threads.

    lines_per_second    how many log_line events pass in a window of a second, at least 3, those that speak of what
                        was left out among them
    """

    def __init__(self, lines_per_second: int = LINES_PER_SECOND) -> None:
        if lines_per_second < 3:
            raise ValueError("lines_per_second must be at least 3")
        self.left_out = 0
        """Lines left out so far."""
        self._most = lines_per_second - 2
        self._lock = threading.Lock()
        self._window_ends = float("-inf")
        self._passed = 0
        self._waiting = 0
        self._last: Event | None = None

    def add(self, event: Event, now: float) -> list[Event]:
        """What is to be sent for this event, in order: itself, nothing, or what was left out before it as well.

        `now` is `time.monotonic()`.
        """
        with self._lock:
            if event["type"] != "log_line":
                return [*self._close(), event] if event["type"] in _ENDS else [event]
            out = []
            if now >= self._window_ends:
                out = self._close()
                self._window_ends = now + WINDOW_SECONDS
                self._passed = 0
            if self._passed < self._most:
                self._passed += 1
                out.append(event)
            else:
                self._waiting += 1
                self._last = event
            return out

    def flush(self, now: float) -> list[Event]:
        """What was left out, once its second is over. To be called every second or so."""
        with self._lock:
            return self._close() if now >= self._window_ends else []

    def end(self) -> list[Event]:
        """What was left out, at the end of the output."""
        with self._lock:
            return self._close()

    def _close(self) -> list[Event]:
        if self._last is None:
            return []
        last, count = self._last, self._waiting - 1
        self._last, self._waiting = None, 0
        self.left_out += count
        return [left_out(count, last.get("at")), last] if count else [last]


def left_out(count: int, at: str | None = None, why: str = "") -> Event:
    """The log line that says how many lines were left out, and why."""
    lines = "line" if count == 1 else "lines"
    event: Event = {"type": "log_line", "payload": {"line": f"… {count:,} {lines} left out{why}", "left_out": count}}
    if at is not None:
        event["at"] = at
    return event
