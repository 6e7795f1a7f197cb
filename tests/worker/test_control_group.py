"""A command's control group: where one can be made what it adds, where none can be what goes on without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heartlane.worker import control_groups
from heartlane.worker.child import Child, Exit
from heartlane.worker.control_group import ControlGroup
from heartlane.worker.leftovers import end_processes
from heartlane.worker.status import Status
from heartlane.worker.tree import marked
from tests.worker.conftest import PARENT, PATIENCE, ROOT, Parent, Printed, Start, alive, noted, until, zoo
from tests.worker.test_guard import moments, stands_still


@pytest.fixture
def here() -> control_groups.Place:
    """Where groups can be made."""
    why_not = control_groups.try_out()
    place = control_groups.place()
    if why_not is not None or place is None:
        pytest.skip(f"the kernel gives no group: {why_not}")
    return place


def group_of(pid: int, place: control_groups.Place) -> ControlGroup:
    """The group that a process is in, where it is one that a worker made."""
    (own,) = [line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    assert control_groups.NAME.fullmatch(own.rpartition("/")[2]), own
    return ControlGroup(f"{place.mount}{own[3:]}")


# --- where there is one -------------------------------------------------------------------------------------------


def test_the_tree_is_in_a_group_that_goes_with_it(here: control_groups.Place, start: Start, tmp_path: Path) -> None:
    child = start("unmarked_daemon", tmp_path / "pid")
    (pid,) = map(int, noted(tmp_path / "pid"))
    group = group_of(pid, here)
    assert {child.pid, pid} <= group.members()
    assert child.guard_pid not in group.members()
    assert os.getpid() not in group.members()
    child.stop(0.1)
    assert child.wait_empty(PATIENCE)
    assert not alive(pid)
    until(lambda: not Path(group.path).exists())


def test_a_frozen_tree_is_frozen_by_its_group_too(here: control_groups.Place, start: Start, tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    child = start("tick_family", ticks)
    until(lambda: len(marked(child.mark)) == 3)
    noted(ticks, 10)
    group = group_of(child.pid, here)
    for _ in range(2):
        assert child.freeze(PATIENCE)
        until(lambda: group.frozen)
        assert stands_still(ticks)
        assert all(process.stopped for process in marked(child.mark)), "by signals as well"
        assert child.thaw(PATIENCE)
        assert not group.frozen
        noted(ticks, len(moments(ticks)) + 10)
    assert child.freeze(PATIENCE)
    child.stop(PATIENCE)
    assert child.wait_empty(PATIENCE)
    assert child.exit == Exit(0, None), "it was thawed to end in order"


def test_what_threw_its_environment_away_is_found_when_its_guard_was_killed(
    here: control_groups.Place, start: Start, tmp_path: Path
) -> None:
    child = start("unmarked_daemon", tmp_path / "pid")
    (pid,) = map(int, noted(tmp_path / "pid"))
    group = group_of(pid, here)
    assert pid not in [process.pid for process in marked(child.mark)]
    os.kill(child.guard_pid, signal.SIGKILL)
    assert child.wait_empty(PATIENCE)
    assert not alive(pid)
    assert not Path(group.path).exists()


def test_who_was_put_into_the_group_is_of_the_tree(here: control_groups.Place, start: Start) -> None:
    with subprocess.Popen(zoo("waits")) as other:
        child = start("waits")
        Path(group_of(child.pid, here).path, "cgroup.procs").write_text(str(other.pid))
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(PATIENCE)
        assert not child.wait_empty(0.5)
        child.kill()
        assert other.wait(PATIENCE) == -signal.SIGKILL
        assert child.wait_empty(PATIENCE)


def test_the_group_of_a_command_that_cant_be_run_is_gone(here: control_groups.Place, tmp_path: Path) -> None:
    def ours() -> list[Path]:
        return list(Path(here.own).glob(f"heartlane-*-{os.getpid()}-*"))

    for program in ("no-such-program", str(tmp_path)):
        with pytest.raises(Exception, match=r"not found|can't run"):
            Child.start([program], env=dict(os.environ), cwd=tmp_path)
    until(lambda: ours() == [])


def test_a_command_inside_a_command_has_a_group_below(here: control_groups.Place, start: Start, tmp_path: Path) -> None:
    """An agent that itself runs a worker: the outer end reaches both, and removes both groups."""
    inner = [sys.executable, str(PARENT), "--", *zoo("unmarked_daemon", tmp_path / "pid")]
    with Child.start(inner, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path) as outer:
        Printed(outer)
        (pid,) = map(int, noted(tmp_path / "pid"))
        group = group_of(outer.pid, here)
        assert group_of(pid, here).path.startswith(group.path + "/")
        assert pid in group.members()
        outer.kill()
        assert outer.wait_empty(PATIENCE)
    assert not alive(pid)
    assert not Path(group.path).exists()


@pytest.mark.parametrize("grouped", [True, False])
def test_what_became_another_users_is_frozen_and_killed_by_its_group_alone(
    grouped: bool, here: control_groups.Place, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    ticks = tmp_path / "ticks"
    sidecar = f"""
from heartlane.worker import control_groups
from heartlane.worker.child import Child
if not {grouped}:
    control_groups._OWN = "/dev/null"
child = Child.start({zoo("becomes_nobody", ticks)!r}, env={{}}, cwd="/")
print(child.pid, flush=True)
input()
print(child.freeze({PATIENCE}), child.beyond, flush=True)
input()
child.kill()
print(child.wait_empty({PATIENCE}), flush=True)
"""
    # Root without CAP_KILL, which is what tells it from another user when it comes to signals.
    drop = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 5, 0, 0, 0); os.execv(sys.executable, sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", drop, sys.executable, "-c", sidecar],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        noted(ticks, 5)
        print("freeze", file=process.stdin, flush=True)
        assert process.stdout.readline().split() == ["True", "0" if grouped else "1"]
        assert stands_still(ticks) is grouped
        print("kill", file=process.stdin, flush=True)
        if not grouped:
            size = len(noted(ticks))
            noted(ticks, size + 5)
            os.kill(pid, signal.SIGKILL)
        assert process.stdout.readline() == "True\n"
        assert process.wait(PATIENCE) == 0
    assert not alive(pid)


# --- what killed workers left -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [True, False], ids=["cgroup.kill", "as before Linux 5.14"])
def test_what_a_worker_left_that_was_killed_with_its_guard_is_ended_by_the_next(
    kill: bool,
    here: control_groups.Place,
    parent: Callable[..., Parent],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead, living = (parent(zoo("unmarked_daemon", tmp_path / name)) for name in ("dead", "living"))
    (left,), (spared,) = (map(int, noted(tmp_path / name)) for name in ("dead", "living"))
    paths = {group.path for group in control_groups.left_over()}
    group = group_of(left, here)
    assert group.path not in paths
    os.kill(dead.guard, signal.SIGSTOP)
    dead.process.kill()
    dead.process.wait()
    os.kill(dead.guard, signal.SIGKILL)
    until(lambda: not alive(dead.child))
    assert alive(left)
    found = {one.path for one in control_groups.left_over()}
    assert group.path in found
    assert group_of(spared, here).path not in found
    if not kill:
        monkeypatch.setattr(ControlGroup, "kill", lambda self: False)
    end_processes(Status())
    assert not alive(left)
    assert not Path(group.path).exists()
    assert alive(spared)
    assert alive(living.child)


# --- where there is none ------------------------------------------------------------------------------------------


@pytest.fixture(params=["cgroup v1 alone", "a group that can't be written", "a move that isn't allowed"])
def without(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine that has no group to give; what `heartlane doctor` says of it."""
    own, mounts, mount = tmp_path / "cgroup", tmp_path / "mountinfo", tmp_path / "mounted"
    mount.mkdir()
    lines = {"cgroup v1 alone": "1:name=systemd:/\n", "a group that can't be written": "0::/no/such/group\n"}
    own.write_text(lines.get(request.param, "0::/\n"))
    mounts.write_text(f"31 22 0:9 / {mount} rw,relatime - cgroup2 cgroup rw\n")
    monkeypatch.setattr(control_groups, "_OWN", str(own))
    monkeypatch.setattr(control_groups, "_MOUNTS", str(mounts))
    return {
        "cgroup v1 alone": "there is no cgroup v2 here",
        "a group that can't be written": f"no group can be made in {mount}/no/such/group: No such file or directory",
    }.get(request.param, f"no process can be moved into a group in {mount}")


def test_without_a_group_a_tree_is_held_and_ended_all_the_same(without: str, start: Start, tmp_path: Path) -> None:
    ticks, pid = tmp_path / "ticks", tmp_path / "pid"
    child = start("tick_family", ticks)
    until(lambda: len(marked(child.mark)) == 3)
    assert child.freeze(PATIENCE)
    assert stands_still(ticks)
    assert child.thaw(PATIENCE)
    noted(ticks, len(moments(ticks)) + 5)
    child.stop(PATIENCE)
    assert child.wait_empty(PATIENCE)
    child = start("unmarked_daemon", pid)
    (left,) = map(int, noted(pid))
    child.kill()
    assert child.wait_empty(PATIENCE)
    assert not alive(left), "it descends from the guard"
    child = start("daemon", tmp_path / "marked", "stays")
    (left,) = map(int, noted(tmp_path / "marked"))
    os.kill(child.guard_pid, signal.SIGKILL)
    assert child.wait_empty(PATIENCE)
    assert not alive(left), "it bears the mark"
    until(lambda: not list((tmp_path / "mounted").iterdir()))


def test_the_doctors_word_for_it(without: str) -> None:
    assert control_groups.try_out() == without


def test_where_this_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, mounts = tmp_path / "cgroup", tmp_path / "mountinfo"
    monkeypatch.setattr(control_groups, "_OWN", str(own))
    monkeypatch.setattr(control_groups, "_MOUNTS", str(mounts))
    other = "24 20 0:21 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"

    def place(path: str, root: str, mount: str) -> control_groups.Place | None:
        own.write_text(f"9:pids:/x\n0::{path}\n")
        mounts.write_text(other + f"31 22 0:9 {root} {mount} rw,relatime shared:9 - cgroup2 cgroup rw,nsdelegate\n")
        return control_groups.place()

    service = "/user.slice/user-1000.slice/user@1000.service/app.slice/heartlane-worker.service"
    assert place(service, "/", "/sys/fs/cgroup") == ("/sys/fs/cgroup", "/sys/fs/cgroup" + service)
    assert place("/", "/", "/sys/fs/cgroup/unified") == ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified")
    assert place("/docker/ab/x", "/docker/ab", "/cg") == ("/cg", "/cg/x")
    assert place("/docker/ab", "/docker/ab", "/cg") == ("/cg", "/cg")
    assert place("/docker/abc", "/docker/ab", "/cg") is None, "it can't be seen from here"
    assert place("/a b", "/", r"/run/c\040g") == ("/run/c g", "/run/c g/a b")
    mounts.write_text(other)
    assert control_groups.place() is None
    own.unlink()
    assert control_groups.place() is None
