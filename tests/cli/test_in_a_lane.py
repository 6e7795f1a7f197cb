"""The verbs for agents, as an agent calls them: processes of their own, over a real lane's socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from heartlane.cli.errors import CODE_OF
from heartlane.worker.socket import LaneRefused, LaneSocket
from tests.cli.command import Ended, assert_one_line, environment, heartlane, here

LANE = {
    "id": "019a",
    "lane_key": "api",
    "title": "Totals\nin the API",
    "role": "backend",
    "attempt": 2,
    "state": "running",
    "phase": None,
    "tickets": [{"id": "t1", "title": "Show totals"}],
    "previous": {"branch": "totals", "error": "no disk"},
    "prompt": "Add totals.\nTest\x1b[2J them.",
}


class Worker:
    """A handler that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.lost = False

    def on_report(self, phase: str | None, log: str | None, events: Sequence[dict[str, Any]]) -> None:
        if self.lost:
            raise LaneRefused("the lane went to worker 'bob'", "lane_lost")
        self.heard.append({"phase": phase, "log": log, "events": list(events)})

    def on_ship(self, fields: dict[str, str]) -> None:
        self.heard.append(fields)

    def on_fail(self, message: str, fatal: bool) -> None:
        self.heard.append((message, fatal))

    def lane(self) -> dict[str, Any]:
        return LANE


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def lane(worker: Worker) -> Iterator[str]:
    """What HEARTLANE_SOCKET is in a lane."""
    with LaneSocket(worker) as made:
        yield str(made.path)


def silent(ended: Ended) -> None:
    assert ended == (0, "", "")


def action(**payload: Any) -> dict[str, Any]:
    return {"type": "action", "payload": payload}


def test_a_report_reaches_the_worker(lane: str, worker: Worker) -> None:
    silent(heartlane("report", "--phase", "tests", "--log", "41 passed, 1 failed", HEARTLANE_SOCKET=lane))
    silent(here("report", "--action", "edit", "--file", "größe.py", HEARTLANE_SOCKET=lane))
    silent(
        here("report", "--action", "shell", "--command", "make test", "--failed", "--ms", "5300", HEARTLANE_SOCKET=lane)
    )
    silent(here("report", "--waiting", "permission", "--log", "May I?", HEARTLANE_SOCKET=lane))
    silent(here("report", "--branch", "totals", "--pr-url", "https://x/1", HEARTLANE_SOCKET=lane))
    assert worker.heard == [
        {"phase": "tests", "log": "41 passed, 1 failed", "events": []},
        {"phase": None, "log": None, "events": [action(tool="edit", file="größe.py")]},
        {"phase": None, "log": None, "events": [action(tool="shell", command="make test", ok=False, ms=5300)]},
        {
            "phase": None,
            "log": "May I?",
            "events": [{"type": "phase_change", "payload": {"phase": "waiting", "for": "permission"}}],
        },
        {
            "phase": None,
            "log": None,
            "events": [action(tool="report", branch="totals", pr_url="https://x/1")],
        },
    ]


def test_the_end_of_a_lane_reaches_the_worker(lane: str, worker: Worker) -> None:
    silent(
        heartlane(
            "ship",
            "--pr-url",
            "https://x/1",
            "--branch",
            "b",
            "--commit",
            "c",
            "--summary",
            "Done.",
            HEARTLANE_SOCKET=lane,
        )
    )
    silent(here("ship", HEARTLANE_SOCKET=lane))
    silent(heartlane("fail", "no disk", HEARTLANE_SOCKET=lane))
    silent(here("fail", "no such API", "--fatal", HEARTLANE_SOCKET=lane))
    assert worker.heard == [
        {"pr_url": "https://x/1", "branch": "b", "commit": "c", "summary": "Done."},
        {},
        ("no disk", False),
        ("no such API", True),
    ]


def test_the_lane_is_shown_to_people_and_to_programs(lane: str) -> None:
    assert heartlane("lane", HEARTLANE_SOCKET=lane).out == (
        "lane:        api\n"
        "title:       Totals in the API\n"
        "role:        backend\n"
        "run:         019a\n"
        "attempt:     2\n"
        "state:       running\n"
        "ticket:      Show totals (t1)\n"
        "last branch: totals\n"
        "last error:  no disk\n"
        "\n"
        "Add totals.\nTest?[2J them.\n"
    )
    assert json.loads(here("lane", "--json", HEARTLANE_SOCKET=lane).out) == LANE


def test_bytes_that_are_no_text_are_made_readable(lane: str, worker: Worker) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    command = [sys.executable, "-m", "heartlane", "report", "--action", "edit", "--file", name]
    subprocess.run(command, env=environment(HEARTLANE_SOCKET=lane), check=True, timeout=60)
    assert worker.heard[0]["events"] == [action(tool="edit", file="caf\ufffd.py")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report"], "says nothing"),
        (["report", "--phase", "x" * 201, "--log", "y" * 2_001], "phase must be at most 200"),
        (["report", "--phase", "a", "--waiting", "b"], "not both"),
        (["report", "--action", "x", "--ms", "-1"], "--ms must be 0 or more"),
        (["report", "--action", "x", "--ms", "soon"], "invalid int value"),
        (["report", "--ok", "--failed"], "not allowed with"),
        (["report", "--pha", "x"], "unrecognized arguments"),
        (["report", "stray"], "unrecognized arguments"),
        (["ship", "--pr-url", "none"], "pr_url must be an address"),
        (["fail"], "WHY"),
        (["fail", ""], "message must not be empty"),
        (["lane", "--yaml"], "No such option"),
    ],
)
def test_wrong_input_is_one_line_and_reaches_nobody(arguments: list[str], said: str, lane: str, worker: Worker) -> None:
    assert said in assert_one_line(here(*arguments, HEARTLANE_SOCKET=lane), 2)
    assert worker.heard == []


def test_all_problems_stand_in_the_line(lane: str) -> None:
    line = assert_one_line(here("report", "--phase", "x" * 201, "--log", "y" * 2_001, HEARTLANE_SOCKET=lane), 2)
    assert line == (
        "phase must be at most 200 characters long, not 201; log must be at most 2,000 characters long, not 2,001"
    )


@pytest.mark.parametrize("arguments", [["report", "--phase", "x"], ["ship"], ["fail", "x"], ["lane"]])
def test_outside_of_a_lane_it_is_one_line_and_a_code_of_its_own(arguments: list[str], tmp_path: Path) -> None:
    nowhere = str(tmp_path / "socket")
    assert "HEARTLANE_SOCKET is not set" in assert_one_line(here(*arguments), CODE_OF["not_in_a_lane"])
    assert "is gone" in assert_one_line(here(*arguments, HEARTLANE_SOCKET=nowhere), 14)
    assert "can't be used" in assert_one_line(here(*arguments, HEARTLANE_SOCKET="/" + "x" * 200), 14)


def test_a_worker_that_died_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(os.path.relpath(path))
    assert "is gone" in assert_one_line(here("lane", HEARTLANE_SOCKET=os.path.relpath(path)), 14)


def test_what_the_worker_refuses_has_its_own_code(lane: str, worker: Worker) -> None:
    worker.lost = True
    line = assert_one_line(heartlane("report", "--phase", "x", HEARTLANE_SOCKET=lane), CODE_OF["lane_lost"])
    assert line == "the lane went to worker 'bob'"


@pytest.mark.parametrize("arguments", [["report", "--phase", "x"], ["lane"]])
def test_no_library_is_loaded_on_the_way(arguments: list[str], lane: str) -> None:
    script = (
        "import sys; from heartlane.cli.main import run; code = run(sys.argv[1:])\n"
        "heavy = {'typer', 'click', 'rich', 'pydantic', 'httpx', 'asyncio', 'sqlalchemy', 'structlog'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)\n"
    )
    command = [sys.executable, "-c", script, *arguments]
    ended = subprocess.run(
        command, env=environment(HEARTLANE_SOCKET=lane), capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stderr == "[]\n"


def test_a_report_imports_little_beyond_pythons_own_start(lane: str) -> None:
    # An agent calls it often: what the other verbs are made of would cost it ten times its time.
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "heartlane", "report", "--phase", "tests"],
        env=environment(HEARTLANE_SOCKET=lane),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = (line for line in shown.stderr.splitlines() if line.startswith("import time:"))
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "heartlane.cli.in_a_lane" in imported
    assert imported.isdisjoint({"asyncio", "dataclasses", "httpx", "pydantic", "rich", "subprocess", "typer"})
    assert {name for name in imported if name.startswith("heartlane.")} == {
        "heartlane.cli",
        "heartlane.cli.errors",
        "heartlane.cli.in_a_lane",
        "heartlane.cli.main",
        "heartlane.wire",
        "heartlane.wire.secrets",
        "heartlane.worker",
        "heartlane.worker.ask",
        "heartlane.worker.errors",
    }
