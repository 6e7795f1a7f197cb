"""Codex as it printed before threads and items: `{"id", "msg": {"type"}}`, behind its configuration and the prompt.

`task_complete` is optional there: where it is missing, and no error came last, the exit decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heartlane.worker.agents.base import Usage
from heartlane.worker.agents.json_lines import Handler, JsonLines, Record
from heartlane.worker.agents.values import (
    add,
    count,
    error_status,
    error_text,
    files_of,
    first,
    list_of,
    progress,
    record_of,
    word,
)

MESSAGE: Final = "msg "
"""Stands before the type of an old message, which would else be mistaken for a new line's."""
CONFIGURATION: Final = "configuration"
PROMPT: Final = "prompt"

_QUIET: Final = (
    "task_started", "agent_reasoning", "agent_reasoning_delta", "agent_reasoning_section_break",
    "agent_reasoning_raw_content", "agent_reasoning_raw_content_delta", "agent_message_delta",
    "exec_command_output_delta", "turn_diff", "user_message", "shutdown_complete", "mcp_list_tools_response",
    "list_custom_prompts_response", "get_history_entry_response", "conversation_path",
    "entered_review_mode", "exited_review_mode", "raw_response_item", "view_image_tool_call",
)  # fmt: skip


class OldCodex(JsonLines):
    """The older half of the adapter."""

    name = "codex"

    def handlers(self) -> Mapping[str, Handler]:
        loud = {
            "session_configured": self.on_configured,
            "agent_message": self.on_agent_message,
            "exec_command_begin": self.on_exec_begin,
            "exec_command_end": self.on_exec_end,
            "patch_apply_begin": self.on_patch_begin,
            "patch_apply_end": self.on_patch_end,
            "mcp_tool_call_begin": self.on_mcp_begin,
            "mcp_tool_call_end": self.on_mcp_end,
            "web_search_begin": self.on_search_begin,
            "web_search_end": self.on_search_end,
            "plan_update": self.on_plan,
            "background_event": self.on_background,
            "stream_error": self.on_error,
            "error": self.on_error,
            "token_count": self.on_token_count,
            "task_complete": self.on_task_complete,
            "turn_aborted": self.on_aborted,
            **dict.fromkeys(_QUIET, self.ignore),
        }
        messages = {MESSAGE + kind: handler for kind, handler in loud.items()}
        return {**messages, CONFIGURATION: self.on_configuration, PROMPT: self.ignore}

    def kind_of(self, record: Record) -> object:
        if (kind := record.get("type")) is not None:
            return kind
        if isinstance(message := record.get("msg"), dict):
            kind = message.get("type")
            return MESSAGE + kind if isinstance(kind, str) else None
        if "prompt" in record:
            return PROMPT
        if "model" in record and ("provider" in record or "workdir" in record or "sandbox" in record):
            return CONFIGURATION
        return None

    def on_configuration(self, record: Record) -> None:
        self.trust = "exit"
        self.identify(model=record.get("model"))

    def on_configured(self, record: Record) -> None:
        message = record_of(record.get("msg"))
        self.identify(message.get("session_id"), message.get("model"))

    def on_agent_message(self, record: Record) -> None:
        self._old()
        self.say(record_of(record.get("msg")).get("message"))

    def on_exec_begin(self, record: Record) -> None:
        self._old()
        message = record_of(record.get("msg"))
        self.start(message.get("call_id"), "shell", {"command": message.get("command")})

    def on_exec_end(self, record: Record) -> None:
        self._old()
        message = record_of(record.get("msg"))
        exit_code = count(message.get("exit_code"))
        self.end(message.get("call_id"), exit_code == 0, "shell", exit_code=exit_code)

    def on_patch_begin(self, record: Record) -> None:
        self._old()
        message = record_of(record.get("msg"))
        self.start(message.get("call_id"), "edit")
        self._events[-1].payload.update(files_of(list(record_of(message.get("changes")))))

    def on_patch_end(self, record: Record) -> None:
        self._old()
        message = record_of(record.get("msg"))
        self.end(message.get("call_id"), message.get("success") is True, "edit")

    def on_mcp_begin(self, record: Record) -> None:
        self._old()
        message = record_of(record.get("msg"))
        self.start(message.get("call_id"), _mcp_tool(message), record_of(message.get("invocation")).get("arguments"))

    def on_mcp_end(self, record: Record) -> None:
        self._old()
        message = record_of(record.get("msg"))
        result = record_of(message.get("result"))
        ok = "Err" not in result and record_of(result.get("Ok")).get("is_error") is not True
        self.end(message.get("call_id"), ok, _mcp_tool(message))

    def on_search_begin(self, record: Record) -> None:
        self._old()
        self.start(record_of(record.get("msg")).get("call_id"), "web_search")

    def on_search_end(self, record: Record) -> None:
        self._old()
        message = record_of(record.get("msg"))
        self.end(message.get("call_id"), True, "web_search", {"query": message.get("query")})

    def on_plan(self, record: Record) -> None:
        self.act("todo", {"title": progress(list_of(record_of(record.get("msg")).get("plan")))})

    def on_background(self, record: Record) -> None:
        if words := error_text(record_of(record.get("msg")).get("message")):
            self.note(words)

    def on_error(self, record: Record) -> None:
        self.trust = "exit"
        message = record_of(record.get("msg"))
        self.warn(error_text(message.get("message")), status=error_status(message))

    def on_token_count(self, record: Record) -> None:
        """The total so far, flat or within `info.total_token_usage`."""
        message = record_of(record.get("msg"))
        info = record_of(message.get("info"))
        usage = record_of(info.get("total_token_usage")) or message
        read, written = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
        if read is not None or written is not None:
            total = count(usage.get("total_tokens"))
            cached = count(usage.get("cached_input_tokens"))
            self.used_in_all(Usage(read, written, cached, None, total if total is not None else add(read, written)))

    def on_task_complete(self, record: Record) -> None:
        self.succeeded(record_of(record.get("msg")).get("last_agent_message"))

    def on_aborted(self, record: Record) -> None:
        reason = word(record_of(record.get("msg")).get("reason"))
        self.failed("The turn was broken off" + (f": {reason}" if reason else "."), "killed")

    def _old(self) -> None:
        self.trust = "exit"
        self.goes_on()


def _mcp_tool(message: Record) -> str:
    called = record_of(first(message, "invocation")) or message
    return ".".join(filter(None, (word(called.get("server")), word(called.get("tool"))))) or "mcp"
