"""Values out of an agent's JSON, taken as what they should be or not at all, and made fit for an event."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from heartlane.worker.agents.base import DETAIL_MAX, FILES_MAX, ID_MAX, Usage
from heartlane.worker.text import readable

COUNT_MAX: Final = 2**53
"""A larger count is a fault of the agent's; every JSON reader takes up to here exactly."""
DEPTH_MAX: Final = 8
_EMPTY: Final[Mapping[str, Any]] = {}

# The keys of a tool's input that say best what it does, in the order of preference.
_FILE_KEYS: Final = (
    "file_path",
    "filePath",
    "path",
    "notebook_path",
    "absolute_path",
    "target_file",
    "filename",
    "file",
)
_COMMAND_KEYS: Final = ("command", "cmd", "script", "shell_command")
_DETAIL_KEYS: Final = (
    "pattern", "query", "url", "description", "dir_path", "directory", "glob_pattern", "globPattern", "prompt", "skill",
    "subject", "name", "title",
)  # fmt: skip


def record_of(value: object) -> Mapping[str, Any]:
    """An object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else _EMPTY


def list_of(value: object) -> Sequence[Any]:
    """A list, or an empty one in place of anything else."""
    return value if isinstance(value, list) else ()


def text_of(value: object) -> str | None:
    """A text that isn't blank, as it came."""
    return value if isinstance(value, str) and value.strip() else None


def word(value: object, limit: int = ID_MAX) -> str | None:
    """An id, a name, a path or a command, fit to be sent; a number is taken for its digits. None for anything else."""
    if isinstance(value, str):
        return readable(value, limit) or None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= COUNT_MAX:
        return str(value)
    return None


def count(value: object) -> int | None:
    """A whole number from 0 on; a float without a fraction and a text of digits are taken too."""
    if isinstance(value, str) and len(value) <= 16 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and math.isfinite(value):
        value = round(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= COUNT_MAX else None


def dollars(value: object) -> float | None:
    """An amount of money from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= COUNT_MAX and math.isfinite(value) else None


def status_of(value: object) -> int | None:
    """An HTTP status that means a failure, given as a number or as its digits."""
    number = count(value)
    return number if number is not None and 400 <= number <= 599 else None


def first(record: Mapping[str, Any], *keys: str) -> Any:
    """The value of the first of these keys that is there and not null."""
    for key in keys:
        value = record.get(key)
        if value is not None:
            return value
    return None


def add(one: int | None, other: int | None) -> int | None:
    """A sum in which what wasn't said counts as nothing; None where neither was said."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def add_usage(one: Usage, other: Usage) -> Usage:
    """Both together."""
    cost = one.cost_usd if other.cost_usd is None else other.cost_usd + (one.cost_usd or 0.0)
    return Usage(
        add(one.input_tokens, other.input_tokens),
        add(one.output_tokens, other.output_tokens),
        add(one.cached_tokens, other.cached_tokens),
        cost,
        add(one.total_tokens, other.total_tokens),
    )


def later(new: Usage, old: Usage) -> Usage:
    """The new one, with the old where it says nothing."""
    return Usage(
        old.input_tokens if new.input_tokens is None else new.input_tokens,
        old.output_tokens if new.output_tokens is None else new.output_tokens,
        old.cached_tokens if new.cached_tokens is None else new.cached_tokens,
        old.cost_usd if new.cost_usd is None else new.cost_usd,
        old.total_tokens if new.total_tokens is None else new.total_tokens,
    )


def less(one: Usage, other: Usage) -> Usage:
    """The tokens of one without those of the other, as far as both say; the cost of the one."""
    return Usage(
        _difference(one.input_tokens, other.input_tokens),
        _difference(one.output_tokens, other.output_tokens),
        _difference(one.cached_tokens, other.cached_tokens),
        one.cost_usd,
        _difference(one.total_tokens, other.total_tokens),
    )


def _difference(one: int | None, other: int | None) -> int | None:
    return one if one is None or other is None else one - other


def error_text(value: object) -> str | None:
    """The words within an error, however it is wrapped: a text, JSON within a text, `{error: {message}}`, `{data}`."""
    return _error_text(value, DEPTH_MAX)


def _error_text(value: object, depth: int) -> str | None:
    if depth == 0:
        return None
    if isinstance(value, str):
        inner = _unwrapped(value)
        return (_error_text(inner, depth - 1) if inner is not None else None) or text_of(value)
    if isinstance(value, list):
        found = [words for entry in value[:10] if (words := _error_text(entry, depth - 1))]
        return "\n".join(found) or None
    record = record_of(value)
    for key in ("message", "error", "data", "detail", "reason", "name", "type", "code"):
        if key in record and (words := _error_text(record[key], depth - 1)):
            return words
    return None


def error_status(value: object) -> int | None:
    """The HTTP status within an error, wherever it stands."""
    return _error_status(value, DEPTH_MAX)


def _error_status(value: object, depth: int) -> int | None:
    if depth == 0:
        return None
    if isinstance(value, str):
        value = _unwrapped(value)
    record = record_of(value)
    for key in ("status", "statusCode", "status_code", "http_status", "code"):
        if (status := status_of(record.get(key))) is not None:
            return status
    for key in ("error", "data", "message", "cause"):
        if key in record and (status := _error_status(record[key], depth - 1)) is not None:
            return status
    return None


def _unwrapped(text: str) -> object:
    """What a text holds that is JSON itself; None for any other."""
    if len(text) > 100_000 or not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def files_of(paths: Sequence[object]) -> dict[str, Any]:
    """`file`, and `files` where there are several."""
    names = [name for path in paths[:FILES_MAX] if (name := word(path, DETAIL_MAX))]
    if not names:
        return {}
    return {"file": names[0], "files": names} if len(names) > 1 else {"file": names[0]}


def target_of(tool_input: object) -> dict[str, Any]:
    """What a tool call is about, from its input: `command`, `file` or `detail`, the first that it has."""
    if isinstance(tool_input, str):
        if tool_input.startswith("*** Begin Patch"):
            return files_of(patched_files(tool_input))
        shown = word(tool_input, DETAIL_MAX)
        return {"detail": shown} if shown else {}
    record = record_of(tool_input)
    for key in _COMMAND_KEYS:
        if key in record and (command := command_text(record[key])):
            return {"command": command}
    for key in _FILE_KEYS:
        if name := word(record.get(key), DETAIL_MAX):
            return {"file": name}
    if (todos := first(record, "todos", "items", "plan")) and (detail := progress(list_of(todos))):
        return {"detail": detail}
    patch = first(record, "patch", "input")
    if isinstance(patch, str) and patch.startswith("*** Begin Patch"):
        return files_of(patched_files(patch))
    for key in _DETAIL_KEYS:
        if detail := word(record.get(key), DETAIL_MAX):
            return {"detail": detail}
    return {}


def command_text(value: object) -> str | None:
    """A command, given as a text or as its words."""
    if isinstance(value, list):
        words = [entry for entry in value if isinstance(entry, str)]
        # The shell around it says nothing: ["bash", "-lc", "make test"].
        value = words[2] if len(words) == 3 and words[1] in ("-c", "-lc", "-ic") else " ".join(words)
    return readable(value, DETAIL_MAX) or None if isinstance(value, str) else None


def patched_files(patch: str) -> list[str]:
    """The paths in a patch of the form `*** Update File: PATH`."""
    found = []
    for line in patch[:100_000].split("\n"):
        kind, colon, path = line.partition(" File: ")
        if colon and kind in ("*** Add", "*** Update", "*** Delete"):
            found.append(path.strip())
    return found


def progress(todos: Sequence[Any]) -> str | None:
    """A list of things to do in one line: how many are done, and which is next."""
    done, following = 0, None
    for todo in todos:
        entry = record_of(todo)
        if entry.get("completed") is True or entry.get("status") in ("completed", "done", "TODO_STATUS_COMPLETED"):
            done += 1
        elif following is None or entry.get("status") in ("in_progress", "TODO_STATUS_IN_PROGRESS"):
            following = word(first(entry, "text", "content", "step", "title", "description"), DETAIL_MAX) or following
    if not todos:
        return None
    return f"{done} of {len(todos)} done" + (f"; next: {following}" if following else "")
