"""The processes of a command: found, told apart from strangers, frozen, thawed, killed.

A process is known by its pid AND the time it started at, and is looked at again before any signal goes to it, on Linux
through a pidfd, so that a process that was given the pid of one that ended is never hit. Elsewhere a few microseconds
between the look and the signal remain.

Two ways lead to the members of a tree. Descent from a root: exact on Linux where the root is a subreaper, as the guard
is, because whoever leaves its parent then becomes the root's child. And the mark, a random value in the environment of
the command that its children inherit: it finds those whose root is gone, but none that threw its environment away.

Reads /proc; where there is none (macOS), asks `ps`. Imports little: the guard has to start at once and stay small.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs a megabyte that the guard doesn't have
    from collections.abc import Callable, Iterable
    from typing import Final

    from heartlane.worker.control_group import ControlGroup

MARK_NAME: Final = "HEARTLANE_LANE_MARK"
"""The environment variable that marks every process of one command."""
ENVIRON_BYTES_MAX: Final = 4 * 1024 * 1024
"""How much of a process's environment is searched for the mark; Linux takes no larger one by default."""
SWEEP_PAUSE_SECONDS: Final = 0.02

_PROC: Final = "/proc"
_GONE: Final = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What reading about a process raises that ended, or that we may not see. Anything else is no answer, and passes."""


class Process:
    """One process as it was when it was looked at.

    pid       its number
    parent    its parent's pid
    state     one letter as /proc and ps have it: R and S run, D waits for a device, T and t are stopped, Z is dead
    start     when it started, in whatever unit the system counts: equal for the same process, and never read otherwise
    """

    __slots__ = ("parent", "pid", "start", "state")

    def __init__(self, pid: int, parent: int, state: str, start: str) -> None:
        self.pid = pid
        self.parent = parent
        self.state = state
        self.start = start

    def __repr__(self) -> str:
        return f"Process({self.pid}, parent={self.parent}, state={self.state!r}, start={self.start!r})"

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from every other process of this boot."""
        return self.pid, self.start

    @property
    def alive(self) -> bool:
        """Whether it can still do anything."""
        return self.state not in "ZX"

    @property
    def stopped(self) -> bool:
        """Whether it does nothing until somebody continues it."""
        return self.state in "Tt"


# --- looking ------------------------------------------------------------------------------------------------------


def process_table() -> dict[int, Process]:
    """Every process that this user may see, by pid. Raises OSError where the system gives no answer."""
    if not os.path.exists(_PROC + "/self/stat"):  # noqa: PTH110 - pathlib costs the guard two megabytes
        return _ask_ps()
    found = {}
    for name in os.listdir(_PROC):  # noqa: PTH208
        if name.isdigit():
            process = _read_stat(int(name))
            if process is not None:
                found[process.pid] = process
    return found


def look(pid: int) -> Process | None:
    """The process that has this pid now, or None."""
    if not os.path.exists(_PROC + "/self/stat"):  # noqa: PTH110
        return _ask_ps(pid).get(pid)
    return _read_stat(pid)


def _read_stat(pid: int) -> Process | None:
    try:
        stat = _read(f"{_PROC}/{pid}/stat", 4096)
    except _GONE:
        return None
    # The name in brackets may hold anything, brackets and spaces too; nothing after its end does.
    fields = stat[stat.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    state = fields[0].decode()
    if state == "Z" and int(fields[17]) > 1:
        state = _state_of_threads(pid)
    return Process(pid, int(fields[1]), state, fields[19].decode())


def _state_of_threads(pid: int) -> str:
    """A process whose first thread ended says Z and goes on all the same: its state is that of its liveliest thread."""
    states = set()
    try:
        for thread in os.listdir(f"{_PROC}/{pid}/task"):  # noqa: PTH208
            stat = _read(f"{_PROC}/{pid}/task/{thread}/stat", 4096)
            states.add(chr(stat[stat.rfind(b")") + 2]))
    except _GONE:
        return "R"  # it changes under our eyes; the next look will tell
    for lively in "RSDI":
        if lively in states:
            return lively
    return "T" if states & {"T", "t"} else "Z"


def _read(path: str, most: int) -> bytes:
    """What a file of /proc holds, up to `most` bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, most)
        if len(data) < 4096 or len(data) == most:  # the kernel hands out a page at a time
            return data
        parts, size = [data], len(data)
        while data and size < most:
            data = os.read(descriptor, most - size)
            parts.append(data)
            size += len(data)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _ask_ps(pid: int | None = None) -> dict[int, Process]:
    """All processes, or the one, as `ps` knows them. It tells the start to the second."""
    which = ["-A"] if pid is None else ["-p", str(pid)]
    found = {}
    for line in _ps(*which, "-o", "pid=,ppid=,stat=,lstart="):
        fields = line.split(None, 3)
        if len(fields) == 4 and fields[0].isdigit():
            found[int(fields[0])] = Process(int(fields[0]), int(fields[1]), fields[2][:1], fields[3].strip())
    return found


def _ps(*arguments: str) -> list[str]:
    import subprocess  # noqa: PLC0415 - only where there is no /proc

    environment = {"PATH": "/bin:/usr/bin", "LC_ALL": "C"}
    with subprocess.Popen(["ps", *arguments], env=environment, stdout=subprocess.PIPE) as ps:  # noqa: S603, S607 - ours
        output, _ = ps.communicate(timeout=10)
    own = str(ps.pid)
    return [line for line in output.decode(errors="replace").splitlines() if line.split(None, 1)[:1] != [own]]


# --- signals ------------------------------------------------------------------------------------------------------


def send(process: Process, number: int) -> bool:
    """Send a signal to the process if it is still the one that was seen; False where it is gone.

    Never to init, to a whole group, or to this process. Raises PermissionError for a process of another user.
    """
    if process.pid <= 1 or process.pid == os.getpid():
        return False
    # The descriptor is opened before the look: what it names had this pid then, and if the process that has it now
    # started when ours did, it is ours, and stays the one that the descriptor names whatever happens next.
    descriptor = _pidfd(process.pid)
    try:
        seen = look(process.pid)
        if seen is None or seen.start != process.start:
            return False
        if descriptor is None:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def _pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, a sandbox that forbids it, or the process is gone: then the look says so
        return None


class Tree:
    """The processes below a root, itself not among them, and what is to be done with all of them.

    Each step is one round and returns at once; whoever calls repeats it until it finds nothing more to do. That takes
    several rounds, because a process that is not stopped yet may fork while the others are looked at. `beyond` counts
    the members of the last round that belong to another user (sudo) and can't be signalled.

    `group`, where there is one, is the control group that the command was put into: whoever is in it is a member too,
    and is reached through it besides the signals, which come first, so that a tree is treated alike on every machine.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.group: ControlGroup | None = None
        self.beyond = 0
        self._seen: dict[int, str] = {}
        self._held: dict[tuple[int, str], Process] = {}
        self._group_held = False
        self._reached: set[int] = set()  # in this round, through the group

    @property
    def holds(self) -> bool:
        """Whether `freeze_step` stopped anything that `thaw` has not continued yet."""
        return bool(self._held) or self._group_held

    def members(self) -> list[Process]:
        """All that are alive, parents before their children.

        Whoever was seen as a member stays one when its parent ends and it goes to init, as it does where the root is
        no subreaper.
        """
        table = process_table()
        children: dict[int, list[Process]] = {}
        for process in table.values():
            children.setdefault(process.parent, []).append(process)
        found: dict[int, Process] = {}
        waiting = [*children.get(self.root, ())]
        waiting += [table[pid] for pid, start in self._seen.items() if pid in table and table[pid].start == start]
        if self.group is not None:  # read after the table: who has a pid of it by now has another start than in there
            waiting += [table[pid] for pid in self.group.members() if pid in table]
        for process in waiting:  # grows while it is gone through
            if process.pid not in found and process.pid != self.root:
                found[process.pid] = process
                waiting.extend(children.get(process.pid, ()))
        alive = [process for process in found.values() if process.alive]
        self._seen = {process.pid: process.start for process in alive}
        return alive

    def freeze_step(self) -> int:
        """Stop every member that isn't; returns how many were still found running, those of other users left out.

        All stand still when this was 0 twice in a row: the first look may have missed a child born during it.
        """
        running = self.beyond = 0
        members = self.members()
        self._reached = self.group.members() if self.group is not None and self.group.frozen else set()
        for process in members:
            if process.stopped or process.pid in self._reached:
                continue
            # In D it runs no code of its own, and stops before it would; that may take as long as its device does.
            if process.state == "D" and process.key in self._held:
                continue
            if self._send(process, signal.SIGSTOP):
                self._held.setdefault(process.key, process)
                running += 1
        # Not before: whoever stands still by its group takes no SIGSTOP until it goes on.
        if not running and self.group is not None and self.group.freeze():
            self._group_held = True
        return running

    def thaw(self) -> None:
        """Continue what `freeze_step` stopped, the last first: a parent finds its children running when it wakes.

        What had stopped by itself stays so.
        """
        self._thaw_group()
        for process in reversed(self._held.values()):
            self._send(process, signal.SIGCONT)
        self._held.clear()

    def _thaw_group(self) -> None:
        if self._group_held and self.group is not None:
            self.group.thaw()
        self._group_held = False

    def terminate(self) -> None:
        """Ask every member to end, and wake those that are stopped, so that they can."""
        self.beyond = 0
        members = self.members()
        self._reached = set()
        for process in members:
            self._send(process, signal.SIGTERM)
        self._thaw_group()
        for process in reversed(members):
            self._send(process, signal.SIGCONT)
        self._held.clear()

    def kill_step(self) -> int:
        """Kill every member; returns how many were still found alive, those of other users left out.

        All are stopped before the first is killed, so that none has time to start another in its place.
        """
        self.beyond = 0
        members = self.members()
        grouped = self.group.members() if self.group is not None else set()
        self._reached = grouped if self.group is not None and self.group.kill() else set()
        return _kill(members, self._send)

    def _send(self, process: Process, number: int) -> bool:
        try:
            return send(process, number)
        except PermissionError:
            self.beyond += process.pid not in self._reached
            return False


def _kill(processes: list[Process], deliver: Callable[[Process, int], bool]) -> int:
    for process in processes:
        if not process.stopped:
            deliver(process, signal.SIGSTOP)
    return sum([deliver(process, signal.SIGKILL) for process in processes])


# --- the mark -----------------------------------------------------------------------------------------------------


def bearing(*variables: str) -> list[Process]:
    """Every process alive whose environment holds all of these, each `NAME=VALUE`; never this one or an ancestor."""
    table = process_table()
    spared = {1}
    ancestor: int | None = os.getpid()
    while ancestor and ancestor not in spared:
        spared.add(ancestor)
        ancestor = table[ancestor].parent if ancestor in table else None
    by_ps = not os.path.exists(_PROC + "/self/stat")  # noqa: PTH110
    bearers = _bearers_by_ps(variables) if by_ps else _bearers(variables, table)
    return [table[pid] for pid in bearers if pid in table and pid not in spared and table[pid].alive]


def marked(mark: str) -> list[Process]:
    """Every process alive whose environment holds the mark; never this one or one that it descends from."""
    return bearing(f"{MARK_NAME}={mark}")


def _bearers(wanted: Iterable[str], table: Iterable[int]) -> list[int]:
    found = []
    sought = [b"\0%s\0" % variable.encode() for variable in wanted]
    for pid in table:
        try:
            environment = b"\0" + _read(f"{_PROC}/{pid}/environ", ENVIRON_BYTES_MAX) + b"\0"
        except OSError:  # another user's, or gone
            continue
        if all(variable in environment for variable in sought):
            found.append(pid)
    return found


def _bearers_by_ps(wanted: Iterable[str]) -> list[int]:
    environment = ("-A", "-E", "-ww") if sys.platform == "darwin" else ("axeww",)
    lines = _ps(*environment, "-o", "pid=,command=")
    return [int(line.split(None, 1)[0]) for line in lines if all(f" {variable} " in f"{line} " for variable in wanted)]


def sweep(mark: str, seconds: float = 5.0) -> int:
    """Kill every process that bears the mark: as `sweep_bearing`."""
    return sweep_bearing(f"{MARK_NAME}={mark}", seconds=seconds)


def sweep_bearing(*variables: str, seconds: float = 5.0) -> int:
    """Kill every process with these variables, until two looks in a row find none; returns how many are left.

    Gives up after `seconds`. What it can't find or kill: processes that threw their environment away, and those of
    other users.
    """
    give_up_at = time.monotonic() + seconds
    clean = 0
    while True:
        left = len(found := bearing(*variables))
        _kill(found, _send_if_allowed)
        clean = 0 if left else clean + 1
        if clean == 2 or time.monotonic() >= give_up_at:
            return left
        time.sleep(SWEEP_PAUSE_SECONDS)


def _send_if_allowed(process: Process, number: int) -> bool:
    try:
        return send(process, number)
    except PermissionError:
        return False
