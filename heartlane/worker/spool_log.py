"""The log of a spool, open for writing: appended to, read on from where the last batch ended, trimmed from its start.

Not for several threads; `heartlane.worker.spool` sees to that. See `heartlane.worker.spool_files` for the form.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Final

from heartlane.worker.spool_files import (
    SEGMENT_BYTES,
    Batch,
    Header,
    header_line,
    line,
    read_header,
    records,
    segment_path,
    segments,
    split_event,
)

RETIRED_MAX: Final = 16
"""Files that wait for `to_sync`; more than that are synced as they are left."""
fdatasync: Final = getattr(os, "fdatasync", os.fsync)
_FLAGS: Final = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


class _Segment:
    """One file: its number, its size in bytes, and the number of the last event in it (0: none)."""

    __slots__ = ("last", "number", "size")

    def __init__(self, number: int, size: int = 0, last: int = 0) -> None:
        self.number = number
        self.size = size
        self.last = last


class Log:
    """The segments of one spool.

    size        bytes of all segments
    last        the number of the last event
    batch       the last batch that is noted in it
    damaged     lines that were passed over because they can't be read
    waiting     events with a number above `assigned`, as counted when it was opened
    """

    def __init__(self, folder: Path, header: Header, assigned: int) -> None:
        """Read what is there, and cut off what the last writer didn't finish. Raises SpoolVersion, OSError."""
        self.size = 0
        self.last = 0
        self.batch: Batch | None = None
        self.damaged = 0
        self.waiting = 0
        self._folder = folder
        self._header = header
        self._segments: list[_Segment] = []
        self._descriptor: int | None = None
        self._torn = False
        self._unsynced = False
        self._retired: list[int] = []  # descriptors that are yet to be synced, and then closed
        # Where reading goes on: a segment, an offset in it, and the number of the last event before that.
        self._cursor = (0, 0, 0)
        for path in segments(folder):
            self._scan(path, assigned)
        if self._segments:
            self._open(self._segments[-1])

    def _scan(self, path: Path, assigned: int) -> None:
        segment = _Segment(int(path.stem))
        for record in records(path):
            segment.size = record.end
            if record.kind == "H":
                read_header(record.body, path)
            elif record.kind == "E":
                segment.last, _ = split_event(record.body)
                self.waiting += segment.last > assigned
            elif record.kind == "B":
                self.batch = Batch(**json.loads(record.body))
            else:
                self.damaged += 1
        self.last = max(self.last, segment.last)
        self.size += segment.size
        self._segments.append(segment)

    # --- writing --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the first segment, with nothing but its header, unless there is one. Raises OSError."""
        if not self._segments:
            self._begin_segment()

    def write_event(self, number: int, event: bytes) -> None:
        """Append an event. Raises OSError, and then nothing of it is there."""
        self._write(line("E", b"%d %s" % (number, event)))
        self._segments[-1].last = self.last = number

    def write_batch(self, batch: Batch) -> None:
        """Note what a `seq` was given to. Raises OSError, and then nothing of it is there."""
        self._write(line("B", json.dumps(batch._asdict()).encode()))
        self.batch = batch

    def _write(self, data: bytes) -> None:
        if not self._segments or self._segments[-1].size + len(data) > SEGMENT_BYTES:
            self._begin_segment()
        self._append(data)

    def _begin_segment(self) -> None:
        segment = _Segment(self._segments[-1].number + 1 if self._segments else 1)
        before, torn = self._descriptor, self._torn
        self._torn = False
        try:
            self._open(segment)
            self._segments.append(segment)
            self._append(header_line(self._header))
        except OSError:
            if self._segments and self._segments[-1] is segment:
                self.size -= self._segments.pop().size
            if self._descriptor is not None and self._descriptor != before:
                os.close(self._descriptor)
            self._descriptor, self._torn = before, torn
            with contextlib.suppress(OSError):
                segment_path(self._folder, segment.number).unlink()
            raise
        if before is not None:
            self._retired.append(before)
        with contextlib.suppress(OSError):
            self._retired.append(os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC))  # for the new file's name
        if len(self._retired) > RETIRED_MAX:
            self._let_go()

    def _let_go(self) -> None:
        for descriptor in self._retired:
            with contextlib.suppress(OSError):
                fdatasync(descriptor)
            os.close(descriptor)
        self._retired.clear()

    def _open(self, segment: _Segment) -> None:
        self._descriptor = os.open(segment_path(self._folder, segment.number), _FLAGS, 0o600)
        os.ftruncate(self._descriptor, segment.size)

    def _append(self, data: bytes) -> None:
        assert self._descriptor is not None  # noqa: S101 - for the type checker: a segment is open
        segment = self._segments[-1]
        if self._torn:
            os.ftruncate(self._descriptor, segment.size)
            self._torn = False
        self._torn = True
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]  # a disk that fills up takes a part first
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, segment.size)
                self._torn = False
            raise
        self._torn = False
        self._unsynced = True
        segment.size += len(data)
        self.size += len(data)

    def to_sync(self) -> list[int]:
        """Descriptors for the caller to sync and close, of all that was written since the last time. Raises OSError."""
        current = []
        if self._unsynced and self._descriptor is not None:
            current = [os.dup(self._descriptor)]
            self._unsynced = False
        retired, self._retired = self._retired, []
        return retired + current

    # --- reading --------------------------------------------------------------------------------------------------

    def events(self, after: int, count: int, size: int) -> list[tuple[int, bytes]]:
        """Up to `count` events of up to `size` bytes together (but one at least), numbered above `after`, in order."""
        number, offset, seen = self._cursor
        if after < seen:
            number = offset = 0
        found: list[tuple[int, bytes]] = []
        for segment in self._segments:
            if segment.number < number or segment.last <= after:
                continue
            start = offset if segment.number == number else 0
            for record in records(segment_path(self._folder, segment.number), start):
                if record.kind != "E":
                    continue
                n, event = split_event(record.body)
                if n <= after:
                    continue
                size -= len(event)
                if len(found) == count or (found and size < 0):
                    return found
                found.append((n, event))
                self._cursor = (segment.number, record.end, n)
        return found

    def count(self, after: int) -> int:
        """How many events are numbered above `after`."""
        later = [segment for segment in self._segments if segment.last > after]
        read = (record for segment in later for record in records(segment_path(self._folder, segment.number)))
        return sum(record.kind == "E" and split_event(record.body)[0] > after for record in read)

    # --- trimming -------------------------------------------------------------------------------------------------

    def forget(self, acked: int) -> None:
        """Delete the segments of which every event was acknowledged; the last stays, for its place in the numbers."""
        while len(self._segments) > 1 and self._segments[0].last <= acked:
            with contextlib.suppress(FileNotFoundError):
                segment_path(self._folder, self._segments[0].number).unlink()
            self.size -= self._segments.pop(0).size

    def close(self) -> None:
        """Let go of the files."""
        self._let_go()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
