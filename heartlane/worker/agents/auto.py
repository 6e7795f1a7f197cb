"""For a command that nobody named: read as plain lines until one of them shows which agent prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from heartlane.worker.agents.base import NOTHING_USED, Adapter, AgentEvent, Result, Trouble, Trust, Usage
from heartlane.worker.agents.detect import detect_line
from heartlane.worker.agents.registry import agent
from heartlane.worker.agents.run_state import RunState
from heartlane.worker.reasons import Reason

LINES_MAX: Final = 50
"""Lines after which a command that no agent was seen in is a plain one for good."""
GUESS: Final = "claude"
"""What an output is read as whose lines could be of several agents that print alike."""


class Auto:
    """A plain adapter that becomes another one. `name` is that of what it is at the time."""

    def __init__(self) -> None:
        self._inner: Adapter = RunState()
        self._plain = self._inner
        self._lines = 0
        self._begun: tuple[datetime, float, Usage] | None = None

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def trust(self) -> Trust:
        return "exit" if self._inner is self._plain else self._inner.trust

    @property
    def exit_reasons(self) -> Mapping[int, Reason]:
        return self._inner.exit_reasons

    def begin(self, at: datetime, now: float, spent_before: Usage = NOTHING_USED) -> None:
        self._begun = (at, now, spent_before)
        self._inner.begin(at, now, spent_before)

    def read(self, line: str, now: float) -> Sequence[AgentEvent]:
        if self._inner is self._plain and self._lines < LINES_MAX:
            self._lines += 1
            name = detect_line(line)
            if name is None and '"message":{' in line and '"type":"assistant"' in line:
                name = GUESS
            if name is not None:
                self._inner = agent(name).adapter()
                if self._begun is not None:
                    self._inner.begin(*self._begun)
        return self._inner.read(line, now)

    def finish(self) -> Sequence[AgentEvent]:
        return self._inner.finish()

    @property
    def result(self) -> Result | None:
        return self._inner.result

    @property
    def ended(self) -> bool:
        return self._inner.ended

    @property
    def usage(self) -> Usage:
        return self._inner.usage

    @property
    def session_id(self) -> str | None:
        return self._inner.session_id

    @property
    def model(self) -> str | None:
        return self._inner.model

    @property
    def last_text(self) -> str | None:
        return self._inner.last_text

    @property
    def trouble(self) -> Trouble | None:
        return self._inner.trouble

    @property
    def plain_tail(self) -> str:
        parts = [self._plain.plain_tail] + ([] if self._inner is self._plain else [self._inner.plain_tail])
        return "\n".join(part for part in parts if part)
