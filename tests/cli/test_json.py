"""Every verb that reads or changes something prints JSON for programs, too."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from typer.main import get_command

from heartlane.cli.main import COMMANDS, QUICK

OTHERWISE = {
    "serve": "stays, and logs JSON by --log-format",
    "worker install": "writes a service, which it prints first",
    "worker uninstall": "takes it away again",
    "doctor": "reports by --json alone: its lines are no list of things",
    "spool show": "prints a line of JSON for each event anyway",
    "spool flush": "sends; spool list --json says what is left",
    "spool discard": "drops; spool list --json says what is left",
    "spool list": "lists files of this machine by --json alone",
    "plan init": "prints a file to begin with",
    "plan schema": "prints a JSON Schema",
    "audit export": "prints a line of JSON for each entry anyway",
}
"""Verbs that print for programs otherwise, or have nothing to say to them."""
IMPORTS = "tickets import "
"""These have the one shape of an import's result, by --json alone."""
DATABASE = "db "
"""These have nothing to list; what they find is an exit code."""


def verbs(path: str, command: Any) -> Iterator[tuple[str, set[str]]]:
    """Every verb with its options."""
    family = getattr(command, "commands", None)
    if family is None:
        yield path, {name for parameter in command.params for name in parameter.opts}
        return
    for name, member in family.items():
        yield from verbs(f"{path} {name}", member)


def test_every_verb_prints_json() -> None:
    found = {
        path: options
        for name in COMMANDS
        if name not in QUICK
        for path, options in verbs(name, get_command(import_module(f"heartlane.cli.{name}").app))
    }
    assert OTHERWISE.keys() <= found.keys()
    missing = [
        path
        for path, options in found.items()
        if not {"--json", "--output"} <= options and path not in OTHERWISE and not path.startswith((IMPORTS, DATABASE))
    ]
    assert missing == []
    assert all("--json" in options for path, options in found.items() if path.startswith(IMPORTS))
