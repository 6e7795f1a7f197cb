"""Amp: `amp -x … --stream-json`, which prints as Claude Code does, without costs. Source: its manual's appendix."""

from __future__ import annotations

from typing import Final

from heartlane.worker.agents.base import Usage
from heartlane.worker.agents.claude import ClaudeLike
from heartlane.worker.agents.json_lines import Record
from heartlane.worker.agents.recipe import Agent, Login, Resume
from heartlane.worker.agents.values import add

_WAITS_FOR_LOGIN: Final = "Starting login flow"


class Amp(ClaudeLike):
    """Amp's lines. Its results say nothing of tokens: they are added up from its messages."""

    name = "amp"

    def usage_of(self, usage: Record) -> Usage:
        """Amp counts what comes from the cache, and goes into it, within `input_tokens`."""
        read = super().usage_of(usage)
        return read._replace(total_tokens=add(read.input_tokens, read.output_tokens))

    def unreadable(self, line: str) -> None:
        """A line of text: without a login Amp prints a link and waits for ever, which is as good as an end."""
        super().unreadable(line)
        if self.result is None and _WAITS_FOR_LOGIN in line:
            self.failed("Amp is not logged in: no API key found.", "auth")


AGENT: Final = Agent(
    name="amp",
    title="Amp",
    adapter=Amp,
    programs=("amp",),
    marks=("--stream-json", "--stream-json-thinking"),
    command=("amp", "-x", "{prompt}", "--stream-json"),
    resume=Resume(("threads", "continue", "{session_id}")),
    version=("amp", "--version"),
    install="Install Amp: npm install -g @sourcegraph/amp",
    login=Login(
        variables=("AMP_API_KEY",),
        cure="Run `amp login`, or set AMP_API_KEY; without either Amp waits for a browser and prints a link.",
    ),
)
