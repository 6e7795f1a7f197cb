"""The command `heartlane`: one table of its verbs, and the way to each.

A worker has to stay small, and the verbs that an agent calls while it works have to be quick (`QUICK`), so they parse
their arguments with the standard library's parser: loading typer alone takes several times as long as all that they do.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

from heartlane.cli.errors import INTERRUPTED, UNUSABLE, report_lines, wants_json

COMMANDS: Final = {
    "login": "Keep a token for all that follows, or log a browser in.",
    "logout": "Forget the token that is kept.",
    "serve": "Start the server.",
    "token": "Make, list, revoke and rotate the tokens that callers send.",
    "db": "Look after the database: check, back up, restore, prune, export, move.",
    "sessions": "See which browsers are logged in, and log them out.",
    "audit": "See who did what.",
    "work": "Claim lanes, and run an agent on each.",
    "spool": "See and send what workers could not send yet.",
    "worker": "Let the system start a worker by itself, as a service.",
    "doctor": "Check what a worker needs, and say how to mend what is missing.",
    "report": "From within a lane: say how it goes.",
    "ship": "From within a lane: say that it is done.",
    "fail": "From within a lane: say that it can't be done.",
    "lane": "Look at lanes, and steer them; alone: the lane that one is in.",
    "watch": "Watch the lanes as they change, what needs a hand first.",
    "lanes": "List the lanes that are on their way, narrowed as you like.",
    "workers": "Who is here, and what each of them holds.",
    "plan": "Make plans from files, and approve or reject them.",
    "projects": "Make, list and set up projects.",
    "milestones": "Make, list and close milestones.",
    "tickets": "Make, list, move, close and import tickets.",
    "webhooks": "Send a project's news to Slack, Discord or a service.",
    "notices": "See what needs a person.",
    "budget": "Bound what a project may cost, and let it go on.",
    "overview": "How the work goes: time, failures, tokens and cost.",
}
"""Name → what it does. `heartlane.cli.<name>` has the typer app of that name, or for `QUICK` its `main`."""

GROUPS: Final = {
    "Run a server": ("serve", "token", "sessions", "audit", "db"),
    "Run the fleet": (
        *("watch", "lanes", "lane", "workers", "plan", "projects", "milestones", "tickets"),
        *("webhooks", "notices", "budget", "overview"),
    ),
    "Who you are": ("login", "logout"),
    "Run a worker": ("work", "worker", "doctor", "spool"),
    "From within a lane": ("report", "ship", "fail"),
}
"""Heading → the commands that `--help` lists under it; others stand before them all."""

QUICK: Final = frozenset({"report", "ship", "fail", "lane", "work"})
"""Verbs that parse their own arguments: `heartlane.cli.<name>.main(arguments)` returns the exit code."""


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. What goes wrong is one line on stderr."""
    try:
        if arguments and arguments[0] in QUICK:
            code: int = import_module(f"heartlane.cli.{arguments[0]}").main(arguments[1:])
            return code
        from heartlane.cli.group import run_typed

        return run_typed(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return UNUSABLE
    except Exception as error:
        # A command line without a command asks for help: the parser has it as the error's text.
        if type(error).__name__ == "NoArgsIsHelpError":
            print(str(error))
            return 0
        reported = report_lines(error, as_json=wants_json(arguments))
        if reported is None:
            raise
        lines, exit_code = reported
        for line in lines:
            print(line, file=sys.stderr)
        return exit_code


def main() -> None:
    """The entry point of `heartlane` and `python -m heartlane`."""
    sys.exit(run(sys.argv[1:]))
