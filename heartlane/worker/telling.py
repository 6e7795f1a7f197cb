"""What a lane has to tell, on its way to the spool: from the agent's output, its socket, and the worker itself.

    output ─► adapter ─┐
    socket ────────────┼─► secrets out ─► bursts thinned ─► spool
    worker ────────────┘

Everything passes here, so that nothing is spooled with a secret in it, and the status line sees it go by.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from heartlane.worker.agents import Adapter
from heartlane.worker.agents.base import NOTHING_USED, PLAIN
from heartlane.worker.coalescer import Coalescer
from heartlane.worker.event import stamp
from heartlane.worker.messages import Report, as_events
from heartlane.worker.reader import CutLine, Stream
from heartlane.worker.redact import Redactor
from heartlane.worker.socket import LaneRefused
from heartlane.worker.spool import Spool
from heartlane.worker.spool_files import SpoolError
from heartlane.worker.status import LaneStatus
from heartlane.worker.text import raw_line

Event = dict[str, Any]
USAGE_SECONDS: Final = 10.0


class Teller:
    """Takes events in and keeps them. For several threads; each event goes in whole, in the order of the calls."""

    def __init__(self, spool: Spool, redactor: Redactor, status: LaneStatus, lines_per_second: int) -> None:
        self.status = status
        self._spool = spool
        self._redactor = redactor
        self._coalescer = Coalescer(lines_per_second)
        self._lock = threading.Lock()

    def tell(self, kind: str, **payload: Any) -> None:
        """One event, at this moment. Raises SpoolError once the lane has ended."""
        self.put([{"type": kind, "payload": payload}])

    def put(self, events: Sequence[Event]) -> None:
        """Events as they go over the wire. Raises SpoolError once the lane has ended."""
        now, at = time.monotonic(), stamp(time.time())
        with self._lock:
            for event in events:
                clean = self._redactor.event({"at": at, **event})
                self._show(clean)
                self._keep(self._coalescer.add(clean, now))

    def flush(self) -> None:
        """Say what was left out of a burst that is over. To be called every second or so."""
        with self._lock:
            self._keep(self._coalescer.flush(time.monotonic()))

    def end(self) -> None:
        """Say what was left out, at the end of the output."""
        with self._lock:
            self._keep(self._coalescer.end())

    def _keep(self, events: Sequence[Event]) -> None:
        for event in events:
            self._spool.append(event)

    def _show(self, event: Event) -> None:
        payload = event.get("payload", {})
        match event["type"]:
            case "phase_change":
                self.status.phase = str(payload.get("phase", ""))
            case "log_line":
                self.status.line = str(payload.get("line", ""))
            case "action":
                what = payload.get("file") or payload.get("command") or payload.get("detail") or ""
                self.status.line = f"{payload.get('tool', '')} {what}".strip()
            case "error":
                self.status.line = str(payload.get("message", ""))


class Output:
    """An agent's output, read by its adapter. `on_lines` is called by the reader's thread alone."""

    def __init__(self, adapter: Adapter, teller: Teller, at: datetime) -> None:
        self.adapter = adapter
        self.printed_at: float | None = None
        """`time.monotonic()` of the last line; None before the first."""
        self._teller = teller
        self._stumbled = False
        self._told = NOTHING_USED
        self._told_at: float | None = None
        adapter.begin(at, time.monotonic())

    def on_lines(self, stream: Stream, lines: list[str]) -> None:
        """Some lines of one stream."""
        now = time.monotonic()
        self.printed_at = now
        events: list[Event] = []
        for line in lines:
            if stream == "stderr":
                # What an agent writes there is for people at a terminal; of a plain command it is half of all it says.
                if self.adapter.name == PLAIN and (text := raw_line(line)):
                    events.append({"type": "log_line", "payload": {"line": text, "stream": stream}})
                continue
            events += self._read(line, now)
            if isinstance(line, CutLine):
                said = f"… {line.left_out:,} bytes of this line left out"
                events.append({"type": "log_line", "payload": {"line": said, "left_out_bytes": line.left_out}})
        self._teller.put(events)
        self.spent()

    def _read(self, line: str, now: float) -> list[Event]:
        try:
            return [event._asdict() for event in self.adapter.read(line, now)]
        except Exception as error:  # noqa: BLE001 - an adapter that somebody brought; the line is kept all the same
            events = [{"type": "log_line", "payload": {"line": text}} for text in [raw_line(line)] if text]
            if not self._stumbled:
                self._stumbled = True
                said = f"The adapter {self.adapter.name} can't read this line ({type(error).__name__}: {error})."
                events.append({"type": "log_line", "payload": {"line": said}})
            return events

    def finish(self) -> None:
        """The output has ended."""
        self._teller.put([event._asdict() for event in self.adapter.finish()])
        self._teller.end()
        self.spent()

    def tell_usage(self, now: float) -> None:
        """Tell what the agent has used so far, where that is more than was told last: at once the first time, then at
        most every USAGE_SECONDS. The end tells it once more, whole."""
        usage = self.adapter.usage
        if usage == self._told or (self._told_at is not None and now - self._told_at < USAGE_SECONDS):
            return
        self._told, self._told_at = usage, now
        said = {**usage._asdict(), "agent": self.adapter.name, "model": self.adapter.model}
        del said["total_tokens"]  # of them, only this worker's own bound is held to
        self._teller.tell("heartbeat", usage={name: value for name, value in said.items() if value is not None})

    def spent(self) -> None:
        """Show what was spent so far."""
        usage = self.adapter.usage
        self._teller.status.tokens = usage.total_tokens
        self._teller.status.cost_usd = usage.cost_usd


class Voice:
    """What the agent says of its lane over the socket, and is told: a `LaneHandler`.

    on_change   called after `lane` has something new to say
    """

    def __init__(self, teller: Teller, lane: dict[str, Any], on_change: Callable[[], None]) -> None:
        self.shipped: dict[str, str] | None = None
        self.failed: str | None = None
        self.fatal = False
        self._teller = teller
        self._lane = lane
        self._on_change = on_change

    def tell_pause(self, paused: bool) -> None:
        """From now on the lane says of itself whether an operator wants it to stand still."""
        self._lane = {**self._lane, "paused": paused}
        self._on_change()

    @property
    def has_ended(self) -> bool:
        """Whether the agent said that its work is over."""
        return self.shipped is not None or self.failed is not None

    def on_report(self, phase: str | None, log: str | None, events: Sequence[Event]) -> None:
        """How it goes."""
        self._put(as_events(Report(phase, log, list(events))))

    def on_ship(self, fields: dict[str, str]) -> None:
        """The lane is done. The run ends with the agent, so that what it still says is heard."""
        if self.failed is not None:
            raise LaneRefused("this lane was said to have failed already")
        self.shipped = {**(self.shipped or {}), **fields}

    def on_fail(self, message: str, fatal: bool) -> None:
        """The lane can't be done."""
        self.failed, self.fatal = message, fatal

    def lane(self) -> dict[str, Any]:
        """What the lane is."""
        return self._lane

    def _put(self, events: Sequence[Event]) -> None:
        try:
            self._teller.put(events)
        except SpoolError:
            raise LaneRefused("this lane has ended", "lane_lost") from None
