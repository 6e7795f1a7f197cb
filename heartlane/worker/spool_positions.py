"""How far a spool was sent: a small file that is written in place, in a room that was taken when it was made.

So that the positions can be kept on a disk that is full, and that one half-written is no loss: there are two slots,
written in turns, and the newest whole one counts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from heartlane.worker.spool_files import Batch, line, parse

SLOT_BYTES: Final = 512
_NAME: Final = "state"


class Positions(NamedTuple):
    """How far a spool has been sent.

    acked_seq, acked    the last `seq` that was acknowledged, and the last event's number in it
    sending             the batch that is being sent, if any: it keeps its `seq` until it is acknowledged
    high                the highest `seq` that was ever given out
    dropped             what there was no room for, by event type
    refused             events that the server refused for good
    """

    acked_seq: int = 0
    acked: int = 0
    sending: Batch | None = None
    high: int = 0
    dropped: dict[str, int] = {}  # noqa: RUF012 - never changed in place
    refused: int = 0

    @property
    def assigned(self) -> int:
        """The number of the last event that has a `seq`."""
        return self.acked if self.sending is None else self.sending.last


class PositionsFile:
    """The positions of one spool, as they are, and on the disk. Not for several threads."""

    def __init__(self, folder: Path) -> None:
        """Make the file if it isn't there. Raises OSError."""
        self._descriptor = os.open(folder / _NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            slots = os.pread(self._descriptor, 2 * SLOT_BYTES, 0)
            if len(slots) < 2 * SLOT_BYTES:
                os.pwrite(self._descriptor, b" " * (2 * SLOT_BYTES - len(slots)), len(slots))
        except OSError:
            self.close()
            raise
        self._turn, self.now = _newest(slots) or (0, Positions())

    def recover(self, noted: Batch | None) -> None:
        """Where what is stored is older than the last batch that the log has a note of, or was lost, go by this one."""
        if noted is not None and noted.seq > self.now.high:
            # One batch is under way at a time: that there was this one means that all before it were acknowledged.
            changes: dict[str, Any] = {"acked_seq": noted.seq - 1, "acked": noted.first - 1, "high": noted.seq}
            self.now = self.now._replace(sending=noted, **changes)

    def place(self, positions: Positions) -> None:
        """Keep these. Raises OSError where the disk fails; they count all the same, for this process."""
        self.now = positions
        self._turn += 1
        body: dict[str, Any] = {**positions._asdict(), "turn": self._turn}
        slot = line("S", json.dumps(body).encode())[:-1].ljust(SLOT_BYTES - 1) + b"\n"
        os.pwrite(self._descriptor, slot, self._turn % 2 * SLOT_BYTES)

    def to_sync(self) -> int:
        """A descriptor for the caller to sync and close."""
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def read_positions(folder: Path) -> Positions:
    """The positions of a spool that somebody else may have open."""
    try:
        newest = _newest((folder / _NAME).read_bytes()[: 2 * SLOT_BYTES])
    except OSError:
        newest = None
    return Positions() if newest is None else newest[1]


def _newest(slots: bytes) -> tuple[int, Positions] | None:
    """The turn and the positions of the newest slot that is whole."""
    newest: tuple[int, Positions] | None = None
    for start in range(0, len(slots), SLOT_BYTES):
        record = parse(slots[start : start + SLOT_BYTES].rstrip(b" \n"), 0)
        if record.kind == "S":
            body = json.loads(record.body)
            turn = body.pop("turn")
            if newest is None or turn > newest[0]:
                sending = None if body["sending"] is None else Batch(*body["sending"])
                newest = turn, Positions(**{**body, "sending": sending})
    return newest
