"""What a command prints: read in chunks, both streams by one thread, handed on as lines.

Bytes become lines without a limit on either: CRLF, blank lines, no newline at the end, invalid UTF-8 (U+FFFD in its
place), progress bars that redraw their line by carriage returns (the last state is kept), a line of many megabytes (its
head is kept, the rest counted). Memory is bounded whatever comes.

The command waits for us only when its pipe is full, that is when whoever takes the lines takes longer than the command
takes to print; for how long it may have had to wait is counted (`Reader.held_seconds`).
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Self

from heartlane.worker.text import plain

LINE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A longer line is cut: a tool's result that is a picture comes as a line of ten megabytes, and is meant to be read."""
TAIL_BYTES: Final = 64 * 1024
READ_BYTES: Final = 256 * 1024
REDRAWN_BYTES: Final = 64 * 1024
"""A line that isn't complete after so many bytes may be a progress bar: its earlier states are forgotten."""
PARTIAL_CHARACTERS_MAX: Final = 2_000
SLOW_SECONDS: Final = 0.005
"""Handing lines on for no longer than this holds nobody up: the pipe has room for what comes meanwhile."""

Stream = Literal["stdout", "stderr"]
OnLines = Callable[[Stream, list[str]], None]


class CutLine(str):
    """The head of a line that was too long. `left_out`: how many bytes of it were not kept."""

    __slots__ = ("left_out",)
    left_out: int

    def __new__(cls, head: str, left_out: int) -> Self:
        line = super().__new__(cls, head)
        line.left_out = left_out
        return line


class LineSplitter:
    """Bytes in whatever pieces → lines, without their ends and without blank ones. Not for several threads.

    line_max    bytes from which on a line is cut, at least 4
    """

    def __init__(self, line_max: int = LINE_BYTES_MAX) -> None:
        self.cut = 0
        """Lines that were too long, so far."""
        self._line_max = line_max
        self._parts: list[bytes] = []
        self._size = 0
        self._left_out = 0
        self._shrink_at = REDRAWN_BYTES

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete with these bytes."""
        end = data.rfind(b"\n")
        if end < 0:
            self._keep(data)
            return []
        lines = []
        start = 0
        if self._parts:
            start = data.find(b"\n") + 1
            lines.append(self._whole(data[: start - 1]))
        if start <= end:
            lines += self._complete(data[start:end])
        if end + 1 < len(data):
            self._keep(data[end + 1 :])
        return [line for line in lines if line] if "" in lines else lines

    def _complete(self, data: bytes) -> list[str]:
        """Whole lines, without the newline of the last."""
        if len(data) > self._line_max:
            return [self._whole(piece) for piece in data.split(b"\n")]
        # Decoded and split at once, for lines come by the million. No byte of a multi-byte character is a newline, so
        # that what is broken in one line is replaced in this line alone.
        text = data.decode("utf-8", "replace")
        lines = text.split("\n")
        return [_redrawn(line) for line in lines] if "\r" in text else lines

    def end(self) -> list[str]:
        """The last line, where it has no newline."""
        line = self._whole(b"")
        return [line] if line else []

    def partial(self) -> str:
        """The head of the line that is not complete yet: a prompt that waits for an answer, a progress bar's state."""
        data = b"".join(tuple(self._parts))
        most = 4 * PARTIAL_CHARACTERS_MAX
        data = data[-most:] if b"\r" in data else data[:most]
        return _redrawn(data.decode("utf-8", "replace"))[:PARTIAL_CHARACTERS_MAX]

    def _keep(self, data: bytes) -> None:
        """Add to the line that is not complete yet."""
        room = self._line_max - self._size
        if len(data) > room:
            self._left_out += len(data) - room
            data = data[:room]
        if data:
            self._parts.append(data)
            self._size += len(data)
        if self._size > self._shrink_at:
            self._shrink()

    def _shrink(self) -> None:
        """Forget all but the last states of a line that is redrawn again and again by carriage returns."""
        line = b"".join(self._parts)
        state = line.rfind(b"\r", 0, len(line.rstrip(b"\r")))
        # One state more than the last: that one may turn out to be blank.
        line = line[line.rfind(b"\r", 0, max(0, state)) + 1 :]
        self._parts = [line]
        self._size = len(line)
        self._shrink_at = max(REDRAWN_BYTES, 2 * self._size)  # a long line that is none is not searched at every chunk

    def _whole(self, last: bytes) -> str:
        """The kept line, completed."""
        if last:
            self._keep(last)
        line = b"".join(self._parts)
        left_out = self._left_out
        self._parts.clear()
        self._size = self._left_out = 0
        self._shrink_at = REDRAWN_BYTES
        if not left_out:
            return _redrawn(line.decode("utf-8", "replace"))
        self.cut += 1
        # A character that the cut went through is left out whole.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return CutLine(decoder.decode(line), left_out)


def _redrawn(line: str) -> str:
    """Of a line with carriage returns, the last state that shows anything."""
    if "\r" not in line:
        return line
    return next((state for state in reversed(line.split("\r")) if plain(state).strip()), "")


class Tail:
    """The last bytes of a stream."""

    def __init__(self, most: int = TAIL_BYTES) -> None:
        self._most = most
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Keep these bytes, and forget the oldest for them."""
        self._chunks.append(data[-self._most :])
        self._size += len(self._chunks[-1])
        while self._size - len(self._chunks[0]) >= self._most:
            self._size -= len(self._chunks.popleft())

    def text(self) -> str:
        """The last `most` bytes at most; where more came, from the start of a line, if there is one."""
        data = b"".join(tuple(self._chunks))
        if len(data) >= self._most:
            data = data[-self._most :]
            data = data[data.find(b"\n") + 1 :]
        return data.decode("utf-8", "replace")


class Reader:
    """Drains a command's two output pipes on a thread of its own until both have ended.

    `on_lines(stream, lines)` is called on that thread, one chunk's lines at a time, in each stream's order. It may take
    its time: then the command is held up, and `held_seconds` says for how long. If it raises, `fault` keeps the
    exception, and the rest of the output is read and thrown away, so that the command is not held up by our fault.

    bytes_read, lines   of both streams
    last_output         `time.monotonic()` of the last bytes, None before the first
    """

    def __init__(self, stdout: int, stderr: int, on_lines: OnLines, *, line_max: int = LINE_BYTES_MAX) -> None:
        self.bytes_read = 0
        self.lines = 0
        self.held_seconds = 0.0
        self.last_output: float | None = None
        self.fault: Exception | None = None
        self._on_lines = on_lines
        self._tail = Tail()
        self._streams: dict[int, tuple[Stream, LineSplitter]] = {
            stdout: ("stdout", LineSplitter(line_max)),
            stderr: ("stderr", LineSplitter(line_max)),
        }
        self._splitters = dict(self._streams.values())
        self._room = {pipe: _capacity(pipe) for pipe in self._streams}
        # Sockets, because they know when they are closed: a number would be another file's by then.
        self._woken, self._waker = socket.socketpair()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="heartlane-reader", daemon=True)

    @property
    def lines_cut(self) -> int:
        """Lines that were too long."""
        return sum(splitter.cut for splitter in self._splitters.values())

    def start(self) -> Self:
        """Begin to read. Owns the two pipes from here on."""
        self._thread.start()
        return self

    def join(self, timeout: float) -> bool:
        """Wait until everything is read: every process that had an output pipe open is gone. False after `timeout`."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self, timeout: float = 5.0) -> bool:
        """Read what is there already, hand it on, and end, though somebody may still hold a pipe open.

        False where `on_lines` doesn't return within `timeout`.
        """
        self._closing = True
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        return self.join(timeout)

    def stderr_tail(self) -> str:
        """The end of standard error, at most 64 KiB: the only reason that most crashes give."""
        return self._tail.text()

    def partial(self, stream: Stream) -> str:
        """The head of the line that a stream has begun and not completed. A hint only: it changes while it is read."""
        return self._splitters[stream].partial()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._drain()
            for stream, splitter in self._streams.values():
                self._hand_on(stream, splitter.end())
        finally:
            for pipe in self._streams:
                os.close(pipe)
            self._woken.close()
            self._waker.close()

    def _drain(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        for pipe in self._streams:
            os.set_blocking(pipe, False)
            poll.register(pipe, select.POLLIN)
        open_pipes = set(self._streams)
        left = sum(self._room.values())  # when closing: no more than stands in the pipes now
        while open_pipes and left > 0:
            ready = open_pipes.intersection(pipe for pipe, _ in poll.poll(0 if self._closing else None))
            if self._closing and not ready:
                return
            for pipe in ready:
                size = self._read(pipe)
                if size == 0:
                    poll.unregister(pipe)
                    open_pipes.discard(pipe)
                if self._closing:
                    left -= size

    def _read(self, pipe: int) -> int:
        """Read and hand on one chunk; how many bytes it had: none at the end of the stream."""
        data = os.read(pipe, READ_BYTES)
        if not data:
            return 0
        self.last_output = time.monotonic()
        self.bytes_read += len(data)
        stream, splitter = self._streams[pipe]
        if stream == "stderr":
            self._tail.add(data)
        lines = splitter.feed(data)
        if lines:
            started = time.monotonic()
            self._hand_on(stream, lines)
            taken = time.monotonic() - started
            if taken > SLOW_SECONDS and self._is_full():
                self.held_seconds += taken
        return len(data)

    def _hand_on(self, stream: Stream, lines: list[str]) -> None:
        self.lines += len(lines)
        if not lines or self.fault is not None:
            return
        try:
            self._on_lines(stream, lines)
        except Exception as error:  # noqa: BLE001 - the command must not be held up by what we do with its output
            self.fault = error

    def _is_full(self) -> bool:
        """Whether a pipe has no room for another page: who writes to it waits."""
        return any(_waiting(pipe) > self._room[pipe] - select.PIPE_BUF for pipe in self._streams)


def _capacity(pipe: int) -> int:
    if hasattr(fcntl, "F_GETPIPE_SZ"):
        with contextlib.suppress(OSError):
            return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    return 65_536


def _waiting(pipe: int) -> int:
    """How many bytes stand in a pipe."""
    with contextlib.suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"))[0])
    return 0
