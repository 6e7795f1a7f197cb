"""Codex: `codex exec --json …`, in the format of threads and items, and in the one before it (0.39; new by 0.46).

Sources: OpenAI's "Non-interactive mode", the source of `exec_events`, issues. The older format is read in `codex_old`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heartlane.worker.agents.base import NOTHING_USED, Usage
from heartlane.worker.agents.codex_old import OldCodex
from heartlane.worker.agents.json_lines import Handler, Record
from heartlane.worker.agents.recipe import Agent, Login, Resume
from heartlane.worker.agents.values import (
    add,
    add_usage,
    count,
    error_status,
    error_text,
    files_of,
    first,
    less,
    list_of,
    progress,
    record_of,
    word,
)


class Codex(OldCodex):
    """Codex's lines. `usage` is the running total of the thread: of a resumed one, what it used before is taken off."""

    def __init__(self) -> None:
        super().__init__()
        self._thread_total = NOTHING_USED
        self._turns_before = NOTHING_USED  # of a version that counts each turn alone

    def handlers(self) -> Mapping[str, Handler]:
        return {
            **super().handlers(),
            "thread.started": self.on_thread,
            "session.created": self.on_thread,
            "turn.started": self.on_turn_started,
            "item.started": self.on_item_started,
            "item.updated": self.on_item_updated,
            "item.completed": self.on_item_completed,
            "error": self.on_error_line,
            "turn.completed": self.on_turn_completed,
            "turn.failed": self.on_turn_failed,
            "item.plan.delta": self.ignore,
            "request_user_input": self.on_question,
        }

    def on_thread(self, record: Record) -> None:
        self.trust = "both"
        self.identify(first(record, "thread_id", "session_id"))

    def on_turn_started(self, record: Record) -> None:
        self.goes_on()

    def on_item_started(self, record: Record) -> None:
        item = record_of(record.get("item"))
        self.goes_on()
        match kind := _kind(item):
            case "command_execution":
                self.start(item.get("id"), "shell", {"command": item.get("command")})
            case "file_change" | "mcp_tool_call" | "collab_tool_call" | "web_search":
                self.start(item.get("id"), _tool(kind, item), None)
                self._describe(kind, item)
            case "todo_list":
                self._todo(item)

    def on_item_updated(self, record: Record) -> None:
        item = record_of(record.get("item"))
        if _kind(item) == "todo_list":
            self._todo(item)

    def on_item_completed(self, record: Record) -> None:
        item = record_of(record.get("item"))
        self.goes_on()
        match kind := _kind(item):
            case "agent_message":
                self.say(item.get("text"))
            case "command_execution":
                exit_code = count(item.get("exit_code"))
                ok = item.get("status") not in ("failed", "declined") and exit_code in (None, 0)
                self.end(item.get("id"), ok, "shell", {"command": item.get("command")}, exit_code=exit_code)
            case "file_change" | "mcp_tool_call" | "collab_tool_call" | "web_search":
                ok = item.get("status") not in ("failed", "declined") and not item.get("error")
                self.end(item.get("id"), ok, _tool(kind, item), None)
                self._describe(kind, item)
            case "todo_list":
                self._todo(item)
            case "plan":
                self.act("plan", {"title": item.get("text")})
            case "error":
                self.warn(error_text(item), status=error_status(item), lasting=False)
            case "reasoning":
                pass
            case _:
                self.unreadable_item(record, kind)

    def unreadable_item(self, record: Record, kind: object) -> None:
        """An item of a type that isn't known yet, told by its text where it has one."""
        item = record_of(record.get("item"))
        self.note(
            error_text(first(item, "text", "message", "title"))
            or f"{kind or 'item'}: {word(item.get('status')) or 'done'}"
        )

    def on_error_line(self, record: Record) -> None:
        """A retry, or what the turn is about to fail of: only `turn.failed` or the exit says which."""
        self.warn(error_text(record), status=error_status(record))

    def on_question(self, record: Record) -> None:
        """The model asks a person, who isn't there."""
        asked = [record_of(question).get("question") for question in list_of(record.get("questions"))]
        self.warn("It asks: " + "; ".join(text for text in asked if isinstance(text, str)), "unknown", lasting=False)

    def on_turn_completed(self, record: Record) -> None:
        self._count(record_of(record.get("usage")))
        self.succeeded()

    def on_turn_failed(self, record: Record) -> None:
        self._count(record_of(record.get("usage")))
        error = record.get("error")
        self.failed(error_text(error), status=error_status(error))

    def _count(self, usage: Record) -> None:
        """A turn's `usage`: the thread's total, or, where it is less than the last one, a turn's own."""
        read, written = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
        if read is None and written is None:
            return
        now = Usage(read, written, count(usage.get("cached_input_tokens")), None, add(read, written))
        if (now.total_tokens or 0) < (self._thread_total.total_tokens or 0):
            self._turns_before = add_usage(self._turns_before, self._thread_total)
        self._thread_total = now
        self.used_in_all(self._since_resumed(add_usage(self._turns_before, now)))

    def _since_resumed(self, total: Usage) -> Usage:
        before = self._spent_before
        if not before.total_tokens or (total.total_tokens or 0) < before.total_tokens:
            return total  # a new thread, or a version that starts to count anew
        return less(total, before)

    def _todo(self, item: Record) -> None:
        self.act("todo", {"title": progress(list_of(item.get("items")))})

    def _describe(self, kind: object, item: Record) -> None:
        """Put what the item is about into the action that was made of it."""
        about = self._events[-1].payload
        if kind == "file_change":
            changes = [record_of(change) for change in list_of(item.get("changes"))]
            about |= files_of([change.get("path") for change in changes])
            if len(changes) == 1 and (what := word(changes[0].get("kind"))):
                about["kind"] = what
        elif kind == "web_search" and (query := word(item.get("query"))):
            about["detail"] = query
        elif kind == "mcp_tool_call" and (words := error_text(item.get("error"))):
            about["detail"] = word(words)


def _kind(item: Record) -> object:
    """An item's type, under the names of the first versions too."""
    kind = first(item, "type", "item_type")
    return "agent_message" if kind == "assistant_message" else kind


def _tool(kind: str, item: Record) -> str:
    match kind:
        case "file_change":
            return "edit"
        case "mcp_tool_call":
            return ".".join(filter(None, (word(item.get("server")), word(item.get("tool"))))) or "mcp"
        case "collab_tool_call":
            return word(item.get("tool")) or "agent"
        case _:
            return "web_search"


AGENT: Final = Agent(
    name="codex",
    title="Codex",
    adapter=Codex,
    programs=("codex",),
    marks=("--json", "--experimental-json"),
    command=("codex", "exec", "--json", "--sandbox", "workspace-write", "{prompt}"),
    resume=Resume(("resume", "{session_id}"), before_prompt=True),
    version=("codex", "--version"),
    install="Install Codex: npm install -g @openai/codex",
    login=Login(
        check=("codex", "login", "status"),
        variables=("CODEX_API_KEY",),
        cure="Run `codex login`, or set CODEX_API_KEY.",
    ),
)
