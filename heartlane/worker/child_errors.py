"""Why a command was not started, from what its guard said."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from heartlane.worker.errors import Kind, WorkerError


class ChildError(WorkerError):
    """The command was not started."""

    def __init__(self, message: str, kind: Kind = "unusable") -> None:
        super().__init__(message, kind)


class CommandNotFound(ChildError):
    """There is no such program."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "command_not_found")


class CommandNotExecutable(ChildError):
    """The file is there but can't be run: no permission, no interpreter, not a program of this machine."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "not_executable")


class FolderUnusable(ChildError):
    """The folder to run in is not there or can't be entered."""


class TooLate(ChildError):
    """The deadline had passed before the command's first instruction: nothing of it has run."""


class GuardFailed(ChildError):
    """The guard didn't start or didn't answer: no processes left, no memory, a broken Python."""


def no_answer(stderr: int) -> GuardFailed:
    """The exception for a guard that said nothing: if Python itself failed, it said why on standard error."""
    os.set_blocking(stderr, False)
    try:
        lines = os.read(stderr, 65_536).decode(errors="replace").split("\n")
    except BlockingIOError:
        lines = []
    said = [line for line in lines if line.strip()]
    return GuardFailed("the command's guard doesn't answer" + (f": {said[-1]}" if said else ""))


def explain(failure: str, program: str, env: Mapping[str, str], cwd: str | Path) -> ChildError:
    """The exception for what the guard said had failed: `STAGE ERRNO`."""
    stage, number = failure.split(" ")
    reason = os.strerror(int(number))
    if stage == "fork":
        return GuardFailed(f"no process can be started: {reason}")
    if stage == "deadline":
        return TooLate("it was not started: its deadline had passed")
    if stage == "folder":
        return FolderUnusable(f"can't run in {os.fspath(cwd)}: {reason}")
    if int(number) == errno.ENOENT:
        found = program if os.sep in program else shutil.which(program, path=env.get("PATH", os.defpath))
        if found is None or not Path(cwd, found).exists():
            return CommandNotFound(f"command not found: {program}")
        return CommandNotExecutable(f"can't run {found}: the interpreter that it names is not there")
    if int(number) == errno.ENOEXEC:
        return CommandNotExecutable(f"can't run {program}: it is no program of this machine, and names no interpreter")
    if int(number) == errno.ENOTDIR:
        return CommandNotFound(f"command not found: {program}")
    if int(number) == errno.E2BIG:
        return ChildError(f"can't run {program}: the arguments and the environment are too long", "prompt_unusable")
    return CommandNotExecutable(f"can't run {program}: {reason}")
