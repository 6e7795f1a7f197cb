"""Where a worker keeps its files: one folder of the user's, with a part for each kind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from heartlane.worker.errors import WorkerError


class Places(NamedTuple):
    """The parts of a state folder. None of them need exist.

    lanes       private files of lanes that are being worked
    worktrees   worktrees of lanes
    spool       events that the server hasn't taken yet
    """

    state: Path
    lanes: Path
    worktrees: Path
    spool: Path


def places(state: Path | None = None, environment: Mapping[str, str] = os.environ) -> Places:
    """The state folder: the one given, else HEARTLANE_STATE, else the user's own for such files."""
    named = state or environment.get("HEARTLANE_STATE")
    if named:
        folder = Path(named).expanduser().absolute()
    else:
        from platformdirs import user_state_path  # noqa: PLC0415 - only where nothing is named

        folder = user_state_path("heartlane", appauthor=False)
    return Places(folder, folder / "lanes", folder / "worktrees", folder / "spool")


def make(found: Places) -> None:
    """Make sure that a worker can keep its files there, before it takes on anything. Raises WorkerError."""
    for folder in (found.lanes, found.spool):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise WorkerError(
                f"the worker can't keep its files in {folder}: {error.strerror}: name another folder with --state, or "
                "set HEARTLANE_STATE",
                "unusable",
            ) from None
