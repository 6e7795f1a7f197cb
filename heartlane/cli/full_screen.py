"""A terminal as a whole screen: taken over, drawn line by line, and given back as it was, whatever ends the program.

Only lines that differ from what stands there are written. Colours are those that rich finds the terminal to have;
NO_COLOR leaves bold and reversed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.style import Style

ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""Another screen, no cursor, no wrapping at the right edge."""
LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
KEYS: Final = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "rub out",
    "\b": "rub out",
}


class Span(NamedTuple):
    """A piece of a line. The text is harmless already; `style` is one of rich's."""

    text: str
    style: str = ""


Line = tuple[Span, ...]


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly so many columns, cut with an ellipsis where it is longer.

    >>> fitted("abc", 5), fitted("abcdef", 4), fitted("7", 3, right=True)
    ('abc  ', 'abc…', '  7')
    """
    if width <= 0:
        return ""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…"
    blank = " " * (width - length)
    return blank + text if right else text + blank


class Screen:
    """The terminal at standard input and output. Use it as a context manager, within a running event loop.

    on_key      called with each key: a character, or a name of KEYS
    on_resize   called when the terminal has another size, or is there again after a stop
    """

    def __init__(self, on_key: Callable[[str], None], on_resize: Callable[[], None]) -> None:
        self._console = Console(highlight=False)
        self._on_key = on_key
        self._on_resize = on_resize
        self._input = sys.stdin.fileno()
        self._drawn: list[str] = []
        self._before: list[Any] | None = None
        self.ended_by: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGWINCH, self._again)
        loop.add_signal_handler(signal.SIGTSTP, self._stop)
        loop.add_reader(self._input, self._read)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._input)
        self._give_back()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP):
            loop.remove_signal_handler(number)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(sys.stdout.fileno())
            if size.columns and size.lines:
                return size.columns, size.lines
        return 80, 24

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines, from the top. What doesn't fit is left out."""
        columns, rows = self.size
        new = [self._text(line, columns) for line in lines[:rows]]
        new += [""] * (rows - len(new))
        changed = [
            f"\x1b[{number};1H{text}\x1b[K"
            for number, text in enumerate(new, 1)
            if number > len(self._drawn) or self._drawn[number - 1] != text
        ]
        self._drawn = new
        if changed:
            self._write("".join(changed))

    def _text(self, line: Line, columns: int) -> str:
        parts, left = [], columns
        for text, style in line:
            shown = text if cell_len(text) <= left else set_cell_size(text, left)
            left -= cell_len(shown)
            parts.append(self._styled(shown, style))
            if left <= 0:
                break
        return "".join(parts)

    def _styled(self, text: str, style: str) -> str:
        if not style or not text:
            return text
        before, after = _codes(style, self._console.color_system, self._console.no_color)
        return f"{before}{text}{after}"

    # --- the terminal ---------------------------------------------------------------------------------------------

    def _take(self) -> None:
        with contextlib.suppress(termios.error):
            self._before = termios.tcgetattr(self._input)
            tty.setcbreak(self._input)
        self._drawn = []
        self._write(f"{ENTER}\x1b[2J")

    def _give_back(self) -> None:
        self._write(LEAVE)
        if self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (OSError, ValueError):
            self._end(signal.SIGHUP)  # whoever looked is gone

    def _read(self) -> None:
        try:
            data = os.read(self._input, 1_024)
        except OSError:
            data = b""
        if not data:
            self._end(signal.SIGHUP)
            return
        for key in keys_of(data.decode("utf-8", "ignore")):
            self._on_key(key)

    def _again(self) -> None:
        self._drawn = []
        self._write("\x1b[2J")
        self._on_resize()

    def _stop(self) -> None:
        """Ctrl-Z: the shell gets its terminal as it was, and we take it again when we go on."""
        self._give_back()
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here it goes on after SIGCONT.
        loop.add_signal_handler(signal.SIGTSTP, self._stop)
        self._take()
        self._on_resize()

    def _end(self, number: int) -> None:
        if not self.ended_by.done():
            self.ended_by.set_result(number)


def keys_of(text: str) -> Iterator[str]:
    """The keys in what a terminal sends at once; sequences that nobody knows are passed over.

    >>> list(keys_of("j\\x1b[B\\x1b[1;5Dq\\x1b"))
    ['j', 'down', 'q', 'escape']
    """
    place = 0
    while place < len(text):
        if text[place] != "\x1b":
            yield KEYS.get(text[place], text[place])
            place += 1
            continue
        end = place + 1
        if text[end : end + 1] in ("[", "O"):
            end += 1
            while end < len(text) and not "@" <= text[end] <= "~":
                end += 1
            end += 1
        sequence = text[place:end]
        if sequence in KEYS:
            yield KEYS[sequence]
        place = end


@lru_cache(maxsize=256)
def _codes(style: str, color_system: str | None, no_color: bool) -> tuple[str, str]:
    """What goes before and behind a text of a style."""
    found = Style.parse(style)
    # Like rich's own consoles: without colours, what isn't colour stays.
    shown = found.without_color if no_color else found
    system = None if color_system is None else _system(color_system)
    before, _, after = shown.render("\0", color_system=system).partition("\0")
    return before, after


def _system(name: str) -> Any:
    from rich.color import ColorSystem

    return {
        "standard": ColorSystem.STANDARD,
        "256": ColorSystem.EIGHT_BIT,
        "truecolor": ColorSystem.TRUECOLOR,
        "windows": ColorSystem.WINDOWS,
    }[name]
