"""A lock that processes and threads share through a file, and that ends with whoever holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

POLL_SECONDS: Final = 0.05


class FileLock:
    """A held lock; `acquire` makes one. Once, in any process: the system lets go of it when the holder dies.

    The file may be removed by its holder alone (`release(remove=True)`).
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path, wait_seconds: float = 0.0) -> FileLock | None:
        """The lock, or None when another has it for longer than `wait_seconds`. Raises OSError."""
        deadline = time.monotonic() + wait_seconds
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                if time.monotonic() >= deadline:
                    return None
                time.sleep(POLL_SECONDS)
                continue
            # The holder before may have removed the file that this one waited for.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return cls(path, descriptor)
            os.close(descriptor)

    def release(self, *, remove: bool = False) -> None:
        """Let go. Safe to repeat."""
        if self._descriptor < 0:
            return
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1


@contextlib.contextmanager
def held(path: Path, wait_seconds: float) -> Iterator[bool]:
    """Hold the lock for a block; whether it could be had in time. Raises OSError."""
    lock = FileLock.acquire(path, wait_seconds)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()
