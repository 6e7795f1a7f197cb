"""Where a worker keeps its files: one folder of the user's, with a part for each kind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


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
