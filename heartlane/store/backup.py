"""Copies of a SQLite database: made while it is served, and put back in its place.

A copy is made by SQLite's own backup, page by page out of one snapshot: the writer is never waited for and never waits,
and what is committed meanwhile is not in it. (Copying the file instead loses what stands in the `-wal` file beside it.)
It gets its name only when it is whole and `heartlane.store.check` has found nothing wrong with it.

    FILE.part ── pages ── fsync ── check ── rename ──► FILE

The log that the writer can't give back while the copy is made is given back here, so that no commit has to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from heartlane.store.check import Checked, check
from heartlane.store.damage import is_damage
from heartlane.store.errors import StoreDamaged, StoreUnavailable
from heartlane.store.exclusive import only_user

PAGES_A_STEP: Final = 256
"""1 MiB at a time."""
REST: Final = 0.5
"""How much of its time the copying leaves the disk to others, as a part of what it takes."""
KEY_SUFFIX: Final = ".key"

Progress = Callable[[int, int], None]


class Taken(NamedTuple):
    """A copy that was made: how large it is in bytes, how long that took, and what its check looked at."""

    size: int
    seconds: float
    checked: Checked
    key: Path | None = None


class Restored(NamedTuple):
    """What was put in place: its check, where the old database is now (None: there was none), and which key files
    were put in place and aside."""

    checked: Checked
    aside: Path | None
    key: Path | None = None
    key_aside: Path | None = None


class BackupRefused(Exception):
    """It can't be done; nothing was changed. The text says why and what to do."""


def back_up(
    path: Path, target: Path, *, force: bool = False, with_key: bool = False, progress: Progress | None = None
) -> Taken:
    """Copy the database to `target`, readable by this user alone.

    force       replace a file that is there
    with_key    copy the key that its secrets are sealed with to `<target>.key`, where there is one beside the database
    progress    hears of pages copied and pages in all

    Raises BackupRefused, StoreUnavailable, and StoreDamaged where the database is damaged: nothing is left behind then.
    """
    if not path.is_file():
        raise BackupRefused(f"There is no database {path}.")
    if target.exists() and not force:
        raise BackupRefused(f"{target} is there already. Name another file, or add --force to replace it.")
    if target.resolve() == path.resolve():
        raise BackupRefused("The backup can't take the place of the database itself.")
    started = time.perf_counter()
    key = path.with_name(path.name + KEY_SUFFIX)
    with _part(target) as part:
        _copy(path, part, progress)
        checked = _sound(part, "The copy isn't sound, so that it was not kept")
        size = part.stat().st_size
        copied_key = None
        if with_key and key.is_file():
            copied_key = target.with_name(target.name + KEY_SUFFIX)
            with _part(copied_key) as key_part:
                key_part.write_bytes(key.read_bytes())
                _put(key_part, copied_key)
        _put(part, target)
    return Taken(size, time.perf_counter() - started, checked, copied_key)


def restore(path: Path, backup: Path, *, progress: Progress | None = None) -> Restored:
    """Put a backup in the place of the database, which is kept under a name of its own beside it.

    The backup is copied and checked before anything is touched. A key beside it (`<backup>.key`) is put beside the
    database, and one that is there already is kept, too. Raises InUse while a server runs, BackupRefused,
    StoreUnavailable.
    """
    if not backup.is_file():
        raise BackupRefused(f"There is no file {backup}.")
    if path.exists() and backup.resolve() == path.resolve():
        raise BackupRefused("That file is the database itself.")
    with only_user(path, f"A server runs on {path}. Stop it, and restore again."), _part(path) as part:
        _copy(backup, part, progress)
        checked = _sound(part, f"{backup} isn't sound, so that nothing was replaced")
        stamp = f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        aside = _put_aside(path, stamp) if path.exists() else None
        _put(part, path)
        new_key = backup.with_name(backup.name + KEY_SUFFIX)
        key = path.with_name(path.name + KEY_SUFFIX)
        key_aside = None
        if not new_key.is_file() or (key.is_file() and key.read_bytes() == new_key.read_bytes()):
            return Restored(checked, aside)
        if key.is_file():
            key_aside = key.with_name(f"{key.name}.{stamp}")
            os.link(key, key_aside)
        with _part(key) as key_part:
            key_part.write_bytes(new_key.read_bytes())
            _put(key_part, key)
        return Restored(checked, aside, key, key_aside)


def _copy(source: Path, part: Path, progress: Progress | None) -> None:
    """Copy a database out of one snapshot. Raises StoreUnavailable, StoreDamaged."""
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)) as reader,
            closing(sqlite3.connect(part, isolation_level=None)) as copy,
        ):
            reader.execute("PRAGMA busy_timeout = 5000")
            # Held open, so that commits from outside don't have the copying begin anew at each step.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            ended = time.perf_counter()

            def step(status: int, remaining: int, total: int) -> None:
                nonlocal ended
                if progress is not None:
                    progress(total - remaining, total)
                time.sleep(min(0.05, (time.perf_counter() - ended) * REST))
                ended = time.perf_counter()

            reader.backup(copy, pages=PAGES_A_STEP, progress=step, sleep=0)
            reader.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, until a server opens it
            reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        if is_damage(error):
            raise StoreDamaged(f"{source} is damaged, so that it can't be copied.", cause=error) from error
        raise StoreUnavailable(f"{source} can't be copied.", cause=error) from error
    with part.open("rb") as file:
        os.fsync(file.fileno())


def _sound(part: Path, refusal: str) -> Checked:
    checked = check(f"sqlite:///{part}", older=True)
    if checked.problems:
        more = len(checked.problems) + checked.more - 1
        said = f"{refusal}: {checked.problems[0]}" + (f" (and {more} more)" if more else "")
        raise StoreDamaged(said) if checked.damaged else BackupRefused(said)
    return checked


def _put_aside(path: Path, stamp: str) -> Path:
    """Keep a database under another name as well, whole in one file where it can still be read, and free its place.

    The name goes on standing for the old database until the new one takes it, so that whatever breaks off in between
    leaves one of the two.
    """
    aside = path.with_name(f"{path.name}.{stamp}")
    beside = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as old:
            old.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.Error:
        # Damaged: kept as it is, with what stands beside it.
        for file in beside:
            if file.exists():
                shutil.copy2(file, f"{aside}{file.name.removeprefix(path.name)}")
    os.link(path, aside)
    for file in beside:
        file.unlink(missing_ok=True)
    return aside


@contextlib.contextmanager
def _part(target: Path) -> Iterator[Path]:
    """An empty file beside the target for this user alone, which is gone at the end unless it was put in place."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        yield part
    except OSError as error:
        raise BackupRefused(f"{error.filename or target} can't be written: {error.strerror or error}.") from error
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            part.with_name(part.name + suffix).unlink(missing_ok=True)


def _put(part: Path, target: Path) -> None:
    """Give a file that is whole its name, durably."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
