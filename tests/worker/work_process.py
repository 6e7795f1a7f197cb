"""`heartlane work` as people run it: a child process, a server of its own, and agents that are scripts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from tests.e2e.server_process import ServerProcess, environment

END_SECONDS: Final = 40.0
WAIT_SECONDS: Final = 30.0


class Lanes:
    """A server with a project, seen by its operator."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.token = server.make_token("worker", "worker")
        self.http = httpx.Client(
            base_url=server.url,
            headers={"Authorization": f"Bearer {server.make_token('admin')}"},
            trust_env=False,
            timeout=30,
        )
        self.project = self._post("/api/projects", name="Project")["project"]["id"]

    def close(self) -> None:
        """Let go of the connection."""
        self.http.close()

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.http.post(path, json=body) if body else self.http.post(path)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def add(self, *keys: str, **lane: Any) -> list[str]:
        """Queued lanes; the ids of their runs."""
        lanes = [
            {"laneKey": key, "title": f"Lane {key}", "role": "backend", "prompt": f"Do {key}.", **lane} for key in keys
        ]
        plan = self._post("/api/agents/plan", projectId=self.project, title="Plan", lanes=lanes)["plan"]["id"]
        return [run["id"] for run in self._post(f"/api/agents/plans/{plan}/approve")["runs"]]

    def allow_failures(self, failures_max: int = 100) -> None:
        """Let lanes that are added from now on fail so often before they are given up."""
        self.http.patch(f"/api/projects/{self.project}", json={"max_failures": failures_max}).raise_for_status()

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as it is now."""
        found: dict[str, Any] = self.http.get(f"/api/agents/runs/{run_id}").json()["run"]
        return found

    def events(self, run_id: str, *types: str) -> list[dict[str, Any]]:
        """Its events, of these types (none given: all)."""
        events: list[dict[str, Any]] = []
        after: Any = 0
        while after is not None:
            query = {"after": after, "limit": 200, "type": list(types)}
            answer = self.http.get(f"/api/agents/runs/{run_id}/events", params=query).json()
            events += answer["events"]
            after = answer["next_cursor"]
        return events

    def lines(self, run_id: str) -> list[str]:
        """The text of its log lines."""
        return [event["payload"]["line"] for event in self.events(run_id, "log_line")]

    def steer(self, run_id: str, verb: str, **body: Any) -> None:
        """An operator's hand: pause, resume, cancel, release, retry."""
        self._post(f"/api/agents/runs/{run_id}/{verb}", **body)

    def wait(
        self, run_id: str, holds: Callable[[dict[str, Any]], bool], seconds: float = WAIT_SECONDS
    ) -> dict[str, Any]:
        """Wait until a condition on the run holds; the run."""
        deadline = time.monotonic() + seconds
        while True:
            run = self.run(run_id)
            if holds(run):
                return run
            assert time.monotonic() < deadline, f"not within {seconds} s: {run}\n{self.events(run_id)}"
            time.sleep(0.05)


class Worker:
    """One `heartlane work`. What it prints is in `said()`."""

    def __init__(self, lanes: Lanes, folder: Path, name: str = "w") -> None:
        self._lanes = lanes
        self._log = folder / f"{name}.log"
        self._folder = folder
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, url: str | None = None
    ) -> Worker:
        """Start it with these arguments, and return at once."""
        variables = {
            **environment(self._folder / "home"),
            "HEARTLANE_URL": url or self._lanes.server.url,
            "HEARTLANE_TOKEN": self._lanes.token,
            "HEARTLANE_STATE": str(self._folder / "state"),
            **(env or {}),
        }
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "heartlane", "work", "--name", self.name, *arguments],
                env=variables,
                cwd=cwd or self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Wait until it has ended; its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s\n{self.said()}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """Everything it printed."""
        return self._log.read_text("utf-8", errors="replace")

    def close(self) -> None:
        """Make sure that it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.kill()


@contextlib.contextmanager
def closing(*workers: Worker) -> Iterator[None]:
    """Whatever happens inside, no worker is left behind."""
    try:
        yield
    finally:
        for worker in workers:
            worker.close()


def python(script: str, *arguments: str) -> list[str]:
    """A command line that runs a Python script."""
    return [sys.executable, "-c", script, *arguments]


def prints(*lines: str, code: int = 0) -> list[str]:
    """A command that prints these lines and ends with that code."""
    return python(f"import sys\nfor line in {list(lines)!r}: print(line, flush=True)\nsys.exit({code})")


def of_another_version(folder: Path) -> bytes:
    """A spool in that folder, in a form that nobody knows; what its file holds."""
    folder.mkdir(parents=True)
    (folder / "lock").write_text("")
    body = json.dumps({"spool": 99}).encode()
    line = b"H %08x %d %b\n" % (zlib.crc32(b"H " + body), len(body), body)
    (folder / "00000001.log").write_bytes(line)
    return line


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(holds: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Wait until a condition holds; what it was."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value
