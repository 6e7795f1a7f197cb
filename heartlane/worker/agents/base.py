"""What an adapter is: lines of an agent's output in, telemetry events out, and what is known of the run so far.

An adapter is told once when it starts (`begin`), then reads the lines of one process in order (`read`), and at the end
of the output is asked for what it still holds (`finish`). It does no I/O, reads no clock, and never raises, whatever it
reads: a line that it can't make sense of becomes a `log_line`. It decides nothing: what the agent's last lines said
stands in `result`, and `heartlane.worker.ending` weighs that against the way in which the process ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:  # the package is imported to find out which agents there are: that should cost next to nothing
    from datetime import datetime

    from heartlane.worker.reasons import Reason

PLAIN: Final = "plain"
"""The adapter of any command that isn't known as an agent."""
TOOL_MAX: Final = 200
DETAIL_MAX: Final = 1_000
"""Characters of a command, a path or a tool's title in an `action`."""
ID_MAX: Final = 200
FILES_MAX: Final = 50
"""Paths in one `action`."""

Trust = Literal["both", "exit", "event"]
"""What decides how a run ended.

both    success is a result that says so and exit code 0
exit    exit code 0 will do where no result was printed: the agent has none, or its exit code says the same
event   the last event alone: the agent's exit code says nothing
"""


class AgentEvent(NamedTuple):
    """One event for the run's log. While the agent runs:

    action      {tool, id?, file? or command? or detail?, files?, parent?} at its start; at its end the same with `ok`,
                `ms` where the start was seen, `exit_code` where there is one
    log_line    {line, parent?}, the line at most 2,000 characters
    error       {message, reason, retry_at?, fatal: false}

    `parent` is the id of the tool call within which a subagent did this.
    """

    type: str
    payload: dict[str, Any]


class Usage(NamedTuple):
    """Tokens and dollars as the agent counts them; None where it doesn't say.

    cached_tokens   read from the provider's cache: within input_tokens (Codex, Gemini CLI) or beside them (Claude Code)
    total_tokens    everything together, input from and into the cache included: what a bound on tokens is held against
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None
    total_tokens: int | None = None


NOTHING_USED: Final = Usage()


class Trouble(NamedTuple):
    """The last thing that went wrong, as long as nothing went right after it."""

    message: str
    reason: Reason
    retry_at: datetime | None = None


class Result(NamedTuple):
    """What the agent's terminal line said. Everything but `success` is None where it didn't say.

    summary     the agent's last words, at most 10,000 characters
    message     what went wrong, of a failure
    retry_at    aware, UTC
    """

    success: bool
    reason: Reason | None = None
    summary: str | None = None
    session_id: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None
    turns: int | None = None
    duration_ms: int | None = None
    message: str | None = None
    retry_at: datetime | None = None


@runtime_checkable
class Adapter(Protocol):
    """Reads the output of one run of an agent. Not for use by two threads at once."""

    @property
    def name(self) -> str:
        """What it is called in `--agent`."""
        ...

    @property
    def trust(self) -> Trust:
        """What decides how the run ended."""
        ...

    @property
    def exit_reasons(self) -> Mapping[int, Reason]:
        """Exit codes that say more than "failed"."""
        ...

    def begin(self, at: datetime, now: float, spent_before: Usage = NOTHING_USED) -> None:
        """Told before the first line, if at all: the wall clock (aware, in this machine's zone) that belongs to the
        monotonic second count `now`, and, of a session that is resumed, what it had used before.

        Without it, times that the agent says in prose ("resets 9am") are left for the end.
        """
        ...

    def read(self, line: str, now: float) -> Sequence[AgentEvent]:
        """The events of one line, its end cut off or not. `now`: monotonic seconds, for the `ms` of tool calls."""
        ...

    def finish(self) -> Sequence[AgentEvent]:
        """What is still held at the end of the output: text whose pieces were being joined."""
        ...

    @property
    def result(self) -> Result | None:
        """What the terminal line said, the last one where there are several; None before any."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the agent has said its last: from now on it should exit by itself, soon."""
        ...

    @property
    def usage(self) -> Usage:
        """What the run used so far, as far as the agent says it while it runs. Never shrinks."""
        ...

    @property
    def session_id(self) -> str | None:
        """What the agent can be resumed by."""
        ...

    @property
    def model(self) -> str | None:
        """The model that answers."""
        ...

    @property
    def last_text(self) -> str | None:
        """The agent's last words so far, at most 10,000 characters: a summary where the result brings none."""
        ...

    @property
    def trouble(self) -> Trouble | None:
        """An error that nothing has followed yet but the end."""
        ...

    @property
    def plain_tail(self) -> str:
        """The end of what it printed that was no event: where an agent that breaks down says why."""
        ...
