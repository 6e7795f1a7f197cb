"""The machine: Git and its repository, the disk, how commands are held, and what ended workers left."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from heartlane.worker.control_groups import try_out
from heartlane.worker.doctor.findings import Finding, Level, Patient
from heartlane.worker.errors import WorkerError
from heartlane.worker.git import VERSION_MIN, git_version, run_program
from heartlane.worker.places import Places
from heartlane.worker.repository import Repository
from heartlane.worker.spools import read_info

REMOTE_SECONDS: Final = 30.0
GH_SECONDS: Final = 30.0
ROOM_WANTED: Final = 1024**3
ROOM_NEEDED: Final = 100 * 1024**2
"""Bytes free on the disk of the state folder: below the first a warning, below the second a problem."""
FILES_NEEDED: Final = 1_000

# --- git ----------------------------------------------------------------------------------------------------------


def look_at_git(patient: Patient) -> Iterator[Finding]:
    wanted: Level = "warning" if patient.repository is None else "problem"
    version = git_version()
    if version is None:
        yield Finding("git", wanted, "git is not in PATH; --worktree needs it", "Install Git.")
        return
    shown = ".".join(map(str, version))
    if version < VERSION_MIN:
        needed = ".".join(map(str, VERSION_MIN))
        yield Finding("git", wanted, f"git {shown} is too old: --worktree needs {needed}", "Install a newer Git.")
        return
    yield Finding("git", "ok", f"git {shown}")
    if patient.repository is not None:
        yield from _repository(patient.repository, patient.places)


def _repository(path: Path, places: Places) -> Iterator[Finding]:
    try:
        repository = Repository.open(path)
        base = repository.base(None)
        entries = repository.entries()
        writable = os.access(repository.common, os.W_OK)
    except WorkerError as error:
        yield Finding("worktree", "problem", str(error), "Name a clone in which git status works for this user.")
        return
    if not writable:
        yield Finding(
            "worktree", "problem", f"{repository.common} can't be written", "Run the worker as the repository's owner."
        )
        return
    folder = repository.folder_for(places.worktrees).resolve()
    ours = sum(entry.path.resolve().parent == folder for entry in entries)
    there = f"; worktrees of lanes there already: {ours}" if ours else ""
    yield Finding(
        "worktree", "ok", f"{repository.path} is at {base.name or 'a detached HEAD'} ({base.commit[:8]}){there}"
    )
    if repository.remote is None:
        yield Finding("remote", "ok", "the repository has no remote; only --push and other machines need one")
        return
    try:
        asked = repository.git.run("ls-remote", "--quiet", repository.remote, "HEAD", timeout=REMOTE_SECONDS)
        why = None if asked.code == 0 else asked.said
    except WorkerError as error:
        why = str(error)
    if why is None:
        yield Finding("remote", "ok", f"{repository.remote} answers")
    else:
        cure = (
            "git fetch has to work for this user without asking anything: a key without passphrase, an agent, a helper."
        )
        yield Finding("remote", "warning", f"{repository.remote} can't be fetched from: {why}", cure)
    yield _gh()


def _gh() -> Finding:
    try:
        ran = run_program(["gh", "auth", "status"], cwd=Path.home(), timeout=GH_SECONDS)
    except WorkerError as error:
        return Finding("gh", "ok", f"{error}; only --pr needs it")
    if ran.code == 0:
        return Finding("gh", "ok", "gh is logged in")
    return Finding("gh", "warning", "gh is not logged in; only --pr needs it", "Run gh auth login.")


# --- the disk -----------------------------------------------------------------------------------------------------


def look_at_disk(places: Places) -> Iterator[Finding]:
    folder = places.state
    while not os.path.exists(folder):  # noqa: PTH110 - Path's own raises where a folder on the way is closed
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=".heartlane-doctor-", dir=folder) as file:
            file.write(b"x")
            file.flush()
        room = os.statvfs(folder)
    except OSError as error:
        yield Finding(
            "state",
            "problem",
            f"{places.state} can't be written: {error.strerror}",
            "Make it this user's, free some room, or set HEARTLANE_STATE to another folder.",
        )
        return
    yield Finding("state", "ok", f"{places.state} can be written")
    free = room.f_bavail * room.f_frsize
    shown = f"{free / 1024**3:,.1f} GiB free for {places.state}"
    level: Level = "ok" if free >= ROOM_WANTED else "warning" if free >= ROOM_NEEDED else "problem"
    if room.f_files and room.f_favail < FILES_NEEDED:  # some file systems have no such bound, and say 0 of 0
        level, shown = "problem", f"only {room.f_favail:,} more files fit onto the disk of {places.state}"
    cure = "Free some room, or set HEARTLANE_STATE to a folder on another disk."
    yield Finding("disk", level, shown, "" if level == "ok" else cure)


def look_at_group() -> Iterator[Finding]:
    why_not = try_out()
    if why_not is None:
        says = "commands run in control groups of their own"
    else:
        says = f"commands are held without a control group, which is well too unless they use sudo ({why_not})"
    yield Finding("group", "ok", says)


def look_at_spool(folder: Path) -> Iterator[Finding]:
    try:
        left = (
            [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_left(path)] if folder.is_dir() else []
        )
    except OSError as error:
        yield Finding("spool", "problem", f"{folder} can't be read: {error.strerror}", "Make it this user's.")
        return
    if not left:
        yield Finding("spool", "ok", "nothing is left to send")
        return
    unreadable = [path.name for path in left if read_info(path).problem is not None]
    if unreadable:
        yield Finding(
            "spool",
            "warning",
            f"another version of Heartlane wrote {', '.join(unreadable)} in {folder}, which this one leaves alone",
            "Send that with heartlane spool flush of that version, or give it up with heartlane spool discard.",
        )
    if lanes := len(left) - len(unreadable):
        yield Finding(
            "spool",
            "warning",
            f"{f'{lanes} lanes have' if lanes > 1 else '1 lane has'} events in {folder} that no worker is sending",
            "See them with heartlane spool list, send them with heartlane spool flush.",
        )


def _is_left(spool: Path) -> bool:
    """Whether a spool holds something, and no worker has it open (they hold its file `lock`)."""
    if not any(path.stat().st_size for path in spool.glob("*.log")):
        return False
    try:
        descriptor = os.open(spool / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
