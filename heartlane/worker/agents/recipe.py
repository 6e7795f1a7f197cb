"""What the sidecar knows of an agent beside how to read it: how it is started, resumed, found and logged in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from heartlane.worker.agents.base import Adapter

PROMPT: Final = "{prompt}"


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


class Resume(NamedTuple):
    """How an agent is told to go on with a session: words, with `{session_id}`, that are put into its command.

    after           the word that they come behind: a subcommand; its program where that is None
    before_prompt   they come right before the prompt instead
    """

    words: tuple[str, ...]
    after: str | None = None
    before_prompt: bool = False


class Agent(NamedTuple):
    """One agent: `heartlane.agents` entry points may be one of these, or just an adapter's class.

    adapter      makes a new adapter, one for each run
    programs     what its program is called, for finding the agent from a command
    marks        arguments one of which a command has that makes it print what the adapter reads
    command      the words that start it headless, with `{prompt}`; None where people bring their own
    resume       how it goes on with a session; None where it can't, or says nothing to know a session by
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
    resume: Resume | None = None
    environment: Mapping[str, str] = {}
    version: tuple[str, ...] | None = None
    install: str = ""
    login: Login = Login()

    def argv(self, prompt: str, session_id: str | None = None) -> list[str]:
        """The words to start it with, resuming that session where one is given and the agent can.

        A prompt that begins with a dash gets a space before it, or the agent would take it for an option. Raises
        ValueError where the agent has no command of its own.
        """
        if self.command is None:
            raise ValueError(f"{self.title} has no command of its own: give one after `--`")
        words = (self.resumed(self.command, session_id) if session_id else None) or list(self.command)
        said = f" {prompt}" if prompt.startswith("-") else prompt
        return [word.replace(PROMPT, said) for word in words]

    def resumed(self, command: Sequence[str], session_id: str) -> list[str] | None:
        """A command of this agent, with `{prompt}` still in it, that goes on with a session.

        None where the agent can't, or where the place for it isn't found in the command.
        """
        if self.resume is None or not session_id or session_id.startswith("-"):
            return None
        place = self._place_of(self.resume, command)
        if place is None:
            return None
        added = [word.replace("{session_id}", session_id) for word in self.resume.words]
        return [*command[:place], *added, *command[place:]]

    def _place_of(self, resume: Resume, command: Sequence[str]) -> int | None:
        if resume.before_prompt:
            return next((place for place, word in enumerate(command) if PROMPT in word), None)
        wanted = {resume.after} if resume.after else set(self.programs)
        for place, word in enumerate(command):
            if word in wanted or word.replace("\\", "/").rpartition("/")[2] in wanted:
                return place + 1
        return None
