"""`heartlane login`, `logout`, `sessions` and `audit`, as processes of their own, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from heartlane.cli import complete
from heartlane.cli.errors import CODE_OF
from tests.cli.command import Ended, assert_one_line, environment, heartlane, here, served

NOT_FOUND = CODE_OF["not_found"]
BACKEND = "tests.cli.keyring_backend.FileKeyring"


class Server(NamedTuple):
    """A running server, and tokens of an admin and a viewer of it."""

    url: str
    database: str
    admin: str
    viewer: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    database = f"sqlite:///{folder / 'heartlane.db'}"

    def make(name: str, scope: str) -> str:
        ended = here("token", "create", name, "--scope", scope, HEARTLANE_DATABASE=database)
        assert ended.code == 0, ended
        return ended.out.strip()

    admin, viewer = make("anna", "admin"), make("ben", "viewer")
    with served(database, folder) as running:
        yield Server(running.url, database, admin, viewer)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


def login(server: Server, config: Path, token: str, *flags: str, **variables: str) -> Ended:
    variables["XDG_CONFIG_HOME"] = str(config)
    return heartlane("login", "--url", server.url, *flags, cwd=None, typed=f"{token}\n", **variables)


def alone(*arguments: str, **variables: str) -> Ended:
    """Run it as a process of its own, for what this one would remember or has no terminal for."""
    return heartlane(*arguments, cwd=None, typed="", **variables)


def kept(config: Path) -> Path:
    return config / "heartlane" / "logins.json"


def log_in_by(link: str) -> int:
    """What the page's form does with a link; the status."""
    page, _, fragment = link.partition("#")
    origin = page.removesuffix("/login")
    answer = httpx.post(page, data={"token": fragment.removeprefix("link=")}, headers={"origin": origin})
    return answer.status_code


def test_a_login_is_kept_for_all_that_follows(server: Server, config: Path) -> None:
    ended = login(server, config, server.admin)
    assert ended.code == 0, ended
    assert ended.out == ""
    assert "'anna' (scope admin)" in ended.err
    assert str(kept(config)) in ended.err
    assert server.admin not in ended.err
    assert kept(config).stat().st_mode & 0o777 == 0o600
    assert kept(config).parent.stat().st_mode & 0o777 == 0o700
    listed = here("sessions", "list", "--json", XDG_CONFIG_HOME=str(config))
    assert json.loads(listed.out)["sessions"] == []

    forgotten = here("logout", XDG_CONFIG_HOME=str(config))
    assert (forgotten.code, forgotten.out) == (0, "")
    assert server.admin not in kept(config).read_text()
    assert "No server is named" in assert_one_line(here("sessions", "list", XDG_CONFIG_HOME=str(config)), 2)
    again = here("logout", "--url", server.url, XDG_CONFIG_HOME=str(config))
    assert "no token is kept" in assert_one_line(again, 2)


def test_a_token_that_is_no_good_is_not_kept(server: Server, config: Path) -> None:
    bad = f"{server.admin[:-1]}{'A' if server.admin[-1] != 'A' else 'B'}"
    line = assert_one_line(login(server, config, bad), 11)
    assert bad not in line
    assert "there is no token" in assert_one_line(login(server, config, ""), 2)
    assert not kept(config).exists()


def test_the_environment_goes_first_and_no_server_gets_anothers_token(server: Server, config: Path) -> None:
    login(server, config, server.admin)
    away = {"XDG_CONFIG_HOME": str(config), "HEARTLANE_URL": "http://127.0.0.1:9"}
    assert "There is no token" in assert_one_line(here("sessions", "list", **away), 2)
    as_ben = here("audit", XDG_CONFIG_HOME=str(config), HEARTLANE_TOKEN=server.viewer)
    assert "scope operator" in as_ben.err
    spelled = {"XDG_CONFIG_HOME": str(config), "HEARTLANE_URL": f"{server.url.upper()}/api/"}
    assert here("sessions", "list", **spelled).code == 0
    warned = login(server, config, server.viewer, HEARTLANE_TOKEN=server.admin)
    assert "HEARTLANE_TOKEN is set" in warned.err
    assert "'ben'" in warned.err


def test_a_file_that_others_may_read_or_that_is_broken_is_not_used(server: Server, config: Path) -> None:
    login(server, config, server.admin)
    kept(config).chmod(0o644)
    assert "chmod 600" in assert_one_line(here("sessions", "list", XDG_CONFIG_HOME=str(config)), 2)
    kept(config).chmod(0o600)
    kept(config).write_text("{")
    assert "log in again" in assert_one_line(here("sessions", "list", XDG_CONFIG_HOME=str(config)), 2)
    assert here("sessions", "list", HEARTLANE_URL=server.url, HEARTLANE_TOKEN=server.admin).code == 0


def test_a_keyring_keeps_the_token_where_there_is_one(server: Server, config: Path, tmp_path: Path) -> None:
    ring = {"PYTHON_KEYRING_BACKEND": BACKEND, "KEYRING_FILE": str(tmp_path / "ring")}
    assert "the system's keyring" in login(server, config, server.admin, **ring).err
    assert server.admin not in kept(config).read_text()
    variables = {"XDG_CONFIG_HOME": str(config), **ring}
    assert alone("sessions", "list", **variables).code == 0
    locked = alone("sessions", "list", **variables, KEYRING_LOCKED="1")
    assert "keyring" in assert_one_line(locked, 2)
    assert alone("logout", **variables).code == 0
    assert json.loads((tmp_path / "ring").read_text()) == {}
    # One that takes nothing, and one that isn't wanted.
    assert str(kept(config)) in login(server, config, server.admin, KEYRING_LOCKED="1", **ring).err
    assert str(kept(config)) in login(server, config, server.admin, "--no-keyring", **ring).err


def test_a_printed_link_stands_alone_and_logs_in_once(server: Server) -> None:
    ended = here("login", "--print", HEARTLANE_URL=server.url, HEARTLANE_TOKEN=server.viewer)
    assert (ended.code, ended.err) == (0, "")
    (link,) = ended.out.splitlines()
    assert link.startswith(f"{server.url}/login#link=hll_")
    assert [log_in_by(link), log_in_by(link)] == [303, 401]
    variables = {"HEARTLANE_URL": server.url, "HEARTLANE_TOKEN": server.viewer}
    as_json = json.loads(here("login", "--print", "--json", **variables).out)["login_link"]
    assert log_in_by(as_json["url"]) == 303


def test_programs_log_in_and_out_in_json(server: Server, config: Path) -> None:
    kept_in = json.loads(login(server, config, server.admin, "--json").out)["login"]
    assert (kept_in["url"], kept_in["name"], kept_in["scope"]) == (server.url, "anna", "admin")
    assert server.admin not in json.dumps(kept_in)
    assert json.loads(here("logout", "--json", XDG_CONFIG_HOME=str(config)).out) == {"login": {"url": server.url}}


def test_a_browser_is_opened_with_the_link(server: Server, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > "{opened}"\n')
    program.chmod(0o755)
    variables = {"HEARTLANE_URL": server.url, "HEARTLANE_TOKEN": server.viewer}
    ended = alone("login", "--browser", BROWSER=str(program), **variables)
    assert (ended.code, ended.out) == (0, ""), ended
    assert log_in_by(opened.read_text()) == 303
    nowhere = alone("login", "--browser", BROWSER="/nowhere", PATH="/nowhere", DISPLAY="", **variables)
    assert log_in_by(nowhere.out.strip()) == 303


def test_sessions_are_seen_and_ended(server: Server) -> None:
    variables = {"HEARTLANE_URL": server.url, "HEARTLANE_TOKEN": server.admin}
    link = here("login", "--print", **variables).out.strip()
    assert log_in_by(link) == 303
    newest = json.loads(here("sessions", "list", "--json", **variables).out)["sessions"][0]
    table = here("sessions", "list", **variables).out
    assert newest["id"][-8:] in table
    assert "anna" in table
    ended = here("sessions", "revoke", newest["id"][-8:], **variables)
    assert (ended.code, ended.out) == (0, "")
    assert "revoked" in ended.err
    again = json.loads(here("sessions", "revoke", newest["id"], "--json", **variables).out)["session"]
    assert (again["id"], again["end_reason"]) == (newest["id"], "revoked")
    assert newest["id"] not in here("sessions", "list", "--json", **variables).out
    assert newest["id"] in here("sessions", "list", "--over", "--json", **variables).out
    assert "there is no session" in assert_one_line(here("sessions", "revoke", "0000000000", **variables), NOT_FOUND)


# --- the audit log ------------------------------------------------------------------------------------------------


def act(server: Server, name: str) -> None:
    answer = httpx.post(
        f"{server.url}/api/projects", json={"name": name}, headers={"authorization": f"Bearer {server.admin}"}
    )
    assert answer.status_code == 201


def test_what_was_done_is_read_and_exported(server: Server) -> None:
    act(server, "Shop\x1b[2J")
    variables = {"HEARTLANE_URL": server.url, "HEARTLANE_TOKEN": server.admin}
    table = here("audit", "--action", "project", **variables)
    assert table.code == 0, table
    assert "project.created" in table.out
    assert "\x1b" not in table.out
    shown = json.loads(here("audit", "--by", "anna", "--since", "1h", "--limit", "1", "--json", **variables).out)
    assert [entry["actor_name"] for entry in shown["entries"]] == ["anna"]
    lines = [json.loads(line) for line in here("audit", "export", **variables).out.splitlines()]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert lines[0]["action"] == "token.created"
    assert lines[-1]["action"] == "project.created"
    none = here("audit", "export", "--until", "2001-01-01", **variables)
    assert (none.code, none.out) == (0, "")
    assert "--since must be" in assert_one_line(here("audit", "--since", "yesterday", **variables), 2)
    assert here("audit", HEARTLANE_URL=server.url, HEARTLANE_TOKEN=server.viewer).code not in (0, 1)


def test_whoever_follows_sees_what_is_done_next(server: Server) -> None:
    act(server, "Before")
    command = [sys.executable, "-m", "heartlane", "audit", "--follow", "--limit", "1", "--json", "--action", "project"]
    variables = environment(HEARTLANE_URL=server.url, HEARTLANE_TOKEN=server.admin)
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout is not None
            assert json.loads(follower.stdout.readline())["object_name"] == "Before"
            for name in ("First", "Second"):
                act(server, name)
            began = time.monotonic()
            found = [json.loads(follower.stdout.readline())["object_name"] for _ in range(2)]
            assert found == ["First", "Second"]
            assert time.monotonic() - began < 30
        finally:
            follower.terminate()


def test_names_are_completed_by_what_is_kept(server: Server, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act(server, "Completed")
    login(server, config, server.admin)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    for name in ("HEARTLANE_URL", "HEARTLANE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert "Completed" in complete.project_names("Comp")
