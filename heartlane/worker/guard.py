"""The guard: a small process between the sidecar and the command, so that no command ever runs unwatched.

It leads a session of its own and is the subreaper of all that the command starts: whoever leaves its parent, its group
or its session (setsid, a double fork) becomes the guard's child and is still found. It freezes the tree by itself when
the deadline that it was last told passes, whatever the sidecar is doing, and kills it when the sidecar is gone. It has
one thread, no state on disk, and never waits for the sidecar.

Lines over a socket, both ways, UTF-8, one command or report each. From the sidecar:

    group PATH          put the command into this control group, whose folder's name stands there in hexadecimal
    run LENGTH          start the command: LENGTH bytes follow, fields separated by NUL: the folder to run in, the
                        number of arguments, the arguments, then the environment as NAME=VALUE. Once.
    freeze              hold the tree still (SIGSTOP) until `thaw`
    thaw                let go of that hold
    deadline T          the tree may run until T, in seconds of `boottime()`; `deadline never`: until told otherwise.
                        When T passes the tree is held still until a later T comes. The two holds are independent: it
                        runs only when neither holds it, so that no late `thaw` undoes a deadline.
    stop GRACE          TERM to every member, and KILL to what is left after GRACE seconds; KILL at once where the
                        deadline has passed, because somebody else may be at work by then
    end WAIT GRACE      `stop GRACE` after WAIT seconds, or when the command itself ends, whichever comes first
    kill                KILL to every member, now

To the sidecar:

    started PID         the command runs
    failed STAGE ERRNO  it could not be started, and has run nothing; STAGE is `fork`, `folder`, `command`, or
                        `deadline` where that had passed
    ok N                the first N lines from the sidecar are in effect: after `freeze`, everything stands still
    frozen WHY          everything stands still; WHY is `asked`, `deadline`, or both
    thawed              the members were continued
    beyond N            N members belong to another user and can be neither frozen nor killed
    exited code N       the command ended, by itself …
    exited signal N     … or by a signal; others of its tree may go on
    empty               nothing of the tree is left; the guard ends

What it guarantees on Linux: the end of the sidecar, also by `kill -9`, is the end of the tree; the deadline holds
through a hung, stopped or starved sidecar and through a suspended machine, looked at every TICK_SECONDS; `empty` is
said only when no descendant is left, nobody is in the control group, and no process bears the mark.

What it does NOT guarantee:
- If the guard itself is killed, the kernel kills the command (PR_SET_PDEATHSIG), but not what the command started: the
  sidecar kills who is in the group and sweeps by the mark. Without a group it finds none that threw its environment
  away. A set-uid command loses that signal.
- A guard that is itself stopped (SIGSTOP by somebody who looked for it) watches nothing until it is continued.
- Processes of another user (sudo) without a group, or started on request by a daemon outside of the tree (docker,
  systemd-run, an existing tmux server) and without the mark, are beyond its reach.
- Stopping is no transaction: what a member handed to the kernel or to another host before, goes on there.
- Without subreapers (macOS), a process that left its parent is known only if a look saw it before. What no look saw is
  found by the mark at the end, and killed then, without TERM. And when the guard is killed, nothing kills the command
  but the sidecar's sweep.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from heartlane.worker.clock import boottime
from heartlane.worker.control_group import ControlGroup
from heartlane.worker.tree import MARK_NAME, Tree, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs a megabyte that the guard doesn't have
    from typing import Final

TICK_SECONDS: Final = 0.25
"""How often the deadline is looked at: poll's own clock stands still while the machine sleeps, unlike `boottime`."""
RECHECK_SECONDS: Final = 2.0
"""How often a frozen tree is looked at again: somebody may have continued a member."""
STEP_SECONDS_MIN: Final = 0.001
STEP_SECONDS_MAX: Final = 0.1
ORPHAN_SECONDS_MAX: Final = 10.0
"""How long a guard without a sidecar tries to kill what can't be killed; SIGKILL stays pending when it gives up."""
STRAYS_SECONDS_MAX: Final = 2.0
READ_BYTES: Final = 65_536

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36


class _Gone(Exception):
    """The sidecar went away."""


class Guard:
    """One command, one tree, one sidecar at the other end of the socket `control`."""

    def __init__(self, control: int) -> None:
        self._control = control
        self._received = b""
        self._taken = 0  # lines from the sidecar
        self._confirmed = 0  # of these, by `ok`
        self._tree = Tree(os.getpid())
        self._mark = ""
        self._command = 0  # its pid
        self._exited = False
        self._childless = False
        self._subreaper = False
        self._orphaned_at: float | None = None

        self._asked = False
        self._deadline: float | None = None
        self._still = 0  # rounds in a row that found nothing running
        self._said = ""  # what was last reported of freezing: why, or nothing
        self._beyond = 0
        self._recheck_at = 0.0
        self._pause = STEP_SECONDS_MIN

        self._end_at: float | None = None  # when `stop` begins
        self._end_grace = 0.0
        self._kill_at: float | None = None  # set: the tree is being ended

    def run(self) -> None:
        """Until nothing of the tree is left."""
        self._subreaper = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _name_this_process()
        woken = _wake_on_signals()
        os.set_blocking(self._control, False)
        os.set_inheritable(self._control, False)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        pause = 0.0
        while not self._over():
            for descriptor, _ in poll.poll(pause * 1000):
                if descriptor == woken:
                    os.read(woken, READ_BYTES)
                else:
                    self._listen(poll)
            try:
                pause = self._step()
            except OSError:  # no descriptors, no memory: no answer is no leave to think that all is well
                pause = STEP_SECONDS_MAX
        if self._mark:
            sweep(self._mark, STRAYS_SECONDS_MAX)
        if self._tree.group is not None:
            self._tree.group.remove()
        if self._command:
            self._say("empty")

    def _over(self) -> bool:
        if self._orphaned_at is not None and time.monotonic() > self._orphaned_at + ORPHAN_SECONDS_MAX:
            return True
        if not self._childless or not (self._command or self._orphaned_at is not None):
            return False
        if self._tree.group is not None and self._tree.group.populated:
            return False
        return self._subreaper or not self._tree.members()

    # --- the sidecar ----------------------------------------------------------------------------------------------

    def _listen(self, poll: select.poll) -> None:
        try:
            self._received += self._read()
            while (end := self._received.find(b"\n")) >= 0:
                line = self._received[:end].decode()
                self._received = self._received[end + 1 :]
                self._taken += 1
                self._obey(*line.split(" "))
        except _Gone:
            poll.unregister(self._control)
            self._orphaned_at = self._kill_at = time.monotonic()

    def _read(self) -> bytes:
        try:
            data = os.read(self._control, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            raise _Gone
        return data

    def _obey(self, verb: str, *values: str) -> None:
        now = time.monotonic()
        if verb == "group":
            self._tree.group = ControlGroup(os.fsdecode(bytes.fromhex(values[0])))
        elif verb == "run":
            self._start(self._take(int(values[0])))
        elif verb == "freeze":
            self._asked = True
        elif verb == "thaw":
            self._asked = False
        elif verb == "deadline":
            self._deadline = None if values[0] == "never" else float(values[0])
        elif verb == "end":
            self._end_at, self._end_grace = now + float(values[0]), float(values[1])
        elif verb == "stop":
            self._end(now, float(values[0]))
        elif verb == "kill":
            self._kill_at = now
        self._still = 0

    def _take(self, length: int) -> bytes:
        """The `length` bytes that follow the line."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while len(self._received) < length:
            poll.poll()
            self._received += self._read()
        taken, self._received = self._received[:length], self._received[length:]
        return taken

    def _say(self, line: str) -> None:
        # What doesn't fit is not waited for: some thousand lines do, and a sidecar that read none of them for so long
        # has the tree's state from the end of the socket.
        try:
            os.write(self._control, line.encode() + b"\n")
        except OSError:
            return

    # --- the tree -------------------------------------------------------------------------------------------------

    def _step(self) -> float:
        """Bring the tree one round nearer to where it should be; returns the seconds until the next round."""
        now = time.monotonic()
        self._reap()
        overdue = self._deadline is not None and boottime() >= self._deadline
        if self._end_at is not None and (self._exited or now >= self._end_at):
            self._end(now, self._end_grace)
        if self._kill_at is not None:
            pause = self._ending(now, self._kill_at, overdue)
        elif self._asked or overdue:
            why = " ".join(["asked"] * self._asked + ["deadline"] * overdue)
            pause = self._freeze(now, why)
        else:
            if self._said or self._tree.holds:
                self._tree.thaw()
                self._say("thawed")
                self._said = ""
            self._confirm()
            pause = float("inf")
        if self._end_at is not None:
            pause = min(pause, max(0.0, self._end_at - now))
        watching = self._deadline is not None and not overdue
        if watching and self._deadline is not None:
            pause = min(pause, TICK_SECONDS, max(0.0, self._deadline - boottime()))
        # Where orphans go to init, and of a group's members that are no descendants, nobody tells when they end.
        return min(pause, 3600.0 if self._subreaper and not self._childless else TICK_SECONDS)

    def _freeze(self, now: float, why: str) -> float:
        if self._still >= 2 and now < self._recheck_at:
            if why != self._said:
                self._frozen(why)
            return self._recheck_at - now
        running = self._tree.freeze_step()
        self._still = 0 if running else self._still + 1
        if self._still >= 2:
            self._recheck_at = now + RECHECK_SECONDS
            self._pause = STEP_SECONDS_MIN
            self._frozen(why)
            return RECHECK_SECONDS
        self._pause = min(STEP_SECONDS_MAX, self._pause * 2)
        return self._pause

    def _frozen(self, why: str) -> None:
        if why != self._said:
            self._say(f"frozen {why}")
            self._said = why
        self._tell_beyond()
        self._confirm()

    def _end(self, now: float, grace: float) -> None:
        """Begin to end the tree, or bring the end that has begun nearer."""
        self._end_at = None
        if self._kill_at is None:
            self._kill_at = now + grace
            self._pause = STEP_SECONDS_MIN
            overdue = self._deadline is not None and boottime() >= self._deadline
            if grace > 0 and not overdue:
                self._tree.terminate()
        else:
            self._kill_at = min(self._kill_at, now + grace)

    def _ending(self, now: float, kill_at: float, overdue: bool) -> float:
        self._confirm()
        self._end_at = None
        if now < kill_at and not overdue:
            return kill_at - now
        self._kill_at = min(kill_at, now)
        self._tree.kill_step()
        self._tell_beyond()
        self._pause = min(STEP_SECONDS_MAX, self._pause * 2)
        return self._pause

    def _tell_beyond(self) -> None:
        if self._tree.beyond != self._beyond:
            self._beyond = self._tree.beyond
            self._say(f"beyond {self._beyond}")

    def _confirm(self) -> None:
        if self._confirmed != self._taken:
            self._confirmed = self._taken
            self._say(f"ok {self._taken}")

    def _reap(self) -> None:
        """Take the ends of all children that ended: the command's, and those of orphans that became ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            self._childless = False
            if pid == 0:
                return
            if pid == self._command:
                self._exited = True
                code = os.waitstatus_to_exitcode(status)
                self._say(f"exited code {code}" if code >= 0 else f"exited signal {-code}")

    # --- the command ----------------------------------------------------------------------------------------------

    def _start(self, order: bytes) -> None:
        folder, count, *rest = order.split(b"\0")
        arguments = rest[: int(count)]
        environment = dict(entry.split(b"=", 1) for entry in rest[int(count) :] if entry)
        self._mark = environment.get(MARK_NAME.encode(), b"").decode()
        # The exec closes the pipe's end, or says through it why it could not be.
        answer, ours = os.pipe()
        guard = os.getpid()
        try:
            self._command = os.fork()
        except OSError as error:
            self._failed(f"fork {error.errno}")
            return
        if self._command == 0:
            if self._tree.group is not None:
                self._tree.group.enter()
            _become(folder, arguments, environment, answer=ours, guard=guard, deadline=self._deadline)
        os.close(ours)
        # The guard keeps no end of the command's output: it is over when the last writer of the tree is.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        failure = self._outcome(answer)
        os.close(answer)
        if failure:
            os.waitpid(self._command, 0)
            self._failed(failure)
        else:
            self._say(f"started {self._command}")

    def _outcome(self, answer: int) -> str:
        """Why the command could not be started, or nothing. A folder on a dead network disk may hold this up."""
        poll = select.poll()
        poll.register(answer, select.POLLIN)
        poll.register(self._control, 0)  # only its end
        if answer in [descriptor for descriptor, _ in poll.poll()]:
            return os.read(answer, READ_BYTES).decode()
        raise _Gone

    def _failed(self, why: str) -> None:
        self._say(f"failed {why}")
        os._exit(0)


def _become(
    folder: bytes,
    arguments: list[bytes],
    environment: dict[bytes, bytes],
    *,
    answer: int,
    guard: int,
    deadline: float | None,
) -> None:
    """In the forked child: turn into the command, or say through the pipe why that can't be. Never returns."""
    stage = "command"
    try:
        signal.set_wakeup_fd(-1)
        # What the guard ignores or handles must be plain again for the command, which inherits what is ignored.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it ended before the line above
            os._exit(1)
        stage = "folder"
        os.chdir(folder)
        if deadline is not None and boottime() >= deadline:  # the folder may be on a disk that takes its time
            os.write(answer, b"deadline 0")
            os._exit(1)
        stage = "command"
        os.execvpe(arguments[0], arguments, environment)  # noqa: S606 - to run this command is what the guard is for
    except OSError as error:
        os.write(answer, f"{stage} {error.errno}".encode())
    finally:
        os._exit(127)


def _prctl(option: int, value: int) -> bool:
    """Linux's prctl(2); False where there is none or it refuses."""
    if sys.platform != "linux":
        return False
    try:
        import ctypes  # noqa: PLC0415 - some builds of Python have none

        return ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0  # type: ignore[no-any-return]
    except (ImportError, OSError, AttributeError):
        return False


def _name_this_process() -> None:
    """What `ps -o comm` and top show instead of the interpreter's name."""
    if sys.platform != "linux":
        return
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as name:  # noqa: PTH123
            name.write("heartlane-guard")
    except OSError:
        return


def _wake_on_signals() -> int:
    """Take every signal that can be taken and do nothing about it; returns what becomes readable by a child's end.

    Who asks a whole session or control group to end means the sidecar, which then ends the tree in good order.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    woken, waker = os.pipe()
    for descriptor in (woken, waker):
        os.set_blocking(descriptor, False)
    names = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTSTP", "SIGTTIN", "SIGTTOU")
    # A handler, not SIG_IGN: the command would inherit that one.
    for name in (*names, "SIGCHLD"):
        signal.signal(getattr(signal, name), lambda number, frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    return woken


def main() -> None:
    """Serve the sidecar at the other end of the inherited socket whose descriptor is the only argument."""
    Guard(int(sys.argv[1])).run()


if __name__ == "__main__":
    main()
