"""Runs `heartlane` as people do: a process of its own, with an environment that says only what the test says."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from heartlane.cli.main import run

ROOT = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without any setting of Heartlane's, and the given variables."""
    bare = {name: value for name, value in os.environ.items() if not name.upper().startswith("HEARTLANE_")}
    path = os.pathsep.join(filter(None, [str(ROOT), bare.get("PYTHONPATH", "")]))
    return {**bare, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1", **variables}


def heartlane(*arguments: str, cwd: Path | None = None, typed: str = "", **variables: str) -> Ended:
    """Run `heartlane ARGUMENTS…` to its end; `typed` is its standard input."""
    ended = subprocess.run(
        [sys.executable, "-m", "heartlane", *arguments],
        env=environment(**variables),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        input=typed,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def here(*arguments: str, **variables: str) -> Ended:
    """The same within this process, for what is asked again and again."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch.dict(os.environ, environment(**variables), clear=True):
        code = run(list(arguments))
    return Ended(code, out.getvalue(), err.getvalue())


def assert_one_line(ended: Ended, code: int) -> str:
    """The command ended with this code, said one line on stderr and nothing on stdout; the line."""
    assert ended.code == code, ended
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("heartlane: ")
    return lines[0].removeprefix("heartlane: ")


class Served(NamedTuple):
    """A running server: where it answers, its process, and where its log goes."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def served(database: str, folder: Path, *flags: str) -> Iterator[Served]:
    """A server on any free port, killed at the end unless it has ended by itself."""
    log = folder / "server.log"
    command = [sys.executable, "-m", "heartlane", "serve", "--database", database, "--port", "0", *flags]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment(), stderr=stream, stdin=subprocess.DEVNULL)
    try:
        yield Served(_address(process, log), process, log)
    finally:
        process.kill()
        process.wait(10)


def stop(server: Served) -> int:
    """Send SIGTERM and wait for the end; the exit code."""
    server.process.send_signal(signal.SIGTERM)
    return server.process.wait(12)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text("utf-8").splitlines():
            said = json.loads(line)
            if said["message"] == "listening":
                return f"{said['scheme']}://127.0.0.1:{said['port']}"
        time.sleep(0.02)
    raise AssertionError(f"the server doesn't listen: {log.read_text('utf-8')}")
