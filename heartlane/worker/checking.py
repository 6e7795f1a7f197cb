"""Runs the success command: what has to pass before a lane ships."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from heartlane.client.lease import Standing
from heartlane.worker.child import HUNG_GUARD_SECONDS, Child
from heartlane.worker.keeper import Keeper
from heartlane.worker.leave import Leave
from heartlane.worker.limits import RunningTime, spoken
from heartlane.worker.reader import Reader, Stream
from heartlane.worker.starting import Checked, start
from heartlane.worker.telling import Teller
from heartlane.worker.text import last_lines, raw_line
from heartlane.worker.verdict import Verdict

LOOK_SECONDS: Final = 0.25
GRACE_SECONDS: Final = 5.0
FREEZE_SECONDS: Final = 1.0
"""How long a pause waits for its effect; the guard goes on trying, and the lease is not kept waiting."""
OUTPUT_SHOWN_MAX: Final = 1_500
"""Characters of a failed check's output in the reason."""


def run_check(
    command: str,
    environment: Mapping[str, str],
    cwd: Path,
    *,
    teller: Teller,
    keeper: Keeper,
    leave: Leave,
    outlive: Callable[[Child], bool],
    stopping: threading.Event,
    seconds_max: float,
) -> Checked:
    """Run a shell command that has to pass; its output goes into the run's log. Raises WorkerError.

    It is begun, frozen, thawed and ended with the lease, as the agent is, and stands still while an operator has paused
    the lane. What it stood still isn't counted.

    outlive     waits until what can't be ended of it is gone
    seconds_max how long it may run
    """
    wake = threading.Event()
    tail: list[str] = []

    def on_lines(stream: Stream, lines: list[str]) -> None:
        shown = [text for line in lines if (text := raw_line(line))]
        tail.extend(shown)
        del tail[:-50]
        teller.put([{"type": "log_line", "payload": {"line": text, "stream": f"success {stream}"}} for text in shown])

    child = leave.begin(lambda: start(["/bin/sh", "-c", command], environment, cwd, keeper.lease.ends_at, wake))
    if isinstance(child, Verdict):
        return Checked(False, "The success command was not begun.", interrupted=True)
    began = time.monotonic()
    running = RunningTime(began)
    paused = ended_by_us = too_long = False
    with child, Reader(child.stdout, child.stderr, on_lines) as reader:
        while child.exit is None and not child.empty:
            wake.wait(LOOK_SECONDS)
            wake.clear()
            child.set_deadline(keeper.lease.ends_at)
            if keeper.paused != paused:
                paused = keeper.paused
                (child.freeze if paused else child.thaw)(FREEZE_SECONDS)
            now = time.monotonic()
            (running.hold if child.frozen else running.go_on)(now)
            over = keeper.loss is not None or keeper.standing() is Standing.GONE
            if (over or stopping.is_set() or keeper.told_to_stop) and not ended_by_us:
                ended_by_us = True
                child.stop(GRACE_SECONDS)
            if running.seconds(now) > seconds_max and not too_long:
                too_long = True
                child.stop(GRACE_SECONDS)
        child.stop(GRACE_SECONDS)
        if not child.wait_empty(GRACE_SECONDS * 2) and child.kill(HUNG_GUARD_SECONDS):
            outlive(child)
        if not reader.join(GRACE_SECONDS):
            reader.close()
    passed = child.exit is not None and child.exit.code == 0 and not (ended_by_us or too_long)
    ms = int((time.monotonic() - began) * 1000)
    teller.tell("action", tool="success", command=command, ok=passed, ms=ms)
    if passed:
        return Checked(True, "")
    how = f"was ended after {spoken(seconds_max)}" if too_long else f"ended with {child.exit}"
    shown = last_lines("\n".join(tail), OUTPUT_SHOWN_MAX)
    return Checked(False, f"The success command {how}." + (f"\n{shown}" if shown else ""), interrupted=ended_by_us)
