"""A control group (Linux's cgroup v2) for one command: the kernel's own list of whatever descends from it.

The command goes into its group before its first instruction, and all that it starts is born there. That adds to what
`heartlane.worker.tree` does by descent, by the mark and by signals, which go on as they are everywhere: processes of
another user (sudo) are frozen and killed too, a tree that breeds is caught in one step, and a process that threw its
environment away is found after its guard was killed. `heartlane.worker.control_groups` makes them, where it may.

Not promised: a command that runs as the same user can move itself out of its group. Imports next to nothing: the guard
has to start at once and stay small.
"""

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs a megabyte that the guard doesn't have
    from collections.abc import Iterator
    from typing import Final

READ_BYTES: Final = 65_536


class ControlGroup:
    """One group, by the folder in which the kernel shows it. No method raises: a group that is gone has no members."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def enter(self, pid: int = 0) -> bool:
        """Move a process, left out this one, into the group; False where the kernel doesn't allow it."""
        return self._write("cgroup.procs", b"%d" % pid)

    def members(self) -> set[int]:
        """The pids of all in it and in groups that members made below it, dead ones that nobody waited for included."""
        return {int(pid) for folder in self._folders() for pid in _read(folder + "/cgroup.procs").split()} - {0}

    @property
    def populated(self) -> bool:
        """Whether anything in it, or below it, is alive."""
        return b"populated 1" in _read(self.path + "/cgroup.events")

    @property
    def frozen(self) -> bool:
        """Whether all in it and below it stand still, as the kernel confirms."""
        return b"frozen 1" in _read(self.path + "/cgroup.events")

    def freeze(self) -> bool:
        """Hold all in it still until `thaw`, also what is born or moved into it meanwhile; `frozen` tells when."""
        return self._write("cgroup.freeze", b"1")

    def thaw(self) -> bool:
        """Let go of `freeze`. What a signal stopped stays so."""
        return self._write("cgroup.freeze", b"0")

    def kill(self) -> bool:
        """Kill all in it and below it at once, whoever they belong to; False before Linux 5.14."""
        return self._write("cgroup.kill", b"1")

    def remove(self) -> bool:
        """Remove it and what members made below it; whether it is gone. The kernel keeps one with anybody alive."""
        for folder in reversed(list(self._folders())):
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106 - pathlib costs the guard two megabytes
        return not os.path.exists(self.path)  # noqa: PTH110

    def _folders(self) -> Iterator[str]:
        """Its own, then those below it, parents first."""
        waiting = [self.path]
        for folder in waiting:  # grows while it is gone through
            yield folder
            try:
                with os.scandir(folder) as entries:
                    waiting.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
            except OSError:
                continue

    def _write(self, name: str, data: bytes) -> bool:
        try:
            descriptor = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return os.write(descriptor, data) == len(data)
        except OSError:
            return False
        finally:
            os.close(descriptor)


def _read(path: str) -> bytes:
    """What a file of the kernel's holds; nothing where there is none."""
    parts = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        while data := os.read(descriptor, READ_BYTES):
            parts.append(data)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return b"".join(parts)
