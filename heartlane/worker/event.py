"""Events as the worker has them, and as bytes that every server takes.

An event is a dictionary as it goes over the wire: `type`, `payload` (an object), `at` (when it happened, RFC 3339).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from heartlane.lanes.bounds import BRANCH_MAX, COMMIT_MAX, LOG_LINE_MAX, PHASE_MAX, PR_URL_MAX, SUMMARY_MAX

EVENT_BYTES_MAX: Final = 48 * 1024
"""An encoded event. The strictest server takes bodies of 64 KiB, so that each event fits one by itself."""
DEPTH_MAX: Final = 100
"""Levels of nesting; the server's parser takes 200."""
INTEGER_MAX: Final = 10**300
ITEMS_MAX: Final = 100
"""Of a list or an object in an event that is too large otherwise."""

Event = dict[str, Any]

_KEPT: Final = {
    "line": LOG_LINE_MAX,
    "message": LOG_LINE_MAX,
    "phase": PHASE_MAX,
    "reason": PHASE_MAX,
    "tool": PHASE_MAX,
    "pr_url": PR_URL_MAX,
    "branch": BRANCH_MAX,
    "commit": COMMIT_MAX,
    "summary": SUMMARY_MAX,
}
"""What is kept, up to so many characters, of a payload of which nothing else fits."""


def encode(event: Mapping[str, Any]) -> bytes:
    """The event as compact JSON, UTF-8, at most EVENT_BYTES_MAX bytes, such that no server refuses it for its form.

    An event that is too large loses the ends of its longest strings and lists, and says so where it does. Raises
    TypeError for what is no event at all.
    """
    if not isinstance(event.get("type"), str) or not isinstance(event.get("payload", {}), Mapping):
        raise TypeError(f"not an event: {str(event)[:200]}")
    try:
        data = _dump(event)
        if len(data) <= EVENT_BYTES_MAX and not _is_deep(data, event):
            return data
    except (TypeError, ValueError, RecursionError):
        pass  # NaN, half a surrogate pair, a number of thousands of digits, a value that is no JSON
    for string_max in (8_000, 1_000, 100):
        data = _dump(_tame(event, string_max, 0))
        if len(data) <= EVENT_BYTES_MAX:
            return data
    payload = event.get("payload", {})
    kept = {key: _text(payload[key], most) for key, most in _KEPT.items() if isinstance(payload.get(key), str)}
    if "fatal" in payload:
        kept["fatal"] = payload["fatal"] is True  # type: ignore[assignment]
    event = {**event, "payload": {**kept, "left_out": "this event was too large"}}
    return _dump(_tame(event, SUMMARY_MAX, 0))


def stamp(seconds: float) -> str:
    """A moment of `time.time()` as an event's `at`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _is_deep(data: bytes, value: Any) -> bool:
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        return False
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, Mapping) else item)
            if isinstance(inner, Mapping | list | tuple)
        ]
        if not level:
            return False
    return True


def _tame(value: Any, string_max: int, depth: int) -> Any:
    """The value as plain JSON, with long strings and lists cut."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return value if -INTEGER_MAX < value < INTEGER_MAX else "a number of too many digits"
    if isinstance(value, Mapping):
        if depth >= DEPTH_MAX:
            return "…"
        pairs = list(value.items())
        some = {_text(str(key), 200): _tame(item, string_max, depth + 1) for key, item in pairs[:ITEMS_MAX]}
        return some if len(pairs) <= ITEMS_MAX else {**some, "left_out": len(pairs) - ITEMS_MAX}
    if isinstance(value, list | tuple):
        if depth >= DEPTH_MAX:
            return "…"
        items = [_tame(item, string_max, depth + 1) for item in value[:ITEMS_MAX]]
        return items if len(value) <= ITEMS_MAX else [*items, f"… {len(value) - ITEMS_MAX:,} more left out"]
    return _text(value if isinstance(value, str) else repr(value), string_max)


def _text(text: str, most: int) -> str:
    """The text, cut, in characters that UTF-8 has."""
    if len(text) > most:
        text = f"{text[:most]} … {len(text) - most:,} characters left out"
    return text.encode("utf-8", "replace").decode()
