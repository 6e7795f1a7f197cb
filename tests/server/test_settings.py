"""Settings from flags and variables; a wrong one is one line that shows no secret."""

from __future__ import annotations

import os
import stat
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.server.settings import (
    DatabaseUrl,
    Settings,
    SettingsError,
    default_database_path,
    load_database,
    load_settings,
)
from heartlane.wire.variables import CLIENT_VARIABLES, LANE_VARIABLES

PASSWORD = "s3cret/p@ss:word"
QUOTED = "s3cret%2Fp%40ss%3Aword"
POSTGRES = f"postgresql://me:{QUOTED}@db.example:5432/heartlane"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("HEARTLANE_")]:
        monkeypatch.delenv(name)


def refusal(**flags: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_safe_on_ones_own_machine() -> None:
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8484)
    assert settings.database.path == default_database_path()
    assert settings.rate_limits.text == "on"
    assert settings.trusted_proxies == ()
    assert settings.max_body_bytes == 4 * 1024 * 1024
    assert settings.shutdown_seconds <= 10


def test_a_flag_goes_before_its_variable_and_a_variable_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTLANE_PORT", "9000")
    assert load_settings().port == 9000
    assert load_settings({"port": "0", "host": None}).port == 0


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTLANE_PORT", "")
    assert load_settings().port == 8484


def test_values_are_read_as_people_write_them() -> None:
    settings = load_settings(
        {"trusted_proxies": "10.0.0.0/8, ::1,", "log_level": "DEBUG", "host": "[::1]", "rate_limits": "OFF"}
    )
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert (settings.log_level, settings.host, settings.rate_limits.text) == ("debug", "::1", "off")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database", "mysql://x"),
        ("database", "sqlite://"),
        ("database", "sqlite:///"),
        ("database", "sqlite:///:memory:"),
        ("database", "sqlite://file.db"),
        ("database", "sqlite:///x?mode=ro"),
        ("database", "data.db"),
        ("database", "postgresql://host:port/x"),
        ("database", "postgresql://host/a b"),
        ("host", "a b"),
        ("host", "http://x/"),
        ("port", "http"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "80.5"),
        ("rate_limits", "report=fast"),
        ("trusted_proxies", "everyone"),
        ("trusted_proxies", "10.0.0.0/33"),
        ("max_body_bytes", "10"),
        ("ledger_queue_limit", "0"),
        ("pool_size", "0"),
        ("take_back_seconds", "2"),
        ("shutdown_seconds", "0"),
        ("shutdown_seconds", "10.5"),
        ("shutdown_seconds", "nan"),
        ("log_level", "loud"),
        ("log_format", "xml"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_setting(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(**{name: value}).startswith(f"--{name.replace('_', '-')} ")
    monkeypatch.setenv(f"HEARTLANE_{name.upper()}", value)
    assert refusal().startswith(f"HEARTLANE_{name.upper()} ")


def test_a_misspelt_variable_is_refused_with_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTLANE_DATABSE", POSTGRES)
    line = refusal()
    assert "HEARTLANE_DATABSE is not a setting" in line
    assert "HEARTLANE_DATABASE?" in line
    assert "s3cret" not in line


def test_variables_of_clients_may_stand_beside_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CLIENT_VARIABLES, *LANE_VARIABLES):
        monkeypatch.setenv(name, "x")
    assert load_settings().port == 8484


def test_commands_on_the_database_mind_only_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTLANE_PORT", "wrong")
    monkeypatch.setenv("HEARTLANE_DATABASE", "sqlite:///one.db")
    assert load_database().path == Path("one.db").absolute()
    assert load_database("sqlite:////two.db").path == Path("/two.db")


# --- the database's URL -------------------------------------------------------------------------------------------


def test_a_password_is_in_nothing_that_is_printed() -> None:
    settings = load_settings({"database": POSTGRES + f"?password={QUOTED}&sslmode=require"})
    url = settings.database
    shown = [str(url), repr(url), f"{url}", repr(settings), str(settings), str(settings.model_dump())]
    for text in shown:
        assert "s3cret" not in text
        assert "db.example:5432/heartlane" in text
        assert "sslmode=require" in text
    assert url.reveal().startswith(POSTGRES)
    assert url.password == PASSWORD


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://me:s3cret/x@host/db",
        "postgresql://me:12/s3cret@host/db",
        "postgresql://me:12#s3cret@host/db",
        "postgresql://me:s3cret @host/db",
        "mysql://me:s3cret@host/db",
    ],
)
def test_a_refused_url_doesnt_show_its_password(value: str) -> None:
    assert "s3cret" not in refusal(database=value)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_no_text_gets_past_with_anything_but_a_value_error(text: str) -> None:
    for start in ("", "sqlite:///", "postgresql://", "postgresql://me:"):
        try:
            url = DatabaseUrl(start + text)
        except ValueError:
            continue
        assert str(url) == str(DatabaseUrl(url.reveal()))


def test_both_spellings_of_postgresql_are_one() -> None:
    assert DatabaseUrl("postgres://h/x") == DatabaseUrl("postgresql://h/x")
    assert DatabaseUrl("postgresql://u:@/postgres?host=/run/pg").reveal() == "postgresql://u:@/postgres?host=/run/pg"


def test_a_relative_file_is_relative_to_where_the_command_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert DatabaseUrl("sqlite:///a b/x.db").reveal() == f"sqlite:///{tmp_path}/a b/x.db"


def test_the_default_folder_is_made_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "share" / "heartlane"
    monkeypatch.setattr("heartlane.server.settings.default_database_path", lambda: folder / "heartlane.sqlite3")
    Settings().database.prepare_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    Settings().database.prepare_folder()


def test_no_other_folder_is_made(tmp_path: Path) -> None:
    for wrong in (tmp_path / "none" / "x.db", tmp_path):
        with pytest.raises(SettingsError):
            DatabaseUrl(f"sqlite:///{wrong}").prepare_folder()
    DatabaseUrl(f"sqlite:///{tmp_path}/x.db").prepare_folder()
    assert list(tmp_path.iterdir()) == []
