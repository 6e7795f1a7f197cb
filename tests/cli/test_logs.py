"""`heartlane lane logs`: the log as it is, and as it grows until the lane ends, over a restart of the server too."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.cli.command import environment
from tests.cli.people import People
from tests.e2e.server_process import ServerProcess, closing

SECONDS = 60


class Following:
    """`heartlane lane logs -f`, with what it has printed so far."""

    def __init__(self, url: str, token: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "heartlane", "lane", "logs", "-f", *arguments],
            env=environment(HEARTLANE_URL=url, HEARTLANE_TOKEN=token),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip("\n") for line in self.process.stdout)

    def end(self) -> tuple[int, list[str], str]:
        """Wait for its end: its exit code, its lines, and what it said beside."""
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        self.process.stderr.close()
        return code, self.lines, said

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    until = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_log_is_printed_as_text_as_events_and_as_json(fleet: People) -> None:
    (run_id,) = fleet.lanes(fleet.project("Logs"), "logged").values()
    fleet.claim(run_id)
    fleet.report(
        run_id,
        ("phase_change", {"phase": "tests"}),
        ("log_line", {"line": "first \x1b[31mred\x1b[0m"}),
        ("heartbeat", {}),
        ("log_line", {"message": "second\nthird"}),
        ("error", {"message": "odd"}),
    )
    assert fleet.run("lane", "logs", "logged").out == "first red\nsecond\nthird\nerror: odd\n"
    everything = fleet.run("lane", "logs", "logged", "--events").out.splitlines()
    assert [line.split()[0] for line in everything] == ["claimed", "phase_change", "log_line", "log_line", "error"]
    assert fleet.run("lane", "logs", "logged", "--tail", "1").out == "error: odd\n"
    stamped = fleet.run("lane", "logs", "logged", "-T").out.splitlines()
    assert all(line[10] == "T" and line[19:22] == "Z  " for line in stamped)
    told = [json.loads(line) for line in fleet.run("lane", "logs", "logged", "--json").out.splitlines()]
    assert [event["type"] for event in told] == ["log_line", "log_line", "error"]
    assert told[0]["payload"] == {"line": "first \x1b[31mred\x1b[0m"}


@pytest.mark.parametrize(
    ("event", "state", "code"),
    [
        (("ship_complete", {"summary": "all"}), "shipped", 0),
        (("error", {"message": "can't", "fatal": True}), "failed", 31),
    ],
)
def test_following_ends_with_the_lane_and_says_how(
    fleet: People, event: tuple[str, dict[str, object]], state: str, code: int
) -> None:
    (run_id,) = fleet.lanes(fleet.project(f"Follow {state}"), f"to-be-{state}").values()
    fleet.claim(run_id)
    fleet.report(run_id, ("log_line", {"line": "before"}))
    following = Following(fleet.url, fleet.token, run_id)
    try:
        wait_for(lambda: following.lines == ["before"])
        fleet.report(run_id, ("log_line", {"line": "after"}), event)
        ended, lines, said = following.end()
    finally:
        following.kill()
    assert (ended, said) == (code, f"heartlane: to-be-{state} {state}\n")
    assert lines == ["before", "after", *(["error: can't"] if state == "failed" else [])]
    again = fleet.run("lane", "logs", "-f", run_id)
    assert (again.code, again.out.splitlines()) == (code, lines)


def test_following_goes_on_over_a_restart_of_the_server(tmp_path: Path) -> None:
    server = ServerProcess(f"sqlite:///{tmp_path / 'heartlane.sqlite3'}", tmp_path)
    with closing(server):
        server.start()
        token = server.make_token("admin")
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30) as api:
            someone = People(server.url, token, api)
            (run_id,) = someone.lanes(someone.project("Restart"), "lasting").values()
            someone.claim(run_id)
            someone.report(run_id, ("log_line", {"line": "one"}))
            following = Following(server.url, token, run_id)
            try:
                wait_for(lambda: following.lines == ["one"])
                server.kill()
                server.start()
                someone.report(run_id, ("log_line", {"line": "two"}), ("ship_complete", {}))
                assert following.end()[:2] == (0, ["one", "two"])
            finally:
                following.kill()
