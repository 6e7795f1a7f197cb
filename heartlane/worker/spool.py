"""The spool: every event is on the disk before it is sent, so that neither a crash nor an outage loses or doubles one.

    with Spool.open(Header(server, run, attempt, worker)) as spool:
        spool.resume(last_seq)                      # from the claim's answer
        spool.append(event)                         # any thread
        batch = spool.next_batch(linger=1.0)        # one thread: the same batch until it is acknowledged
        send(batch.seq, batch.events_json)
        spool.acknowledge(batch.seq)

A batch of events gets its `seq` once, and keeps it, on the disk, until it is acknowledged: sent again after a crash it
is the same to the byte, and the server drops it if it had it already. One batch is under way at a time.

What survives what:
- kill -9 of this process: every event for which `append` returned True and that was not kept in memory (below).
- Loss of power: every event that was ever sent, for both files are synced before a batch is handed out; and what was
  appended until the last `sync`. Call that every second while the server is away, and a second is what it costs.
- Damage to the files: a line that can't be read is passed over and counted.

No room: heartbeats are dropped first, then log lines; actions, phases, errors and the result never. What was dropped is
counted, and a log line says so once there is room again. Where the disk takes nothing at all, events are kept in
memory, up to MEMORY_BYTES_MAX; beyond that `append` waits for room, HOLD_SECONDS_MAX at most, which slows whoever
prints them down (`held_seconds`), and then keeps the event all the same: memory grows by a few events a minute at most.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from heartlane.lanes.bounds import EVENTS_PER_REPORT_MAX
from heartlane.worker.coalescer import left_out
from heartlane.worker.event import encode, stamp
from heartlane.worker.file_lock import FileLock
from heartlane.worker.places import places
from heartlane.worker.spool_files import Batch, Header, Outgoing, SpoolError
from heartlane.worker.spool_log import Log, fdatasync
from heartlane.worker.spool_memory import Memory
from heartlane.worker.spool_pace import Pace
from heartlane.worker.spool_positions import Positions, PositionsFile
from heartlane.worker.spools import folder_of, lock

SPOOL_BYTES_MAX: Final = 256 * 1024 * 1024
"""Above this no log line is written, above nine tenths of it no heartbeat."""
MEMORY_BYTES_MAX: Final = 8 * 1024 * 1024
BATCH_BYTES_MAX: Final = 1024 * 1024
"""The server takes bodies of 4 MiB unless it is set otherwise; see `Spool.refused`."""
RETRY_SECONDS: Final = 1.0
"""How often a disk that took nothing is tried again."""
HOLD_SECONDS_MAX: Final = 10.0

DROPPABLE: Final = ("heartbeat", "log_line")
URGENT: Final = frozenset({"error", "ship_complete"})
"""What is sent without waiting for more to go with it, and is kept without waiting for room."""


class Spool:
    """The events of one attempt at one run, for one server. Made by `Spool.open`; for several threads.

    header          whose events these are
    held_seconds    how long `append` waited for room, in all
    damaged         lines that could not be read when it was opened
    """

    def __init__(self, folder: Path, header: Header, file_lock: FileLock, size_max: int) -> None:
        self.header = header
        self.held_seconds = 0.0
        self._folder = folder
        self._file_lock = file_lock
        self._size_max = size_max
        self._on_trouble: Callable[[str], None] = lambda trouble: None
        self._to_say: list[str] = []
        self._changed = threading.Condition()
        self._closed = self._urgent = False
        self._pace = Pace()
        self._outgoing: Outgoing | None = None
        self._unsaid = 0  # log lines that were dropped and not spoken of yet
        self._memory = Memory()
        self._failing = False
        self._retry_at = 0.0
        self._file = PositionsFile(folder)
        try:
            self._log = Log(folder, header, self._file.now.assigned)
        except BaseException:
            self._file.close()
            raise
        self.damaged = self._log.damaged
        self._pending = self._log.waiting
        stored = self._positions
        self._file.recover(self._log.batch)
        if self._positions.assigned != stored.assigned:
            self._pending = self._log.count(self._positions.assigned)
        self._next = max(self._log.last, self._positions.assigned) + 1
        with self._changed:
            if self._positions.sending is not None:
                self._load(self._positions.sending)

    @classmethod
    def open(
        cls,
        header: Header,
        *,
        root: Path | None = None,
        size_max: int = SPOOL_BYTES_MAX,
        on_trouble: Callable[[str], None] | None = None,
    ) -> Spool:
        """The spool of this server, run and attempt, made if it isn't there; no other process can open it meanwhile.

        root        the folder of all spools; `places().spool` if left out
        size_max    bytes on the disk from which on log lines are dropped
        on_trouble  called with one line when the disk begins or ceases to fail; it must not call the spool

        Raises SpoolBusy, SpoolVersion, or SpoolError where the files can't be made or read.
        """
        folder = folder_of(places().spool if root is None else root, header)
        file_lock = None
        try:
            file_lock = lock(folder)
            spool = cls(folder, header, file_lock, size_max)
        except BaseException as error:
            if file_lock is not None:
                file_lock.release()
            if isinstance(error, OSError):
                raise SpoolError(f"can't use the spool {folder}: {error.strerror or error}") from error
            raise
        if on_trouble is not None:
            spool._on_trouble = on_trouble
        return spool

    # --- how it stands --------------------------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """Events that were not acknowledged yet."""
        return self._pending + (0 if self._outgoing is None else len(self._outgoing.events))

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self._log.size

    @property
    def failing(self) -> bool:
        """Whether the disk takes nothing, so that events are kept in memory."""
        return self._failing

    @property
    def dropped(self) -> Mapping[str, int]:
        """Events that there was no room for, by type."""
        return self._positions.dropped

    @property
    def last_seq(self) -> int:
        """The highest `seq` that was given out."""
        return self._positions.high

    # --- in -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Write down whose events these will be, for whoever finds the spool; a full disk is no matter yet."""
        with self._changed, contextlib.suppress(OSError):
            self._check_open()
            self._log.begin()

    def append(self, event: Mapping[str, Any]) -> bool:
        """Keep an event; False where it was dropped, which happens to heartbeats and log lines alone.

        An `at` is added where there is none. Raises TypeError for what is no event, and SpoolError once it is closed.
        """
        data = encode(event if "at" in event else {**event, "at": stamp(time.time())})
        kind = str(event["type"])
        with self._changed:
            kept = self._keep(kind, data)
            if self._urgent or self._pending == 1 or self._pending >= EVENTS_PER_REPORT_MAX:
                self._changed.notify_all()
        self._speak()
        return kept

    def _keep(self, kind: str, data: bytes) -> bool:
        self._check_open()
        if self._failing and time.monotonic() >= self._retry_at:
            self._retry()
        if not self._has_room(kind, len(data)):
            self._drop(kind)
            return False
        if self._unsaid and self._has_room("log_line", len(data)):
            notice = left_out(self._unsaid, stamp(time.time()), ": the spool was full")
            self._unsaid = 0
            self._store("log_line", encode(notice))
        if self._failing and kind not in DROPPABLE:
            self._make_room(kind, len(data))
        self._store(kind, data)
        self._urgent = self._urgent or kind in URGENT
        return True

    def _has_room(self, kind: str, size: int) -> bool:
        """Whether an event of this kind is kept at all."""
        if kind not in DROPPABLE:
            return True
        if self._failing:
            return kind == "log_line" and self._memory.size + size <= MEMORY_BYTES_MAX // 2
        return self._log.size < (self._size_max if kind == "log_line" else self._size_max * 9 // 10)

    def _make_room(self, kind: str, size: int) -> None:
        """In memory, for an event that is never dropped: log lines go first, then whoever brings it waits."""
        if self._memory.size + size <= MEMORY_BYTES_MAX:
            return
        for dropped, count in self._memory.evict(DROPPABLE, self._positions.assigned).items():
            self._drop(dropped, count)
            self._pending -= count
        started = time.monotonic()
        while kind not in URGENT and self._memory.size + size > MEMORY_BYTES_MAX:
            left = started + HOLD_SECONDS_MAX - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(min(left, RETRY_SECONDS))
            self._check_open()
            self._retry()
        self.held_seconds += time.monotonic() - started

    def _drop(self, kind: str, count: int = 1) -> None:
        self._unsaid += count if kind == "log_line" else 0
        dropped = {**self._positions.dropped, kind: self._positions.dropped.get(kind, 0) + count}
        self._file.now = self._positions._replace(dropped=dropped)

    def _store(self, kind: str, data: bytes) -> None:
        number = self._next
        self._next += 1
        if not self._pending:
            self._pace.came(time.monotonic())
        self._pending += 1
        if not self._failing:
            try:
                self._log.write_event(number, data)
            except OSError as error:
                self._begin_to_fail(error)
            else:
                return
        self._memory.add(number, kind, data)

    # --- a disk that takes nothing --------------------------------------------------------------------------------

    def _begin_to_fail(self, error: OSError) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self._failing:
            self._failing = True
            self._to_say.append(f"can't write to {self._folder} ({error.strerror}): events are kept in memory for now")

    def _retry(self) -> None:
        """Write what is kept in memory, if the disk takes it by now."""
        try:
            while self._memory:
                self._log.write_event(self._memory.first.number, self._memory.first.event)
                self._memory.pop()
        except OSError as error:
            self._begin_to_fail(error)
            return
        if self._failing:
            self._failing = False
            self._to_say.append(f"{self._folder} can be written to again: all events are on the disk")

    def _speak(self) -> None:
        """Say what there is to say, without holding the spool."""
        while self._to_say:
            with contextlib.suppress(IndexError):  # another thread says it
                self._on_trouble(self._to_say.pop(0))

    # --- out ------------------------------------------------------------------------------------------------------

    def next_batch(self, linger: float = 0.0, size_max: int = BATCH_BYTES_MAX) -> Outgoing | None:
        """The batch to send now, on the disk for good: the one that is not acknowledged yet, else a new one.

        A new one is handed out `linger` seconds after the last one, or at once when it is full (100 events) or holds an
        error or the result. None when nothing came within `linger`. `size_max`: bytes, unless one event is larger.
        """
        full = lambda: self._closed or self._urgent or self._pending >= EVENTS_PER_REPORT_MAX  # noqa: E731
        with self._changed:
            if self._outgoing is None:
                if self._changed.wait_for(lambda: self._closed or self._pending, linger):
                    self._changed.wait_for(full, max(0.0, self._pace.ready_at(linger) - time.monotonic()))
                self._check_open()
                if self._failing and time.monotonic() >= self._retry_at:
                    self._retry()
                self._assign(size_max)
            outgoing = self._outgoing
        if outgoing is not None:
            self.sync()
        self._speak()
        return outgoing

    def acknowledge(self, seq: int) -> None:
        """The server answered that it has the batch: it is never sent again."""
        with self._changed:
            sending = self._positions.sending
            if sending is None or seq < sending.seq:
                return
            self._finish(sending, acked_seq=sending.seq)

    def resume(self, last_seq: int) -> None:
        """Count on from the last `seq` that the server applied in this attempt, as a claim's answer says.

        A batch up to there has arrived, whether or not that was heard; and no later one gets a `seq` that the server
        would take for a replay, even if this spool was removed in between.
        """
        with self._changed:
            self._check_open()
            sending = self._positions.sending
            if sending is not None and sending.seq <= last_seq:
                self._finish(sending, acked_seq=last_seq)
            if last_seq > self._positions.high:
                self._place(self._positions._replace(high=last_seq, acked_seq=max(self._positions.acked_seq, last_seq)))

    def refused(self, seq: int) -> Outgoing | None:
        """The server refused the batch for what is in it (400, 413): it can't arrive whole.

        Returns its first half to try under the same `seq`, which the server didn't apply; where that was one event,
        gives this one up, counts it (`Positions.refused`), and returns None.
        """
        with self._changed:
            sending, outgoing = self._positions.sending, self._outgoing
            if sending is None or outgoing is None or seq != sending.seq:
                return outgoing
            if len(outgoing.events) == 1:
                self._finish(sending, refused=self._positions.refused + 1)
                return None
            self._pending += len(outgoing.events)
            self._outgoing = None
            self._file.now = self._positions._replace(sending=None, high=seq - 1)
            self._assign(BATCH_BYTES_MAX, count=len(outgoing.events) // 2)
            smaller = self._outgoing
        self.sync()
        return smaller

    def sync(self) -> None:
        """Have the disk keep what was appended, through a loss of power. `next_batch` does so for what it hands out."""
        with self._changed:
            if self._closed:
                return
            try:
                copies = [self._file.to_sync(), *self._log.to_sync()]
            except OSError as error:  # no descriptor is free
                self._to_say.append(f"can't sync {self._folder}: {error.strerror}")
                return
        # Not holding the spool: a disk may take its time for this.
        for copy in copies:
            try:
                fdatasync(copy)
            except OSError as error:
                self._to_say.append(f"can't sync {self._folder}: {error.strerror}")
            finally:
                os.close(copy)

    def _assign(self, size_max: int, count: int = EVENTS_PER_REPORT_MAX) -> None:
        """Give the next events a `seq`."""
        assigned = self._positions.assigned
        events = self._log.events(assigned, count, size_max)
        room = size_max - sum(len(event) for _, event in events)
        last = events[-1][0] if events else assigned
        for held in self._memory.after(last):
            room -= len(held.event)
            if len(events) == count or (events and room < 0):
                break
            events.append((held.number, held.event))
        if not events:
            self._pending = 0
            self._urgent = False
            return
        batch = Batch(self._positions.high + 1, events[0][0], events[-1][0])
        if not self._failing:
            try:
                self._log.write_batch(batch)
            except OSError as error:
                self._begin_to_fail(error)
        self._place(self._positions._replace(sending=batch, high=batch.seq))
        self._pace.handed(time.monotonic())
        self._outgoing = Outgoing(batch.seq, tuple(event for _, event in events))
        self._pending = max(0, self._pending - len(events))
        self._urgent = self._urgent and self._pending > 0

    def _load(self, batch: Batch) -> None:
        """Take up the batch that the last process was sending."""
        events = self._log.events(batch.first - 1, EVENTS_PER_REPORT_MAX, BATCH_BYTES_MAX * 1024)
        kept = tuple(event for number, event in events if number <= batch.last)
        if kept:
            self._outgoing = Outgoing(batch.seq, kept)
        else:  # they were in memory only
            self._finish(batch, acked_seq=batch.seq)

    def _finish(self, batch: Batch, **changes: int) -> None:
        """The batch is done with, one way or the other."""
        self._outgoing = None
        self._memory.forget(batch.last)
        self._place(self._positions._replace(sending=None, acked=batch.last, **changes))  # type: ignore[arg-type]
        self._log.forget(batch.last)
        self._changed.notify_all()

    @property
    def _positions(self) -> Positions:
        return self._file.now

    def _place(self, positions: Positions) -> None:
        try:
            self._file.place(positions)
        except OSError as error:
            self._to_say.append(f"can't write to {self._folder} ({error.strerror})")

    # --- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is in memory, if the disk takes it, sync, and let the next process have the spool."""
        with self._changed:
            if self._closed:
                return
            if self._memory:
                self._retry()
        self.sync()
        with self._changed:
            if not self._closed:
                self._place(self._positions)
                self._shut()

    def remove(self) -> None:
        """Close the spool and delete it with whatever is left in it: the run has ended, or is another's by now."""
        with self._changed:
            if not self._closed:
                # While the lock is held: whoever opens it next finds nothing, and makes a new one.
                shutil.rmtree(self._folder, ignore_errors=True)
                self._shut()

    def _shut(self) -> None:
        self._closed = True
        self._log.close()
        self._file.close()
        self._file_lock.release()
        self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise SpoolError("the spool is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
