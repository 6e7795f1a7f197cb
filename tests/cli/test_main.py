"""The command line itself: help, version, and how wrong input is answered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from heartlane import __version__
from heartlane.cli.errors import CommandError, explain
from heartlane.cli.main import COMMANDS, run
from tests.cli.command import assert_one_line, environment, heartlane


def test_the_version_is_the_packages() -> None:
    assert heartlane("--version") == (0, f"heartlane {__version__}\n", "")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # wide enough that no line is broken
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, meaning in COMMANDS.items():
        assert name in shown
        assert meaning in shown


def test_help_loads_no_library_of_the_server() -> None:
    script = (
        "import sys; from heartlane.cli.main import run; run(['--help']);"
        "print([name for name in ('sqlalchemy', 'pydantic', 'granian', 'fastapi', 'structlog') if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"heartlane {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["token"], ["db"]])
def test_a_command_without_a_verb_shows_its_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["serv"],
        ["--no-such-flag"],
        ["serve", "--no-such-flag"],
        ["serve", "--port"],
        ["token", "make"],
        ["token", "create"],
        ["token", "create", "ci"],
        ["token", "create", "ci", "extra", "--scope", "worker"],
        ["db", "downgrade"],
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("heartlane: ")


def test_it_runs_from_any_folder(tmp_path: Path) -> None:
    assert assert_one_line(heartlane("nonsense", cwd=tmp_path), 2)


def test_an_expected_error_is_one_line_without_secrets() -> None:
    explained = explain(CommandError("can't use\npostgresql://me:s3cret@host/x with hlt_abcdefgh", 1))
    assert explained == ("can't use postgresql://me:***@host/x with hlt_***", 1)


def test_a_fault_of_our_own_is_not_explained_away() -> None:
    assert explain(ZeroDivisionError("oops")) is None


def test_a_missing_library_says_what_to_install() -> None:
    explained = explain(ModuleNotFoundError("No module named 'granian'", name="granian"))
    assert explained is not None
    assert "heartlane[server]" in explained[0]
    assert explain(ModuleNotFoundError("No module named 'heartlane.x'", name="heartlane.x")) is None
