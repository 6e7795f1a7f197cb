"""What the agent finds of its lane: the prompt and the lane as files, and its environment.

Each attempt has a private folder (0700, its files 0600) that goes with the attempt's end. A folder is locked for as
long as its worker lives, so that what a killed worker left behind is told from what is in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from heartlane.wire.variables import LANE_VARIABLES, PREFIX
from heartlane.worker.earlier import Earlier
from heartlane.worker.errors import WorkerError

PROMPT_FILE: Final = "prompt.md"
LANE_FILE: Final = "lane.json"
LOCK_FILE: Final = ".in-use"
SECRET_MIN: Final = 6
"""A shorter secret is not looked for in other variables: a token of Heartlane's has 43 random characters."""
_PREVIOUS: Final[Mapping[str, str]] = {
    "branch": "Branch",
    "pr_url": "Pull request",
    "phase": "Stopped in phase",
    "error": "Ended with",
    "session_id": "Session",
}


def full_prompt(run: Mapping[str, Any], earlier: Earlier) -> str:
    """The text for the agent: the lane's prompt (its title, where it has none), then what the last attempt left."""
    text = str(run.get("prompt") or run.get("title") or "").rstrip("\n")
    known = earlier.known()
    left = [f"- {name}: {' '.join(known[field].split())}\n" for field, name in _PREVIOUS.items() if field in known]
    if not left:
        return text + "\n"
    return (
        f"{text}\n\n## What the last attempt left\n\n"
        f"This is attempt {run.get('attempt')}. Look at what is there already, and go on with it.\n\n" + "".join(left)
    )


def lane_document(run: Mapping[str, Any], earlier: Earlier, **more: Any) -> dict[str, Any]:
    """The lane as the agent sees it: the run object as claimed, `previous`, and whatever else is not None."""
    return {**run, **{name: value for name, value in more.items() if value is not None}, "previous": earlier.known()}


class LaneFolder:
    """The folder of one attempt. Make it with `LaneFolder.create`; a context manager that removes it.

    path            the folder
    prompt_file     written by `write`
    lane_file       written by `write`
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.prompt_file = path / PROMPT_FILE
        self.lane_file = path / LANE_FILE
        self._lock = lock

    @classmethod
    def create(cls, parent: Path, run: Mapping[str, Any]) -> Self:
        """Make a new one below `parent`, which is made as needed. Raises WorkerError.

        Its name begins with the end of the run's id, which is the random part of it.
        """
        name = re.sub(r"[^0-9a-f]", "", str(run.get("id")).lower())[-8:] or "lane"
        try:
            parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            while True:
                path = Path(tempfile.mkdtemp(prefix=f"{name}-{run.get('attempt', 0)}-", dir=parent))
                lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
                if (path / LOCK_FILE).exists():
                    return cls(path, lock)
                os.close(lock)  # somebody who sweeps took it for left behind, between these lines
        except OSError as error:
            raise WorkerError(f"no folder can be made for the lane in {parent}: {error.strerror}", "unusable") from None

    def write(self, prompt: str, lane: Mapping[str, Any]) -> None:
        """Write the prompt and the lane (again). Raises WorkerError."""
        try:
            _write_private(self.prompt_file, prompt)
            _write_private(self.lane_file, json.dumps(lane, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise WorkerError(
                f"the lane's files can't be written in {self.path}: {error.strerror}", "unusable"
            ) from None

    def rewrite(self, lane: Mapping[str, Any]) -> None:
        """Write what is new about the lane, as far as the disk takes it: the agent has the old file else."""
        with contextlib.suppress(OSError):
            _write_private(self.lane_file, json.dumps(lane, indent=2, ensure_ascii=False) + "\n")

    def with_command(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment in which `heartlane` is found: where PATH has none, a script in this folder comes last in it.

        Raises WorkerError.
        """
        path = environment.get("PATH", os.defpath)
        if shutil.which("heartlane", path=path) is not None:
            return dict(environment)
        script = self.path / "bin" / "heartlane"
        try:
            script.parent.mkdir(mode=0o700, exist_ok=True)
            # -P: whatever modules the agent works on, they aren't ours.
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m heartlane "$@"\n', "utf-8")
            script.chmod(0o700)
        except OSError as error:
            raise WorkerError(f"no command can be written to {script}: {error.strerror}", "unusable") from None
        return {**environment, "PATH": os.pathsep.join([path, str(script.parent)])}

    def remove(self) -> None:
        """Remove the folder and all that is in it. Safe to repeat."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def sweep(parent: Path) -> list[Path]:
    """Remove the folders below `parent` that workers left behind when they were killed; which those were."""
    removed = []
    for path in sorted(parent.iterdir()) if parent.is_dir() else []:
        try:
            lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # none of ours, or not yet locked by the one that makes it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
        except OSError:
            pass  # in use
        finally:
            os.close(lock)
    return removed


def lane_environment(
    run: Mapping[str, Any],
    earlier: Earlier,
    *,
    worker_id: str,
    folder: LaneFolder | None = None,
    branch: str | None = None,
    socket: Path | None = None,
) -> dict[str, str]:
    """The variables of `LANE_VARIABLES` for this attempt, but for the mark; those with nothing to say are left out."""
    values: dict[str, Any] = {
        "RUN_ID": run.get("id"),
        "ATTEMPT": run.get("attempt"),
        "LANE_KEY": run.get("lane_key"),
        "TITLE": run.get("title"),
        "ROLE": run.get("role"),
        "PROMPT_FILE": folder and folder.prompt_file,
        "LANE_FILE": folder and folder.lane_file,
        "BRANCH": branch,
        "SOCKET": socket,
        "WORKER_ID": worker_id,
        **{f"PREVIOUS_{name.upper()}": value for name, value in earlier.known().items()},
    }
    return {PREFIX + name: str(value).replace("\0", "") for name, value in values.items() if value not in (None, "")}


def child_environment(own: Mapping[str, str], lane: Mapping[str, str], secrets: Iterable[str] = ()) -> dict[str, str]:
    """The agent's environment: the worker's own, without anything of Heartlane's, and the lane's variables.

    secrets     values that must not be in it, such as the token: a variable that holds one is left out
    """
    hidden = [secret for secret in secrets if len(secret) >= SECRET_MIN]
    kept = {
        name: value
        for name, value in own.items()
        if not name.upper().startswith(PREFIX) and not any(secret in value for secret in hidden)
    }
    unknown = set(lane) - set(LANE_VARIABLES)
    if unknown:
        raise ValueError(f"not among LANE_VARIABLES: {sorted(unknown)}")
    return {**kept, **lane}


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its user may read, whole or not at all: the agent may be reading the one before."""
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(text.encode("utf-8", "replace"))
    new.replace(path)
