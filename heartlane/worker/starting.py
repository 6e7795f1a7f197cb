"""Starts commands under their guard."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from heartlane.worker.child import Child
from heartlane.worker.child_errors import ChildError, CommandNotExecutable, CommandNotFound, TooLate
from heartlane.worker.errors import WorkerError


class Checked(NamedTuple):
    """What a check came to. `message` says in a sentence why it didn't pass; interrupted: it was ended by us."""

    passed: bool
    message: str
    interrupted: bool = False


def start(
    argv: list[str], environment: Mapping[str, str], cwd: Path, deadline: float | None, wake: threading.Event
) -> Child:
    """Start a command under its guard; `wake` is set whenever its state changes.

    Raises TooLate where `deadline` had passed before it could run anything; WorkerError for what doesn't pass by.
    """
    try:
        return Child.start(argv, env=environment, cwd=cwd, deadline=deadline, on_change=lambda child: wake.set())
    except CommandNotFound as error:
        raise WorkerError(f"{error}: install it, or correct the command", "command_not_found") from error
    except CommandNotExecutable as error:
        raise WorkerError(str(error), "not_executable") from error
    except TooLate:
        raise
    except ChildError as error:
        raise WorkerError(str(error), "unusable") from error
