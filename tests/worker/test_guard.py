"""What the guard promises: no tree outlives its sidecar, no deadline is missed, and a frozen tree stands still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from heartlane.worker import child as child_module
from heartlane.worker.child import Child, Exit
from heartlane.worker.child_errors import TooLate
from heartlane.worker.clock import boottime
from heartlane.worker.tree import look, marked
from tests.worker.conftest import PARENT, PATIENCE, ROOT, Parent, Printed, Start, alive, noted, until, zoo

STILL_SECONDS = 0.3


def moments(path: Path) -> list[float]:
    return [float(line.split()[-1]) for line in path.read_text().splitlines()]


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def stands_still(path: Path) -> bool:
    """Whether nobody writes to the file for a while."""
    before = path.stat().st_size
    time.sleep(STILL_SECONDS)
    return path.stat().st_size == before


# --- freezing -----------------------------------------------------------------------------------------------------


def test_a_frozen_tree_stands_still_to_its_last_member(start: Start, tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    child = start("tick_family", ticks)
    Printed(child)
    until(lambda: len(marked(child.mark)) == 3)
    noted(ticks, 10)
    for _ in range(3):
        assert (child.freeze(PATIENCE), child.frozen) == (True, True)
        frozen_at = now()
        assert stands_still(ticks)
        assert max(moments(ticks)) <= frozen_at
        assert (child.thaw(PATIENCE), child.frozen) == (True, False)
        noted(ticks, len(moments(ticks)) + 10)
    assert child.freeze(PATIENCE)
    assert child.freeze(PATIENCE)
    assert child.exit is None


def test_a_tree_that_breeds_is_caught(start: Start, tmp_path: Path) -> None:
    child = start("breeds", tmp_path / "births", 2000)
    noted(tmp_path / "births", 3)
    assert child.freeze(PATIENCE)
    assert stands_still(tmp_path / "births")
    assert child.thaw(PATIENCE)
    noted(tmp_path / "births", len(moments(tmp_path / "births")) + 3)
    child.kill()
    assert child.wait_empty(PATIENCE)
    assert stands_still(tmp_path / "births")


def test_a_member_that_somebody_continues_is_stopped_again(start: Start, tmp_path: Path) -> None:
    child = start("ticks", tmp_path / "ticks")
    noted(tmp_path / "ticks")
    assert child.freeze(PATIENCE)
    os.kill(child.pid, signal.SIGCONT)
    until(lambda: stands_still(tmp_path / "ticks"))
    assert child.thaw(PATIENCE)
    noted(tmp_path / "ticks", len(moments(tmp_path / "ticks")) + 5)


def test_what_had_stopped_by_itself_is_not_continued(start: Start) -> None:
    child = start("stops_itself")
    printed = Printed(child)
    until(lambda: (process := look(child.pid)) is not None and process.stopped)
    assert child.freeze(PATIENCE)
    assert child.thaw(PATIENCE)
    time.sleep(0.1)
    assert printed.lines["stdout"] == ["stopping"]
    os.kill(child.pid, signal.SIGCONT)
    printed.said("continued")


def test_a_frozen_tree_can_be_ended_well(start: Start, tmp_path: Path) -> None:
    child = start("slow_on_term", 0, tmp_path / "notes")
    Printed(child).said("ready")
    assert child.freeze(PATIENCE)
    child.stop(PATIENCE)
    assert child.wait_empty(PATIENCE)
    assert child.exit == Exit(0, None)


# --- the deadline -------------------------------------------------------------------------------------------------


def test_a_deadline_that_passes_freezes_and_a_later_one_thaws(start: Start, tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    changes: list[bool] = []
    child = start("ticks", ticks, on_change=lambda child: changes.append(child.overdue))
    noted(ticks)
    child.set_deadline(boottime() + 0.2)
    until(lambda: child.overdue)
    assert child.frozen
    assert stands_still(ticks)
    assert not child.thaw(PATIENCE), "an order to thaw undid a deadline"
    assert stands_still(ticks)
    child.set_deadline(boottime() + 3600)
    until(lambda: not child.frozen)
    noted(ticks, len(moments(ticks)) + 5)
    assert any(changes), "nobody was told that the deadline had passed"


def test_a_deadline_is_kept_to_the_moment(start: Start, tmp_path: Path) -> None:
    child = start("ticks", tmp_path / "ticks", 0.001)
    noted(tmp_path / "ticks")
    offset = now() - boottime()
    deadline = boottime() + 0.5
    child.set_deadline(deadline)
    until(lambda: child.overdue)
    last = max(moments(tmp_path / "ticks")) - offset
    assert deadline - 0.45 < last < deadline + 0.5


def test_a_pause_and_a_deadline_hold_independently(start: Start, tmp_path: Path) -> None:
    child = start("ticks", tmp_path / "ticks")
    assert child.freeze(PATIENCE)
    child.set_deadline(boottime() - 1)
    until(lambda: child.overdue)
    child.set_deadline(boottime() + 3600)
    until(lambda: not child.overdue)
    assert child.frozen, "a new deadline undid a pause"
    child.set_deadline(boottime() - 1)
    until(lambda: child.overdue)
    assert not child.thaw(PATIENCE)
    child.set_deadline(None)
    until(lambda: not child.frozen)


def test_a_deadline_of_the_past_lets_nothing_run(start: Start, tmp_path: Path) -> None:
    with pytest.raises(TooLate):
        start("ticks", tmp_path / "ticks", deadline=boottime() - 10)
    assert not (tmp_path / "ticks").exists()


def test_where_the_deadline_has_passed_there_is_no_grace(start: Start, tmp_path: Path) -> None:
    child = start("slow_on_term", 0, tmp_path / "notes")
    Printed(child).said("ready")
    child.set_deadline(boottime() - 1)
    until(lambda: child.overdue)
    child.stop(PATIENCE)
    assert child.wait_empty(PATIENCE)
    assert child.exit == Exit(None, signal.SIGKILL)
    assert not (tmp_path / "notes").exists()


def test_a_deadline_that_passes_during_the_grace_ends_it(start: Start) -> None:
    child = start("ignores_term")
    Printed(child).said("ready")
    child.set_deadline(boottime() + 0.5)
    child.stop(10 * PATIENCE)
    assert child.wait_empty(PATIENCE)
    assert child.exit == Exit(None, signal.SIGKILL)


def test_a_stopped_sidecar_misses_no_deadline(parent: Callable[..., Parent], tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    sidecar = parent(zoo("tick_family", ticks), "--deadline", "1.0")
    noted(ticks)
    time.sleep(1.5)
    running = now()
    noted(ticks, len(moments(ticks)) + 10)
    assert max(moments(ticks)) > running, "the deadline was moved ahead, and the tree stood still"
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    stopped_at = now()
    until(lambda: stands_still(ticks))
    assert all(process.stopped for process in marked(sidecar.mark))
    # It was moved ahead for the last time before the stop, by a second.
    assert max(moments(ticks)) < stopped_at + 1.0 + 0.5
    os.kill(sidecar.process.pid, signal.SIGCONT)
    noted(ticks, len(moments(ticks)) + 10)


# --- whoever dies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", ["ignores_term", "setsid_grandchild", "daemon", "tick_family"])
def test_a_killed_sidecar_leaves_nothing(
    kind: str, frozen: bool, parent: Callable[..., Parent], tmp_path: Path
) -> None:
    arguments = {"ignores_term": [], "daemon": [tmp_path / "notes", "stays"]}.get(kind, [tmp_path / "notes"])
    sidecar = parent(zoo(kind, *arguments), *(["--deadline", "0.2"] if frozen else []))
    until(lambda: len(marked(sidecar.mark)) >= (1 if kind == "ignores_term" else 2))
    if frozen:
        os.kill(sidecar.process.pid, signal.SIGSTOP)
        until(lambda: all(process.stopped for process in marked(sidecar.mark)))
    sidecar.process.kill()
    killed_at = time.monotonic()
    until(lambda: not marked(sidecar.mark) and not alive(sidecar.guard))
    assert time.monotonic() - killed_at < 2.0
    assert not alive(sidecar.child)


def test_a_sidecar_that_just_ends_leaves_nothing(parent: Callable[..., Parent], tmp_path: Path) -> None:
    sidecar = parent(zoo("daemon", tmp_path / "pid", "stays"))
    noted(tmp_path / "pid")
    assert sidecar.process.stdin is not None
    sidecar.process.stdin.close()
    assert sidecar.process.wait(PATIENCE) == 0
    until(lambda: not marked(sidecar.mark) and not alive(sidecar.guard))


def test_a_killed_guard_takes_the_command_along_and_the_rest_is_swept(start: Start, tmp_path: Path) -> None:
    child = start("daemon", tmp_path / "pid", "stays")
    (pid,) = noted(tmp_path / "pid")
    os.kill(child.guard_pid, signal.SIGKILL)
    assert child.wait_empty(PATIENCE)
    assert child.exit == Exit(None, None)
    assert str(child.exit) == "killed with its guard"
    assert not alive(child.pid)
    assert not alive(int(pid))
    assert not child.frozen


def test_a_killed_guard_of_a_frozen_tree_lets_nobody_go_on(start: Start, tmp_path: Path) -> None:
    child = start("tick_family", tmp_path / "ticks")
    until(lambda: len(marked(child.mark)) == 3)
    assert child.freeze(PATIENCE)
    os.kill(child.guard_pid, signal.SIGKILL)
    assert child.wait_empty(PATIENCE)
    assert marked(child.mark) == []


def test_without_subreapers_the_mark_finds_what_no_look_saw(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS."""
    boot = child_module._BOOT.replace("import main; main()", "import main; import heartlane.worker.guard as g; ")
    monkeypatch.setattr(child_module, "_BOOT", boot + "g._prctl = lambda option, value: False; main()")
    child = start("setsid_grandchild", tmp_path / "seen")
    (seen,) = noted(tmp_path / "seen")
    assert child.freeze(PATIENCE)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(PATIENCE) == Exit(None, signal.SIGKILL)
    assert not child.wait_empty(0.5), "what was seen before was forgotten when its parent ended"
    child.stop(0.1)
    assert child.wait_empty(PATIENCE)
    assert not alive(int(seen))
    child = start("daemon", tmp_path / "unseen")
    (unseen,) = noted(tmp_path / "unseen")
    child.kill()
    assert child.wait_empty(PATIENCE)
    assert not alive(int(unseen))


def test_a_hung_guard_is_no_reason_to_hang(start: Start, tmp_path: Path) -> None:
    child = start("daemon", tmp_path / "pid", "stays")
    (pid,) = noted(tmp_path / "pid")
    os.kill(child.guard_pid, signal.SIGSTOP)
    assert not child.freeze(0.1)
    assert not child.thaw(0.1)
    child.kill()
    assert not child.wait_empty(0.1)
    assert child.close(0.2)
    assert not alive(child.pid)
    assert not alive(int(pid))


def test_the_guard_is_not_ended_with_the_session_or_by_a_general_signal(start: Start, tmp_path: Path) -> None:
    child = start("waits")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTSTP):
        os.kill(child.guard_pid, number)
    assert child.freeze(PATIENCE)
    assert child.exit is None
    assert os.getsid(child.guard_pid) == child.guard_pid
    assert os.getsid(child.pid) == child.guard_pid


def test_the_guard_is_not_a_member_of_the_tree_and_holds_no_pipe_of_it(start: Start) -> None:
    child = start("closes_stdout")
    printed = Printed(child)
    printed.said("closing")
    assert printed.reader.join(PATIENCE), "somebody else holds the pipes open"
    assert not child.empty
    assert child.guard_pid not in [process.pid for process in marked(child.mark)]


def test_a_process_of_its_own_user_without_the_mark_is_left_alone(start: Start) -> None:
    with subprocess.Popen(zoo("waits")) as stranger:
        child = start("waits")
        child.kill()
        assert child.wait_empty(PATIENCE)
        assert stranger.poll() is None
        stranger.kill()


def test_an_inner_sidecar_ends_with_the_outer_lane(tmp_path: Path) -> None:
    """An agent that itself runs a worker: both trees are one to the outer guard."""
    ticks = tmp_path / "ticks"
    command = [sys.executable, str(PARENT), "--deadline", "3600", "--", *zoo("ticks", ticks)]
    with Child.start(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path) as outer:
        Printed(outer)
        noted(ticks)
        assert outer.freeze(PATIENCE)
        assert stands_still(ticks)
        assert outer.thaw(PATIENCE)
        noted(ticks, len(moments(ticks)) + 5)
        outer.stop(PATIENCE)
        assert outer.wait_empty(PATIENCE)
    assert stands_still(ticks)


def test_the_guard_is_small_and_idle(start: Start) -> None:
    child = start("waits", deadline=boottime() + 3600)
    guard = psutil.Process(child.guard_pid)
    assert guard.memory_info().rss < 14 * 1024 * 1024
    assert guard.num_threads() == 1
    before = guard.cpu_times()
    time.sleep(1.0)
    after = guard.cpu_times()
    assert (after.user + after.system) - (before.user + before.system) <= 0.05
