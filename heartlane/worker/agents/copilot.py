"""GitHub Copilot CLI: `copilot -p … --output-format json --allow-all-tools`.

Sources: GitHub's "CLI programmatic reference", the session events of its SDK. The exit code of the last line is that of
the process, so where the line is missing the exit says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heartlane.worker.agents.base import Trust, Usage
from heartlane.worker.agents.json_lines import Handler, JsonLines, Record
from heartlane.worker.agents.recipe import Agent, Login, Resume
from heartlane.worker.agents.values import add, add_usage, count, error_status, error_text, first, record_of, word
from heartlane.worker.reasons import Reason

_QUIET: Final = (
    "assistant.turn_start", "assistant.turn_end", "assistant.idle", "assistant.intent", "assistant.reasoning",
    "assistant.reasoning_delta", "assistant.message_delta", "assistant.message_start", "assistant.streaming_delta",
    "assistant.usage", "user.message", "system.message", "tool.execution_partial_result", "tool.execution_progress",
    "tool.user_requested", "session.idle", "session.tools_updated", "session.title_changed", "session.mode_changed",
    "session.plan_changed", "session.workspace_file_changed", "session.background_tasks_changed", "session.info",
    "session.skills_loaded", "session.mcp_servers_loaded", "session.mcp_server_status_changed", "session.truncation",
    "session.compaction_start", "session.compaction_complete", "session.snapshot_rewind", "session.task_complete",
    "session.usage_info", "session.custom_agents_updated", "session.extensions_loaded", "session.context_changed",
    "session.handoff", "model.call_start", "model.call_end", "hook.start", "hook.end", "hook.progress", "skill.invoked",
    "subagent.selected", "subagent.deselected", "permission.requested", "permission.completed",
    "pending_messages.modified",
)  # fmt: skip


class Copilot(JsonLines):
    """Copilot's lines: `{type, data, …}`; those marked `ephemeral` say nothing that others don't."""

    name = "copilot"
    trust: Trust = "exit"

    def handlers(self) -> Mapping[str, Handler]:
        loud: dict[str, Handler] = {
            "session.start": self.on_start,
            "session.resume": self.on_start,
            "session.model_change": self.on_model_change,
            "assistant.message": self.on_message,
            "tool.execution_start": self.on_tool_start,
            "tool.execution_complete": self.on_tool_complete,
            "subagent.started": self.on_subagent_started,
            "subagent.completed": self.on_subagent_completed,
            "subagent.failed": self.on_subagent_completed,
            "session.error": self.on_error,
            "session.warning": self.on_warning,
            "session.usage_checkpoint": self.on_usage,
            "session.shutdown": self.on_shutdown,
            "abort": self.on_abort,
            "result": self.on_result,
        }
        return {**dict.fromkeys(_QUIET, self.ignore), **loud}

    def _read_record(self, record: Record, line: str) -> None:
        if record.get("ephemeral") is not True:
            super()._read_record(record, line)

    def on_start(self, record: Record) -> None:
        data = record_of(record.get("data"))
        self.introduce(data.get("sessionId"), first(data, "selectedModel", "model"))

    def on_model_change(self, record: Record) -> None:
        self.identify(model=record_of(record.get("data")).get("newModel"))

    def on_message(self, record: Record) -> None:
        self.goes_on()
        data = record_of(record.get("data"))
        self.identify(model=data.get("model"))
        self.say(data.get("content"), word(data.get("parentToolCallId")))

    def on_tool_start(self, record: Record) -> None:
        self.goes_on()
        data = record_of(record.get("data"))
        self.identify(model=data.get("model"))
        server, tool = word(data.get("mcpServerName")), word(first(data, "mcpToolName", "toolName"))
        name = f"{server}.{tool}" if server else tool
        self.start(data.get("toolCallId"), name, data.get("arguments"), word(data.get("parentToolCallId")))

    def on_tool_complete(self, record: Record) -> None:
        self.goes_on()
        data = record_of(record.get("data"))
        self.end(data.get("toolCallId"), data.get("success") is True, data.get("toolName"))

    def on_subagent_started(self, record: Record) -> None:
        data = record_of(record.get("data"))
        name = word(first(data, "agentDisplayName", "agentName")) or "subagent"
        self.act(f"agent: {name}", None, word(data.get("toolCallId")))

    def on_subagent_completed(self, record: Record) -> None:
        data = record_of(record.get("data"))
        if record.get("type") == "subagent.failed":
            self.warn(error_text(data.get("error")) or "A subagent failed.", lasting=False)

    def on_error(self, record: Record) -> None:
        data = record_of(record.get("data"))
        self.warn(error_text(data), self._reason(data), status=error_status(data))

    def on_warning(self, record: Record) -> None:
        data = record_of(record.get("data"))
        self.warn(error_text(data), self._reason(data), status=error_status(data), lasting=False)

    def on_abort(self, record: Record) -> None:
        self.warn(error_text(record_of(record.get("data"))) or "The turn was broken off.", "killed")

    def on_usage(self, record: Record) -> None:
        """What the session used so far."""
        data = record_of(record.get("data"))
        read = count(first(data, "input_tokens", "inputTokens"))
        written = count(first(data, "output_tokens", "outputTokens"))
        cached = count(first(data, "cache_read_input_tokens", "cacheReadTokens", "cacheReadInputTokens"))
        if read is not None or written is not None:
            self.used_in_all(Usage(read, written, cached, None, add(read, written)))

    def on_shutdown(self, record: Record) -> None:
        """What the session used, by model."""
        used = Usage()
        for metrics in record_of(record_of(record.get("data")).get("modelMetrics")).values():
            usage = record_of(record_of(metrics).get("usage"))
            read, written = count(usage.get("inputTokens")), count(usage.get("outputTokens"))
            used = add_usage(used, Usage(read, written, count(usage.get("cacheReadTokens")), None, add(read, written)))
        if used.total_tokens is not None:
            self.used_in_all(used)

    def on_result(self, record: Record) -> None:
        self.identify(record.get("sessionId"))
        duration_ms = count(record_of(record.get("usage")).get("sessionDurationMs"))
        exit_code = count(record.get("exitCode"))
        if exit_code == 0:
            self.succeeded(duration_ms=duration_ms)
        else:
            error = first(record, "error", "message")
            self.failed(error_text(error) or self._exit_text(exit_code), duration_ms=duration_ms)

    def _exit_text(self, exit_code: int | None) -> str | None:
        """Said only where no error before it says more."""
        return None if self._trouble is not None else f"Copilot ended with exit code {exit_code}."

    def _reason(self, data: Record) -> Reason | None:
        kind = word(data.get("errorType"))
        reason = self.trouble_of(f"{kind} {error_text(data)}", status=error_status(data)).reason
        return None if reason == "unknown" else reason


AGENT: Final = Agent(
    name="copilot",
    title="Copilot CLI",
    adapter=Copilot,
    programs=("copilot",),
    marks=("json",),
    command=("copilot", "-p", "{prompt}", "--output-format", "json", "--allow-all-tools"),
    resume=Resume(("--resume={session_id}",)),
    version=("copilot", "--version"),
    install="Install Copilot CLI: npm install -g @github/copilot",
    login=Login(
        variables=("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN"),
        cure="Start `copilot` once and log in with /login, or set COPILOT_GITHUB_TOKEN, or run `gh auth login`.",
    ),
)
