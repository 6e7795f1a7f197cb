"""`heartlane report`: from within a lane, say how it goes."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Final

from heartlane.cli.in_a_lane import Parser, parser, speak
from heartlane.worker.errors import WorkerError

EXAMPLES: Final = """\
examples:
  heartlane report --phase tests --log "41 passed, 1 failed"
  heartlane report --action edit --file src/totals.py
  heartlane report --action shell --command "make test" --failed --ms 5300
  heartlane report --waiting permission --log "May I delete the old table?"
  heartlane report --branch totals --pr-url https://github.com/me/shop/pull/7
"""
OF_ACTIONS: Final = ("file", "command", "ok", "ms", "branch", "pr_url")


def _options() -> Parser:
    options = parser("report", "From within a lane: say how it goes. At least one option has to be given.", EXAMPLES)
    options.add_argument("--phase", metavar="PHASE", help="what the work is at, such as tests or review")
    options.add_argument("--log", metavar="LINE", help="a line for the log")
    options.add_argument("--waiting", metavar="FOR", help="a person is waited for: permission, an answer, …")
    action = options.add_argument_group("an action, shown in the log")
    action.add_argument("--action", metavar="TOOL", help="what was done: edit, shell, …")
    action.add_argument("--file", metavar="PATH", help="the file it was done to")
    action.add_argument("--command", metavar="TEXT", help="the command that was run")
    ended = action.add_mutually_exclusive_group()
    ended.add_argument("--ok", action="store_true", default=None, help="it went well")
    ended.add_argument("--failed", dest="ok", action="store_false", default=None, help="it did not")
    action.add_argument("--ms", type=int, metavar="N", help="how long it took, in milliseconds")
    action.add_argument("--branch", metavar="NAME", help="the branch; the next attempt is told of it")
    action.add_argument("--pr-url", metavar="URL", help="the pull request; the next attempt is told of it")
    return options


def _message(given: Namespace) -> dict[str, Any]:
    if given.phase is not None and given.waiting is not None:
        raise WorkerError("--waiting is a phase by itself: give it or --phase, not both", "wrong_input")
    if given.ms is not None and given.ms < 0:
        raise WorkerError(f"--ms must be 0 or more, not {given.ms}", "wrong_input")
    message: dict[str, Any] = {"verb": "report", "events": []}
    if given.phase is not None:
        message["phase"] = given.phase
    if given.log is not None:
        message["log"] = given.log
    payload = {name: getattr(given, name) for name in OF_ACTIONS if getattr(given, name) is not None}
    if given.action is not None or payload:
        message["events"].append({"type": "action", "payload": {"tool": given.action or "report", **payload}})
    if given.waiting is not None:
        message["events"].append({"type": "phase_change", "payload": {"phase": "waiting", "for": given.waiting}})
    return message


def main(arguments: list[str]) -> int:
    """Run `heartlane report ARGUMENTS…`; its exit code."""
    return speak(arguments, _options(), _message)
