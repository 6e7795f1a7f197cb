"""What a worker shows, and what becomes of it when nobody looks any more."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from heartlane.worker.status import LaneStatus, Status
from tests.e2e.server_process import environment
from tests.worker.work_process import END_SECONDS, Lanes, python


def variables(lanes: Lanes, folder: Path) -> dict[str, str]:
    return {
        **environment(folder / "home"),
        "HEARTLANE_URL": lanes.server.url,
        "HEARTLANE_TOKEN": lanes.token,
        "HEARTLANE_STATE": str(folder / "state"),
    }


def on_a_terminal(lanes: Lanes, folder: Path, columns: int, *arguments: str, **more: str) -> tuple[int, str]:
    """A worker on a terminal of its own; its exit code, and everything that the terminal was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = bytearray()

    def read() -> None:
        try:
            while data := os.read(ours, 65_536):
                shown.extend(data)
        except OSError:
            pass  # Linux ends a terminal so

    size_is_found = {name: value for name, value in variables(lanes, folder).items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "heartlane", "work", *arguments],
        env={**size_is_found, "TERM": "xterm-256color", **more},
        cwd=Path.cwd(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(END_SECONDS)
    reader.join(END_SECONDS)
    os.close(ours)
    return code, shown.decode("utf-8", "replace")


HOSTILE = r"""
import time
print("\x1b]0;owned\x07 \x1b[2J \x9b31m :warning: [bold]no[/bold]", flush=True)
time.sleep(2)
"""


@pytest.mark.parametrize("columns", [120, 30])
def test_a_terminal_shows_the_lanes_and_obeys_nothing_that_they_say(lanes: Lanes, tmp_path: Path, columns: int) -> None:
    for_it = f"screen-{columns}"
    title = "A \x1b]0;owned\x07title :warning: [red]"
    (run_id,) = lanes.add(for_it, title=title, labels={"for": for_it})
    code, shown = on_a_terminal(
        lanes, tmp_path, columns, "--once", "--label", f"for={for_it}", "--", *python(HOSTILE), NO_COLOR="1"
    )
    assert code == 0, shown
    assert lanes.run(run_id)["state"] == "shipped"
    assert "running" in shown
    assert for_it in shown
    assert "\x1b]0;" not in shown
    assert "\x1b[2J" not in shown
    assert "\x9b" not in shown
    assert ":warning:" in shown.replace("\r\n", "")
    assert "\x1b[32m" not in shown  # NO_COLOR
    assert "\x1b[?25h" in shown  # the cursor is there again
    assert max(map(len, shown.replace("\x1b", "\n").replace("\r", "\n").split("\n"))) <= columns + 10


@pytest.mark.parametrize("closed", ["2>&-", "2>&1 | true"])
def test_a_worker_whose_output_nobody_takes_works_on(lanes: Lanes, tmp_path: Path, closed: str) -> None:
    run_ids = lanes.add("unheard", labels={"for": closed})
    command = f'"{sys.executable}" -m heartlane work --once --label "for={closed}" -- sh -c "sleep 1; echo on" {closed}'
    subprocess.run(
        ["/bin/bash", "-c", command], env=variables(lanes, tmp_path), cwd=Path.cwd(), timeout=END_SECONDS, check=False
    )
    run = lanes.wait(run_ids[0], lambda run: run["state"] == "shipped")
    assert run["attempt"] == 1


def test_lanes_that_look_alike_are_told_apart() -> None:
    screen = Status(stream=io.StringIO())
    one, other = LaneStatus("same", 1, "plain"), LaneStatus("same", 1, "plain")
    screen.begin(one)
    screen.begin(other)
    screen.end(other)
    one.state = "running"
    screen.end(one)
