"""Starts commands under their guard, and runs the success command to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from heartlane.client.lease import Standing
from heartlane.worker.child import Child, ChildError, CommandNotExecutable, CommandNotFound
from heartlane.worker.errors import WorkerError
from heartlane.worker.keeper import Keeper
from heartlane.worker.limits import spoken
from heartlane.worker.reader import Reader, Stream
from heartlane.worker.telling import Teller
from heartlane.worker.text import last_lines, raw_line

LOOK_SECONDS: Final = 0.25
GRACE_SECONDS: Final = 5.0
OUTPUT_SHOWN_MAX: Final = 1_500
"""Characters of a failed check's output in the reason."""


def start(
    argv: list[str], environment: Mapping[str, str], cwd: Path, deadline: float | None, wake: threading.Event
) -> Child:
    """Start a command under its guard; `wake` is set whenever its state changes. Raises WorkerError."""
    try:
        return Child.start(argv, env=environment, cwd=cwd, deadline=deadline, on_change=lambda child: wake.set())
    except CommandNotFound as error:
        raise WorkerError(f"{error}: install it, or correct the command", "command_not_found") from error
    except CommandNotExecutable as error:
        raise WorkerError(str(error), "not_executable") from error
    except ChildError as error:
        raise WorkerError(str(error), "unusable") from error


class Checked(NamedTuple):
    """What a check came to. `message` says in a sentence why it didn't pass; interrupted: it was ended by us."""

    passed: bool
    message: str
    interrupted: bool = False


def run_check(
    command: str,
    environment: Mapping[str, str],
    cwd: Path,
    *,
    teller: Teller,
    keeper: Keeper,
    stopping: threading.Event,
    seconds_max: float,
) -> Checked:
    """Run a shell command that has to pass; its output goes into the run's log. Raises WorkerError.

    It is frozen, thawed and ended with the lease, as the agent is.
    """
    wake = threading.Event()
    began = time.monotonic()
    tail: list[str] = []

    def on_lines(stream: Stream, lines: list[str]) -> None:
        shown = [text for line in lines if (text := raw_line(line))]
        tail.extend(shown)
        del tail[:-50]
        teller.put([{"type": "log_line", "payload": {"line": text, "stream": f"success {stream}"}} for text in shown])

    child = start(["/bin/sh", "-c", command], environment, cwd, keeper.lease.ends_at, wake)
    ended_by_us = too_long = False
    with child, Reader(child.stdout, child.stderr, on_lines) as reader:
        while child.exit is None and not child.empty:
            wake.wait(LOOK_SECONDS)
            wake.clear()
            child.set_deadline(keeper.lease.ends_at)
            over = keeper.loss is not None or keeper.standing() is Standing.GONE
            if (over or stopping.is_set()) and not ended_by_us:
                ended_by_us = True
                child.stop(GRACE_SECONDS)
            if time.monotonic() - began > seconds_max and not too_long:
                too_long = True
                child.stop(GRACE_SECONDS)
        child.stop(GRACE_SECONDS)
        child.wait_empty(GRACE_SECONDS * 2)
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
