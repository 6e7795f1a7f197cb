"""Programs that tests put into a PATH: Python under a name of its own, wherever its interpreter is."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def write_program(path: Path, text: str) -> Path:
    """Make `path` a program that runs this Python. (A script's first line can't name a path with a space in it.)"""
    source = path.with_name(f"{path.name}.py")
    source.write_text(text, "utf-8")
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(source))} "$@"\n', "utf-8")
    path.chmod(0o755)
    return path
