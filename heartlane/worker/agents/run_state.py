"""What every adapter keeps of its run, and the few ways in which one adds to it: say, start, end, warn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, NamedTuple

from heartlane.lanes.bounds import ERROR_MAX, LOG_LINE_MAX, SUMMARY_MAX
from heartlane.worker.agents.base import NOTHING_USED, TOOL_MAX, AgentEvent, Result, Trouble, Trust, Usage
from heartlane.worker.agents.values import add_usage, later, target_of, word
from heartlane.worker.reasons import WAITING, Reason, classify
from heartlane.worker.retry_times import find_time, stamp
from heartlane.worker.text import raw_line, readable

OPEN_CALLS_MAX: Final = 1_000
"""Tool calls whose end is waited for; of more, the oldest are forgotten, and their ends then lack `ms` and details."""
PLAIN_TAIL_MAX: Final = 4_000
"""Characters of unreadable output that are kept for the end."""
JOINED_MAX: Final = 65_536
"""Characters of one text that are joined from its pieces; a longer one is said in parts."""


class _Call(NamedTuple):
    """A tool call that hasn't ended: what its start said, and when it was."""

    payload: dict[str, Any]
    started: float


class RunState:
    """The base of the adapters that come with Heartlane, and a good one for others: see docs/write-an-adapter.md."""

    name: str = "plain"
    trust: Trust = "both"
    exit_reasons: Mapping[int, Reason] = {}

    _no_events: ClassVar[Sequence[AgentEvent]] = ()

    def __init__(self) -> None:
        self._events: list[AgentEvent] = []
        self._now = 0.0
        self._wall: tuple[datetime, float] | None = None
        self._result: Result | None = None
        self._ended = False
        self._usage = Usage()
        self._spent_before = Usage()
        self._session_id: str | None = None
        self._model: str | None = None
        self._introduced: tuple[str | None, str | None] = (None, None)
        self._last_text: str | None = None
        self._trouble: Trouble | None = None
        self._plain: list[str] = []
        self._plain_length = 0
        self._calls: dict[str, _Call] = {}
        self._joined: list[str] = []
        self._joined_length = 0
        self._joined_parent: str | None = None

    # What is known so far

    @property
    def result(self) -> Result | None:
        return self._result

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def usage(self) -> Usage:
        return self._usage

    @property
    def session_id(self) -> str | None:
        return self._session_id

    @property
    def model(self) -> str | None:
        return self._model

    @property
    def last_text(self) -> str | None:
        return self._last_text

    @property
    def trouble(self) -> Trouble | None:
        return self._trouble

    @property
    def plain_tail(self) -> str:
        return "\n".join(self._plain)[-PLAIN_TAIL_MAX:]

    # What the sidecar calls

    def begin(self, at: datetime, now: float, spent_before: Usage = NOTHING_USED) -> None:
        self._wall = (at, now)
        self._spent_before = spent_before

    def read(self, line: str, now: float) -> Sequence[AgentEvent]:
        """The line as it is, as a `log_line`; nothing for a blank one."""
        self._now = now
        shown = raw_line(line)
        if not shown:
            return self._no_events
        self._keep(shown)
        return (AgentEvent("log_line", {"line": shown}),)

    def finish(self) -> Sequence[AgentEvent]:
        self._events = []
        self.flush()
        return self._events

    # What adapters call while they read a line

    def identify(self, session_id: object = None, model: object = None) -> None:
        """Who answers, as far as the line says it: what the session is resumed by, and the model."""
        self._session_id = word(session_id) or self._session_id
        self._model = word(model) or self._model

    def introduce(self, session_id: object = None, model: object = None) -> None:
        """`identify`, and a `log_line` of it where it is new."""
        self.identify(session_id, model)
        now = (self._session_id, self._model)
        if now != self._introduced:
            self._introduced = now
            facts = [f"session {now[0]}" if now[0] else "", f"model {now[1]}" if now[1] else ""]
            self.note(", ".join(fact for fact in facts if fact))

    def used(self, usage: Usage) -> None:
        """What the run used beyond what it used before."""
        self._usage = add_usage(self._usage, usage)

    def used_in_all(self, usage: Usage) -> None:
        """What the run used so far; where this says nothing, what was known stays."""
        self._usage = later(usage, self._usage)

    def say(self, text: object, parent: str | None = None) -> None:
        """A text of the agent's: a `log_line`, and, unless a subagent said it, its last words so far."""
        if not isinstance(text, str) or not (shown := readable(text)):
            return
        self.flush()
        if parent is None:
            self._last_text = shown if len(text) <= LOG_LINE_MAX else readable(text, SUMMARY_MAX)
            self._trouble = None
        self._events.append(AgentEvent("log_line", {"line": shown, "parent": parent} if parent else {"line": shown}))

    def note(self, text: str) -> None:
        """A `log_line` that isn't the agent's own words."""
        if shown := readable(text):
            self.flush()
            self._events.append(AgentEvent("log_line", {"line": shown}))

    def join(self, piece: object, parent: str | None = None) -> None:
        """A piece of a text: said as a whole when something else comes, or at the end."""
        if not isinstance(piece, str) or not piece:
            return
        if parent != self._joined_parent or self._joined_length > JOINED_MAX:
            self.flush()
        self._joined_parent = parent
        self._joined.append(piece)
        self._joined_length += len(piece)

    def flush(self) -> None:
        """Say what was joined so far."""
        if self._joined:
            text, parent = "".join(self._joined), self._joined_parent
            self.drop_joined()
            self.say(text, parent)

    @property
    def joined(self) -> str:
        """What was joined so far and not said yet."""
        return "".join(self._joined)

    def drop_joined(self) -> None:
        """Forget what was joined: the agent repeats it as a whole."""
        self._joined, self._joined_length, self._joined_parent = [], 0, None

    def start(self, call: object, tool: object, about: object = None, parent: str | None = None) -> None:
        """The start of a tool call: an `action`. `about` is the tool's input, or the payload's own fields."""
        self.flush()
        payload = self._action(call, tool, about, parent)
        if (key := payload.get("id")) is not None:
            self._calls[key] = _Call(payload, self._now)
            if len(self._calls) > OPEN_CALLS_MAX:
                del self._calls[next(iter(self._calls))]
        self._trouble = None
        self._events.append(AgentEvent("action", payload))

    def end(
        self,
        call: object,
        ok: bool,
        tool: object = None,
        about: object = None,
        *,
        ms: int | None = None,
        exit_code: int | None = None,
        parent: str | None = None,
    ) -> None:
        """The end of a tool call, by its id: an `action` with `ok`. What isn't given is taken from its start."""
        self.flush()
        key = word(call)
        begun = self._calls.pop(key, None) if key is not None else None
        payload: dict[str, Any] = dict(begun.payload) if begun else {"tool": "tool"}
        payload |= {name: value for name, value in self._action(call, tool, about, parent).items() if value != "tool"}
        payload["ok"] = ok
        if ms is None and begun is not None:
            ms = max(round((self._now - begun.started) * 1_000), 0)
        if ms is not None:
            payload["ms"] = ms
        if exit_code is not None:
            payload["exit_code"] = exit_code
        self._events.append(AgentEvent("action", payload))

    def act(self, tool: object, about: object = None, parent: str | None = None) -> None:
        """Something done that has no end of its own, such as a list of things to do that was brought up to date."""
        self.flush()
        self._events.append(AgentEvent("action", self._action(None, tool, about, parent)))

    def warn(
        self,
        message: str | None,
        reason: Reason | None = None,
        *,
        status: int | None = None,
        retry_at: datetime | None = None,
        lasting: bool = True,
    ) -> None:
        """Something went wrong and the run goes on: an `error` that isn't fatal.

        `reason` is found from the words and the status where it isn't given. `lasting`: unless something goes right
        after it, this is what the run will have failed of.
        """
        self.flush()
        trouble = self.trouble_of(message, reason, status=status, retry_at=retry_at)
        if lasting:
            self._trouble = trouble
        payload: dict[str, Any] = {"message": trouble.message, "reason": trouble.reason, "fatal": False}
        if trouble.retry_at is not None:
            payload["retry_at"] = stamp(trouble.retry_at)
        self._events.append(AgentEvent("error", payload))

    def trouble_of(
        self,
        message: str | None,
        reason: Reason | None = None,
        *,
        status: int | None = None,
        retry_at: datetime | None = None,
    ) -> Trouble:
        """A failure with its reason, and when to try again where it is one that passes."""
        reason = reason or classify(message or "", status)
        if reason not in WAITING:
            retry_at = None
        elif retry_at is None and message and (wall := self.wall_time()) is not None:
            retry_at = find_time(message, wall)
        shown = readable(message or "", ERROR_MAX) or (
            f"HTTP status {status}" if status else "An error without a text."
        )
        return Trouble(shown, reason, retry_at)

    def succeeded(self, summary: object = None, **said: Any) -> None:
        """The terminal line says that all went well. `said`: further fields of `Result`."""
        self._conclude(Result(True, summary=self._summary(summary), **said))
        self._trouble = None

    def failed(
        self,
        message: str | None,
        reason: Reason | None = None,
        *,
        status: int | None = None,
        retry_at: datetime | None = None,
        **said: Any,
    ) -> None:
        """The terminal line says that it failed. What it leaves open is taken from the trouble before it."""
        before = self._trouble
        if before is not None and retry_at is None and message in (None, before.message):
            # Told before: "in 20 seconds" meant from then on.
            message, retry_at = before.message, before.retry_at
        trouble = self.trouble_of(message, reason, status=status, retry_at=retry_at)
        if before is not None and trouble.reason in ("unknown", before.reason):
            waits = before.reason in WAITING
            trouble = Trouble(trouble.message, before.reason, (trouble.retry_at or before.retry_at) if waits else None)
        said.setdefault("summary", self._last_text)
        self._conclude(Result(False, trouble.reason, message=trouble.message, retry_at=trouble.retry_at, **said))

    def goes_on(self) -> None:
        """The agent works on: it hasn't said its last, even if there was a result (of a part of its work)."""
        self._ended = False

    def wall_time(self) -> datetime | None:
        """The wall clock at this line, in the machine's zone; None where `begin` wasn't called."""
        if self._wall is None:
            return None
        at, now = self._wall
        return at + timedelta(seconds=self._now - now)

    def unreadable(self, line: str) -> None:
        """A line, or a part of one, that is no event: a `log_line` all the same, and kept for the end."""
        if shown := raw_line(line):
            self._keep(shown)
            self._events.append(AgentEvent("log_line", {"line": shown}))

    def _conclude(self, result: Result) -> None:
        self.flush()
        usage = self._usage
        self._result = result._replace(
            session_id=result.session_id or self._session_id,
            model=result.model or self._model,
            input_tokens=usage.input_tokens if result.input_tokens is None else result.input_tokens,
            output_tokens=usage.output_tokens if result.output_tokens is None else result.output_tokens,
            cached_tokens=usage.cached_tokens if result.cached_tokens is None else result.cached_tokens,
            cost_usd=usage.cost_usd if result.cost_usd is None else result.cost_usd,
            summary=result.summary or self._last_text,
        )
        self._ended = True

    def _summary(self, text: object) -> str | None:
        self.flush()
        return (readable(text, SUMMARY_MAX) if isinstance(text, str) else "") or self._last_text

    def _keep(self, shown: str) -> None:
        self._plain.append(shown)
        self._plain_length += len(shown) + 1
        while self._plain_length > PLAIN_TAIL_MAX + LOG_LINE_MAX:
            self._plain_length -= len(self._plain.pop(0)) + 1

    def _action(self, call: object, tool: object, about: object, parent: str | None) -> dict[str, Any]:
        payload: dict[str, Any] = {"tool": word(tool, TOOL_MAX) or "tool"}
        if (key := word(call)) is not None:
            payload["id"] = key
        payload |= target_of(about)
        if parent is not None:
            payload["parent"] = parent
        return payload
