"""Where control groups can be made on this machine, and what killed workers left of them.

A group is made below the one that this process is in, where that may be written: as root, in a systemd unit with
`Delegate=yes`, anywhere below a user's own service manager. Elsewhere (macOS, most containers, a plain login as another
user than root) there is none, and nobody need know: `try_out` tells `heartlane doctor`.

A group's name says which process made it, so that what a worker left that was killed together with its guard is told
from what is in use.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from heartlane.worker.control_group import ControlGroup
from heartlane.worker.tree import look, process_table, send

NAME: Final = re.compile(r"heartlane-(\d+)-(\d+)-(\d+)-\w+")
"""Of a group: the namespace of process ids, the pid and the start of the worker that made it, and a random part."""
FOLDERS_MAX: Final = 20_000
"""Groups of the machine that are gone through for what killed workers left."""
STEP_SECONDS: Final = 0.02

_OWN: Final = "/proc/self/cgroup"
_MOUNTS: Final = "/proc/self/mountinfo"


class Place(NamedTuple):
    """Where this process is: the folder its hierarchy is mounted at, and that of its own group."""

    mount: str
    own: str


def place() -> Place | None:
    """None where no cgroup v2 is to be seen."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        # The unified hierarchy's line is `0::PATH`; beside it there may be those of version 1.
        lines = Path(_OWN).read_text("utf-8", "surrogateescape").splitlines()
        for path in [line[3:] for line in lines if line.startswith("0::")]:
            for root, mount in _mounts():
                if path == root or path.startswith(root.rstrip("/") + "/"):
                    return Place(mount, os.path.normpath(mount + "/" + path[len(root.rstrip("/")) :]))
    return None


def _mounts() -> Iterator[tuple[str, str]]:
    """Each mount of cgroup v2: the group that it shows as its top, and where."""
    for line in Path(_MOUNTS).read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "cgroup2":
            yield _plain(fields[3]), _plain(fields[4])


def _plain(field: str) -> str:
    """
    >>> _plain(r"/run/a\\040b")
    '/run/a b'
    """
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def make(mark: str) -> ControlGroup | None:
    """A new group for the command with this mark; None where none can be made."""
    here = place()
    if here is None:
        return None
    with contextlib.suppress(OSError):
        return _make(here, mark)
    return None


def _make(here: Place, mark: str) -> ControlGroup:
    """Raises OSError."""
    me = look(os.getpid())
    start = me.start if me is not None else "0"
    path = f"{here.own}/heartlane-{_namespace()}-{os.getpid()}-{start}-{mark}"
    os.mkdir(path, 0o755)  # noqa: PTH102
    return ControlGroup(path)


def _namespace() -> int:
    """Which process ids are meant: a container has its own."""
    return Path("/proc/self/ns/pid").stat().st_ino


def try_out() -> str | None:
    """Make a group, move a process into it, and remove it again; None where that works, else why not."""
    here = place()
    if here is None:
        return "there is no cgroup v2 here"
    try:
        group = _make(here, "trial")
    except OSError as error:
        return f"no group can be made in {here.own}: {error.strerror}"
    try:
        # A command of our own making, nothing of which anybody sends.
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:  # noqa: S607
            moved = group.enter(process.pid) and process.pid in group.members()
            process.kill()
    except OSError as error:
        return f"no process can be started: {error.strerror}"
    finally:
        group.remove()
    return None if moved else f"no process can be moved into a group in {here.own}"


def end(group: ControlGroup, seconds: float) -> int:
    """Kill all in a group and remove it; how many are left. Gives up after `seconds`."""
    give_up_at = time.monotonic() + seconds
    while not group.remove():
        # Looked at before the group is read: a stranger that was given a member's pid since has another start.
        table = process_table()
        left = [table[pid] for pid in group.members() if pid in table and table[pid].alive]
        if not group.kill():
            for process in left:
                with contextlib.suppress(PermissionError):
                    send(process, signal.SIGKILL)
        if time.monotonic() >= give_up_at:
            return len(left)
        time.sleep(STEP_SECONDS)
    return 0


def left_over() -> list[ControlGroup]:
    """Every group on this machine that a worker of this user made which is no more."""
    here = place()
    if here is None:
        return []
    namespace = str(_namespace())
    found = []
    for path in _walk(here.mount):
        name = NAME.fullmatch(os.path.basename(path))  # noqa: PTH119
        if name is None or name[1] != namespace:
            continue
        with contextlib.suppress(OSError):
            maker = look(int(name[2]))
            gone = maker is None or maker.start != name[3] or not maker.alive
            if gone and Path(path).stat().st_uid == os.geteuid():
                found.append(ControlGroup(path))
    return found


def _walk(top: str) -> Iterator[str]:
    waiting = [top]
    seen = 0
    while waiting and seen < FOLDERS_MAX:
        folder = waiting.pop()
        seen += 1
        yield folder
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            waiting.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
