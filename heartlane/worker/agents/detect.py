"""Which agent a command is, or a line is of, where nobody said."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

LINE_MAX: Final = 200_000
"""A longer line isn't looked at: no agent's first lines are."""
WORDS_MAX: Final = 50
"""Words of a command that are looked at for its program."""

# Of the agents that come with Heartlane; kept here so that none of them is imported for it. A test holds both equal.
PROGRAMS: Final[Mapping[str, str]] = {
    "claude": "claude",
    "codex": "codex",
    "gemini": "gemini",
    "gemini-cli": "gemini",
    "opencode": "opencode",
    "opencode-ai": "opencode",
    "cursor-agent": "cursor",
    "amp": "amp",
    "qwen": "qwen",
    "qwen-code": "qwen",
    "copilot": "copilot",
    "goose": "goose",
}
PACKAGES: Final[Mapping[str, str]] = {
    "@anthropic-ai/claude-code": "claude",
    "@openai/codex": "codex",
    "@google/gemini-cli": "gemini",
    "@sourcegraph/amp": "amp",
    "@qwen-code/qwen-code": "qwen",
    "@github/copilot": "copilot",
}
"""What `npx` and the like start them by."""
MARKS: Final[Mapping[str, frozenset[str]]] = {
    "claude": frozenset({"stream-json"}),
    "codex": frozenset({"--json", "--experimental-json"}),
    "gemini": frozenset({"stream-json"}),
    "opencode": frozenset({"json"}),
    "cursor": frozenset({"stream-json"}),
    "amp": frozenset({"--stream-json", "--stream-json-thinking"}),
    "qwen": frozenset({"stream-json"}),
    "copilot": frozenset({"json"}),
    "goose": frozenset({"stream-json"}),
}
"""The arguments without which the agent prints text for people, which its adapter can't read."""

# Programs that start another one, the options of theirs that take a value, and how many words of their own stand first.
_STARTERS: Final[Mapping[str, tuple[frozenset[str], int]]] = {
    "env": (frozenset({"-u", "-C", "-S"}), 0),
    "npx": (frozenset({"-p", "--package"}), 0),
    "bunx": (frozenset(), 0),
    "pnpm": (frozenset(), 1),
    "yarn": (frozenset(), 1),
    "bun": (frozenset(), 1),
    "node": (frozenset({"-r", "--require", "--import"}), 0),
    "sudo": (frozenset({"-u", "-g"}), 0),
    "nice": (frozenset({"-n"}), 0),
    "ionice": (frozenset({"-c", "-n"}), 0),
    "nohup": (frozenset(), 0),
    "setsid": (frozenset(), 0),
    "stdbuf": (frozenset({"-i", "-o", "-e"}), 0),
    "timeout": (frozenset({"-s", "-k"}), 1),
    "time": (frozenset(), 0),
    "exec": (frozenset(), 0),
    "direnv": (frozenset(), 2),
    "mise": (frozenset(), 1),
}
_SHELLS: Final = frozenset({"sh", "bash", "zsh", "dash", "ksh", "fish"})
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_ENDING: Final = re.compile(r"(?i)\.(?:exe|cmd|bat|ps1|js|mjs|cjs)$")
_VERSION: Final = re.compile(r"(?<=.)@[^@/]*$")


def program_of(command: Sequence[str]) -> str | None:
    """The agent whose program a command starts, whatever its arguments are; None where it is none that is known.

    >>> program_of(["env", "CI=1", "npx", "-y", "@openai/codex@latest", "exec", "--json", "…"])
    'codex'
    """
    return _find(command, 2)[0]


def detect(command: Sequence[str]) -> str | None:
    """The agent whose output a command will print so that an adapter can read it.

    None for an agent that is started without the arguments for that (`program_of` still knows it) and for all others.

    >>> detect(["claude", "-p", "Fix it", "--output-format", "stream-json", "--verbose"])
    'claude'
    >>> detect(["claude", "-p", "Fix it"])
    """
    name, arguments = _find(command, 2)
    if name is None:
        return None
    given = {part for argument in arguments for part in (argument, argument.partition("=")[2])}
    return name if given & MARKS[name] else None


def _find(command: Sequence[str], depth: int) -> tuple[str | None, Sequence[str]]:
    """The agent a command starts, and its arguments."""
    takes_value: frozenset[str] = frozenset()
    own = 0  # words that the starter itself still takes, such as the seconds of `timeout`
    value_follows = False
    words = list(command[:WORDS_MAX])
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if value_follows or word.startswith("-"):
            value_follows = not value_follows and word in takes_value
        elif _ASSIGNMENT.match(word):
            continue
        elif own:
            own -= 1
        else:
            program = _ENDING.sub("", word.replace("\\", "/").rpartition("/")[2]).lower()
            packaged = next((found for name, found in PACKAGES.items() if name in word), None)
            found = packaged or PROGRAMS.get(_VERSION.sub("", program))
            if found is not None:
                return found, command[place:]
            if program in _SHELLS and depth:
                return _in_a_shell(words[place:], depth)
            if program not in _STARTERS:
                return None, ()
            takes_value, own = _STARTERS[program]
    return None, ()


def _in_a_shell(arguments: Sequence[str], depth: int) -> tuple[str | None, Sequence[str]]:
    for option, script in pairwise(arguments):
        if option.startswith("-") and not option.startswith("--") and option.endswith("c"):
            try:
                words = shlex.split(script[:LINE_MAX])
            except ValueError:
                return None, ()
            if words[:1] == ["cd"] and "&&" in words:
                words = words[words.index("&&") + 1 :]
            return _find(words, depth - 1)
    return None, ()


def detect_line(line: str) -> str | None:
    """The agent that prints such a line; None where it can't be told from this one: the next may be clearer."""
    text = line.strip().removeprefix("\ufeff")
    if not text.startswith("{") or len(text) > LINE_MAX:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    kind = record.get("type")
    if kind is None:
        return _without_a_type(record)
    if not isinstance(kind, str):
        return None
    if kind.startswith(("thread.", "turn.", "item.")) or kind == "session.created":
        return "codex"
    if kind.startswith(("session.", "assistant.", "tool.", "user.", "model.", "system.")) and "data" in record:
        return "copilot"
    if "sessionID" in record:
        return "opencode"
    if kind == "result":
        return _of_a_result(record)
    if kind in ("system", "assistant", "user", "rate_limit_event"):
        return _like_claude(record)
    if kind == "tool_call" and "call_id" in record:
        return "cursor"
    if kind in ("init", "tool_use", "tool_result") and ("session_id" in record or "tool_id" in record):
        return "gemini"
    if kind == "message":
        return "goose" if isinstance(record.get("message"), dict) else "gemini" if "role" in record else None
    if kind == "notification" and "extension_id" in record:
        return "goose"
    return "goose" if kind == "complete" and "total_tokens" in record else None


def _without_a_type(record: Mapping[str, Any]) -> str | None:
    message = record.get("msg")
    if isinstance(message, dict) and "type" in message:
        return "codex"
    return (
        "codex" if "model" in record and "provider" in record and ("workdir" in record or "sandbox" in record) else None
    )


def _of_a_result(record: Mapping[str, Any]) -> str | None:
    if "exitCode" in record:
        return "copilot"
    if "status" in record and "subtype" not in record:
        return "gemini"
    return _like_claude(record) if "subtype" in record else None


def _like_claude(record: Mapping[str, Any]) -> str | None:
    """Which of the four that print alike."""
    if "qwen_code_version" in record:
        return "qwen"
    if str(record.get("session_id", "")).startswith("T-"):
        return "amp"
    if (
        record.get("subtype") == "init"
        and "tools" not in record
        and record.get("apiKeySource") in ("env", "flag", "login")
    ):
        return "cursor"
    if record.get("type") in ("assistant", "user"):
        return None  # any of the four
    return "claude"
