"""What the sidecar knows of an agent beside how to read it: how it is started, resumed, found and logged in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from heartlane.worker.agents.base import Adapter


class Login(NamedTuple):
    """How to tell that an agent can reach its provider.

    check       a command that says so by exit code 0, without asking anything; None where there is none
    absent      a text in the check's output that means "not logged in", for agents whose check always exits 0
    variables   environment variables any of which will do in place of a login
    cure        what a person does who isn't logged in, one sentence
    """

    check: tuple[str, ...] | None = None
    absent: str | None = None
    variables: tuple[str, ...] = ()
    cure: str = ""


class Agent(NamedTuple):
    """One agent: `heartlane.agents` entry points may be one of these, or just an adapter's class.

    adapter      makes a new adapter, one for each run
    programs     what its program is called, for finding the agent from a command
    marks        arguments one of which a command has that makes it print what the adapter reads
    command      the words that start it headless, with `{prompt}`; None where people bring their own
    resume       the same that goes on with a session, with `{session_id}` too; None where it can't
    environment  variables that are set for it unless they are set already
    version      a command that shows that it is installed
    install      what a person does who doesn't have it, one sentence

    Its standard input is the null device in every case.
    """

    name: str
    title: str
    adapter: Callable[[], Adapter]
    programs: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    resume: tuple[str, ...] | None = None
    environment: Mapping[str, str] = {}
    version: tuple[str, ...] | None = None
    install: str = ""
    login: Login = Login()

    def argv(self, prompt: str, session_id: str | None = None) -> list[str]:
        """The words to start it with, resuming that session where one is given and the agent can.

        A prompt that begins with a dash gets a space before it, or the agent would take it for an option. Raises
        ValueError where the agent has no command of its own.
        """
        words: Sequence[str] | None = self.resume if session_id and self.resume else self.command
        if words is None:
            raise ValueError(f"{self.title} has no command of its own: give one after `--`")
        said = f" {prompt}" if prompt.startswith("-") else prompt
        values = {"{prompt}": said, "{session_id}": session_id or ""}
        return [_filled(word, values) for word in words]


def _filled(word: str, values: Mapping[str, str]) -> str:
    # One pass: what a prompt says in braces stays as it is.
    for name, value in values.items():
        if name in word:
            return word.replace(name, value)
    return word
