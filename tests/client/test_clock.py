"""The clock by which leases are counted."""

from __future__ import annotations

import sys
import time

from heartlane.client.clock import sleepless


def test_it_goes_on_while_the_machine_sleeps() -> None:
    counting = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}.get(sys.platform)
    expected = time.monotonic if counting is None else lambda: time.clock_gettime(getattr(time, counting))
    before, now, after = expected(), sleepless(), expected()
    assert before <= now <= after
