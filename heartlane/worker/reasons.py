"""Why an agent stopped, read from what it said: error names, HTTP statuses, and the prose that people are shown.

One table, tried from the top. A text is looked at by its first match only, so what is more certain stands first: the
words of a subscription's limit come before the 429 that it is sent with. The texts are those that the agents print
themselves (Claude Code, Codex, Gemini CLI, OpenCode, Cursor, Qwen Code, Amp, Copilot CLI, goose, aider) and those that
they pass on of their model providers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, get_args

Reason = Literal[
    "usage_limit",
    "rate_limit",
    "auth",
    "max_turns",
    "context_overflow",
    "budget",
    "refused",
    "crashed",
    "killed",
    "unknown",
    "empty",
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
MEANINGS: Final[Mapping[Reason, str]] = {
    "usage_limit": "The account's allowance is used up until a certain time.",
    "rate_limit": "The provider takes no more requests for a short while, or is overloaded.",
    "auth": "The agent isn't logged in, or its login isn't allowed to do this.",
    "max_turns": "The agent's own bound on turns was reached.",
    "context_overflow": "The conversation no longer fits into the model's context.",
    "budget": "A bound on cost or tokens was reached.",
    "refused": "The model refused the task.",
    "crashed": "The agent broke down.",
    "killed": "A signal ended the agent.",
    "unknown": "The agent failed and said nothing that is known here.",
    "empty": "The agent said it was done, but changed nothing.",
}
WAITING: Final = frozenset({"usage_limit", "rate_limit"})
"""Reasons that pass by themselves: with these an agent may say when to try again."""

LOOKED_AT_MAX: Final = 8_000
"""Characters of a text that are looked at: half from its beginning, half from its end."""

_TABLE: Final[tuple[tuple[Reason, tuple[str, ...]], ...]] = (
    (
        "context_overflow",
        (
            r"(?:prompt|input) is too long|prompt_too_long",
            r"context[ _-]?(?:window|length|limit|size)|maximum context|context ?overflow",
            r"ran out of room in the model|request too large for model",
            r"input token count .{0,40}exceeds|too many (?:input )?tokens in",
            r"exceeds? the (?:model'?s? )?(?:maximum )?(?:number of )?(?:input )?tokens",
        ),
    ),
    (
        "max_turns",
        (
            r"max(?:imum)?[ _-]?(?:number of )?(?:session[ _-]?)?(?:turns|actions|steps|iterations)",
            r"turn[ _-]?limit|reached max(?:imum)? .{0,20}turns",
        ),
    ),
    (
        "budget",
        (
            r"max(?:imum)?[ _-]?budget|budget[ _-]?(?:usd|limit|exceeded)",
            r"budget .{0,30}(?:exceeded|reached|exhausted|spent)|exceed\w* .{0,30}budget",
            r"(?:session|rollout) .{0,20}token budget",
        ),
    ),
    (
        "usage_limit",
        (
            r"(?:hit|reached|exceeded) your (?!rate)[\w. -]{0,40}(?:limit|quota|allowance)|(?<!rate.)limit reached",
            r"(?:usage|session|weekly|daily|monthly|hourly|\d[ -]?hour|spend(?:ing)?|plan)[ _-]?(?:limit|cap)s?\b",
            r"(?:premium requests?|quota)[ _-]?(?:limit|cap|exceeded|exhausted|will reset|has been|reached)",
            r"out[ _]of[ _](?:usage |extra )?(?:credits?|quota|tokens|premium requests)|credit balance",
            r"(?:insufficient|no|not enough|more)[ _-](?:credits?|quota|funds|balance)\b|no remaining quota",
            r"(?:exceeded|exhausted) .{0,60}(?:quota|allowance)|exhausted your (?:capacity|daily)",
            r"billing_error|billing[ _-](?:hard[ _-])?limit|payment[ _]required|usage_not_included",
        ),
    ),
    (
        "auth",
        (
            r"not (?:logged|signed) in|not authenticated|please (?:log|sign)[ -]?in|must (?:log|sign) in",
            r"(?:run|use|type) .{0,30}(?:/login|\blogin\b)|log ?in (?:is )?required|login flow",
            r"unauthori[sz]ed|unauthenticated|invalid x-api-key|permission_error|provider\.auth|ProviderAuth",
            r"authenticat(?:ion|e)[ _.]?(?:failed|error|required|is required|token)|failed to authenticate",
            r"(?:no|invalid|incorrect|missing|expired|wrong|set (?:an?|the|your)) (?:\w+ )?api[ _-]?key",
            r"(?:no|invalid|missing|set (?:an?|the|your)) (?:\w+ )?auth(?:entication)?\b",
            r"api[ _-]?key (?:not|is|was|required|missing|expired|invalid)",
            r"missing environment variable.{0,40}(?:key|token)",
            r"oauth .{0,40}(?:expired|revoked|invalid|not allowed|not supported)|oauth_org_not_allowed",
            r"refresh[ _]token|token (?:has |is |was )?(?:been )?(?:expired|revoked|invalid)",
            r"(?:invalid|bad|no|expired|missing) credentials|could not .{0,30}credentials",
            r"organization .{0,60}(?:disabled|does not have access)|subscription access",
            r"no active .{0,20}subscription|access (?:was |is |has been )?denied by .{0,20}polic|FatalAuthentication",
        ),
    ),
    (
        "rate_limit",
        (
            r"rate[ _-]?limit|too many requests|overloaded|RESOURCE_?EXHAUSTED|throttl",
            r"high (?:demand|load)|server is busy|at capacity|slow down|temporarily unavailable due to load",
        ),
    ),
    (
        "refused",
        (
            r"\brefus(?:al|ed to|es to)\b|content[ _-]?(?:filter|policy)|usage policy",
            r"violat\w+ .{0,40}(?:polic|terms)|safety (?:reasons|filter)|blocked by .{0,30}(?:safety|polic|filter)",
            r"prohibited[ _]content|blocked the (?:prompt|response)|unable to respond to this request",
        ),
    ),
)
_WORDS: Final = tuple((reason, "|".join(words)) for reason, words in _TABLE)

_BY_STATUS: Final[Mapping[int, Reason]] = {
    401: "auth",
    402: "usage_limit",
    403: "auth",
    429: "rate_limit",
    503: "rate_limit",
    529: "rate_limit",
}
# A status within prose or within JSON that stands in prose: "unexpected status 401", "API Error: 429 …", "code":429.
_STATUS: Final = (
    r"(?:status(?:[ _]?code)?|\bhttp(?:/[\d.]+)?|error|\bcode|\[)[\"' ]{0,3}[:=]?[ (\"']{0,3}"
    r"(?:code[ :=]{1,2})?(4\d\d|5\d\d)\b"
)


def classify(text: str, status: int | None = None) -> Reason:
    """The reason that a failure's words and HTTP status (where there is one) come to; `unknown` where neither says.

    >>> classify("You've hit your usage limit. Try again at 3:45 PM.")
    'usage_limit'
    >>> classify("There's an issue with the selected model", 404)
    'unknown'
    """
    if len(text) > LOOKED_AT_MAX:
        text = f"{text[: LOOKED_AT_MAX // 2]} {text[-LOOKED_AT_MAX // 2 :]}"
    for reason, words in _WORDS:
        # Compiled when the first failure is looked at, by the module `re` itself: most runs have none.
        if re.search(words, text, re.IGNORECASE | re.DOTALL):
            return reason
    if status is None and (found := re.search(_STATUS, text, re.IGNORECASE)):
        status = int(found[1])
    return _BY_STATUS.get(status, "unknown") if status is not None else "unknown"


_SESSION_GONE: Final = (
    r"no (?:conversation|rollout|saved session|session|thread|task)\b.{0,60}(?:found|matched|exists)|"
    r"(?:session|thread|conversation) .{0,60}(?:not found|does not exist)|no previous sessions found"
)


def session_is_gone(text: str) -> bool:
    """Whether a failure means that the session to go on with isn't there (any more): a new one can be started.

    >>> session_is_gone("No conversation found with session ID: 0ef1a5dd")
    True
    """
    return re.search(_SESSION_GONE, text[:LOOKED_AT_MAX], re.IGNORECASE) is not None
