"""What a worker shows of itself: a live table on a terminal, a line for each happening otherwise.

Happenings go to standard error with the time, on a terminal above the table. The table costs a redraw or two a second
while something changes; without a terminal rich isn't even imported.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Final, Self, TextIO

from heartlane.worker.clock import boottime
from heartlane.worker.limits import spoken

REFRESH_SECONDS: Final = 0.5
LINE_MAX: Final = 300
SHOW_CURSOR: Final = b"\x1b[?25h"
WIDE: Final = 100
COLUMNS: Final = (
    (WIDE, ("lane", "state", "phase", "lease", "tokens", "USD", "last line")),
    (50, ("lane", "state", "lease", "last line")),
    (0, ("lane", "state")),
)
"""What is shown on a terminal of at least so many columns."""
_CONTROLS: Final = dict.fromkeys(
    (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), " "
)


@dataclass(eq=False)  # two lanes of different plans may look alike
class LaneStatus:
    """How one lane of this worker stands; whoever knows more sets it.

    state           what the worker does with it: preparing, running, frozen, paused, ending, checking, reporting
    lease_until     `boottime()` at which the confirmed lease ends, or None
    tokens, cost_usd  spent so far, None where the agent doesn't say
    """

    lane_key: str
    attempt: int
    agent: str
    state: str = "preparing"
    phase: str = ""
    line: str = ""
    lease_until: float | None = None
    tokens: int | None = None
    cost_usd: float | None = None


class Status:
    """The one place that a worker prints from. For several threads; also a context manager.

    Whoever looked may go away at any time: what can't be written is lost, and nothing else.

    live    whether to draw the table; left out: when standard error is a terminal
    """

    def __init__(self, *, stream: TextIO | None = None, live: bool | None = None) -> None:
        self._stream: TextIO | None = stream or sys.stderr
        if live is None:
            live = self._stream is not None and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._live = live and self._stream is not None
        self._lock = threading.Lock()
        self._lanes: list[LaneStatus] = []
        self._closing = threading.Event()
        self._drawer: threading.Thread | None = None
        self._display: Any = None

    def __enter__(self) -> Self:
        if self._live:
            from rich.console import Console  # noqa: PLC0415 - costs memory that a service doesn't need
            from rich.live import Live  # noqa: PLC0415

            console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
            self._display = Live(console=console, auto_refresh=False, transient=True)
            self._display.start()
            self._drawer = threading.Thread(target=self._draw_forever, name="heartlane-status", daemon=True)
            self._drawer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._drawer is not None:
            self._drawer.join()
        if self._display is not None:
            with contextlib.suppress(OSError, ValueError):
                self._display.stop()

    def leave(self) -> None:
        """Give the terminal back as it was, without waiting for anything: the process ends now, in a signal handler."""
        if self._display is not None and self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                os.write(self._stream.fileno(), b"\r\n" + SHOW_CURSOR)

    def say(self, text: str, lane: LaneStatus | None = None) -> None:
        """One happening, as a line; control characters in it are shown as spaces."""
        where = f"{plain(lane.lane_key)} " if lane is not None else ""
        line = f"{time.strftime('%H:%M:%S')}  {where}{plain(text)}"
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._display is not None:
                self._display.console.print(line, overflow="fold")
            elif self._stream is not None:
                print(line, file=self._stream, flush=True)

    @property
    def has_lanes(self) -> bool:
        """Whether any lane is shown."""
        with self._lock:
            return bool(self._lanes)

    def begin(self, lane: LaneStatus) -> None:
        """Show a lane from now on."""
        with self._lock:
            self._lanes.append(lane)

    def end(self, lane: LaneStatus) -> None:
        """Show it no longer."""
        with self._lock:
            self._lanes.remove(lane)

    def _draw_forever(self) -> None:
        while not self._closing.wait(REFRESH_SECONDS):
            with self._lock, contextlib.suppress(OSError, ValueError):
                shown = table(self._lanes, boottime(), self._display.console.width)
                self._display.update(shown, refresh=True)


def table(lanes: list[LaneStatus], now: float, width: int = WIDE) -> Any:
    """The lanes as a rich table for a terminal of `width` columns; `now` is `boottime()`."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    headings = next(headings for least, headings in COLUMNS if width >= least)
    shown = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    for heading in headings:
        last = heading == headings[-1]
        longest = max(12, width // 3) if heading == "lane" else None
        shown.add_column(heading, no_wrap=True, overflow="ellipsis", ratio=1 if last else None, max_width=longest)
    for lane in lanes:
        left = None if lane.lease_until is None else max(0.0, lane.lease_until - now)
        style = {"running": "green", "frozen": "bold red", "paused": "yellow"}.get(lane.state, "")
        cells: dict[str, str | Text] = {
            "lane": Text(f"{plain(lane.lane_key)} #{lane.attempt}"),
            "state": Text(lane.state, style),
            "phase": Text(plain(lane.phase)),
            "lease": "" if left is None else spoken(left),
            "tokens": "" if lane.tokens is None else f"{lane.tokens:,}",
            "USD": "" if lane.cost_usd is None else f"{lane.cost_usd:.2f}",
            "last line": Text(plain(lane.line), "dim"),
        }
        shown.add_row(*[cells[heading] for heading in headings])
    return shown


def plain(text: str) -> str:
    """The text on one line, cut to LINE_MAX characters, without anything that a terminal would obey.

    >>> plain("a\\x1b[31m\\nb")
    'a [31m b'
    """
    shown = text.translate(_CONTROLS)
    return shown if len(shown) <= LINE_MAX else shown[: LINE_MAX - 1] + "…"
