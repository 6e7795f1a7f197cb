"""The doctor, on what really is amiss: servers of every kind, tokens, agents, repositories, disks, spools."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from heartlane.worker import control_groups
from heartlane.worker.doctor import Finding, Patient, examine
from heartlane.worker.places import places
from heartlane.worker.repository import Repository
from heartlane.worker.worktree import prepare
from tests.cli.command import Served, assert_one_line, environment, heartlane, served
from tests.worker.repositories import own_settings, repository, run_of, with_remote
from tests.worker.work_process import of_another_version

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""A certificate for localhost with its key, signed by itself: no machine trusts it."""


class Login(NamedTuple):
    check: Sequence[str] | None = None
    absent: str | None = None
    variables: Sequence[str] = ()
    cure: str = "Log in."


class Agent(NamedTuple):
    title: str = "Scribe"
    programs: Sequence[str] = ("scribe",)
    version: Sequence[str] | None = ("scribe", "--version")
    install: str = "Install Scribe."
    login: Login = Login()


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_settings(tmp_path, monkeypatch)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    with served(f"sqlite:///{folder / 'heartlane.sqlite3'}", folder) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(server: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    database = f"sqlite:///{server.log.parent / 'heartlane.sqlite3'}"
    made = {}
    for scope in ("viewer", "worker"):
        ended = heartlane("token", "create", scope, "--scope", scope, HEARTLANE_DATABASE=database)
        assert ended.code == 0, ended
        made[scope] = ended.out.strip()
    return made


def found(check: str, tmp_path: Path, now: float = 0.0, **patient: Any) -> Finding:
    """The last finding of a check; `now` seconds are added to the clock."""
    given = {"url": None, "token": None, "places": places(tmp_path / "state"), **patient}
    findings = [one for one in examine(Patient(**given), lambda: time.time() + now) if one.check == check]
    for finding in findings:
        assert finding.cure or finding.level == "ok", finding
        assert "hlt_" not in finding.says + finding.cure
    return findings[-1]


# --- the server ---------------------------------------------------------------------------------------------------


def test_a_server_that_is_well(server: Served, tokens: dict[str, str], tmp_path: Path) -> None:
    patient: dict[str, Any] = {"url": server.url, "token": tokens["worker"]}
    assert found("server", tmp_path, **patient).says.startswith(f"{server.url} is a Heartlane ")
    assert found("server", tmp_path, url=server.url + "/").level == "ok"
    assert found("token", tmp_path, **patient) == Finding("token", "ok", "it is valid, and may claim lanes")
    assert found("clock", tmp_path, **patient) == Finding("clock", "ok", "within 5 s of the server's")


@pytest.mark.parametrize(("seconds", "way"), [(3_600, "3,600 s ahead of"), (-60, "60 s behind")])
def test_a_clock_that_is_off_is_a_warning(seconds: float, way: str, server: Served, tmp_path: Path) -> None:
    finding = found("clock", tmp_path, seconds, url=server.url)
    assert finding.level == "warning"
    assert finding.says.startswith(way[: way.index(" s")][:2])
    assert way.partition(" s ")[2] in finding.says


def test_a_token_that_is_no_use(server: Served, tokens: dict[str, str], tmp_path: Path) -> None:
    def says(token: str | None) -> str:
        finding = found("token", tmp_path, url=server.url, token=token)
        assert finding.level == "problem"
        return finding.says

    assert says(None) == "HEARTLANE_TOKEN is not set"
    assert says("hlt_wrong").startswith("the server refuses it")
    assert "may not claim lanes" in says(tokens["viewer"])
    assert "a space, a line's end" in says(tokens["worker"] + "\n")


def test_no_server_at_all(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"http://127.0.0.1:{probe.getsockname()[1]}"
    finding = found("server", tmp_path, url=free)
    assert (finding.level, finding.says) == ("problem", f"{free} can't be reached: Connection refused")
    assert "heartlane serve" in finding.cure
    assert "can't be reached" in found("server", tmp_path, url="http://no-such-host.invalid").says
    assert found("server", tmp_path).says == "HEARTLANE_URL is not set"


@pytest.mark.parametrize(
    "url", ["lanes.example.com", "ftp://x", "http://", "http://x:port", "http://[", "x" * 70_000, "http:///x"]
)
def test_what_is_no_address(url: str, tmp_path: Path) -> None:
    finding = found("server", tmp_path, url=url)
    assert finding.level == "problem"
    assert finding.says == "HEARTLANE_URL is no address"


def test_a_password_in_the_address_is_not_shown(tmp_path: Path) -> None:
    assert "s3cret" not in found("server", tmp_path, url="http://me:s3cret@127.0.0.1:1").says


class Other(http.server.BaseHTTPRequestHandler):
    """Something that isn't Heartlane. What it answers stands in the server: status, headers, body."""

    def do_GET(self) -> None:
        status, headers, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def other_server(
    status: int, headers: dict[str, str], body: bytes, context: ssl.SSLContext | None = None
) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as serving:
        serving.answer = (status, headers, body)  # type: ignore[attr-defined]
        if context is not None:
            serving.socket = context.wrap_socket(serving.socket, server_side=True)
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{serving.server_address[1]}"
        finally:
            serving.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "headers", "body", "says"),
    [
        (200, {"Content-Type": "text/html; charset=utf-8"}, b"<h1>Hello</h1>", "/healthz answers 200, a web page"),
        (200, {"Content-Type": "application/json"}, b'{"status": "ok"}', "/healthz answers 200, application/json"),
        (404, {}, b"", "/healthz answers 404, nothing"),
        (301, {"Location": "https://lanes.example.com/healthz"}, b"", "on to https://lanes.example.com"),
        (401, {}, b"", "asks for a login of its own (status 401)"),
        (502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>", "/healthz answers 502, a web page"),
    ],
)
def test_something_else_at_the_address(
    status: int, headers: dict[str, str], body: bytes, says: str, tmp_path: Path
) -> None:
    with other_server(status, headers, body) as url:
        finding = found("server", tmp_path, url=url, token="hlt_secret")
    assert finding.level == "problem"
    assert says in finding.says


def test_a_server_whose_database_is_away(tmp_path: Path) -> None:
    with other_server(200, {}, b'{"status": "ok", "version": "9.9"}') as url:
        assert found("server", tmp_path, url=url).level == "ok"

    class NotReady(Other):
        def do_GET(self) -> None:
            self.server.answer = (200 if self.path == "/healthz" else 503, {}, b'{"status": "ok", "version": "9.9"}')  # type: ignore[attr-defined]
            super().do_GET()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "Other", NotReady)
        with other_server(200, {}, b"") as url:
            assert "its database does not answer" in found("server", tmp_path, url=url).says


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with other_server(200, {}, b"", context) as url:
        finding = found("server", tmp_path, url=url)
    assert finding.says.startswith(f"no secure connection to {url}")
    assert "SSL_CERT_FILE" in finding.cure


def test_a_server_that_does_not_speak_tls(server: Served, tmp_path: Path) -> None:
    finding = found("server", tmp_path, url=server.url.replace("http:", "https:"))
    assert finding.says.startswith("no secure connection to")
    assert "http:// instead of https://" in finding.cure


# --- the agent ----------------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in PATH for programs of the test's."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    (folder / name).chmod(0o755)


def test_an_agent_that_is_not_here(tmp_path: Path) -> None:
    agent = Agent(programs=("scribe", "scribe-cli"))
    assert found("agent", tmp_path, agent=agent) == Finding(
        "agent", "problem", "Scribe is not here: scribe or scribe-cli is not in PATH", "Install Scribe."
    )


def test_an_agent_that_is_here(programs: Path, tmp_path: Path) -> None:
    program(programs, "scribe", 'echo "scribe 1.2  (x)"')
    assert found("agent", tmp_path, agent=Agent()).says == f"Scribe is {programs / 'scribe'}, version scribe 1.2 (x)"
    assert "can't be told" in found("login", tmp_path, agent=Agent()).says
    program(programs, "scribe", "echo no node >&2; exit 3")
    assert "but it fails: no node" in found("agent", tmp_path, agent=Agent()).says
    assert found("agent", tmp_path, agent=Agent(programs=(), version=None)).level == "ok"


def test_whether_an_agent_is_logged_in(programs: Path, tmp_path: Path) -> None:
    program(programs, "scribe", '[ "$1" = --version ] || { echo "Not logged in."; exit "$CODE"; }')
    asks = Login(check=("scribe", "status"), variables=("SCRIBE_KEY",))

    def level(login: Login, code: int, **environment: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CODE", str(code))
            return found("login", tmp_path, agent=Agent(login=login), environment=environment).level

    assert level(asks, 0) == "ok"
    assert level(asks, 1) == "problem"
    assert level(asks._replace(absent="Not logged in"), 0) == "problem"
    assert level(asks, 1, SCRIBE_KEY="x") == "ok"
    assert level(asks._replace(check=("no-such-program",)), 0) == "warning"


# --- git ----------------------------------------------------------------------------------------------------------


def test_a_repository_that_is_well(tmp_path: Path) -> None:
    repo, _ = with_remote(tmp_path)
    state = places(tmp_path / "state")
    prepare(Repository.open(repo), run_of(), root=state.worktrees).close()
    assert found("worktree", tmp_path, repository=repo).says.endswith("; worktrees of lanes there already: 1")
    assert found("remote", tmp_path, repository=repo) == Finding("remote", "ok", "origin answers")


def test_a_repository_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("worktree", tmp_path, repository=tmp_path).level == "problem"
    repo, origin = with_remote(tmp_path)
    shutil.rmtree(origin)
    assert found("remote", tmp_path, repository=repo).level == "warning"
    assert "has no remote" in found("remote", tmp_path, repository=repository(tmp_path / "alone")).says
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found("git", tmp_path, repository=repo).level == "problem"
    assert found("git", tmp_path).level == "warning"


def test_gh_that_is_not_logged_in_is_only_a_warning(programs: Path, tmp_path: Path) -> None:
    repo, _ = with_remote(tmp_path)
    program(programs, "gh", "exit 1")
    assert found("gh", tmp_path, repository=repo).level == "warning"
    program(programs, "gh", "exit 0")
    assert found("gh", tmp_path, repository=repo).level == "ok"


# --- the disk -----------------------------------------------------------------------------------------------------


def test_a_state_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    assert found("state", tmp_path) == Finding("state", "ok", f"{tmp_path / 'state'} can be written")
    assert not (tmp_path / "state").exists()


def test_a_state_folder_that_can_not(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("", "utf-8")
    assert "can't be written" in found("state", tmp_path).says


@pytest.mark.parametrize(
    ("free", "files", "level"),
    [(2**40, 10**6, "ok"), (2**29, 10**6, "warning"), (2**20, 10**6, "problem"), (2**40, 10, "problem")],
)
def test_a_disk_that_is_nearly_full(
    free: int, files: int, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Room(NamedTuple):
        f_bavail: int = free // 4096
        f_frsize: int = 4096
        f_files: int = 10**6
        f_favail: int = files

    monkeypatch.setattr("heartlane.worker.doctor.machine.os.statvfs", lambda _: Room())
    assert found("disk", tmp_path).level == level


def test_events_that_nobody_sends(tmp_path: Path) -> None:
    spool = tmp_path / "state" / "spool"
    for name in ("one", "two", "empty", "busy"):
        (spool / name).mkdir(parents=True)
        (spool / name / "lock").touch()
        (spool / name / "00000001.log").write_text("" if name == "empty" else "E …\n", "utf-8")
    with (spool / "busy" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finding = found("spool", tmp_path)
    assert (finding.level, finding.says) == ("warning", f"2 lanes have events in {spool} that no worker is sending")
    assert "heartlane spool flush" in finding.cure
    shutil.rmtree(spool)
    of_another_version(spool / "newer")
    finding = found("spool", tmp_path)
    assert finding.level == "warning"
    assert finding.says.startswith("another version of Heartlane wrote newer in ")
    assert "of that version" in finding.cure
    shutil.rmtree(spool)
    assert found("spool", tmp_path) == Finding("spool", "ok", "nothing is left to send")


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_says_it_all(server: Served, tokens: dict[str, str], tmp_path: Path) -> None:
    well = heartlane("doctor", "--state", str(tmp_path), HEARTLANE_URL=server.url, HEARTLANE_TOKEN=tokens["worker"])
    assert well.code == 0, well
    assert well.err == ""
    assert [line.split()[:2] for line in well.out.splitlines()] == [
        *(["ok", check] for check in ("server", "clock", "token", "git", "state", "disk", "group", "spool")),
        ["no", "problems,"],
    ]


def test_the_command_ends_with_1_when_something_is_missing(server: Served, tmp_path: Path) -> None:
    ill = heartlane("doctor", "--json", "--url", server.url, "--worktree", str(tmp_path), HEARTLANE_STATE=str(tmp_path))
    assert (ill.code, ill.err) == (1, "")
    answer = json.loads(ill.out)
    assert answer["ok"] is False
    problems = [finding["check"] for finding in answer["findings"] if finding["level"] == "problem"]
    assert problems == ["token", "worktree"]
    assert all(set(finding) == {"check", "level", "says", "cure"} for finding in answer["findings"])


@pytest.mark.parametrize(("logged_in", "code"), [("0", 0), ("1", 1)])
def test_the_command_knows_the_agents(
    *,
    logged_in: str,
    code: int,
    server: Served,
    tokens: dict[str, str],
    programs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    program(programs, "claude", f'[ "$1" = auth ] && exit {logged_in}; echo "2.1.74 (Claude Code)"')
    asked = heartlane(
        *("doctor", "--agent", "claude", "--url", server.url, "--state", str(tmp_path)),
        HEARTLANE_TOKEN=tokens["worker"],
    )
    assert asked.code == code, asked
    assert f"Claude Code is {programs / 'claude'}, version 2.1.74 (Claude Code)" in asked.out
    assert ("Claude Code is not logged in" in asked.out) == bool(code)


def test_an_agent_that_nobody_knows_is_one_line() -> None:
    assert "there is no agent 'nobody'" in assert_one_line(heartlane("doctor", "--agent", "nobody"), 2)


def test_the_command_needs_none_of_the_servers_libraries(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('sqlalchemy', 'alembic', 'fastapi', 'starlette', 'orjson', 'jiter', 'structlog', 'limits'):\n"
        "    sys.modules[name] = None\n"
        "from heartlane.cli.main import run; sys.exit(run(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, "doctor", "--state", str(tmp_path), "--json"]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == ""
    assert json.loads(ended.stdout)["findings"][0]["check"] == "server"


def test_how_commands_are_held_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    why_not = control_groups.try_out()
    finding = found("group", tmp_path)
    assert finding.level == "ok"
    if why_not is None:
        assert finding.says == "commands run in control groups of their own"
    else:
        assert why_not in finding.says
    monkeypatch.setattr(control_groups, "_OWN", os.devnull)
    finding = found("group", tmp_path)
    assert (finding.level, "without a control group" in finding.says) == ("ok", True)
    assert "there is no cgroup v2 here" in finding.says
