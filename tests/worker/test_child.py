"""A command under its guard: how it is started, what it inherits, how it ends, how it is ended."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from heartlane.worker.child import Child, Exit
from heartlane.worker.child_errors import (
    ChildError,
    CommandNotExecutable,
    CommandNotFound,
    FolderUnusable,
    GuardFailed,
)
from heartlane.worker.tree import MARK_NAME, look
from tests.worker.conftest import PATIENCE, Printed, Start, alive, noted, until

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/"}


def script(folder: Path, text: str, *, executable: bool = True) -> Path:
    path = folder / "script"
    path.write_text(text)
    path.chmod(0o755 if executable else 0o644)
    return path


# --- starting -----------------------------------------------------------------------------------------------------


def test_the_command_gets_its_own_world_and_nothing_of_ours(start: Start, tmp_path: Path) -> None:
    ours = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(ours, True)
    try:
        child = start("tells")
        printed = Printed(child)
        assert child.wait(PATIENCE) == Exit(0, None)
        assert child.wait_empty(PATIENCE)
        assert printed.reader.join(PATIENCE)
    finally:
        os.close(ours)
    folder, stdin, descriptors, leads_its_group = map(eval, printed.lines["stdout"])
    assert Path(folder) == tmp_path.resolve()
    assert stdin == ""
    assert descriptors == [0, 1, 2]
    assert leads_its_group


def test_no_signal_is_ignored_or_blocked_that_was_here(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        with Child.start(["grep", "^Sig[BI]", "/proc/self/status"], env=ENVIRONMENT, cwd=tmp_path) as child:
            printed = Printed(child)
            assert child.wait_empty(PATIENCE)
            assert printed.reader.join(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    # The C library's own signals (32 and 33) are nobody's to set: they stay as whoever started the tests had them.
    masks = {name: int(mask, 16) & ~(0b11 << 31) for name, mask in map(str.split, printed.lines["stdout"])}
    assert masks == {"SigBlk:": 0, "SigIgn:": 0}


def test_arguments_and_environment_arrive_as_they_are(tmp_path: Path) -> None:
    odd = ["", " ", "a b", "$HOME; rm -rf *", "'\"\\", "line\nbreak", "grün", "\udcff", "-x", "*"]
    env = {**ENVIRONMENT, "ODD": "a=b\nc", "EMPTY": "", MARK_NAME: "of an outer lane"}
    program = "import os, sys; print(ascii(sys.argv[1:])); print(ascii(dict(os.environ)))"
    with Child.start([sys.executable, "-I", "-S", "-c", program, *odd], env=env, cwd=str(tmp_path)) as child:
        printed = Printed(child)
        assert child.wait_empty(PATIENCE)
        assert printed.reader.join(PATIENCE)
    arguments, seen = map(eval, printed.lines["stdout"])
    assert arguments == odd
    assert {**env, MARK_NAME: child.mark}.items() <= seen.items()
    assert "PYTEST_CURRENT_TEST" not in seen


def test_a_command_that_is_not_there_is_told_from_one_that_cant_run(tmp_path: Path) -> None:
    def failure(*argv: str, cwd: Path = tmp_path, env: dict[str, str] = ENVIRONMENT) -> ChildError:
        with pytest.raises(ChildError) as caught:
            Child.start(argv, env=env, cwd=cwd)
        assert "\n" not in str(caught.value)
        return caught.value

    for name in ("no-such-agent", "./no-such-agent", str(tmp_path / "no" / "such")):
        found = failure(name)
        assert found.kind == "command_not_found"
        assert type(found) is CommandNotFound
        assert str(found) == f"command not found: {name}"
    assert type(failure("sh", env={"PATH": str(tmp_path)})) is CommandNotFound
    plain = script(tmp_path, "#!/bin/sh\n", executable=False)
    for name in (str(plain), "./script", str(tmp_path)):
        assert type(failure(name)) is CommandNotExecutable
    missing = script(tmp_path, "#!/no/such/interpreter\n")
    assert "the interpreter that it names is not there" in str(failure(str(missing)))
    assert type(failure("script", env={"PATH": str(tmp_path)})) is CommandNotExecutable
    assert type(failure(str(script(tmp_path, "\0\1\2 no program")))) is CommandNotExecutable
    assert type(failure("true", cwd=tmp_path / "gone")) is FolderUnusable
    assert type(failure("true", cwd=plain)) is FolderUnusable
    assert "too long" in str(failure("true", *["x" * 100_000] * 50))
    assert failure(str(plain)).kind == "not_executable"
    for wrong in ([], [""], ["a\0b"]):
        assert type(failure(*wrong)) is ChildError
        assert failure(*wrong).kind == "wrong_input"
    assert type(failure("true", env={"A=B": "c"})) is ChildError


def test_a_failed_start_leaves_nothing_open_and_nothing_running(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, threads = descriptors(), threading.active_count()
    for argv in (["no-such-agent"], [str(tmp_path)], ["x" * 10_000]):
        with pytest.raises(ChildError):
            Child.start(argv, env=ENVIRONMENT, cwd=tmp_path)
    # At most: what earlier tests left behind may go away meanwhile.
    until(lambda: descriptors() <= before and threading.active_count() <= threads)


def test_a_broken_python_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(script(tmp_path, "#!/bin/sh\necho broken beyond repair >&2\n")))
    with pytest.raises(GuardFailed, match="doesn't answer: broken beyond repair"):
        Child.start(["true"], env=ENVIRONMENT, cwd=tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / "gone"))
    with pytest.raises(GuardFailed, match="can't be started"):
        Child.start(["true"], env=ENVIRONMENT, cwd=tmp_path)


# --- ending by itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_an_exit_code_is_told(start: Start, code: int) -> None:
    child = start("exits", code)
    assert child.wait(PATIENCE) == Exit(code, None)
    assert str(child.exit) == f"exit code {code}"
    assert child.wait_empty(PATIENCE)


def test_a_signal_is_told(start: Start) -> None:
    child = start("dies", "SIGSEGV")
    assert child.wait(PATIENCE) == Exit(None, signal.SIGSEGV)
    assert str(child.exit) == "killed by SIGSEGV"
    assert str(Exit(None, 999)) == "killed by signal 999"


def test_whoever_waits_is_told_in_time_and_each_change_is_announced(start: Start) -> None:
    seen: list[tuple[int, bool, Exit | None]] = []
    child = start("exits", 3, on_change=lambda child: seen.append((child.pid, child.empty, child.exit)))
    assert child.wait_empty(PATIENCE)
    until(lambda: len(seen) == 3)
    assert seen == [(child.pid, False, None), (child.pid, False, Exit(3, None)), (child.pid, True, Exit(3, None))]


def test_waiting_ends_with_its_timeout(start: Start) -> None:
    child = start("waits")
    started = time.monotonic()
    assert child.wait(0.05) is None
    assert not child.wait_empty(0.05)
    assert time.monotonic() - started < PATIENCE / 2


def test_a_callback_that_raises_harms_nothing(start: Start) -> None:
    def fail(child: Child) -> None:
        raise RuntimeError("wrong in the callback")

    child = start("exits", 0, on_change=fail)
    assert child.wait_empty(PATIENCE)
    until(lambda: str(child.fault) == "wrong in the callback")


# --- being ended --------------------------------------------------------------------------------------------------


def test_a_command_that_ignores_term_is_killed_after_its_grace(start: Start) -> None:
    child = start("ignores_term")
    printed = Printed(child)
    printed.said("ready")
    started = time.monotonic()
    child.stop(0.3)
    assert child.wait(0.2) is None
    assert child.wait_empty(PATIENCE)
    assert time.monotonic() - started >= 0.3
    assert child.exit == Exit(None, signal.SIGKILL)


def test_a_command_that_ends_well_has_the_time_for_it(start: Start, tmp_path: Path) -> None:
    child = start("slow_on_term", 0.3, tmp_path / "notes")
    Printed(child).said("ready")
    child.stop(PATIENCE)
    assert child.wait_empty(PATIENCE)
    assert child.exit == Exit(0, None)
    assert (tmp_path / "notes").read_text() == "asked\nended well\n"


def test_one_that_takes_too_long_is_killed_and_a_second_stop_only_hastens(start: Start, tmp_path: Path) -> None:
    child = start("slow_on_term", PATIENCE, tmp_path / "notes")
    Printed(child).said("ready")
    child.stop(PATIENCE)
    noted(tmp_path / "notes")
    child.stop(2 * PATIENCE)
    child.stop(0.1)
    assert child.wait_empty(PATIENCE / 2)
    assert child.exit == Exit(None, signal.SIGKILL)
    assert (tmp_path / "notes").read_text() == "asked\n"


def test_kill_is_at_once(start: Start) -> None:
    child = start("waits")
    child.kill()
    assert child.wait_empty(PATIENCE)
    assert child.exit == Exit(None, signal.SIGKILL)


def test_a_command_that_stopped_itself_can_be_ended(start: Start) -> None:
    child = start("stops_itself")
    Printed(child)
    until(lambda: (process := look(child.pid)) is not None and process.stopped)
    child.stop(PATIENCE)
    assert child.wait_empty(PATIENCE)
    assert child.exit == Exit(None, signal.SIGTERM)


def test_what_hangs_after_its_result_is_ended(start: Start, tmp_path: Path) -> None:
    child = start("hangs_after_result", tmp_path / "notes")
    noted(tmp_path / "notes")
    started = time.monotonic()
    child.end_after(0.3, grace=PATIENCE)
    assert child.wait(0.1) is None
    assert child.wait_empty(PATIENCE)
    assert time.monotonic() - started >= 0.3
    assert child.exit == Exit(None, signal.SIGTERM)


def test_what_a_command_leaves_behind_is_ended_when_it_ends(start: Start, tmp_path: Path) -> None:
    child = start("holds_stdout", tmp_path / "pid")
    printed = Printed(child)
    (pid,) = noted(tmp_path / "pid")
    assert child.wait(PATIENCE) == Exit(7, None)
    assert not child.empty
    assert alive(int(pid))
    assert not printed.reader.join(0.05)
    child.end_after(PATIENCE, grace=PATIENCE)  # it has ended: not waited for
    assert child.wait_empty(PATIENCE / 2)
    assert printed.reader.join(PATIENCE)
    assert not alive(int(pid))


@pytest.mark.parametrize("kind", ["setsid_grandchild", "daemon"])
def test_a_descendant_that_left_its_session_and_parent_is_gone_too(kind: str, start: Start, tmp_path: Path) -> None:
    child = start(kind, tmp_path / "pid")
    (pid,) = noted(tmp_path / "pid")
    assert os.getsid(int(pid)) != os.getsid(child.guard_pid)
    child.stop(0.2)
    assert child.wait_empty(PATIENCE)
    assert not alive(int(pid))


def test_closing_leaves_nothing(start: Start, tmp_path: Path) -> None:
    with start("daemon", tmp_path / "pid", "stays") as child:
        (pid,) = noted(tmp_path / "pid")
        guard = child.guard_pid
    assert child.empty
    assert not alive(int(pid))
    assert not alive(child.pid)
    until(lambda: not alive(guard))
    # Nothing is left to give orders about, and saying so is no error.
    child.stop(1)
    child.set_deadline(5.0)
    child.kill()
    assert child.freeze(0.1) in {True, False}
    assert not child.thaw(0.1)
    assert child.close()


def test_any_thread_may_give_orders(start: Start) -> None:
    child = start("waits")
    orders: list[Callable[[], object]] = [
        child.freeze,
        child.thaw,
        lambda: child.set_deadline(None),
        lambda: child.wait(0.01),
    ]
    threads = [threading.Thread(target=order) for order in orders * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert child.thaw(PATIENCE)
    assert child.freeze(PATIENCE)


def test_files_of_the_package_are_no_way_in(start: Start, tmp_path: Path) -> None:
    """The guard imports nothing from the folder that the command runs in, which an agent may write to."""
    for name in ("os.py", "heartlane.py", "select.py", "sitecustomize.py"):
        script(tmp_path, "").rename(tmp_path / name)
        (tmp_path / name).write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
        assert stat.S_ISREG((tmp_path / name).stat().st_mode)
    child = start("exits", 0, cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": str(tmp_path)})
    assert child.wait_empty(PATIENCE)
    assert not (tmp_path / "imported").exists()
