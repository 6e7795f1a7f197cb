"""`heartlane ship`: from within a lane, say that it is done."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Final

from heartlane.cli.in_a_lane import parser, speak

FIELDS: Final = ("pr_url", "branch", "commit", "summary")


def _message(given: Namespace) -> dict[str, Any]:
    fields = {name: getattr(given, name) for name in FIELDS if getattr(given, name) is not None}
    return {"verb": "ship", **fields}


def main(arguments: list[str]) -> int:
    """Run `heartlane ship ARGUMENTS…`; its exit code."""
    options = parser("ship", "From within a lane: say that it is done, and what came of it.")
    options.add_argument("--pr-url", metavar="URL", help="the pull request")
    options.add_argument("--branch", metavar="NAME", help="the branch the work is on")
    options.add_argument("--commit", metavar="SHA", help="its last commit")
    options.add_argument("--summary", metavar="TEXT", help="what was done, for people")
    return speak(arguments, options, _message)
