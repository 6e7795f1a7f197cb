"""How a run ended: what the agent said last, weighed against how its process went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from heartlane.worker.agents import Adapter, Usage, open_adapter
from heartlane.worker.ending import Conclusion, Exit, conclude
from tests.worker.agents.cases import START, read_all

GOOD = Exit(code=0)

CLAUDE_DONE = {"type": "result", "subtype": "success", "is_error": False, "result": "Done.", "session_id": "s-1"}
CLAUDE_TEXT = {"type": "assistant", "message": {"id": "m", "content": [{"type": "text", "text": "Working on it."}]}}
CLAUDE_INIT = {"type": "system", "subtype": "init", "session_id": "s-1", "model": "sonnet"}
CODEX_TEXT = {"type": "item.completed", "item": {"id": "i", "type": "agent_message", "text": "Done."}}
CODEX_DONE = {"type": "turn.completed", "usage": {"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 2}}
CODEX_LIMIT = {"type": "error", "message": "You've hit your usage limit. Try again at 3:45 PM."}
OLD_CONFIGURATION = {"model": "gpt-5", "provider": "openai", "sandbox": "read-only", "workdir": "/src"}
OLD_TEXT = {"id": "0", "msg": {"type": "agent_message", "message": "Done."}}
OLD_ERROR = {"id": "0", "msg": {"type": "error", "message": "Missing environment variable: `OPENAI_API_KEY`."}}
OPEN_STOP = {"type": "step_finish", "sessionID": "ses_1", "part": {"reason": "stop", "cost": 0.5}}
OPEN_GO_ON = {"type": "step_finish", "sessionID": "ses_1", "part": {"reason": "tool-calls", "cost": 0.5}}
OPEN_TEXT = {"type": "text", "sessionID": "ses_1", "part": {"type": "text", "text": "Done."}}
OPEN_ERROR = {"type": "error", "sessionID": "ses_1", "error": {"name": "APIError", "data": {"message": "boom"}}}
COPILOT_TEXT = {"type": "assistant.message", "data": {"content": "Done."}}
COPILOT_ERROR = {
    "type": "session.error",
    "data": {"errorType": "quota", "message": "You have no quota", "statusCode": 402},
}


def after(name: str, *records: dict[str, Any] | str, begin: bool = False) -> Adapter:
    """An adapter that has read these lines, and nothing more will come."""
    adapter = open_adapter(name)
    if begin:
        adapter.begin(START, 100.0)
    read_all(adapter, [line if isinstance(line, str) else json.dumps(line) for line in records])
    return adapter


def ended(name: str, *records: dict[str, Any] | str, how: Exit = GOOD) -> Conclusion:
    """The verdict on such a run."""
    return conclude(after(name, *records), how, START)


@pytest.mark.parametrize(
    ("name", "records", "how", "verdict"),
    [
        # A result and the exit must both be good
        ("claude", [CLAUDE_TEXT, CLAUDE_DONE], GOOD, "success"),
        ("claude", [CLAUDE_TEXT, CLAUDE_DONE], Exit(code=1), "crashed"),
        ("claude", [CLAUDE_TEXT, CLAUDE_DONE], Exit(signal=9), "killed"),
        ("claude", [CLAUDE_TEXT, CLAUDE_DONE], Exit(signal=11), "crashed"),
        ("claude", [CLAUDE_TEXT], GOOD, "unknown"),
        ("claude", [CLAUDE_TEXT], Exit(code=1), "crashed"),
        ("claude", [CLAUDE_TEXT], Exit(code=137), "killed"),
        ("claude", [], Exit(code=1, stderr_tail="Invalid API key · Please run /login\n"), "auth"),
        ("codex", [CODEX_TEXT, CODEX_DONE], GOOD, "success"),
        ("codex", [CODEX_TEXT], GOOD, "unknown"),
        ("codex", [CODEX_LIMIT], Exit(code=1), "usage_limit"),
        ("codex", [CODEX_LIMIT, CODEX_TEXT, CODEX_DONE], GOOD, "success"),
        # Stopped because it didn't exit by itself: its result counts
        ("claude", [CLAUDE_DONE], Exit(signal=15, lingered=True), "success"),
        ("claude", [{**CLAUDE_DONE, "is_error": True}], Exit(signal=15, lingered=True), "unknown"),
        ("claude", [CLAUDE_TEXT], Exit(signal=15, lingered=True), "killed"),
        # The exit decides where there was no result
        ("codex", [OLD_CONFIGURATION, OLD_TEXT], GOOD, "success"),
        ("codex", [OLD_CONFIGURATION, OLD_TEXT], Exit(code=1), "crashed"),
        ("codex", [OLD_CONFIGURATION, OLD_ERROR], GOOD, "auth"),
        ("copilot", [COPILOT_TEXT], GOOD, "success"),
        ("copilot", [COPILOT_ERROR], Exit(code=1), "usage_limit"),
        # The event decides: the exit code lies
        ("opencode", [OPEN_TEXT, OPEN_STOP], GOOD, "success"),
        ("opencode", [OPEN_ERROR, OPEN_TEXT, OPEN_STOP], Exit(code=1), "success"),
        ("opencode", [OPEN_TEXT, OPEN_STOP], Exit(signal=15, lingered=True), "success"),
        ("opencode", [OPEN_ERROR], GOOD, "unknown"),
        ("opencode", [OPEN_TEXT, OPEN_GO_ON], Exit(signal=9), "killed"),
        ("opencode", [OPEN_TEXT], GOOD, "success"),
        ("opencode", [OPEN_TEXT], Exit(signal=9), "killed"),
        ("opencode", [], GOOD, "unknown"),
        # Exit codes with a meaning
        ("gemini", [], Exit(code=41, stderr_tail="Please set an Auth method"), "auth"),
        ("gemini", [], Exit(code=53), "max_turns"),
        ("gemini", [], Exit(code=130), "killed"),
        ("gemini", [], Exit(code=42, stderr_tail="No input provided via stdin."), "crashed"),
        ("gemini", ["[API Error: You have exhausted your daily quota on this model.]"], Exit(code=1), "usage_limit"),
        ("qwen", [], Exit(code=53), "max_turns"),
        ("cursor", [], Exit(code=1, stderr_tail="Error: [unauthenticated] Authentication required."), "auth"),
        # Any command
        ("plain", ["building", "done"], GOOD, "success"),
        ("plain", [], GOOD, "success"),
        ("plain", ["make: *** [test] Error 1"], Exit(code=2), "crashed"),
        ("plain", [], Exit(signal=15), "killed"),
        ("plain", [], Exit(code=139), "crashed"),
        ("plain", ["litellm.RateLimitError: too many requests"], Exit(code=1), "rate_limit"),
        # What the sidecar itself knows
        ("claude", [CLAUDE_DONE], Exit(code=0, empty=True), "empty"),
        ("claude", [CLAUDE_TEXT], Exit(code=1, empty=True), "crashed"),
        ("claude", [CLAUDE_TEXT], Exit(signal=15, stopped="budget", message="It cost more than $5."), "budget"),
    ],
)
def test_a_run_ended(name: str, records: Sequence[dict[str, Any] | str], how: Exit, verdict: str) -> None:
    conclusion = ended(name, *records, how=how)
    assert (conclusion.reason or "success") == verdict
    assert conclusion.success == (verdict == "success")
    assert conclusion.event.type == ("ship_complete" if conclusion.success else "error")
    if not conclusion.success:
        assert conclusion.event.payload["fatal"] is True
        assert conclusion.event.payload["reason"] == verdict
        assert conclusion.event.payload["message"] == conclusion.message
        assert conclusion.message
    json.dumps(conclusion.event.payload, allow_nan=False)


def test_a_success_carries_what_the_agent_said_and_nothing_else() -> None:
    assert ended("codex", {"type": "thread.started", "thread_id": "th-1"}, CODEX_TEXT, CODEX_DONE).event.payload == {
        "summary": "Done.",
        "session_id": "th-1",
        "input_tokens": 10,
        "output_tokens": 2,
        "cached_tokens": 4,
    }
    assert ended("plain", "done").event.payload == {}


def test_a_failure_carries_what_is_known_of_the_run_too() -> None:
    conclusion = ended(
        "claude", CLAUDE_INIT, CLAUDE_TEXT, how=Exit(signal=9, stderr_tail="npm notice\nOut of memory\n")
    )
    assert conclusion.event.payload == {
        "message": "Ended by SIGKILL.\nnpm notice\nOut of memory",
        "reason": "killed",
        "fatal": True,
        "signal": 9,
        "summary": "Working on it.",
        "session_id": "s-1",
        "model": "sonnet",
    }


def test_a_limit_says_when_to_try_again_in_this_machines_time() -> None:
    conclusion = ended("codex", CODEX_LIMIT, how=Exit(code=1))
    assert conclusion.retry_at == datetime(2026, 6, 30, 13, 45, tzinfo=UTC)
    assert conclusion.event.payload["retry_at"] == "2026-06-30T13:45:00.000Z"


def test_a_time_within_stderr_is_found() -> None:
    conclusion = ended("claude", how=Exit(code=1, stderr_tail="Claude AI usage limit reached|1783159800"))
    assert (conclusion.reason, conclusion.retry_at) == ("usage_limit", datetime(2026, 7, 4, 10, 10, tzinfo=UTC))


def test_other_failures_say_no_time() -> None:
    assert ended("plain", how=Exit(code=1, stderr_tail="flaky; try again in 5 minutes")).retry_at is None


def test_the_end_of_stderr_is_the_message_of_a_crash() -> None:
    tail = "".join(f"line {number}\n" for number in range(1_000)) + "\x1b[31mTypeError: x is not a function\x1b[0m\n"
    message = ended("claude", CLAUDE_TEXT, how=Exit(code=1, stderr_tail=tail)).message
    assert message is not None
    assert message.startswith("Exited with code 1.\nline 996\n")
    assert message.endswith("TypeError: x is not a function")


def test_words_far_from_the_end_of_stderr_are_not_the_reason() -> None:
    tail = "debug: rate limit is 50 a minute\n" + "at f (x.js:1)\n" * 10
    assert ended("claude", CLAUDE_TEXT, how=Exit(code=1, stderr_tail=tail)).reason == "crashed"


def test_noise_on_stderr_does_not_explain_a_crash_after_a_success() -> None:
    conclusion = ended("claude", CLAUDE_DONE, how=Exit(code=1, stderr_tail="MCP server: not logged in"))
    assert conclusion.reason == "crashed"
    assert "It said that it was done" in str(conclusion.message)


def test_a_long_message_is_kept_to_what_a_run_can_hold() -> None:
    conclusion = ended("claude", {**CLAUDE_DONE, "is_error": True, "result": "no\n" * 5_000}, how=Exit(code=1))
    assert len(str(conclusion.message)) <= 2_000


def test_a_resumed_thread_counts_only_what_it_used_since() -> None:
    adapter = open_adapter("codex")
    adapter.begin(START, 0.0, Usage(10_656, 6, 5_888, None, 10_662))
    used = {"input_tokens": 21_328, "cached_input_tokens": 11_776, "output_tokens": 13}
    read_all(adapter, [json.dumps({"type": "turn.completed", "usage": used})])
    payload = conclude(adapter, GOOD, START).event.payload
    assert (payload["input_tokens"], payload["cached_tokens"], payload["output_tokens"]) == (10_672, 5_888, 7)


def test_a_thread_that_counts_anew_after_it_was_resumed_is_taken_as_it_is() -> None:
    adapter = open_adapter("codex")
    adapter.begin(START, 0.0, Usage(10_656, 6, 5_888, None, 10_662))
    read_all(adapter, [json.dumps(CODEX_DONE)])
    assert adapter.usage.input_tokens == 10


def test_deciding_changes_nothing() -> None:
    adapter = after("codex", CODEX_LIMIT, begin=True)
    how = Exit(code=1)
    assert conclude(adapter, how, START) == conclude(adapter, how, START)
