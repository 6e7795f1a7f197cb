"""`heartlane lane` alone: from within a lane, show what it is."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any, Final

from heartlane.cli.in_a_lane import parser, speak

LINES: Final = (
    ("lane", "lane_key"),
    ("title", "title"),
    ("role", "role"),
    ("run", "id"),
    ("attempt", "attempt"),
    ("state", "state"),
    ("phase", "phase"),
    ("branch", "branch"),
    ("worker", "worker_id"),
    ("lease until", "lease_expires_at"),
    ("prompt file", "prompt_file"),
)
"""What a line is called, and the field of the lane it shows. A field that isn't there has no line."""


def _show(given: Namespace, answer: dict[str, Any]) -> None:
    lane = answer.get("lane", {})
    if given.json:
        print(json.dumps(lane, indent=2, ensure_ascii=False))
        return
    lines = [(name, lane[field]) for name, field in LINES if lane.get(field) is not None]
    lines += [("ticket", f"{ticket['title']} ({ticket['id']})") for ticket in lane.get("tickets") or []]
    previous = lane.get("previous") or {}
    lines += [(f"last {name.replace('_', ' ')}", value) for name, value in previous.items() if value is not None]
    width = max((len(name) for name, _ in lines), default=0) + 2
    for name, value in lines:
        print(f"{name + ':':<{width}}{' '.join(_plain(str(value)).split())}")
    if lane.get("prompt"):
        print()
        print(_plain(str(lane["prompt"])))


def _plain(text: str) -> str:
    """The text without what a terminal would take for a command.

    >>> _plain("a\\x1b[2Jb\\n")
    'a?[2Jb\\n'
    """
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in text)


def main(arguments: list[str]) -> int:
    """Run `heartlane lane [--json]`; its exit code."""
    options = parser("lane", "From within a lane: show what it is.")
    options.add_argument("--json", action="store_true", help="all of it, as JSON")
    return speak(arguments, options, lambda given: {"verb": "lane"}, _show)
