"""`heartlane serve`: its flags are the settings, and what is wrong with them is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from heartlane.cli.main import run
from heartlane.cli.serve import flag_of
from heartlane.server import serve
from heartlane.server.settings import Settings
from tests.cli.command import assert_one_line, heartlane

VALUES = {
    "database": "sqlite:///{folder}/x.db",
    "host": "::1",
    "port": "0",
    "rate_limits": "report=6000/minute",
    "trusted_proxies": "10.0.0.0/8",
    "max_body_bytes": "1000000",
    "ledger_queue_limit": "100",
    "pool_size": "3",
    "take_back_seconds": "0.25",
    "shutdown_seconds": "5",
    "log_level": "debug",
    "log_format": "json",
}


def test_help_names_every_setting_its_flag_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, field in Settings.model_fields.items():
        assert f"{flag_of(name)} " in shown
        assert f"Also HEARTLANE_{name.upper()}." in shown
        default = field.examples[0] if field.examples else field.default
        assert f"Default: {default}." in shown


def test_every_setting_has_a_flag_that_sets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(VALUES) == set(Settings.model_fields)
    served: list[Settings] = []
    monkeypatch.setattr(serve, "run", served.append)
    values = {name: value.format(folder=tmp_path) for name, value in VALUES.items()}
    assert run(["serve", *(part for name, value in values.items() for part in (flag_of(name), value))]) == 0
    for name in Settings.model_fields:
        monkeypatch.setenv(f"HEARTLANE_{name.upper()}", values[name])
    assert run(["serve"]) == 0
    by_flag, by_variable = served
    assert by_flag == by_variable
    for name, field in Settings.model_fields.items():
        assert getattr(by_flag, name) != field.get_default(call_default_factory=True), name


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["--port", "http"], {}, "--port must be an integer"),
        ([], {"HEARTLANE_PORT": "http"}, "HEARTLANE_PORT must be an integer"),
        ([], {"HEARTLANE_PRT": "1"}, "did you mean HEARTLANE_PORT?"),
        ([], {"HEARTLANE_DATABASE": "sqlite:////no/such/folder/x.db"}, "does not exist"),
        (["--database", "mysql://me:s3cret@h/x"], {}, "--database must begin with"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], variables: dict[str, str], said: str) -> None:
    line = assert_one_line(heartlane("serve", *arguments, cwd=None, **variables), 2)
    assert said in line
    assert "s3cret" not in line


def test_a_database_that_is_away_is_one_line() -> None:
    ended = heartlane("serve", "--port", "0", HEARTLANE_DATABASE="postgresql://me:s3cret-word@127.0.0.1:1/x")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert "s3cret" not in ended.err
