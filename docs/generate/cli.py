"""Every verb of the command line, with its help as it is printed."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from typer.main import get_command

from docs.generate.markdown import fence
from heartlane.cli.main import COMMANDS, run

COLUMNS: Final = 100
_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")


def reference() -> str:
    """Each verb under a heading of its own."""
    return "\n\n".join(
        f"## {' '.join(['heartlane', *verb])}\n\n{fence(help_of(verb), 'text')}" for verb in [[], *verbs()]
    )


def verbs() -> Iterator[list[str]]:
    """Every verb, families before their members: `["token"]`, `["token", "create"]`, …"""
    for name in COMMANDS:
        app = getattr(import_module(f"heartlane.cli.{name}"), "app", None)
        yield from _verbs_of([name], None if app is None else get_command(app))


def _verbs_of(path: list[str], command: Any) -> Iterator[list[str]]:
    yield path
    for name, member in getattr(command, "commands", {}).items():
        yield from _verbs_of([*path, name], member)


def help_of(verb: list[str]) -> str:
    """What `heartlane VERB --help` prints on a terminal of so many columns, without colours."""
    printed = io.StringIO()
    with _plain_terminal(), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        run([*verb, "--help"])
    # Where a variable of the environment forces a terminal's style, bold letters come all the same.
    lines = [line.rstrip() for line in _STYLE.sub("", printed.getvalue()).splitlines()]
    return "\n".join(lines).strip("\n")


@contextlib.contextmanager
def _plain_terminal() -> Iterator[None]:
    wanted = {"COLUMNS": str(COLUMNS), "LINES": "50", "NO_COLOR": "1", "TERM": "dumb"}
    before = dict(os.environ)
    for name in [name for name in os.environ if name in ("FORCE_COLOR", "PY_COLORS", "TERMINAL_WIDTH")]:
        del os.environ[name]
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
