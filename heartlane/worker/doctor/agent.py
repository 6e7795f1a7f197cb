"""The agent's program: there, running, and logged in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from heartlane.worker.doctor.findings import AgentInfo, Finding
from heartlane.worker.errors import WorkerError
from heartlane.worker.git import Ran, run_program

AGENT_SECONDS: Final = 30.0


def look_at_agent(agent: AgentInfo, environment: Mapping[str, str]) -> Iterator[Finding]:
    if not agent.programs:
        yield Finding("agent", "ok", f"{agent.title} needs no program of its own")
        return
    found = next(filter(None, map(shutil.which, agent.programs)), None)
    if found is None:
        named = " or ".join(agent.programs)
        cure = agent.install or f"Install {agent.title}, or put its folder into PATH."
        yield Finding("agent", "problem", f"{agent.title} is not here: {named} is not in PATH", cure)
        return
    says = f"{agent.title} is {found}"
    if agent.version:
        try:
            ran = _run(agent.version)
        except WorkerError as error:
            yield Finding("agent", "problem", f"{says}, but it can't be run: {error}", agent.install)
            return
        if ran.code != 0:
            yield Finding("agent", "problem", f"{says}, but it fails: {ran.said}", agent.install)
            return
        says += f", version {' '.join(ran.text.split())[:80]}" if ran.text.strip() else ""
    yield Finding("agent", "ok", says)
    yield _login(agent, environment)


def is_logged_out(agent: AgentInfo) -> bool:
    """Whether the agent's own check says that it isn't logged in; False too where it can't be told."""
    return agent.login.check is not None and _login(agent, {}).level == "problem"


def _login(agent: AgentInfo, environment: Mapping[str, str]) -> Finding:
    login = agent.login
    by = next((name for name in login.variables if environment.get(name)), None)
    if by is not None:
        return Finding("login", "ok", f"{agent.title} finds {by}")
    if login.check is None:
        return Finding("login", "ok", f"whether {agent.title} is logged in can't be told without using it")
    try:
        ran = _run(login.check)
    except WorkerError as error:
        return Finding("login", "warning", f"whether {agent.title} is logged in can't be told: {error}", login.cure)
    printed = (ran.out + ran.err).decode("utf-8", "replace")
    if ran.code == 0 and not (login.absent and login.absent in printed):
        return Finding("login", "ok", f"{agent.title} is logged in")
    cure = login.cure or f"Log in to {agent.title} as this user."
    return Finding("login", "problem", f"{agent.title} is not logged in", cure)


def _run(command: Sequence[str]) -> Ran:
    return run_program(list(command), cwd=Path.home(), timeout=AGENT_SECONDS, kind="command_not_found")
