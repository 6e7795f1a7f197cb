"""`heartlane worker`: the service that it prints and writes, and how it takes it away again."""

from __future__ import annotations

import os
import plistlib
import pty
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from heartlane.worker.service import Service, describe
from tests.cli.command import Ended, assert_one_line, environment, heartlane

TOKEN = "hlt_" + "a" * 43
WORK = ["--", "--role", "backend", "--", "claude", "-p", 'a "b" {prompt} $HOME 100% \\ \' x']


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def worker(home: Path, *arguments: str, **variables: str) -> Ended:
    given = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "XDG_RUNTIME_DIR": str(home), **variables}
    return heartlane("worker", *arguments, cwd=home, **given)


def unit_of(home: Path) -> Path:
    return home / ".config" / "systemd" / "user" / "heartlane-worker.service"


def variables_of(home: Path) -> Path:
    return home / ".config" / "heartlane" / "worker.env"


def test_it_is_printed_and_nothing_written_when_nobody_can_be_asked(home: Path) -> None:
    ended = worker(home, "install", "--for", "systemd", *WORK, HEARTLANE_TOKEN=TOKEN)
    assert ended.code == 0
    assert ended.out.startswith("[Unit]\n")
    assert ended.err == "Nothing was changed: there is nobody to ask. Run it again with --yes.\n"
    assert list(home.iterdir()) == []


def test_it_is_written_as_it_was_printed_with_the_token_in_a_file_of_its_own(home: Path) -> None:
    ended = worker(
        home, "install", "--for", "systemd", "--yes", *WORK, HEARTLANE_TOKEN=TOKEN, HEARTLANE_URL="https://x.example:1/"
    )
    assert ended.code == 0, ended
    unit, variables = unit_of(home), variables_of(home)
    assert unit.read_text("utf-8") == ended.out
    assert TOKEN not in ended.out + ended.err
    assert f"EnvironmentFile={variables}\n" in ended.out
    assert f"WorkingDirectory={home}\n" in ended.out
    assert f"Environment=PATH={os.environ['PATH']}\n" in ended.out
    executed = next(line for line in ended.out.splitlines() if line.startswith("ExecStart="))
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    assert executed == (
        f"ExecStart={python} -P -m heartlane work --wait-for-server forever --role backend -- claude -p "
        '"a \\"b\\" {prompt} $$HOME 100%% \\\\ \' x"'
    )
    assert stat.S_IMODE(variables.stat().st_mode) == 0o600
    assert variables.read_text("utf-8").splitlines()[1:] == [
        "HEARTLANE_URL='https://x.example:1/'",
        f"HEARTLANE_TOKEN='{TOKEN}'",
    ]
    assert "systemctl --user enable --now heartlane-worker.service" in ended.err


def test_systemd_finds_nothing_wrong_with_it(home: Path) -> None:
    assert worker(home, "install", "--for", "systemd", "--yes", *WORK, HEARTLANE_TOKEN=TOKEN).code == 0
    unit = unit_of(home)
    analyze = shutil.which("systemd-analyze")
    if analyze is not None:
        checked = subprocess.run(
            [analyze, "--user", "verify", str(unit)],
            env=environment(HOME=str(home), XDG_RUNTIME_DIR=str(home)),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (checked.returncode, checked.stderr) == (0, "")
    # What anybody can check: every line is a section or a setting.
    lines = unit.read_text("utf-8").splitlines()
    assert all(not line or line.startswith("[") or line.partition("=")[0].isalpha() for line in lines)


def test_it_asks_on_a_terminal(home: Path) -> None:
    def answered(answer: bytes) -> int:
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        variables = environment(HOME=str(home), XDG_CONFIG_HOME=str(home / ".config"))
        ended = subprocess.run(
            [sys.executable, "-m", "heartlane", "worker", "install", "--for", "systemd", "--", "--once"],
            env=variables,
            cwd=home,
            stdin=theirs,
            capture_output=True,
            check=False,
            timeout=60,
        )
        os.close(theirs)
        os.close(ours)
        return ended.returncode

    assert answered(b"n\n") == 0
    assert not unit_of(home).exists()
    assert answered(b"y\n") == 0
    assert unit_of(home).exists()


def test_a_file_of_variables_that_is_there_is_kept_and_made_private(home: Path) -> None:
    variables = variables_of(home)
    variables.parent.mkdir(parents=True)
    variables.write_text("HEARTLANE_TOKEN='mine'\n", "utf-8")
    variables.chmod(0o644)
    ended = worker(home, "install", "--for", "systemd", "--yes", "--", "--once", HEARTLANE_TOKEN=TOKEN)
    assert "Kept as it was" in ended.err
    assert variables.read_text("utf-8") == "HEARTLANE_TOKEN='mine'\n"
    assert stat.S_IMODE(variables.stat().st_mode) == 0o600


def test_what_is_missing_is_said(home: Path) -> None:
    ended = worker(home, "install", "--for", "systemd", "--yes", "--", "--once")
    assert "Fill in HEARTLANE_URL and HEARTLANE_TOKEN" in ended.err
    assert "#HEARTLANE_TOKEN=\n" in variables_of(home).read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["install", "--yes", "--", f"--token={TOKEN}"], "there is a token among the arguments"),
        (["install", "--yes", "--", "hlt_anothersecret1"], "there is a token among the arguments"),
        (["install", "--yes", "--name", "../x", "--", "--once"], "is no name for a service"),
        (["install", "--yes", "--for", "cron", "--", "--once"], "systemd or launchd"),
        (["install", "--yes", "--", "a\x1bb"], "control character"),
        (["install", "--yes"], "Missing argument"),
        (["uninstall", "--yes"], "there is no such service"),
    ],
)
def test_what_can_be_no_service_is_one_line_and_writes_nothing(arguments: list[str], said: str, home: Path) -> None:
    line = assert_one_line(worker(home, *arguments, HEARTLANE_TOKEN=TOKEN), 2)
    assert said in line
    assert TOKEN not in line
    assert list(home.iterdir()) == []


def test_a_token_that_no_file_can_hold_is_one_line(home: Path) -> None:
    ended = worker(home, "install", "--yes", "--", "--once", HEARTLANE_TOKEN="it's\nmine")
    assert "HEARTLANE_TOKEN has characters" in assert_one_line(ended, 2)


def test_it_is_stopped_and_removed(home: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/called\n', "utf-8")
    (programs / "systemctl").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    worker(home, "install", "--for", "systemd", "--yes", "--", "--once")
    ended = worker(home, "uninstall", "--for", "systemd", "--yes", PATH=path)
    assert ended.code == 0
    assert (tmp_path / "called").read_text("utf-8") == "--user disable --now heartlane-worker.service\n"
    assert not unit_of(home).exists()
    assert variables_of(home).exists()
    assert "--purge removes it" in ended.err
    assert worker(home, "uninstall", "--for", "systemd", "--yes", "--purge", PATH=path).code == 0
    assert not variables_of(home).exists()


def test_where_it_could_not_be_stopped_it_says_how(home: Path, tmp_path: Path) -> None:
    worker(home, "install", "--for", "systemd", "--yes", "--", "--once")
    ended = worker(home, "uninstall", "--for", "systemd", "--yes", PATH=str(tmp_path))
    assert "If it runs still: systemctl --user disable --now heartlane-worker.service" in ended.err
    assert not unit_of(home).exists()


def test_a_launchd_agent_really_starts_the_worker_with_its_variables(tmp_path: Path) -> None:
    variables = tmp_path / "a b.env"
    variables.write_text("# a comment\nHEARTLANE_TOKEN='x$y'\n#HEARTLANE_URL=\n", "utf-8")
    show = "import os, sys; print(os.environ['HEARTLANE_TOKEN'], sys.argv[1:])"
    service = Service(
        "worker", [sys.executable, "-c", show, "a 'b'", "$HOME"], tmp_path, variables, "/bin", tmp_path / "log"
    )
    described = plistlib.loads(describe("launchd", service).encode())
    assert described["Label"] == "heartlane.worker"
    assert described["EnvironmentVariables"] == {"PATH": "/bin"}
    ended = subprocess.run(described["ProgramArguments"], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "x$y [\"a 'b'\", '$HOME']\n"


def test_a_launchd_agent_is_written_where_launchd_looks(home: Path) -> None:
    ended = worker(home, "install", "--for", "launchd", "--yes", *WORK, HEARTLANE_TOKEN=TOKEN)
    assert ended.code == 0, ended
    path = home / "Library" / "LaunchAgents" / "heartlane.worker.plist"
    described = plistlib.loads(path.read_bytes())
    assert described["ProgramArguments"][5:] == [
        "-P",
        "-m",
        "heartlane",
        "work",
        "--wait-for-server",
        "forever",
        *WORK[1:],
    ]
    assert TOKEN not in path.read_text("utf-8")
