"""What agents say when they fail comes to the right reason: their own words, and those they pass on."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.worker import reasons
from heartlane.worker.reasons import MEANINGS, REASONS, classify, session_is_gone

SAID = {
    "usage_limit": [
        "You've hit your session limit · resets 9am (Europe/Berlin)",
        "You've hit your limit · resets 3pm",
        "Claude AI usage limit reached|1749924000",
        "5-hour limit reached ∙ resets 3pm",
        "Opus weekly limit reached",
        "You've hit your usage limit. Upgrade to Pro or try again at Aug 31st, 2026 7:08 AM.",
        "Credit balance is too low",
        "Your workspace is out of credits.",
        "Error: You exceeded your current quota, please check your plan and billing details",
        "You have exhausted your capacity on this model. Your quota will reset after 2h30m10s.",
        "Quota exceeded for quota metric 'Gemini 2.5 Pro Requests' and limit 'Requests per day'",
        "Sorry, you've exceeded your premium request allowance",
        "insufficient_quota",
        "billing_error",
        "Error: 402 Payment Required",
    ],
    "rate_limit": [
        "exceeded retry limit, last status: 429 Too Many Requests",
        "API Error: 429 {}",
        "Repeated 529 Overloaded errors",
        "Rate limit reached for gpt-5 on tokens per min (TPM). Please try again in 1.2s",
        'got status: 429. {"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}',
        "The server is busy, please retry",
        "rate_limit_error: Number of requests exceeded",
    ],
    "auth": [
        "Not logged in · Please run /login",
        "Invalid API key · Fix external API key",
        "OAuth token has expired. Please run /login",
        "OAuth token revoked · Please run /login",
        "authentication_failed",
        "oauth_org_not_allowed",
        "Your organization has disabled Claude subscription access for Claude Code",
        "unexpected status 401 Unauthorized: Missing bearer or basic authentication in header",
        "Missing environment variable: `OPENAI_API_KEY`. Create an API key and export it.",
        "Failed to refresh token: 401",
        "Please set an Auth method in your settings.json or specify one of the following environment variables",
        "No auth type is selected. Please configure an auth type before running in non-interactive mode.",
        "Error: No authentication information found.",
        "No API key found. Starting login flow...",
        "Error: [unauthenticated] Authentication required. Please run 'cursor-agent login' first.",
        "litellm.AuthenticationError: AnthropicException - invalid x-api-key",
    ],
    "max_turns": [
        "Reached maximum number of turns (5)",
        "error_max_turns",
        "FatalTurnLimitedError Reached max session turns for this session.",
        "I've reached the maximum number of actions I can do without user input.",
    ],
    "context_overflow": [
        "Prompt is too long",
        "Codex ran out of room in the model's context window. Start a new conversation.",
        "This model's maximum context length is 128000 tokens.",
        "context_length_exceeded",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ],
    "budget": ["error_max_budget_usd", "Session budget of $5.00 exceeded", "exceeded the session token budget"],
    "refused": [
        "API Error: Claude Code is unable to respond to this request, which appears to violate our Usage Policy",
        "The response was stopped by the content filter",
        "refusal",
    ],
    "unknown": [
        "There's an issue with the selected model (no-such-model). It may not exist or you may not have access to it.",
        "The 'x' model is not supported when using Codex with a ChatGPT account.",
        "Reconnecting... 2/5 (timeout waiting for child process to exit)",
        "stream disconnected before completion: failed to lookup address information",
        "fetch failed",
        "Error: EACCES: permission denied, mkdir '/x'",
        "3 tests failed",
        "",
    ],
}


@pytest.mark.parametrize(("reason", "words"), [(reason, words) for reason, all_ in SAID.items() for words in all_])
def test_the_words_of_a_failure_say_why(reason: str, words: str) -> None:
    assert classify(words) == reason
    assert classify(f"Error:\n{words.upper()}\n    at main (cli.js:1:1)") == reason


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "auth"), (402, "usage_limit"), (403, "auth"), (404, "unknown"), (429, "rate_limit"), (529, "rate_limit")],
)
def test_a_status_says_why_where_the_words_do_not(status: int, reason: str) -> None:
    assert classify("It did not work.", status) == reason


def test_the_words_of_a_limit_count_more_than_its_status() -> None:
    assert classify("You've hit your session limit", 429) == "usage_limit"


def test_every_reason_is_explained() -> None:
    assert set(MEANINGS) == set(REASONS)


@given(st.text(max_size=500), st.one_of(st.none(), st.integers()))
def test_any_words_come_to_a_reason(words: str, status: int | None) -> None:
    assert classify(words, status) in REASONS


def test_a_text_of_megabytes_is_looked_at_at_both_its_ends() -> None:
    assert classify("x" * 5_000_000 + " usage limit reached") == "usage_limit"
    assert classify("usage limit reached " + "x" * 5_000_000) == "usage_limit"


@pytest.mark.parametrize(
    "words",
    [
        "No conversation found with session ID: 0ef1a5dd-c0e6-4855-8416-ad0867585237",
        "Error: thread/resume: thread/resume failed: no rollout found for thread id 0199f000",
        "Error resuming session: No previous sessions found for this project.",
        "No saved session found with ID 0ef1a5dd.",
        "Error: No session, task, or name matched '0ef1a5dd'.",
        "Session not found",
    ],
)
def test_a_session_that_is_gone_is_seen(words: str) -> None:
    assert session_is_gone(words)


def test_other_failures_are_not_taken_for_a_session_that_is_gone() -> None:
    assert not session_is_gone("Model metadata for `x` not found.")
    assert not session_is_gone("You've hit your session limit")


def test_the_examples_in_the_module_are_true() -> None:
    assert doctest.testmod(reasons).failed == 0
