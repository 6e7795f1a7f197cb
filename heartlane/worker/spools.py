"""The folder of all spools of this machine's user: where each one is, who has it open, what is left in it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from heartlane.worker.file_lock import FileLock
from heartlane.worker.places import places
from heartlane.worker.spool_files import (
    Header,
    Outgoing,
    SpoolError,
    read_header,
    records,
    segments,
    split_event,
)
from heartlane.worker.spool_positions import Positions, read_positions

if TYPE_CHECKING:
    from heartlane.worker.spool import Spool

LOCK_SECONDS: Final = 0.5
"""How long a lock is waited for: whoever lists the spools has each for a moment."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class SpoolBusy(SpoolError):
    """Another process has the spool open."""


class SpoolInfo(NamedTuple):
    """One spool as it lies on the disk.

    header      whose events it holds; None where that can't be read
    waiting     events that were not acknowledged
    size        bytes
    positions   how far it was sent
    busy        whether a process has it open now
    problem     why it can't be read, if so
    """

    folder: Path
    header: Header | None
    waiting: int
    size: int
    positions: Positions
    busy: bool
    problem: str | None


class Shown(NamedTuple):
    """One event of a spool: its number, where it stands, the `seq` of its batch if it is being sent, and itself."""

    number: int
    standing: Literal["sent", "sending", "waiting"]
    seq: int | None
    event: dict[str, Any]


def folder_of(root: Path, header: Header) -> Path:
    """The folder of one spool, named by its run, attempt and server."""
    run = header.run if _PLAIN.fullmatch(header.run) else hashlib.sha256(header.run.encode()).hexdigest()[:32]
    return root / f"{run}.{header.attempt}.{hashlib.sha256(header.server.encode()).hexdigest()[:12]}"


def lock(folder: Path) -> FileLock:
    """Make a spool's folder if it isn't there, and lock it for this process. Raises SpoolBusy, OSError."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "lock"
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            held = FileLock.acquire(path, LOCK_SECONDS)
            break
        except FileNotFoundError:  # the folder was removed between the two lines
            continue
    if held is None:
        owner = ""
        with contextlib.suppress(OSError):
            owner = path.read_text("utf-8", "replace").strip()
        raise SpoolBusy(f"{folder} is in use by process {owner or '(unknown)'}")
    with contextlib.suppress(OSError):  # only for whoever finds it in use
        path.write_text(f"{os.getpid()}\n", "utf-8")
    return held


def list_spools(root: Path | None = None) -> list[SpoolInfo]:
    """Every spool under `root` (`places().spool`), the oldest first. Changes nothing; one in use is read as it is."""
    root = places().spool if root is None else root
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and (path / "lock").exists()]
    return [read_info(folder) for folder in sorted(folders, key=lambda path: (_changed(path), path.name))]


def read_info(folder: Path) -> SpoolInfo:
    """What lies in one spool's folder."""
    header, problem, waiting = None, None, 0
    positions = read_positions(folder)
    paths = segments(folder)
    try:
        for path in paths:
            for record in records(path):
                if record.kind == "H" and header is None:
                    header = read_header(record.body, path)
                elif record.kind == "E":
                    waiting += split_event(record.body)[0] > positions.acked
    except SpoolError as error:
        problem = str(error)
    except FileNotFoundError:
        pass  # acknowledged and deleted while we looked
    size = sum(_size(path) for path in paths)
    return SpoolInfo(folder, header, waiting, size, positions, _is_busy(folder), problem)


def show(folder: Path) -> Iterator[Shown]:
    """The events of a spool that are still on the disk, in their order. Raises SpoolVersion."""
    positions = read_positions(folder)
    for path in segments(folder):
        for record in records(path):
            if record.kind == "H":
                read_header(record.body, path)
            elif record.kind == "E":
                number, event = split_event(record.body)
                if number <= positions.acked:
                    yield Shown(number, "sent", None, json.loads(event))
                elif positions.sending is not None and number <= positions.sending.last:
                    yield Shown(number, "sending", positions.sending.seq, json.loads(event))
                else:
                    yield Shown(number, "waiting", None, json.loads(event))


def flush(spool: Spool, send: Callable[[Outgoing], None]) -> int:
    """Send all that is left; returns how many events. `send` returns once a batch has arrived, else it raises."""
    sent = 0
    while (outgoing := spool.next_batch()) is not None:
        send(outgoing)
        spool.acknowledge(outgoing.seq)
        sent += len(outgoing.events)
    return sent


def discard(folder: Path) -> None:
    """Remove a spool and whatever is left in it. Raises SpoolBusy, and SpoolError for a folder that holds none."""
    if not (folder / "lock").exists():
        raise SpoolError(f"{folder} is no spool")
    held = lock(folder)
    try:
        shutil.rmtree(folder)
    finally:
        held.release()


def _is_busy(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0
