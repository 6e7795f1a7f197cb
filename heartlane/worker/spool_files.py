"""The files of a spool: a log of checked lines in segments, and the positions in it (`spool_positions`).

    lock            held (flock) by the process that has the spool open; its pid inside
    state           two slots, written in turns in place: the positions, and what was dropped
    00000001.log    segments, of which those that were acknowledged whole are deleted

A segment is lines of the form `KIND CRC LENGTH BODY`: one letter, the CRC-32 of `KIND BODY` in eight hexadecimal
digits, the body's length in bytes, and the body, which has no newline.

    H   the header: the version of this form, and whose events they are. First in every segment.
    E   an event: its number in the spool, a space, its JSON
    B   a batch: the `seq` that the events of numbers `first` to `last` are sent under

A line that is cut off or damaged is passed over, and read on after: a crash costs the line that was being written, a
bad sector those in it.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from heartlane.worker.errors import Kind, WorkerError

VERSION: Final = 1
SEGMENT_BYTES: Final = 4 * 1024 * 1024
_READ_BYTES: Final = 1024 * 1024


class SpoolError(WorkerError):
    """A spool can't be used."""

    def __init__(self, message: str, kind: Kind = "unusable") -> None:
        super().__init__(message, kind)


class SpoolVersion(SpoolError):
    """The spool was written by a version of Heartlane that stores it in another form."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "spool_version")


class Header(NamedTuple):
    """Whose events a spool holds."""

    server: str
    run: str
    attempt: int
    worker: str


class Batch(NamedTuple):
    """The events that one report sends, by their numbers in the spool."""

    seq: int
    first: int
    last: int


class Outgoing(NamedTuple):
    """A batch to send: its `seq`, and its events, each as the bytes that it is stored as."""

    seq: int
    events: tuple[bytes, ...]

    @property
    def events_json(self) -> bytes:
        """The report's `events`, the same to the byte whenever it is sent."""
        return b"[" + b",".join(self.events) + b"]"

    def decoded(self) -> list[dict[str, Any]]:
        """The events as values."""
        return [json.loads(event) for event in self.events]


class Record(NamedTuple):
    """One checked line. `end`: the offset after it; `kind`: `?` for a line that is damaged."""

    end: int
    kind: str
    body: bytes


def line(kind: str, body: bytes) -> bytes:
    """A record as it is written."""
    return b"%s %08x %d %s\n" % (kind.encode(), zlib.crc32(kind.encode() + b" " + body), len(body), body)


def header_line(header: Header) -> bytes:
    """A segment's first record."""
    return line("H", json.dumps({"spool": VERSION, **header._asdict()}).encode())


def read_header(body: bytes, path: Path) -> Header:
    """Raises SpoolVersion for another version's."""
    found = json.loads(body)
    if found.get("spool") != VERSION:
        name = path.parent.name
        raise SpoolVersion(
            f"{path.parent} was written by another version of Heartlane, in form {found.get('spool', 'unknown')} (this "
            f"one reads {VERSION}), and is left as it is: send it with that version's `heartlane spool flush`, or give "
            f"it up with `heartlane spool discard {name}`"
        )
    return Header(found["server"], found["run"], found["attempt"], found["worker"])


def records(path: Path, offset: int = 0) -> Iterator[Record]:
    """The records from an offset on. The last, where it is cut off, is left out."""
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while data := file.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for text in lines:
                offset += len(text) + 1
                yield parse(text, offset)


def parse(text: bytes, end: int) -> Record:
    """A line without its newline, which ends at the offset `end`."""
    fields = text.split(b" ", 3)
    with contextlib.suppress(ValueError):
        kind, crc, length, body = fields
        if len(body) == int(length) and zlib.crc32(kind + b" " + body) == int(crc, 16):
            return Record(end, kind.decode(), body)
    return Record(end, "?", text)


def split_event(body: bytes) -> tuple[int, bytes]:
    """An event's number and its JSON."""
    number, _, event = body.partition(b" ")
    return int(number), event


def segments(folder: Path) -> list[Path]:
    """A spool's segments in their order."""
    return sorted(path for path in folder.glob("*.log") if path.stem.isdigit())


def segment_path(folder: Path, number: int) -> Path:
    """Where a segment is."""
    return folder / f"{number:08d}.log"
