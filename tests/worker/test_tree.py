"""Processes: told apart by pid and start time, found below a root and by their mark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heartlane.worker import tree
from heartlane.worker.tree import MARK_NAME, Process, Tree, look, marked, process_table, send, sweep
from tests.worker.conftest import PATIENCE, alive, noted, until, zoo


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has done nothing to anybody."""
    with subprocess.Popen(zoo("waits")) as process:
        yield process
        process.kill()


def seen(pid: int) -> Process:
    process = look(pid)
    assert process is not None
    return process


def test_a_process_is_seen_as_it_is(victim: subprocess.Popen[bytes]) -> None:
    process = seen(victim.pid)
    assert process.parent == os.getpid()
    assert process.alive
    assert not process.stopped
    assert process.key == seen(victim.pid).key == process_table()[victim.pid].key
    os.kill(victim.pid, signal.SIGSTOP)
    until(lambda: seen(victim.pid).stopped)
    victim.kill()
    until(lambda: not seen(victim.pid).alive)
    victim.wait()
    assert look(victim.pid) is None


def test_a_name_that_looks_like_fields_misleads_nobody(tmp_path: Path) -> None:
    program = tmp_path / ") Z 1 (x"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as process:
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text().startswith(")"))
        assert seen(process.pid).parent == os.getpid()
        assert seen(process.pid).alive
        process.kill()


def test_a_process_whose_first_thread_ended_is_alive(tmp_path: Path) -> None:
    program = (
        "import ctypes, os, threading, time\n"
        f"threading.Thread(target=lambda: (open({str(tmp_path / 'on')!r}, 'w').close(), time.sleep(600))).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"  # exit(2) of this thread alone
    )
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        until(lambda: "State:\tZ" in Path(f"/proc/{process.pid}/status").read_text())
        assert seen(process.pid).alive
        assert not seen(process.pid).stopped
        assert send(seen(process.pid), signal.SIGSTOP)
        until(lambda: seen(process.pid).stopped)
        process.kill()


# --- never a stranger ---------------------------------------------------------------------------------------------


def reused(process: Process) -> Process:
    """As a process was seen that had this pid before it ended, and this one was given it."""
    return Process(process.pid, process.parent, process.state, str(int(process.start) - 100))


@pytest.mark.parametrize("by_pidfd", [True, False])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_recycled_pid_is_never_hit(
    number: int, by_pidfd: bool, victim: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    now = seen(victim.pid)
    assert not send(reused(now), number)
    time.sleep(0.05)
    assert seen(victim.pid).alive
    assert not seen(victim.pid).stopped
    assert victim.poll() is None
    # The same call with the right start does hit: what saved it above was the check.
    assert send(now, signal.SIGKILL)
    assert victim.wait(PATIENCE) == -signal.SIGKILL
    assert not send(now, signal.SIGKILL)


def test_a_pid_that_changes_hands_between_two_rounds_is_let_go(victim: subprocess.Popen[bytes]) -> None:
    """A tree that held a process whose pid is now another's neither continues nor kills that one."""
    below = Tree(1 << 30)
    held = reused(seen(victim.pid))
    below._held[held.key] = held
    below._seen[held.pid] = held.start
    os.kill(victim.pid, signal.SIGSTOP)
    until(lambda: seen(victim.pid).stopped)
    assert below.members() == []
    below.thaw()
    below.terminate()
    assert below.kill_step() == 0
    time.sleep(0.05)
    assert seen(victim.pid).stopped
    assert victim.poll() is None


def test_neither_init_nor_ourselves_nor_a_group_is_ever_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    hit: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: hit.append((pid, number)))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda descriptor, number: hit.append((descriptor, number)))
    for pid in (1, 0, -1, os.getpid()):
        process = look(pid) if pid > 0 else None
        assert not send(process or Process(pid, 0, "S", "0"), signal.SIGTERM)
    assert hit == []


# --- below a root -------------------------------------------------------------------------------------------------


def test_members_are_all_below_the_root_parents_first(victim: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60 & wait"]) as shell:
        until(lambda: len(Tree(shell.pid).members()) == 2)
        members = Tree(os.getpid()).members()
        pids = [process.pid for process in members]
        assert {shell.pid, victim.pid} <= set(pids)
        assert os.getpid() not in pids
        for process in members:
            assert process.parent == os.getpid() or pids.index(process.parent) < pids.index(process.pid)
        below = Tree(shell.pid)
        while below.kill_step():
            time.sleep(0.01)
        assert shell.wait(PATIENCE) is not None
        assert victim.poll() is None


def test_a_member_that_goes_to_init_stays_one(tmp_path: Path) -> None:
    """As on a system without subreapers, once it was seen."""
    below = Tree(os.getpid())
    with subprocess.Popen(zoo("setsid_grandchild", tmp_path / "pid")) as parent:
        (pid,) = map(int, noted(tmp_path / "pid"))
        assert pid in [process.pid for process in below.members()]
        parent.kill()
        parent.wait()
        until(lambda: seen(pid).parent != parent.pid)
        assert seen(pid).parent != os.getpid()
        assert pid in [process.pid for process in below.members()]
        assert pid not in [process.pid for process in Tree(os.getpid()).members()]
        while below.kill_step():
            time.sleep(0.01)
    assert not alive(pid)


# --- the mark -----------------------------------------------------------------------------------------------------


def test_the_mark_finds_whoever_bears_it_and_no_one_else(victim: subprocess.Popen[bytes], tmp_path: Path) -> None:
    environment = {**os.environ, MARK_NAME: "a-mark-of-this-test"}
    with subprocess.Popen(zoo("daemon", tmp_path / "pid"), env=environment) as process:
        assert process.wait(PATIENCE) == 0
    (pid,) = map(int, noted(tmp_path / "pid"))
    assert seen(pid).parent != os.getpid()
    assert [process.pid for process in marked("a-mark-of-this-test")] == [pid]
    assert marked("a-mark-of-this-tes") == [], "a part of it is another mark"
    assert marked("another-mark-altogether") == []
    assert sweep("a-mark-of-this-test", PATIENCE) == 0
    assert not alive(pid)
    assert victim.poll() is None


def test_a_sweep_spares_itself_and_whom_it_descends_from(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys\n"
        "from heartlane.worker.tree import sweep\n"
        f"other = subprocess.Popen({zoo('waits')!r})\n"
        "print(sweep('a-mark-on-all-three'), other.wait())\n"
    )
    environment = {**os.environ, MARK_NAME: "a-mark-on-all-three", "PYTHONPATH": str(Path(tree.__file__).parents[2])}
    command = f'"{sys.executable}" -c "$PROGRAM"; echo went on'
    answer = subprocess.run(
        ["sh", "-c", command], env={**environment, "PROGRAM": program}, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines() == [f"0 {-signal.SIGKILL}", "went on"]


def test_a_sweep_gives_up_in_time(victim: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "bearing", lambda *variables: [reused(seen(victim.pid))])
    assert sweep("whatever", 0.1) == 1
    assert victim.poll() is None


# --- where there is no /proc --------------------------------------------------------------------------------------


@pytest.fixture
def without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on macOS: all that is known comes from `ps`."""
    monkeypatch.setattr(tree, "_PROC", str(tmp_path / "no-proc"))


def test_ps_tells_the_same(without_proc: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, MARK_NAME: "a-mark-seen-by-ps"}
    with subprocess.Popen(zoo("setsid_grandchild", tmp_path / "pid"), env=environment) as process:
        (pid,) = map(int, noted(tmp_path / "pid"))
        here = seen(process.pid)
        assert here.parent == os.getpid()
        assert here.alive
        assert here.key == process_table()[process.pid].key == seen(process.pid).key
        assert {process.pid, pid} == {found.pid for found in marked("a-mark-seen-by-ps")}
        assert not send(Process(here.pid, here.parent, here.state, here.start + " "), signal.SIGKILL)
        assert process.poll() is None
        below = Tree(os.getpid())
        while below.freeze_step():
            time.sleep(0.01)
        assert seen(process.pid).stopped
        assert seen(pid).stopped
        below.thaw()
        assert not seen(pid).stopped
        assert sweep("a-mark-seen-by-ps", PATIENCE) == 0
    assert not alive(pid)
