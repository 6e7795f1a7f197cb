"""Several server processes behind one address, each a whole server on the same PostgreSQL, and their supervisor.

    supervisor ──┬─ process 1 ─┐
                 ├─ process 2 ─┼─ one port: the kernel deals new connections out
                 └─ process 3 ─┘

The supervisor forks them from itself once everything is loaded, so that they share that memory. It takes no requests,
has no event loop and no threads. It starts the first process alone: what keeps one from starting is said once. One that
ends by itself is started again. SIGTERM or SIGINT ends all in good order; and should the supervisor vanish, they end by
themselves, as its end of a pipe closes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import structlog
from prometheus_client import multiprocess

from heartlane.server.settings import Settings

log = structlog.get_logger(__name__)

RESTART_SECONDS: Final = 1.0
"""How long after its end a process that ended by itself is started again."""
KILL_AFTER_SECONDS: Final = 4.0
"""How long past `shutdown_seconds` a process may take to end before it is killed."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Seat(NamedTuple):
    """What one of the processes knows of its place.

    number      from 1
    port        where all of them listen
    figures     the folder in which they keep their figures for /metrics
    """

    number: int
    port: int
    figures: Path
    ready: int
    supervisor: int

    def say_ready(self) -> None:
        """Tell the supervisor that this process listens."""
        with contextlib.suppress(OSError):
            os.write(self.ready, b"1")

    def watch_supervisor(self, add_reader: Callable[[int, Callable[[], None]], None], gone: Callable[[], None]) -> None:
        """Have `gone` called when the supervisor has vanished."""
        add_reader(self.supervisor, gone)


def supervise(settings: Settings, hold_port: Callable[[Settings], socket.socket]) -> Seat | None:
    """Keep `settings.processes` processes running. Returns twice: in each process its seat, to be served from, and in
    the supervisor None, once all have ended as they were told.

    hold_port   a socket that is bound to the address, and doesn't listen: it keeps the port while processes come and go

    Raises SystemExit with the code of a first process that couldn't start (it has said why); what `hold_port` raises.
    """
    with hold_port(settings) as held:
        folder = Path(tempfile.mkdtemp(prefix="heartlane-figures-"))
        supervisor = _Supervisor(settings, held.getsockname()[1], folder)
        seat = None
        try:
            seat = supervisor.run()
        finally:
            if seat is None:
                shutil.rmtree(folder, ignore_errors=True)
    return seat


class _Supervisor:
    def __init__(self, settings: Settings, port: int, folder: Path) -> None:
        self._settings = settings
        self._port = port
        self._folder = folder
        self._running: dict[int, int] = {}  # process id → number
        self._due: dict[int, float] = {}  # number → when to start it again
        self._told_to_stop = False
        self._alive, self._alive_here = os.pipe()  # its other end closes when this process is gone
        self._ready, self._ready_there = os.pipe()
        self._woken, self._wakes = socket.socketpair()

    def _stopping(self) -> bool:
        return self._told_to_stop

    def run(self) -> Seat | None:
        """Returns as `supervise` does."""
        with self._signals():
            if (seat := self._start(1)) is not None or not self._wait_for_first():
                return seat
            for number in range(2, self._settings.processes + 1):
                if (seat := self._start(number)) is not None:
                    return seat
            while not self._stopping():
                self._wait()
                for pid, number, status in self._ended():
                    log.error("process_ended", number=number, pid=pid, status=_in_words(status))
                    self._due[number] = time.monotonic() + RESTART_SECONDS
                for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
                    del self._due[number]
                    if not self._stopping() and (seat := self._start(number)) is not None:
                        return seat
            self._stop()
        return None

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals wake `_wait`, and those that end the server are remembered; in a process all is as before again."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._told_to_stop = True

        for end in (self._woken, self._wakes):
            end.setblocking(False)
        before = {number: signal.signal(number, stop) for number in SIGNALS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        woken_before = signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._woken.close()
            self._wakes.close()

    def _start(self, number: int) -> Seat | None:
        """Fork a process; its seat in it, None here."""
        sys.stdout.flush()
        sys.stderr.flush()
        # Until the process has handlers of its own a signal would be taken for the supervisor's, and forgotten.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.close(self._alive_here)
            os.close(self._ready)
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return Seat(number, self._port, self._folder, self._ready_there, self._alive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._running[pid] = number
        return None

    def _wait_for_first(self) -> bool:
        """Whether the first process listens now; False where the server is to end before that. Raises SystemExit."""
        while not self._stopping():
            if self._wait(self._ready):
                return True
            for _, _, status in self._ended():
                raise SystemExit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)
        self._stop()
        return False

    def _wait(self, *also: int) -> bool:
        """Wait for a signal, for the next start that is due, or for one of the files to be readable; whether one is."""
        due = min(self._due.values(), default=None)
        seconds = None if due is None else max(0.0, due - time.monotonic())
        if self._stopping():
            seconds = 0.1
        readable, _, _ = select.select([self._woken.fileno(), *also], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        return any(file in readable for file in also)

    def _ended(self) -> list[tuple[int, int, int]]:
        """The processes that have ended since: process id, number, and how."""
        ended: list[tuple[int, int, int]] = []
        for pid in list(self._running):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                ended.append((pid, self._running.pop(pid), status))
                multiprocess.mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]
        return ended

    def _stop(self) -> None:
        """End all, and wait until they have."""
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
        give_up = time.monotonic() + self._settings.shutdown_seconds + KILL_AFTER_SECONDS
        while self._running:
            self._wait()
            self._ended()
            if time.monotonic() > give_up:
                for pid, number in self._running.items():
                    log.warning("process_killed", number=number, pid=pid)
                    os.kill(pid, signal.SIGKILL)
                give_up = float("inf")


def _in_words(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
