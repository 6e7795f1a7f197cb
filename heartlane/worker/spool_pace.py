"""When the next batch goes: soon after the first event that follows a silence, and rarely under a stream of them."""

from __future__ import annotations

from typing import Final

GATHER_SECONDS: Final = 0.1
"""How long the first event after a silence waits for what is printed with it."""


class Pace:
    """Times are seconds of one clock. Where the past isn't known (events that were found on the disk) nothing waits."""

    def __init__(self) -> None:
        self._first_at = 0.0
        self._handed_at = 0.0

    def came(self, now: float) -> None:
        """The first event came that waits for a batch."""
        self._first_at = now

    def handed(self, now: float) -> None:
        """A new batch was handed out."""
        self._handed_at = now

    def ready_at(self, linger: float) -> float:
        """When the events that wait are a batch: `linger` after the last one, and never longer after the first event.

        >>> pace = Pace()
        >>> pace.handed(100)
        >>> pace.came(100.3)
        >>> pace.ready_at(1.0)
        101.0
        >>> pace.came(150)
        >>> pace.ready_at(1.0), pace.ready_at(0.0)
        (150.1, 150.0)
        """
        gathered_at = self._first_at + min(linger, GATHER_SECONDS)
        return max(gathered_at, min(self._first_at, self._handed_at) + linger)
