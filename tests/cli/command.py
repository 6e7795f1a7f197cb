"""Runs `heartlane` as people do: a process of its own, with an environment that says only what the test says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without any setting of Heartlane's, and the given variables."""
    bare = {name: value for name, value in os.environ.items() if not name.upper().startswith("HEARTLANE_")}
    path = os.pathsep.join(filter(None, [str(ROOT), bare.get("PYTHONPATH", "")]))
    return {**bare, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1", **variables}


def heartlane(*arguments: str, cwd: Path | None = None, **variables: str) -> Ended:
    """Run `heartlane ARGUMENTS…` to its end."""
    ended = subprocess.run(
        [sys.executable, "-m", "heartlane", *arguments],
        env=environment(**variables),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def assert_one_line(ended: Ended, code: int) -> str:
    """The command ended with this code, said one line on stderr and nothing on stdout; the line."""
    assert ended.code == code, ended
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("heartlane: ")
    return lines[0].removeprefix("heartlane: ")
