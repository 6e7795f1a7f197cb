"""Cursor's agent: `cursor-agent -p --force --output-format stream-json …`. Source: Cursor's "Output format".

Like Claude Code's, with tool calls as lines of their own. When it fails it prints no result: stderr and the exit
say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from heartlane.worker.agents.claude import ClaudeLike, texts_of
from heartlane.worker.agents.json_lines import Handler, Record
from heartlane.worker.agents.recipe import Agent, Login, Resume
from heartlane.worker.agents.values import count, error_text, first, record_of, word

_WENT_WRONG: Final = ("error", "failure", "rejected", "timeout", "permissionDenied", "spawnError", "fileNotFound")


class Cursor(ClaudeLike):
    """Cursor's lines. With `--stream-partial-output` an answer comes in pieces, and once more as a whole."""

    name = "cursor"

    def handlers(self) -> Mapping[str, Handler]:
        quiet = dict.fromkeys(("thinking", "interaction_query", "connection", "status", "retry"), self.ignore)
        return {**super().handlers(), **quiet, "tool_call": self.on_tool_call, "error": self.on_error}

    def on_assistant(self, record: Record) -> None:
        if "timestamp_ms" in record and "model_call_id" not in record:
            self.goes_on()
            for piece in texts_of(record_of(record.get("message")).get("content")):
                self.join(piece)
            return
        whole = "".join(texts_of(record_of(record.get("message")).get("content")))
        if self.joined.strip() in whole:
            self.drop_joined()
        super().on_assistant(record)

    def on_tool_call(self, record: Record) -> None:
        """`started` or `completed`; the tool's name is the key of what is called: `shellToolCall`, `readToolCall`, …"""
        self.goes_on()
        call, tool, about, result = record.get("call_id"), None, None, None
        for name, body in record_of(record.get("tool_call")).items():
            if not isinstance(body, dict):
                continue
            tool, about, result = name.removesuffix("ToolCall"), first(body, "args", "arguments"), body.get("result")
            if name == "function":
                tool = body.get("name")
            elif name == "mcpToolCall":
                named = record_of(about)
                tool = ".".join(
                    filter(None, (word(named.get("providerIdentifier")), word(first(named, "toolName", "name"))))
                )
            break
        if record.get("subtype") == "started":
            self.start(call, tool, about)
        else:
            ok, exit_code = _outcome(record_of(result))
            self.end(call, ok, tool, about, exit_code=exit_code)

    def on_error(self, record: Record) -> None:
        """Not in the documentation, but seen where a request failed."""
        self.warn(error_text(record))


def _outcome(result: Mapping[str, Any]) -> tuple[bool, int | None]:
    """Whether a call went well, and its exit code where there is one."""
    exit_code = None
    for body in result.values():
        if (exit_code := count(record_of(body).get("exitCode"))) is not None:
            break
    return not any(name in result for name in _WENT_WRONG) and exit_code in (None, 0), exit_code


AGENT: Final = Agent(
    name="cursor",
    title="Cursor",
    adapter=Cursor,
    programs=("cursor-agent",),
    marks=("stream-json",),
    command=("cursor-agent", "-p", "--force", "--output-format", "stream-json", "{prompt}"),
    resume=Resume(("--resume", "{session_id}")),
    version=("cursor-agent", "--version"),
    install="Install Cursor's agent as cursor.com/cli says.",
    login=Login(
        check=("cursor-agent", "status"),
        absent="Not logged in",
        variables=("CURSOR_API_KEY",),
        cure="Run `cursor-agent login`, or set CURSOR_API_KEY.",
    ),
)
