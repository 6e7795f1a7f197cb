"""A command under its guard: started, watched, frozen, thawed, ended. What the sidecar holds of it.

    with Child.start(["claude", "-p", "…"], env=environment, cwd=worktree) as child:
        reader = Reader(child.stdout, child.stderr, on_lines)
        child.set_deadline(boottime() + 290)
        while (end := child.wait(1.0)) is None:
            …
        child.stop(grace=10)            # what the command left behind: servers, watchers, daemons
        child.wait_empty(30)

Every method may be called from any thread, returns at once or after the timeout it was given, and is harmless once the
tree is gone. The two output pipes are the caller's to read and to close; nothing else of the child needs to be closed
but the child itself, which kills what is left. See `heartlane.worker.guard` for what is guaranteed and what isn't.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Final, NamedTuple, Self

from heartlane.worker import control_groups
from heartlane.worker.child_errors import ChildError, GuardFailed, explain, no_answer
from heartlane.worker.control_group import ControlGroup
from heartlane.worker.tree import MARK_NAME, sweep

START_SECONDS_MAX: Final = 30.0
EFFECT_SECONDS_MAX: Final = 10.0
"""How long `freeze` and `thaw` wait for their effect; the guard of a busy machine has it in milliseconds."""
HUNG_GUARD_SECONDS: Final = 5.0
"""A guard that has not killed its tree for so long is killed itself."""
SWEEP_SECONDS_MAX: Final = 5.0
PIPE_BYTES: Final = 1024 * 1024
"""Room in the pipe of standard output: what the command may print before it waits for its reader."""

_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
"""A guard that is gone is no reason for SIGPIPE, where the process that we are part of takes that one."""
_BOOT: Final = "import sys; sys.path.append(sys.argv.pop()); from heartlane.worker.guard import main; main()"
"""Starts the guard as an imported, hence compiled, module, with nothing else of site-packages on its path."""


class Exit(NamedTuple):
    """How the command ended: by itself with `code`, or by `signal`; both None when it went down with its guard."""

    code: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.code is not None:
            return f"exit code {self.code}"
        if self.signal is None:
            return "killed with its guard"
        try:
            return f"killed by {Signals(self.signal).name}"
        except ValueError:
            return f"killed by signal {self.signal}"


class Child:
    """One command and all that it starts. Made by `Child.start`.

    pid       the command's process id
    mark      the value of HEARTLANE_LANE_MARK in the tree's environment
    stdout    the reading end of the pipe of standard output, for the caller to read and close
    stderr    the same of standard error
    fault     what `on_change` raised last, if it ever did
    """

    def __init__(
        self, guard: subprocess.Popen[bytes], control: socket.socket, mark: str, pipes: tuple[int, int]
    ) -> None:
        self.pid = 0
        self.mark = mark
        self.stdout, self.stderr = pipes
        self.fault: Exception | None = None
        self._guard = guard
        self._control = control
        self._changed = threading.Condition()
        self._sent = 0
        self._in_effect = 0
        self._frozen = ""
        self._failed = ""
        self._exit: Exit | None = None
        self._empty = False
        self._unguarded = False
        self._beyond = 0
        self._closed = False
        self._group: ControlGroup | None = None
        self._on_change: Callable[[Child], None] = _ignore
        self._listener = threading.Thread(target=self._listen, name="heartlane-guard", daemon=True)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | Path,
        deadline: float | None = None,
        on_change: Callable[[Child], None] | None = None,
    ) -> Child:
        """Start a command, never through a shell, with the null device as its standard input.

        argv        the program, looked for on the PATH of `env` unless it has a slash, and its arguments
        env         the whole environment; the mark is added to it
        cwd         the folder to run in
        deadline    as in `set_deadline`, in force before the command's first instruction: none is run after it
        on_change   called with the child after every change of its state, on a thread of its own: keep it short

        Raises CommandNotFound, CommandNotExecutable, FolderUnusable, TooLate, GuardFailed, or ChildError for arguments
        that can't be passed on. Nothing is left behind then.
        """
        mark = secrets.token_hex(16)
        order = _order(argv, {MARK_NAME: mark, **{k: v for k, v in env.items() if k != MARK_NAME}}, cwd)
        ours, theirs = socket.socketpair()
        with theirs:
            guard, pipes = _start_guard(ours, theirs)
        child = cls(guard, ours, mark, pipes)
        if on_change is not None:
            child._on_change = on_change
        try:
            if deadline is not None:
                child._send(f"deadline {deadline!r}")
            child._group = control_groups.make(mark)
            if child._group is not None:
                child._send(f"group {os.fsencode(child._group.path).hex()}")
            child._send(f"run {len(order)}", order)
            child._listener.start()
            with child._changed:
                child._changed.wait_for(lambda: child.pid or child._unguarded, START_SECONDS_MAX)
            if not child.pid:
                raise explain(child._failed, argv[0], env, cwd) if child._failed else no_answer(pipes[1])
        except BaseException:
            child.close()
            for pipe in pipes:
                os.close(pipe)
            raise
        return child

    # --- how it stands --------------------------------------------------------------------------------------------

    @property
    def exit(self) -> Exit | None:
        """How the command ended; None while it goes on. Others of its tree may outlive it."""
        return self._exit

    @property
    def empty(self) -> bool:
        """Whether nothing of the tree is left."""
        return self._empty

    @property
    def frozen(self) -> bool:
        """Whether the tree stands still, for whichever reason."""
        return bool(self._frozen)

    @property
    def overdue(self) -> bool:
        """Whether the tree stands still because its deadline passed. A later deadline lets it go on."""
        return "deadline" in self._frozen

    @property
    def beyond(self) -> int:
        """Members of the tree that belong to another user and can't be frozen or killed, as far as was seen."""
        return self._beyond

    @property
    def guard_pid(self) -> int:
        """The guard's process id."""
        return self._guard.pid

    def wait(self, timeout: float) -> Exit | None:
        """Wait until the command has ended; None when it goes on after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._exit is not None, timeout)
            return self._exit

    def wait_empty(self, timeout: float) -> bool:
        """Wait until nothing of the tree is left. False, when something is after `timeout` seconds: nothing else may be
        begun for the lane."""
        with self._changed:
            return self._changed.wait_for(lambda: self._empty, timeout)

    # --- what is done to it ---------------------------------------------------------------------------------------

    def freeze(self, timeout: float = EFFECT_SECONDS_MAX) -> bool:
        """Hold the tree still until `thaw`; whether everything stands still now. If False, the guard goes on trying."""
        return self._order_and_wait("freeze", timeout) and (self.frozen or self._empty)

    def thaw(self, timeout: float = EFFECT_SECONDS_MAX) -> bool:
        """Let go of `freeze`; whether the tree runs again. A deadline that passed still holds it."""
        return self._order_and_wait("thaw", timeout) and not self.frozen and not self._empty

    def set_deadline(self, at: float | None) -> None:
        """Let the tree run until `at`, in seconds of `boottime()`; None: without end.

        When that moment passes, the guard freezes the tree, even if this process hangs or is stopped; a later deadline
        lets it go on. Count it from the moment at which the report that confirmed the lease was *sent*, less a margin.
        """
        self._send("deadline never" if at is None else f"deadline {at!r}")

    def stop(self, grace: float) -> None:
        """End the tree: SIGTERM to every member, a frozen one is woken for it, and SIGKILL after `grace` seconds.

        At once and without SIGTERM where the deadline has passed. Returns before it is done: see `wait_empty`. Called
        again, it can only bring the end nearer.
        """
        self._send(f"stop {max(0.0, grace)!r}")

    def end_after(self, wait: float, grace: float = 10.0) -> None:
        """Give the command `wait` seconds to end by itself, for one that has given its result; then `stop(grace)`.

        What it leaves behind is stopped as soon as it ends.
        """
        self._send(f"end {max(0.0, wait)!r} {max(0.0, grace)!r}")

    def kill(self, timeout: float = 0.0) -> bool:
        """Kill every member now; whether the guard was at it within `timeout`, else it hangs. See `wait_empty`."""
        return self._order_and_wait("kill", timeout)

    def close(self, timeout: float = HUNG_GUARD_SECONDS) -> bool:
        """Kill what is left and let go of the guard; whether nothing is left.

        A guard that has not done it after `timeout` seconds is killed too, which kills the command, and what bears the
        mark is swept up. May be called twice.
        """
        with self._changed:
            if not self._closed:
                self._closed = True
                with contextlib.suppress(OSError):
                    self._control.shutdown(socket.SHUT_WR)  # the guard takes it for our end
        if not self._listener.ident:
            self._listener.start()
        if not self.wait_empty(timeout):
            self._guard.kill()
            self.wait_empty(SWEEP_SECONDS_MAX + HUNG_GUARD_SECONDS)
        return self._empty

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- the guard ------------------------------------------------------------------------------------------------

    def _send(self, line: str, data: bytes = b"") -> int:
        """Give the guard a line; returns its number. A guard that is gone has no tree left to give orders about."""
        with self._changed:
            if self._closed:
                return self._sent
            self._sent += 1
            # Lines are short and few, and the socket takes thousands: only the order to start is ever waited for, and
            # a guard that doesn't read is treated as hung by whoever waits for the effect.
            with contextlib.suppress(OSError):
                if data:
                    self._control.settimeout(START_SECONDS_MAX)
                    self._control.sendall(line.encode() + b"\n" + data, _NO_SIGNAL)
                    self._control.settimeout(None)
                else:
                    self._control.send(line.encode() + b"\n", socket.MSG_DONTWAIT | _NO_SIGNAL)
            return self._sent

    def _order_and_wait(self, line: str, timeout: float) -> bool:
        number = self._send(line)
        with self._changed:
            done = lambda: self._in_effect >= number or self._unguarded  # noqa: E731
            return self._changed.wait_for(done, timeout)

    def _listen(self) -> None:
        received = b""
        while True:
            try:
                data = self._control.recv(4096)
            except OSError:
                data = b""
            if not data:
                break
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                self._take(*line.decode().split(" "))
        self._guard.wait()
        self._control.close()
        if self._group is not None:
            self._group.remove()
        if self._empty:
            return
        with self._changed:
            self._unguarded = True
            self._exit = self._exit or Exit(None, None)
            self._frozen = ""
            self._changed.notify_all()
        # The guard was killed. The command died with it; what it had started is found by the group and the mark, and
        # may take as long to end as a device that it waits for.
        while (self._group is not None and control_groups.end(self._group, SWEEP_SECONDS_MAX)) or sweep(
            self.mark, SWEEP_SECONDS_MAX
        ):
            continue
        self._take("empty")

    def _take(self, verb: str, *values: str) -> None:
        with self._changed:
            if verb == "started":
                self.pid = int(values[0])
            elif verb == "failed":
                self._failed = " ".join(values)
                self._empty = self._unguarded = True
            elif verb == "ok":
                self._in_effect = int(values[0])
            elif verb == "frozen":
                self._frozen = " ".join(values)
            elif verb == "thawed":
                self._frozen = ""
            elif verb == "beyond":
                self._beyond = int(values[0])
            elif verb == "exited":
                number = int(values[1])
                self._exit = Exit(number, None) if values[0] == "code" else Exit(None, number)
            elif verb == "empty":
                self._empty = self._unguarded = True
                self._frozen = ""
            self._changed.notify_all()
        if verb != "ok":
            self._tell()

    def _tell(self) -> None:
        try:
            self._on_change(self)
        except Exception as error:  # noqa: BLE001 - nobody else hears the guard: this thread must go on
            self.fault = error


def _ignore(child: Child) -> None:
    pass


def _order(argv: Sequence[str], env: Mapping[str, str], cwd: str | Path) -> bytes:
    """What follows the line `run`."""
    if not argv or not argv[0]:
        raise ChildError("there is no command to run", "wrong_input")
    entries = [f"{name}={value}" for name, value in env.items()]
    if any("=" in name or not name for name in env):
        raise ChildError("an environment variable has an empty name, or one with an equals sign", "wrong_input")
    fields = [os.fspath(cwd), str(len(argv)), *argv, *entries]
    if any("\0" in field for field in fields):
        raise ChildError("the command, its folder or its environment has a NUL character in it", "wrong_input")
    return b"\0".join(map(os.fsencode, fields))


def _start_guard(ours: socket.socket, theirs: socket.socket) -> tuple[subprocess.Popen[bytes], tuple[int, int]]:
    """The guard and the reading ends of the pipes that it hands on to the command."""
    package = Path(__file__).resolve().parent.parent.parent
    opened: list[int] = []
    try:
        for _ in range(2):
            opened.extend(os.pipe())
        out, out_end, err, err_end = opened
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # above what this user may have
                fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        number = theirs.fileno()
        guard = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            [sys.executable, "-I", "-S", "-c", _BOOT, str(number), str(package)],
            stdin=subprocess.DEVNULL,
            stdout=out_end,
            stderr=err_end,
            pass_fds=(number,),
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        for descriptor in opened:
            os.close(descriptor)
        ours.close()
        raise GuardFailed(f"the command's guard can't be started: {error.strerror or error}") from error
    os.close(out_end)
    os.close(err_end)
    return guard, (out, err)
