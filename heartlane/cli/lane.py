"""`heartlane lane`: alone, the lane that one is in; with a verb behind it, any lane.

An agent calls it alone while it works, and then it has to be quick: what the verbs are made of is loaded for them only.
"""

from __future__ import annotations

from typing import Any


def main(arguments: list[str]) -> int:
    """Run `heartlane lane ARGUMENTS…`; its exit code."""
    if all(argument == "--json" for argument in arguments):
        from heartlane.cli import this_lane

        return this_lane.main(arguments)
    from heartlane.cli.group import run_typed

    return run_typed(["lane", *arguments])


def __getattr__(name: str) -> Any:
    if name == "app":  # what typer parses the verbs by
        from heartlane.cli.lane_verbs import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
