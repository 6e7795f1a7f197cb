"""The clock that leases are counted on: it goes on while the machine sleeps."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # the guard imports this: see there
    from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""On Linux CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC does the same."""


def boottime() -> float:
    """Seconds since an unknown point in the past, the time in which the machine slept included. It never jumps."""
    return time.clock_gettime(_CLOCK)
