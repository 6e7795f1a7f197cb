"""The agent's files and environment."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heartlane.wire.variables import LANE_VARIABLES
from heartlane.worker.earlier import Earlier
from heartlane.worker.errors import WorkerError
from heartlane.worker.lane_folder import (
    LaneFolder,
    child_environment,
    full_prompt,
    lane_document,
    lane_environment,
    sweep,
)

RUN: dict[str, Any] = {
    "id": "019a0000-0000-7000-8000-00000000beef",
    "lane_key": "api",
    "title": "Totals",
    "role": "backend",
    "attempt": 2,
    "prompt": "Add totals.\n",
    "tickets": [{"id": "t1", "title": "Show totals"}],
}
LEFT = Earlier("totals", "https://x/1", "tests", "no\ndisk", "s-1", "claude")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_attempt_has_the_plain_prompt() -> None:
    assert full_prompt(RUN, Earlier()) == "Add totals.\n"
    assert full_prompt({**RUN, "prompt": None}, Earlier()) == "Totals\n"


def test_the_prompt_ends_with_what_the_last_attempt_left() -> None:
    assert full_prompt(RUN, LEFT) == (
        "Add totals.\n\n"
        "## What the last attempt left\n\n"
        "This is attempt 2. Look at what is there already, and go on with it.\n\n"
        "- Branch: totals\n"
        "- Pull request: https://x/1\n"
        "- Stopped in phase: tests\n"
        "- Ended with: no disk\n"
        "- Session: s-1\n"
    )


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_its_files_are_private_and_go_with_it(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with LaneFolder.create(tmp_path / "state" / "lanes", RUN) as folder:
            folder.write("first", {})
            folder.write(full_prompt(RUN, LEFT), lane_document(RUN, LEFT, branch="heartlane/api-1", worktree=None))
            assert folder.path.name.startswith("0000beef-2-")
            assert mode(folder.path) == 0o700
            assert {path.name: mode(path) for path in folder.path.iterdir()} == {
                "prompt.md": 0o600,
                "lane.json": 0o600,
                ".in-use": 0o600,
            }
            assert folder.prompt_file.read_text("utf-8").startswith("Add totals.\n\n## What")
            lane = json.loads(folder.lane_file.read_text("utf-8"))
            assert lane == {**RUN, "branch": "heartlane/api-1", "previous": LEFT._asdict()}
    finally:
        os.umask(before)
    assert not folder.path.exists()
    folder.remove()


def test_what_a_killed_worker_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from heartlane.worker.lane_folder import LaneFolder\n"
        "LaneFolder.create(Path(sys.argv[1]), {'id': 'dead', 'attempt': 1}).write('secret', {})\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    (tmp_path / "else").mkdir()
    with LaneFolder.create(tmp_path, RUN) as used:
        assert sweep(tmp_path) == [left]
        assert used.path.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["else"]
    assert sweep(tmp_path / "nowhere") == []


def test_a_place_that_can_hold_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(WorkerError, match="no folder can be made for the lane"):
        LaneFolder.create(tmp_path / "file" / "lanes", RUN)


def test_every_variable_says_what_it_should(tmp_path: Path) -> None:
    with LaneFolder.create(tmp_path, RUN) as folder:
        variables = lane_environment(
            RUN, LEFT, worker_id="ada.1", folder=folder, branch="heartlane/api-1", socket=tmp_path / "s"
        )
    assert set(variables) == set(LANE_VARIABLES) - {"HEARTLANE_LANE_MARK"}, "whoever starts the agent sets the mark"
    assert variables["HEARTLANE_RUN_ID"] == RUN["id"]
    assert variables["HEARTLANE_ATTEMPT"] == "2"
    assert variables["HEARTLANE_PREVIOUS_PR_URL"] == "https://x/1"
    assert variables["HEARTLANE_PROMPT_FILE"] == str(folder.prompt_file)


def test_what_there_is_nothing_to_say_of_has_no_variable() -> None:
    variables = lane_environment({**RUN, "attempt": 1}, Earlier(), worker_id="ada.1")
    assert not [name for name in variables if "PREVIOUS" in name or "BRANCH" in name or "SOCKET" in name]


def test_the_agent_gets_the_workers_environment_without_its_secrets() -> None:
    own = {
        "PATH": "/bin",
        "HEARTLANE_TOKEN": "hlt_secret",
        "HEARTLANE_DATABASE": "postgresql://me:pw@host/x",
        "HEARTLANE_PREVIOUS_BRANCH": "of another lane",
        "heartlane_url": "http://x",
        "MY_TOKEN": "Bearer hlt_secret",
        "SHORT": "abc",
    }
    assert child_environment(own, {"HEARTLANE_RUN_ID": "1"}, ["hlt_secret", "abc", ""]) == {
        "PATH": "/bin",
        "SHORT": "abc",
        "HEARTLANE_RUN_ID": "1",
    }


def test_the_agent_finds_the_command_whatever_its_path_and_folder(tmp_path: Path) -> None:
    (tmp_path / "heartlane.py").write_text("print('not ours')\n", "utf-8")
    with LaneFolder.create(tmp_path / "lanes", RUN) as folder:
        variables = folder.with_command({**child_environment(os.environ, {}), "PATH": "/usr/bin:/bin"})
        assert variables["PATH"].startswith("/usr/bin:/bin:")
        command = ["sh", "-c", "heartlane --version"]
        ended = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert ended.stdout.startswith("heartlane ")
        own = tmp_path / "own"
        own.mkdir()
        (own / "heartlane").write_text("#!/bin/sh\n", "utf-8")
        (own / "heartlane").chmod(0o755)
        assert folder.with_command({"PATH": str(own)}) == {"PATH": str(own)}


def test_a_variable_that_is_not_described_is_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match="HEARTLANE_NEW"):
        child_environment({}, {"HEARTLANE_NEW": "x"})


def test_a_server_may_be_started_from_within_a_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartlane.server.settings import load_settings

    with LaneFolder.create(tmp_path, RUN) as folder:
        variables = lane_environment(RUN, LEFT, worker_id="ada.1", folder=folder, branch="b", socket=tmp_path / "s")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_settings().port == 8484
