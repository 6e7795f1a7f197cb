"""OpenCode: `opencode run --format json …`. Sources: its documentation "CLI", its issues.

Its exit code says nothing: version 1 exits with 0 after errors, version 2 with 1 after errors that it recovered from,
and either may not exit at all. So the last event decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heartlane.worker.agents.base import Trust, Usage
from heartlane.worker.agents.json_lines import Handler, JsonLines, Record
from heartlane.worker.agents.recipe import Agent, Login, Resume
from heartlane.worker.agents.values import add, count, dollars, error_status, error_text, record_of
from heartlane.worker.reasons import Reason

_FAILED_STEPS: Final[Mapping[str, tuple[Reason, str]]] = {
    "content-filter": ("refused", "The provider's filter stopped the answer."),
    "error": ("unknown", "The model's step ended in an error."),
    "length": ("unknown", "The answer was cut at its greatest length."),
}


class OpenCode(JsonLines):
    """OpenCode's lines. A tool is told once, when it is done."""

    name = "opencode"
    trust: Trust = "event"

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "step_start": self.on_step_start,
            "tool_use": self.on_tool_use,
            "text": self.on_text,
            "step_finish": self.on_step_finish,
            "error": self.on_error,
            "done": self.on_done,
            "reasoning": self.ignore,
        }

    def on_step_start(self, record: Record) -> None:
        self.identify(record.get("sessionID"))
        self._works_on()

    def on_tool_use(self, record: Record) -> None:
        self.identify(record.get("sessionID"))
        self._works_on()
        part = record_of(record.get("part"))
        state = record_of(part.get("state"))
        took = record_of(state.get("time"))
        begun, done = count(took.get("start")), count(took.get("end"))
        about = state.get("input") or {"title": state.get("title")}
        exit_code = count(record_of(state.get("metadata")).get("exit"))
        ok = state.get("status") != "error" and exit_code in (None, 0)
        ms = done - begun if begun is not None and done is not None and done >= begun else None
        self.end(part.get("callID") or part.get("id"), ok, part.get("tool"), about, ms=ms, exit_code=exit_code)
        self._trouble = None

    def on_text(self, record: Record) -> None:
        self.identify(record.get("sessionID"))
        self._works_on()
        self.say(record_of(record.get("part")).get("text"))

    def on_step_finish(self, record: Record) -> None:
        """A step of the model's: its usage is its own, and no further one follows after `stop`."""
        self.identify(record.get("sessionID"))
        part = record_of(record.get("part"))
        tokens = record_of(part.get("tokens"))
        cache = record_of(tokens.get("cache"))
        read, written, cached = count(tokens.get("input")), count(tokens.get("output")), count(cache.get("read"))
        written = add(written, count(tokens.get("reasoning")))
        total = add(add(read, written), add(cached, count(cache.get("write"))))
        self.used(Usage(read, written, cached, dollars(part.get("cost")), total))
        reason = part.get("reason")
        if reason in ("tool-calls", "unknown"):
            self._works_on()
        elif (failure := _FAILED_STEPS.get(str(reason))) is not None:
            self.failed(failure[1], failure[0])
        else:
            self.succeeded()

    def on_error(self, record: Record) -> None:
        """An error, after which it may go on or end: without anything after it, it was the end."""
        self.identify(record.get("sessionID"))
        error = record.get("error")
        self.warn(error_text(error), self._reason(error), status=error_status(error))
        self.failed(error_text(error), self._reason(error), status=error_status(error))
        self.goes_on()

    def on_done(self, record: Record) -> None:
        """The session is idle: nothing comes any more."""
        self.identify(record.get("sessionID"))
        if self._result is None and self._last_text is not None and self._trouble is None:
            self.succeeded()
        self._ended = self._result is not None

    def _reason(self, error: object) -> Reason | None:
        kind = record_of(error).get("name") or record_of(error).get("type")
        reason = self.trouble_of(f"{kind} {error_text(error)}", status=error_status(error)).reason
        return None if reason == "unknown" else reason

    def _works_on(self) -> None:
        """What came before was not the end after all."""
        self._result = None
        self.goes_on()


AGENT: Final = Agent(
    name="opencode",
    title="OpenCode",
    adapter=OpenCode,
    programs=("opencode", "opencode-ai"),
    marks=("json",),
    command=("opencode", "run", "--format", "json", "{prompt}"),
    resume=Resume(("--session", "{session_id}"), after="run"),
    environment={"OPENCODE_DISABLE_AUTOUPDATE": "1"},
    version=("opencode", "--version"),
    install="Install OpenCode: npm install -g opencode-ai",
    login=Login(
        check=("opencode", "auth", "list"),
        absent="0 credentials",
        variables=("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"),
        cure="Run `opencode auth login`, or set the API key of the provider that your model is from.",
    ),
)
