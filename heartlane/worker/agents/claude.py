"""Claude Code: `claude -p … --output-format stream-json --verbose`; and what agents have in common that print alike.

Sources: Anthropic's "Run Claude Code programmatically", the Agent SDK's message types, recordings of real runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from heartlane.worker.agents.base import NOTHING_USED, Usage
from heartlane.worker.agents.json_lines import Handler, JsonLines, Record
from heartlane.worker.agents.recipe import Agent, Login, Resume
from heartlane.worker.agents.values import (
    add,
    add_usage,
    count,
    dollars,
    error_text,
    first,
    less,
    list_of,
    record_of,
    status_of,
    text_of,
    word,
)
from heartlane.worker.reasons import WAITING, Reason
from heartlane.worker.retry_times import from_epoch

MESSAGES_MAX: Final = 64
"""Messages whose usage may still be repeated: subagents' lines come in between."""

_SUBTYPES: Final[Mapping[str, Reason]] = {"error_max_turns": "max_turns", "error_max_budget_usd": "budget"}
_TERMINAL_REASONS: Final[Mapping[str, Reason]] = {"max_turns": "max_turns", "prompt_too_long": "context_overflow"}
_ERROR_KINDS: Final[Mapping[str, Reason]] = {
    "authentication_failed": "auth",
    "oauth_org_not_allowed": "auth",
    "billing_error": "usage_limit",
    "overloaded": "rate_limit",
}
"""What `error` of an assistant's line may be, where it says more than the text beside it."""


class ClaudeLike(JsonLines):
    """Reads `system`, `assistant`, `user` and `result` lines, as Claude Code, Qwen Code, Amp and Cursor print them."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: dict[str, Usage] = {}
        self._settled = NOTHING_USED  # at the last result
        self._resets: datetime | None = None

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "system": self.on_system,
            "assistant": self.on_assistant,
            "user": self.on_user,
            "result": self.on_result,
            "stream_event": self.ignore,
        }

    def on_system(self, record: Record) -> None:
        """`init` is told; of the other subtypes only what says that something went wrong."""
        match record.get("subtype"):
            case "init":
                self.introduce(record.get("session_id"), record.get("model"))
            case "api_retry":
                self._retry(record)
            case "permission_denied":
                tool = word(record.get("tool_name")) or "a tool"
                said = first(record, "message", "decision_reason") or "permission denied"
                self.warn(f"{tool}: {said}", "unknown", lasting=False)

    def _retry(self, record: Record) -> None:
        status = status_of(record.get("error_status"))
        told = error_text(record.get("error")) or "an error"
        attempt, most = count(record.get("attempt")), count(record.get("max_retries"))
        place = f" ({attempt} of {most})" if attempt is not None and most is not None else ""
        self.warn(f"Retrying{place} after {told}" + (f", HTTP status {status}" if status else ""), status=status)

    def on_assistant(self, record: Record) -> None:
        self.goes_on()
        message = record_of(record.get("message"))
        parent = word(record.get("parent_tool_use_id"))
        content = first(message, "content", "text") if message else first(record, "content", "message")
        failure = text_of(record.get("error")) or error_text(record_of(record.get("error")))
        synthetic = message.get("model") == "<synthetic>"
        if failure or (synthetic and record.get("is_api_error_message") is True):
            words = "\n".join(texts_of(content)) or failure
            self._fail(words, failure)
            return
        if not synthetic:
            self._count(message)
        for block in [content] if isinstance(content, str) else list_of(content):
            if isinstance(block, str):
                self.say(block, parent)
                continue
            entry = record_of(block)
            match entry.get("type"):
                case "text":
                    self.say(entry.get("text"), parent)
                case "tool_use" | "server_tool_use" | "mcp_tool_use":
                    self.start(entry.get("id"), entry.get("name"), entry.get("input"), parent)
                case "tool_result" | "web_search_tool_result" | "mcp_tool_result":
                    self._end_of(entry, parent)

    def _fail(self, words: str | None, kind: str | None) -> None:
        """An assistant's line that holds an error in place of an answer."""
        trouble = self.trouble_of(words)
        reason = trouble.reason
        if kind and reason in ("unknown", "rate_limit"):
            reason = _ERROR_KINDS.get(kind) or self.trouble_of(kind).reason
            reason = trouble.reason if reason == "unknown" else reason
        self.warn(words, reason, retry_at=trouble.retry_at or (self._resets if reason in WAITING else None))

    def on_user(self, record: Record) -> None:
        """The ends of tool calls. What else a user says is the prompt, and not told."""
        content = record_of(record.get("message")).get("content")
        for block in list_of(content):
            entry = record_of(block)
            if entry.get("type") == "tool_result":
                self.goes_on()
                self._end_of(entry, word(record.get("parent_tool_use_id")))

    def _end_of(self, entry: Record, parent: str | None) -> None:
        self.end(entry.get("tool_use_id"), entry.get("is_error") is not True, parent=parent)

    def _count(self, message: Record) -> None:
        """Add up what the run used so far. The lines of one message repeat its usage, so only its last one counts."""
        usage = self.usage_of(record_of(message.get("usage")))
        if usage == NOTHING_USED:
            return
        more = usage
        if (key := word(message.get("id"))) is not None:
            if (before := self._messages.get(key)) is not None:
                if before == usage:
                    return
                more = less(usage, before)
            self._messages[key] = usage
            if len(self._messages) > MESSAGES_MAX:
                del self._messages[next(iter(self._messages))]
        self.used(more)

    def usage_of(self, usage: Record) -> Usage:
        """What one `usage` object says."""
        return usage_of(usage)

    def on_result(self, record: Record) -> None:
        """The end of a turn, which is the end of the run unless background tasks wake the agent once more."""
        self.identify(record.get("session_id"))
        self.used_in_all(self._run_usage(record))
        self._settled, self._messages = self._usage, {}
        said: dict[str, Any] = {
            "turns": count(record.get("num_turns")),
            "duration_ms": count(record.get("duration_ms")),
        }
        subtype = record.get("subtype")
        refused = record.get("stop_reason") == "refusal"
        if record.get("is_error") in (None, False) and subtype in ("success", None) and not refused:
            self.succeeded(record.get("result"), **said)
            return
        reason = _SUBTYPES.get(str(subtype)) or _TERMINAL_REASONS.get(str(record.get("terminal_reason")))
        words = text_of(record.get("result")) or error_text(first(record, "errors", "error"))
        if words is None and subtype not in ("success", None):
            words = str(subtype).replace("_", " ")
        status = status_of(record.get("api_error_status"))
        self.failed(words, reason or ("refused" if refused else None), status=status, retry_at=self._resets, **said)

    def _run_usage(self, record: Record) -> Usage:
        """What the run used by now: by model where the result has that, since its `usage` is of the last turn alone."""
        whole = NOTHING_USED
        for used in record_of(record.get("modelUsage")).values():
            whole = add_usage(whole, self.usage_of(record_of(used)))
        if whole == NOTHING_USED:
            turn = self.usage_of(record_of(record.get("usage")))
            whole = add_usage(self._settled._replace(cost_usd=None), turn) if turn != NOTHING_USED else NOTHING_USED
        return whole._replace(cost_usd=dollars(first(record, "total_cost_usd", "cost_usd")))


class Claude(ClaudeLike):
    """Claude Code's own lines."""

    name = "claude"

    def handlers(self) -> Mapping[str, Handler]:
        quiet = (
            "tool_progress", "tool_use_summary", "keep_alive", "control_request", "control_response",
            "control_cancel_request", "prompt_suggestion", "summary", "queue-operation", "attachment",
            "progress", "file-history-snapshot", "streamlined_text", "streamlined_tool_use_summary",
        )  # fmt: skip
        own = {"rate_limit_event": self.on_rate_limit, "auth_status": self.on_auth_status}
        return {**super().handlers(), **dict.fromkeys(quiet, self.ignore), **own}

    def on_rate_limit(self, record: Record) -> None:
        """The state of the account's allowance; worth an error only when it is used up."""
        info = record_of(record.get("rate_limit_info"))
        if info.get("status") != "rejected":
            return
        self._resets = from_epoch(first(info, "resetsAt", "resets_at")) or self._resets
        window = word(first(info, "rateLimitType", "rate_limit_type"))
        self.warn(
            "The usage limit is reached" + (f" ({window.replace('_', ' ')})." if window else "."),
            "usage_limit",
            retry_at=self._resets,
        )

    def on_auth_status(self, record: Record) -> None:
        """A login under way; worth an error where it failed."""
        if words := error_text(record.get("error")):
            self.warn(words, "auth")


def usage_of(usage: Record) -> Usage:
    """Tokens of a `usage` object, under the names of either style of writing them."""
    read = count(first(usage, "input_tokens", "inputTokens"))
    written = count(first(usage, "output_tokens", "outputTokens"))
    cached = count(
        first(usage, "cache_read_input_tokens", "cacheReadInputTokens", "cacheReadTokens", "cached_input_tokens")
    )
    into_cache = count(first(usage, "cache_creation_input_tokens", "cacheCreationInputTokens", "cacheWriteTokens"))
    total = count(first(usage, "total_tokens", "totalTokens"))
    if total is None:
        total = add(add(read, written), add(cached, into_cache))
    return Usage(read, written, cached, None, total)


def texts_of(content: object) -> list[str]:
    """The texts of a message's content."""
    if isinstance(content, str):
        return [content]
    blocks = [record_of(block).get("text") for block in list_of(content)]
    return [text for text in blocks if isinstance(text, str) and text.strip()]


AGENT: Final = Agent(
    name="claude",
    title="Claude Code",
    adapter=Claude,
    programs=("claude",),
    marks=("stream-json",),
    command=(
        "claude", "-p", "{prompt}", "--output-format", "stream-json", "--verbose", "--permission-mode", "acceptEdits",
    ),
    resume=Resume(("--resume", "{session_id}")),
    environment={"DISABLE_AUTOUPDATER": "1"},
    version=("claude", "--version"),
    install="Install Claude Code: npm install -g @anthropic-ai/claude-code",
    login=Login(
        check=("claude", "auth", "status"),
        variables=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
        cure="Start `claude` once and log in with /login, or set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN.",
    ),
)  # fmt: skip
