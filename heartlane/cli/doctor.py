"""`heartlane doctor`: what a worker needs, what of it is missing, and what to do about that."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from heartlane.cli.errors import UNUSABLE, CommandError

if TYPE_CHECKING:
    from heartlane.worker.doctor import Finding

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "red"}


@app.command()
def doctor(
    *,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="The server. Default: HEARTLANE_URL.", show_default=False),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option("--agent", metavar="NAME", help="Look at this agent too: claude, codex, …", show_default=False),
    ] = None,
    worktree: Annotated[
        Path | None,
        typer.Option("--worktree", metavar="REPO", help="Look at this repository too.", show_default=False),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FOLDER",
            help="Where the worker keeps its files. Default: HEARTLANE_STATE, else the user's state folder.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
) -> None:
    """Check what a worker needs, and say what to do about what is missing. Exit code 1 when something is."""
    from heartlane.client.logins import current_url, stored_token
    from heartlane.worker.doctor import AgentInfo, Patient, examine
    from heartlane.worker.places import places

    known: AgentInfo | None = None
    if agent is not None:
        from heartlane.worker import agents

        try:
            known = agents.agent(agent)
        except (agents.UnknownAgent, agents.BadAgent) as error:
            raise CommandError(str(error)) from None
    server = url or os.environ.get("HEARTLANE_URL") or current_url()
    patient = Patient(
        url=server,
        token=os.environ.get("HEARTLANE_TOKEN") or (stored_token(server) if server else None),
        places=places(state),
        agent=known,
        repository=worktree,
    )
    findings = []
    for finding in examine(patient):
        findings.append(finding)
        if not as_json:
            _show(finding)
    problems = sum(finding.level == "problem" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not problems, "findings": [finding._asdict() for finding in findings]}, indent=2))
    else:
        print(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}.")
    if problems:
        raise typer.Exit(UNUSABLE)


def _show(finding: Finding) -> None:
    level = f"{finding.level:<8}"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        level = typer.style(level, COLOURS[finding.level])
    print(f"{level} {finding.check:<9} {finding.says}", flush=True)
    if finding.cure:
        print(f"{'':<18} {finding.cure}", flush=True)


def _count(number: int, what: str) -> str:
    """
    >>> _count(1, "problem"), _count(0, "warning")
    ('1 problem', 'no warnings')
    """
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
