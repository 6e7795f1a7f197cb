"""What an examination finds, and what it needs to know."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from heartlane.worker.places import Places

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """What was found. `cure` says what to do about it, "" where there is nothing to do."""

    check: str
    level: Level
    says: str
    cure: str = ""


class LoginInfo(Protocol):
    """How to tell that an agent is logged in. `heartlane.worker.agents` has one for each agent it knows.

    check       a command that says so by exit code 0; None where there is none
    absent      a text in its output that means "not logged in", for checks that always exit 0
    variables   environment variables any of which will do in place of a login
    cure        what to do about it
    """

    @property
    def check(self) -> Sequence[str] | None: ...
    @property
    def absent(self) -> str | None: ...
    @property
    def variables(self) -> Sequence[str]: ...
    @property
    def cure(self) -> str: ...


class AgentInfo(Protocol):
    """What is known of an agent. `version` is a command that shows it is there."""

    @property
    def title(self) -> str: ...
    @property
    def programs(self) -> Sequence[str]: ...
    @property
    def version(self) -> Sequence[str] | None: ...
    @property
    def install(self) -> str: ...
    @property
    def login(self) -> LoginInfo: ...


class Patient(NamedTuple):
    """What is examined.

    url, token  None where not set
    agent       the agent that will be used, or None
    repository  what --worktree will name, or None
    """

    url: str | None
    token: str | None
    places: Places
    agent: AgentInfo | None = None
    repository: Path | None = None
    environment: Mapping[str, str] = os.environ
