"""Reading a stream of JSON objects, one a line, that other things get into: text, colours, each other, cuts.

What stands in a line is taken in this order:

1. one object (the usual case: nothing else is tried);
2. several objects behind each other, or a list of them;
3. an object within the text of another, as Claude Code 2.1.74 put a `rate_limit_event` into an assistant's line, the
   rest of which then came as the next line: the inner object is read, and the outer one when its rest is there;
4. anything else: a `log_line`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from heartlane.worker.agents.base import AgentEvent
from heartlane.worker.agents.run_state import RunState

Record = Mapping[str, Any]
Handler = Callable[[Record], None]

TRIES_MAX: Final = 32
"""Places of one line at which an object is looked for: each may read on to the end of the line."""
LONG: Final = 1024 * 1024
"""Of a line with more characters than this, only the first two places are tried."""
FRAGMENT_MAX: Final = 4 * 1024 * 1024
"""Characters of a cut line that are kept, in case a later line is its rest."""
FRAGMENT_TRIES: Final = 4
"""Lines that aren't objects, after a cut one, each of which may be its rest."""
UNKNOWN_TYPES_MAX: Final = 64
"""Unknown types of lines that are told, each once; from there on they are passed over."""

_decode: Final = json.JSONDecoder().raw_decode
_OBJECT: Final = re.compile(r'\{\s*"[a-zA-Z_]+"\s*:')


class JsonLines(RunState):
    """An adapter for an agent that prints events as JSON objects with a `type`."""

    def __init__(self) -> None:
        super().__init__()
        self._handlers: dict[str, Handler] = dict(self.handlers())
        self._fragment = ""
        self._fragment_tries = 0
        self._unknown: set[str] = set()

    def handlers(self) -> Mapping[str, Handler]:
        """By a line's `type`, what reads it; `ignore` for types that are known to say nothing."""
        return {}

    def ignore(self, record: Record) -> None:
        """A line that says nothing that the log needs."""

    def kind_of(self, record: Record) -> object:
        """What a line is called: its `type`."""
        return record.get("type")

    def read(self, line: str, now: float) -> Sequence[AgentEvent]:
        self._now = now
        events: list[AgentEvent] = []
        self._events = events
        if line[:1] == "{":
            try:
                record, end = _decode(line)
            except (ValueError, RecursionError):
                self._read_otherwise(line)
                return events
            if end < len(line) and line[end:].strip():
                self._read_otherwise(line)
            else:
                self._read_record(record, line)
        else:
            self._read_otherwise(line)
        return events

    def _read_record(self, record: Record, line: str) -> None:
        kind = self.kind_of(record)
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is None:
            self._read_unknown(record, kind, line)
            return
        said = len(self._events)
        try:
            handler(record)
        except Exception:  # noqa: BLE001 - whatever an agent prints, its run goes on and the line is seen
            del self._events[said:]
            self.unreadable(line)

    def _read_unknown(self, record: Record, kind: object, line: str) -> None:
        """A line of a type that isn't known is told the first time; new types come with every version of an agent."""
        if not isinstance(kind, str):
            self.unreadable(line)
        elif (name := kind[:100]) not in self._unknown and len(self._unknown) < UNKNOWN_TYPES_MAX:
            self._unknown.add(name)
            self.note(line)

    def _read_otherwise(self, line: str) -> None:
        """A line that isn't just one object."""
        text = line.strip().removeprefix("\ufeff")
        if not text:
            return
        if text[0] in "{[" and self._read_values(text):
            return
        if self._fragment and self._read_rest(line.rstrip("\r\n")):
            return
        self._read_pieces(line.rstrip("\r\n").removeprefix("\ufeff"))

    def _read_values(self, text: str) -> bool:
        """Whether the whole line is values behind each other, each an object or a list of them; they are read then."""
        found: list[tuple[Record, str]] = []
        place = 0
        while place < len(text):
            try:
                value, end = _decode(text, place)
            except (ValueError, RecursionError):
                return False
            entries = value if isinstance(value, list) else [value]
            if not entries or not all(isinstance(entry, dict) for entry in entries):
                return False
            found.extend((entry, text[place:end]) for entry in entries)
            place = end
            while text[place : place + 1].isspace():
                place += 1
        for record, source in found:
            self._read_record(record, source)
        return True

    def _read_rest(self, line: str) -> bool:
        """Whether the line is the rest of an earlier one that was cut; it is read then."""
        whole = self._fragment + line
        self._fragment_tries -= 1
        if self._fragment_tries <= 0:
            self._fragment = ""
        record = _only_record(whole)
        if record is None:
            return False
        self._fragment = ""
        self._read_record(record, whole)
        return True

    def _read_pieces(self, line: str) -> None:
        """The objects of known types that stand within a line, and what is around them as text."""
        found = self._objects_in(line)
        around, place = "", 0
        for start, end, _ in found:
            around += line[place:start]
            place = end
        around += line[place:]
        if found and (record := _only_record(around)) is not None:
            self._read_record(record, around)
        elif around.strip():
            self.unreadable(around)
            if around[0] == "{" and len(around) <= FRAGMENT_MAX:
                self._fragment, self._fragment_tries = around, FRAGMENT_TRIES
        for start, end, record in found:
            self._read_record(record, line[start:end])

    def _objects_in(self, line: str) -> list[tuple[int, int, Record]]:
        """Objects of known types that something else got around, with where each begins and ends.

        Objects that belong to one that is cut are left to it: they stand where JSON has values.
        """
        found: list[tuple[int, int, Record]] = []
        cut = line[0] == "{"
        place = 0
        for _ in range(TRIES_MAX if len(line) <= LONG else 2):
            begin = _OBJECT.search(line, place)
            if begin is None:
                break
            start = begin.start()
            try:
                record, end = _decode(line, start)
            except (ValueError, RecursionError):
                place = start + 1
                continue
            place = end
            inner = cut and not found and start > 0 and line[:start].rstrip()[-1] in ":,["
            kind = self.kind_of(record)
            if not inner and isinstance(kind, str) and kind in self._handlers:
                found.append((start, end, record))
        return found


def _only_record(text: str) -> Record | None:
    """The object that a text is, and nothing but it; None for any other text."""
    if not text.startswith("{"):
        return None
    try:
        record, end = _decode(text)
    except (ValueError, RecursionError):
        return None
    return record if not text[end:].strip() else None
