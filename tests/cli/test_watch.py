"""`heartlane watch` on a terminal of its own and in a pipe, while lanes change; and colours on a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.cli.command import environment
from tests.cli.people import People

SECONDS = 60
BACK = "\x1b[?25h\x1b[?1049l"


class Terminal:
    """A command on a terminal: what it was sent, what stands on its screen now, and keys."""

    def __init__(self, fleet: People, arguments: tuple[str, ...], variables: dict[str, str], *, columns: int) -> None:
        self._ours, self._theirs = pty.openpty()
        self.resize(columns, 24)
        self.settings = termios.tcgetattr(self._theirs)
        found = environment(HEARTLANE_URL=fleet.url, HEARTLANE_TOKEN=fleet.token, TERM="xterm-256color")
        for name in ("COLUMNS", "NO_COLOR", "COLORTERM"):
            found.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "heartlane", *arguments],
            env=found | variables,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            process_group=0,  # of this session: the last of an orphaned group can't be stopped
        )
        self.sent = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65_536):
                self.sent += data.decode("utf-8", "replace")
        except OSError:
            pass  # Linux ends a terminal so

    @property
    def screen(self) -> str:
        """What stands on it, without colours, by the lines that were written since it was last cleared."""
        rows: dict[int, str] = {}
        for found in re.finditer(r"\x1b\[(\d+);1H(.*?)\x1b\[K", self.sent.rpartition("\x1b[2J")[2], re.DOTALL):
            rows[int(found[1])] = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", found[2])
        return "\n".join(rows[number] for number in sorted(rows))

    def wait(self, holds: Callable[[str], bool]) -> str:
        """Wait until the screen is so; the screen."""
        until = time.monotonic() + SECONDS
        while not holds(self.screen):
            assert time.monotonic() < until, self.sent[-3_000:]
            assert self.process.poll() is None, self.sent[-3_000:]
            time.sleep(0.02)
        return self.screen

    def wait_for(self, text: str) -> str:
        return self.wait(lambda screen: text in screen)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(SECONDS)
        os.close(self._theirs)
        self._reader.join(SECONDS)
        os.close(self._ours)


@contextmanager
def terminal(fleet: People, *arguments: str, columns: int = 100, **variables: str) -> Iterator[Terminal]:
    shown = Terminal(fleet, arguments, variables, columns=columns)
    try:
        yield shown
    finally:
        shown.close()


def test_the_board_follows_the_fleet_and_acts_on_it(fleet: People) -> None:
    runs = fleet.lanes(fleet.project("Watched"), "one", "two")
    with terminal(fleet, "watch", "--project", "Watched") as shown:
        shown.wait_for("2 queued")
        fleet.claim(runs["two"], "watched.1")
        fleet.report(runs["two"], worker_id="watched.1", phase="tests", log_line="41 passed \x1b[2J\u202e")
        row = shown.wait_for("41 passed")
        assert "> " in row
        assert row.index("two") < row.index("one")
        shown.press("/two\r")
        shown.wait_for("1 of 2 shown /two")
        shown.press("p")
        shown.wait_for(f"two ({runs['two'][-8:]}): paused")
        shown.wait_for("1 need a hand")
        assert fleet.json("lane", "show", runs["two"])["run"]["state"] == "paused"
        shown.press("r")
        shown.wait_for("): goes on")
        shown.press("c")
        shown.wait_for("Cancel two")
        shown.press("n")
        shown.wait_for("Nothing was done.")
        shown.press("c")
        shown.wait_for("Cancel two")
        shown.press("y")
        shown.wait_for("): cancelled")
        shown.press("t")
        shown.wait_for("): queued again")
        shown.press("\r")
        details = shown.wait_for("retried")
        assert "title         Lane two" in details
        shown.press("?")
        shown.wait_for("let it go on")
        shown.press("\x1b")
        shown.wait(lambda screen: "let it go on" not in screen)
        shown.press("q")
        assert shown.end() == 0
        assert shown.sent.rstrip().endswith(BACK)
        assert "\u202e" not in shown.sent
        assert termios.tcgetattr(shown._theirs)[3] == shown.settings[3]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=["int", "hup"])
def test_the_terminal_is_given_back_whatever_ends_it(fleet: People, number: signal.Signals, code: int) -> None:
    with terminal(fleet, "lanes", "--watch") as shown:
        shown.wait_for("live")
        shown.process.send_signal(number)
        assert shown.end() == code
        assert shown.sent.rstrip().endswith(BACK)
        assert termios.tcgetattr(shown._theirs)[3] == shown.settings[3]


def test_it_fits_a_terminal_that_changes_and_comes_back_after_a_stop(fleet: People) -> None:
    fleet.lanes(fleet.project("Sized"), "sized")
    with terminal(fleet, "watch", "-p", "Sized", NO_COLOR="1") as shown:
        assert "holder" in shown.wait_for("sized")
        shown.resize(50, 10)
        shown.process.send_signal(signal.SIGWINCH)
        small = shown.wait(lambda screen: "sized" in screen and "holder" not in screen)
        assert all(len(line) <= 50 for line in small.splitlines())
        before = shown.sent.count("\x1b[?1049h")
        shown.process.send_signal(signal.SIGTSTP)
        until = time.monotonic() + SECONDS
        while not shown.sent.endswith(BACK):
            assert time.monotonic() < until
            time.sleep(0.02)
        shown.process.send_signal(signal.SIGCONT)
        while shown.sent.count("\x1b[?1049h") == before:
            assert time.monotonic() < until
            time.sleep(0.02)
        shown.wait_for("sized")
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown.sent)
        shown.press("q")
        assert shown.end() == 0


def test_a_token_that_is_refused_ends_it_with_a_line(fleet: People) -> None:
    with terminal(fleet, "watch", HEARTLANE_TOKEN="hlt_wrong") as shown:
        assert shown.end() == 11
        assert "heartlane: " in shown.sent.rpartition(BACK)[2]


def test_in_a_pipe_each_change_is_a_line(fleet: People) -> None:
    (run_id,) = fleet.lanes(fleet.project("Piped"), "piped").values()
    for output in ("table", "jsonl"):
        process = subprocess.Popen(
            [sys.executable, "-m", "heartlane", "watch", "-p", "Piped", "-o", output],
            env=environment(HEARTLANE_URL=fleet.url, HEARTLANE_TOKEN=fleet.token),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == "watching 1 lanes\n"
            fleet.claim(run_id, f"piped.{output}")
            line = process.stdout.readline()
            while f"piped.{output}" not in line:
                line = process.stdout.readline()
        finally:
            process.terminate()
            process.wait(SECONDS)
            process.stdout.close()
            process.stderr.close()
        if output == "jsonl":
            assert json.loads(line)["lane_key"] == "piped"
        else:
            assert re.fullmatch(r"\d\d:\d\d:\d\d  piped  [0-9a-f]{8}  claimed  by piped.table\n", line)
        fleet.json("lane", "release", run_id, "--yes")


def test_a_table_on_a_terminal_is_coloured_and_fits(fleet: People) -> None:
    runs = fleet.lanes(fleet.project("Coloured"), "coloured")
    fleet.claim(runs["coloured"], "a-worker-with-a-rather-long-name")
    fleet.report(runs["coloured"], worker_id="a-worker-with-a-rather-long-name", log_line="long " * 100)
    with terminal(fleet, "lanes", "-p", "Coloured", columns=80) as shown:
        assert shown.end() == 0
        shown._reader.join(1)
        assert "\x1b[32mrunning" in shown.sent
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.sent)
        assert all(len(line) <= 80 for line in plain.splitlines())
        assert "long long" in plain


@pytest.mark.parametrize(("typed", "code", "state"), [("n", 32, "claimed"), ("y", 0, "failed")])
def test_what_ends_something_asks_first_and_says_what_will_happen(
    fleet: People, typed: str, code: int, state: str
) -> None:
    (run_id,) = fleet.lanes(fleet.project(f"Asked {typed}"), f"asked-{typed}").values()
    fleet.claim(run_id, "asked.1")
    with terminal(fleet, "lane", "cancel", f"asked-{typed}") as shown:
        until = time.monotonic() + SECONDS
        while "[y/N]" not in shown.sent:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert f"Cancel asked-{typed} ({run_id[-8:]}, claimed, held by asked.1)? " in shown.sent.replace("\r\n", "")
        shown.press(f"{typed}\n")
        assert shown.end() == code
    assert fleet.json("lane", "show", run_id)["run"]["state"] == state
