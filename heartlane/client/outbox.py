"""What a lane has to tell and hasn't been confirmed yet: numbered, batched, bounded. Pure: time is an argument.

One report is under way at a time. Until its answer comes it stays exactly as it is, under the same `seq`, so that it
can be sent again and again without ever counting twice. A report that the server refuses as such (too large, not
valid) is made smaller, down to the one event that is at fault, which then goes without its details.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from heartlane.client.call import to_json
from heartlane.lanes.bounds import EVENTS_PER_REPORT_MAX

LINGER_SECONDS: Final = 1.0
"""How long an event waits for others at most."""
REPORT_BYTES_MAX: Final = 256 * 1024
"""Bytes of events in one report; a single larger event goes alone."""
WAITING_EVENTS_MAX: Final = 10_000
WAITING_BYTES_MAX: Final = 8 * 1024 * 1024
"""Beyond either, whoever has more to tell waits."""
KEPT_TEXT_MAX: Final = 1_000
"""Characters of a text that an event keeps when its details are too much for the server."""
KEPT_FIELDS: Final = ("phase", "line", "message", "reason", "fatal", "pr_url", "branch", "commit", "summary")


class Report(NamedTuple):
    """A report as it is sent: its number (None: a bare renewal), its body, and how many events are in it."""

    seq: int | None
    body: bytes
    events: int


class _Waiting(NamedTuple):
    """One event: its place in what this lane has told, when it was told, its JSON, and whether that was cut already."""

    number: int
    told_at: float
    json: bytes
    cut: bool = False


class Outbox:
    """The events of one attempt.

    told        number of the last event that was told
    confirmed   number of the last one that the server has
    refused     numbers of those that it wouldn't take even without their details
    last_seq    the last `seq` that the server has applied in this attempt: numbers go on from there
    """

    def __init__(self, worker_id: str, attempt: int, lease_seconds: int, last_seq: int = 0) -> None:
        self._who = to_json({"worker_id": worker_id, "attempt": attempt, "lease_seconds": lease_seconds})[:-1]
        self._seq = last_seq
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self.told = 0
        self._most = EVENTS_PER_REPORT_MAX
        self.pending: Report | None = None
        self.confirmed = 0
        self.refused: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether more should wait."""
        return len(self._waiting) >= WAITING_EVENTS_MAX or self._bytes >= WAITING_BYTES_MAX

    def tell(self, type: str, payload: Mapping[str, Any], now: float, at: str) -> int:
        """Add an event; its number, which `confirmed` reaches once the server has it.

        at      the wall clock's time, RFC 3339

        Raises ValueError or TypeError for a payload that is no JSON.
        """
        event = to_json({"type": type, "payload": dict(payload), "at": at})
        self.told += 1
        self._waiting.append(_Waiting(self.told, now, event))
        self._bytes += len(event)
        return self.told

    def due_at(self) -> float:
        """When what waits should be sent: at once when it fills a report, else when the oldest has lingered."""
        if not self._waiting:
            return float("inf")
        if len(self._waiting) >= self._most or self._bytes >= REPORT_BYTES_MAX:
            return float("-inf")
        return self._waiting[0].told_at + LINGER_SECONDS

    def next(self) -> Report:
        """The report to send now: the one under way, else a new one of what waits, or a bare renewal."""
        if self.pending is None:
            taken: list[bytes] = []
            size = 0
            for waiting in self._waiting:
                size += len(waiting.json)
                if len(taken) >= self._most or (taken and size > REPORT_BYTES_MAX):
                    break
                taken.append(waiting.json)
            if not taken:
                return Report(None, self._who + b"}", 0)
            self._seq += 1
            body = b'%s,"seq":%d,"events":[%s]}' % (self._who, self._seq, b",".join(taken))
            self.pending = Report(self._seq, body, len(taken))
        return self.pending

    def settle(self) -> None:
        """The report under way was applied."""
        if self.pending is not None:
            for _ in range(self.pending.events):
                self.confirmed = self._drop().number
            self.pending = None
            self._most = min(EVENTS_PER_REPORT_MAX, self._most * 2)

    def shrink(self) -> None:
        """The report under way was refused as such: the next is smaller, or goes without what makes it too much."""
        if self.pending is None:
            return
        count, self.pending = self.pending.events, None
        if count > 1:
            self._most = max(1, count // 2)
        elif self._waiting[0].cut:
            dropped = self._drop()
            self.refused.add(dropped.number)
            self.confirmed = dropped.number
        else:
            first = self._drop()
            less = first._replace(json=_without_details(first.json), cut=True)
            self._waiting.appendleft(less)
            self._bytes += len(less.json)

    def _drop(self) -> _Waiting:
        first = self._waiting.popleft()
        self._bytes -= len(first.json)
        return first


def _without_details(event: bytes) -> bytes:
    """The same event with what a run keeps of it, cut, and a word on what was left out."""
    value = json.loads(event)
    payload = value["payload"]
    kept = {name: payload[name] for name in KEPT_FIELDS if isinstance(payload.get(name), str | bool)}
    kept = {name: text[:KEPT_TEXT_MAX] if isinstance(text, str) else text for name, text in kept.items()}
    return to_json({**value, "payload": {**kept, "left_out": f"{len(event)} bytes that the server refused"}})
