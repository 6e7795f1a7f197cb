"""Gemini CLI: `gemini -p … --output-format stream-json`. Sources: its "Headless mode reference", its output types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heartlane.worker.agents.base import Usage
from heartlane.worker.agents.json_lines import Handler, JsonLines, Record
from heartlane.worker.agents.recipe import Agent, Login, Resume
from heartlane.worker.agents.values import add, count, error_status, error_text, first, record_of
from heartlane.worker.reasons import Reason

EXIT_REASONS: Final[Mapping[int, Reason]] = {41: "auth", 53: "max_turns", 130: "killed"}
"""What its exit codes say beyond 1, a failed request; 42 is bad input and 52 a bad configuration."""


class Gemini(JsonLines):
    """Gemini CLI's lines. Answers come in pieces; notices, and retries of refused requests, as text in between."""

    name = "gemini"
    exit_reasons: Mapping[int, Reason] = EXIT_REASONS

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "init": self.on_init,
            "message": self.on_message,
            "tool_use": self.on_tool_use,
            "tool_result": self.on_tool_result,
            "error": self.on_error,
            "result": self.on_result,
        }

    def on_init(self, record: Record) -> None:
        self.introduce(record.get("session_id"), record.get("model"))

    def on_message(self, record: Record) -> None:
        if record.get("role") not in ("assistant", "model"):
            return
        self.goes_on()
        if record.get("delta") is True:
            self.join(record.get("content"))
        else:
            self.say(record.get("content"))

    def on_tool_use(self, record: Record) -> None:
        self.goes_on()
        self.start(record.get("tool_id"), record.get("tool_name"), record.get("parameters"))

    def on_tool_result(self, record: Record) -> None:
        self.goes_on()
        self.end(record.get("tool_id"), record.get("status") != "error")

    def on_error(self, record: Record) -> None:
        """Never the end: a warning, or a request that failed and may be tried again."""
        self.warn(error_text(record), status=error_status(record), lasting=record.get("severity") != "warning")

    def on_result(self, record: Record) -> None:
        stats = record_of(record.get("stats"))
        read, written = count(stats.get("input_tokens")), count(stats.get("output_tokens"))
        total = count(stats.get("total_tokens"))
        total = total if total is not None else add(read, written)
        self.used_in_all(Usage(read, written, count(stats.get("cached")), None, total))
        duration_ms = count(first(stats, "duration_ms"))
        if record.get("status") == "success":
            self.succeeded(duration_ms=duration_ms)
            return
        error = record.get("error")
        kind = record_of(error).get("type")
        reason = self.trouble_of(f"{kind} {error_text(error)}", status=error_status(error)).reason
        self.failed(error_text(error), None if reason == "unknown" else reason, duration_ms=duration_ms)


AGENT: Final = Agent(
    name="gemini",
    title="Gemini CLI",
    adapter=Gemini,
    programs=("gemini", "gemini-cli"),
    marks=("stream-json",),
    command=("gemini", "-p", "{prompt}", "--output-format", "stream-json", "--approval-mode", "yolo"),
    resume=Resume(("--resume", "{session_id}")),
    # In a folder that nobody has trusted yet it asks before every tool, whatever the approval mode.
    environment={"GEMINI_CLI_TRUST_WORKSPACE": "true"},
    version=("gemini", "--version"),
    install="Install Gemini CLI: npm install -g @google/gemini-cli",
    login=Login(
        variables=("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA"),
        cure="Start `gemini` once and log in, or set GEMINI_API_KEY.",
    ),
)  # fmt: skip
