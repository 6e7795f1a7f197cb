"""The clock by which leases are counted: it goes on while the machine sleeps, and nobody sets it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final


def _sleepless_clock() -> Callable[[], float]:
    """CLOCK_BOOTTIME on Linux; macOS counts sleep in CLOCK_MONOTONIC already; elsewhere what there is."""
    number = getattr(time, "CLOCK_BOOTTIME", None)
    if number is None and sys.platform == "darwin":
        number = time.CLOCK_MONOTONIC
    if number is None:
        return time.monotonic
    return lambda: time.clock_gettime(number)


sleepless: Final = _sleepless_clock()
"""Seconds since some moment in the past, sleep included."""
