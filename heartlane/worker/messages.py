"""What may be said over a lane's socket, and whether it keeps to the contract's bounds. Pure: bytes in, values out.

A message is one line of JSON (UTF-8), an object with a `verb`:

    {"verb": "report", "phase"?: string, "log"?: string, "events"?: [{"type": string, "payload"?: object}]}
    {"verb": "ship", "pr_url"?: string, "branch"?: string, "commit"?: string, "summary"?: string}
    {"verb": "fail", "message": string, "fatal"?: boolean}
    {"verb": "lane"}

The answer is one line too: `{"ok": true}` (for `lane` with `"lane": {…}`), or `{"error": string, "kind": string}` with
`"issues": [{"path", "message"}]` where a message breaks bounds; then all its problems are named at once, and nothing of
it was done. Fields that aren't known are ignored. The standard library's parser reads it: a worker must stay small, and
a socket of one's own is no place for floods.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from heartlane.lanes import bounds
from heartlane.lanes.run import WORKER_EVENT_TYPES

MESSAGE_BYTES_MAX: Final = 1024 * 1024
"""Longest line that is read: a hundred events of 10 kB."""
PAYLOAD_BYTES_MAX: Final = 40 * 1024
"""Largest payload of an event, as JSON in ASCII: any server takes a body of 64 kB."""
DEPTH_MAX: Final = 100
"""Deepest nesting of a payload; the server reads 200."""

SHIP_BOUNDS: Final[Mapping[str, int]] = {
    "pr_url": bounds.PR_URL_MAX,
    "branch": bounds.BRANCH_MAX,
    "commit": bounds.COMMIT_MAX,
    "summary": bounds.SUMMARY_MAX,
}
REPORTED_TYPES: Final = tuple(name for name in WORKER_EVENT_TYPES if name != "ship_complete")


class Report(NamedTuple):
    """How it goes: a phase, a log line, events `{"type", "payload"}` in order; whatever is given."""

    phase: str | None
    log: str | None
    events: list[dict[str, Any]]


class Ship(NamedTuple):
    """The lane is done; `fields` has those of SHIP_BOUNDS that were given."""

    fields: dict[str, str]


class Fail(NamedTuple):
    """The lane can't be done; `fatal`: nor by another attempt."""

    message: str
    fatal: bool


class AskLane(NamedTuple):
    """Which lane is this?"""


Message = Report | Ship | Fail | AskLane


class BadMessage(ValueError):
    """A message that breaks the rules above. `issues` has every problem found: a path, and a predicate ("must …")."""

    def __init__(self, issues: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path} {message}" for path, message in issues))
        self.issues = issues


def read_message(line: bytes) -> Message:
    """The message of one line. Raises BadMessage with every problem."""
    try:
        value = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_object)
    except RecursionError:
        raise BadMessage([("message", f"is nested deeper than {DEPTH_MAX} levels")]) from None
    except ValueError as error:
        said = str(error) if isinstance(error, _Refused) else "is not a JSON object in UTF-8"
        raise BadMessage([("message", said)]) from None
    if not isinstance(value, dict):
        raise BadMessage([("message", "is not a JSON object in UTF-8")])
    verb = value.get("verb")
    issues: list[tuple[str, str]] = []
    message: Message
    if verb == "report":
        message = _report(value, issues)
    elif verb == "ship":
        message = _ship(value, issues)
    elif verb == "fail":
        fatal = value.get("fatal", False)
        if not isinstance(fatal, bool):
            issues.append(("fatal", "must be true or false"))
        message = Fail(_text(value, "message", bounds.ERROR_MAX, issues, required=True) or "", fatal is True)
    elif verb == "lane":
        message = AskLane()
    else:
        raise BadMessage([("verb", "must be one of report, ship, fail, lane")])
    if issues:
        raise BadMessage(issues)
    return message


def as_events(report: Report) -> list[dict[str, Any]]:
    """All of a report as events for the run's log: the new phase first, then the log line, then its own events."""
    events: list[dict[str, Any]] = []
    if report.phase is not None:
        events.append({"type": "phase_change", "payload": {"phase": report.phase}})
    if report.log is not None:
        events.append({"type": "log_line", "payload": {"line": report.log}})
    return events + report.events


def _report(value: dict[str, Any], issues: list[tuple[str, str]]) -> Report:
    phase = _text(value, "phase", bounds.PHASE_MAX, issues)
    log = _text(value, "log", bounds.LOG_LINE_MAX, issues)
    events = value.get("events", [])
    if not isinstance(events, list):
        issues.append(("events", "must be an array"))
        events = []
    elif len(events) > bounds.EVENTS_PER_REPORT_MAX:
        issues.append(("events", f"must be at most {bounds.EVENTS_PER_REPORT_MAX}, not {len(events)}"))
    read = [
        _event(event, f"events.{place}", issues) for place, event in enumerate(events[: bounds.EVENTS_PER_REPORT_MAX])
    ]
    if not issues and phase is None and log is None and not read:
        issues.append(("message", "says nothing: give a phase, a log line or events"))
    return Report(phase, log, read)


def _event(event: Any, path: str, issues: list[tuple[str, str]]) -> dict[str, Any]:
    if not isinstance(event, dict):
        issues.append((path, "must be an object"))
        return {}
    kind = event.get("type")
    payload = event.get("payload", {})
    if kind == "ship_complete":
        issues.append((f"{path}.type", "must not be ship_complete: that is what the verb ship is for"))
    elif kind not in REPORTED_TYPES:
        issues.append((f"{path}.type", f"must be one of {', '.join(REPORTED_TYPES)}"))
    if not isinstance(payload, dict):
        issues.append((f"{path}.payload", "must be an object"))
        return {}
    if kind == "error" and payload.get("fatal") is True:
        issues.append((f"{path}.payload.fatal", "must not be true: that is what the verb fail is for"))
    problem = _unsendable(payload)
    if problem is None and len(json.dumps(payload)) > PAYLOAD_BYTES_MAX:
        problem = f"must be at most {PAYLOAD_BYTES_MAX:,} bytes long as JSON"
    if problem:
        issues.append((f"{path}.payload", problem))
    return {"type": kind, "payload": payload}


def _ship(value: dict[str, Any], issues: list[tuple[str, str]]) -> Ship:
    fields = {}
    for name, longest in SHIP_BOUNDS.items():
        text = _text(value, name, longest, issues, required=name in value and value[name] == "")
        if text is not None:
            fields[name] = text
    address = fields.get("pr_url")
    if address is not None and not address.startswith(("http://", "https://")):
        issues.append(("pr_url", "must be an address that begins with http:// or https://"))
    return Ship(fields)


def _text(
    value: dict[str, Any], name: str, longest: int, issues: list[tuple[str, str]], *, required: bool = False
) -> str | None:
    text = value.get(name)
    if text is None and not required:
        return None
    if not isinstance(text, str):
        issues.append((name, "is required: a string" if text is None else "must be a string"))
        return None
    problem = _unsendable(text)
    if required and not text.strip():
        problem = "must not be empty"
    elif len(text) > longest:
        problem = f"must be at most {longest:,} characters long, not {len(text):,}"
    if problem:
        issues.append((name, problem))
        return None
    return text


def _unsendable(value: Any) -> str | None:
    """Why the server would refuse a value, or None. Iterative, for it looks into what anybody may have nested."""
    left = [(value, 0)]
    while left:
        item, depth = left.pop()
        if depth > DEPTH_MAX:
            return f"must not be nested deeper than {DEPTH_MAX} levels"
        if isinstance(item, str):
            if "\0" in item:
                return "must not contain NUL characters"
            if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                return "must not contain half of a surrogate pair"
        elif isinstance(item, float):
            if math.isinf(item):
                return "must not hold a number too large for a double"
        elif isinstance(item, dict):
            left.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, list):
            left.extend((part, depth + 1) for part in item)
    return None


class _Refused(ValueError):
    """JSON that the standard parser would take, and the server not."""


def _no_constant(name: str) -> Any:
    raise _Refused(f"must not hold {name}, which is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Refused("names a field of an object twice")
    return found
