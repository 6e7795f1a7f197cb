"""`heartlane serve`: its flags are the settings, and what is wrong with them is one line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest

from heartlane.cli.main import run
from heartlane.cli.serve import flag_of
from heartlane.server import serve
from heartlane.server.settings import Settings
from tests.cli.command import assert_one_line, heartlane, here, served, stop

VALUES = {
    "database": "sqlite:///{folder}/x.db",
    "host": "::1",
    "port": "0",
    "tls_cert": "{folder}/x.pem",
    "tls_key": "{folder}/x.key",
    "processes": "2",
    "rate_limits": "report=6000/minute",
    "trusted_proxies": "10.0.0.0/8",
    "max_body_bytes": "1000000",
    "ledger_queue_limit": "100",
    "pool_size": "3",
    "streams_max": "100",
    "streams_each_max": "10",
    "github_webhook_secret": "a-webhook-secret-of-enough-letters",
    "github_token": "ghp_0123456789abcdefghij",
    "github_api_url": "https://github.example.com/api/v3",
    "take_back_seconds": "0.25",
    "public_url": "https://lanes.example.com",
    "allowed_hosts": "lanes.example.com",
    "session_seconds": "3600",
    "session_idle_seconds": "600",
    "secret_key": "3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs=",
    "webhooks_allow": "10.20.0.0/16",
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
    monkeypatch.setattr(serve, "run", lambda settings, pages: served.append(settings))
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
    line = assert_one_line(here("serve", *arguments, **variables), 2)
    assert said in line
    assert "s3cret" not in line


def test_a_database_that_is_away_is_one_line() -> None:
    ended = heartlane("serve", "--port", "0", HEARTLANE_DATABASE="postgresql://me:s3cret-word@127.0.0.1:1/x")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert "s3cret" not in ended.err


# --- a server that runs -------------------------------------------------------------------------------------------


def test_a_token_opens_a_running_server_until_it_is_revoked(database_url: str, tmp_path: Path) -> None:
    with served(database_url, tmp_path, "--log-level", "debug") as server:
        # Made while the server runs, as an operator would.
        made = heartlane("token", "create", "ci", "--scope", "worker", HEARTLANE_DATABASE=database_url)
        secret = made.out.strip()
        sent = {"Authorization": f"Bearer {secret}", "X-Request-Id": "from-the-test"}
        with httpx.Client(base_url=server.url, headers=sent) as client:
            read = client.get("/api/agents/runs")
            assert (read.status_code, read.headers["x-request-id"]) == (200, "from-the-test")
            claim = client.post("/api/agents/runs/claim", json={"worker_id": "w"})
            assert (claim.status_code, claim.json()["run"]) == (200, None)

            rotated = heartlane("token", "rotate", "ci", HEARTLANE_DATABASE=database_url)
            until = time.monotonic() + 2
            while (answer := client.get("/api/agents/runs")).status_code == 200 and time.monotonic() < until:
                time.sleep(0.02)
            assert (answer.status_code, answer.json()["code"]) == (401, "TOKEN_REVOKED")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert client.post("/api/agents/runs/claim", json={"worker_id": "w"}).json()["code"] == "TOKEN_REVOKED"
            again = {"Authorization": f"Bearer {rotated.out.strip()}"}
            assert client.get("/api/agents/runs", headers=again).status_code == 200
        assert stop(server) == 0
        log = server.log.read_text("utf-8")
    lines = [json.loads(line) for line in log.splitlines()]
    assert next(line["status"] for line in lines if line.get("request_id") == "from-the-test") == 200
    assert "Bearer" not in log
    assert "hlt_" not in log


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with served(f"sqlite:///{tmp_path}/x.db", tmp_path) as server:
        port = server.url.rpartition(":")[2]
        ended = heartlane("serve", "--port", port, HEARTLANE_DATABASE=f"sqlite:///{tmp_path}/y.db")
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert last.startswith("heartlane: ")
    assert port in last
    assert "Traceback" not in ended.err


def test_limits_and_proxies_are_what_the_flags_say(tmp_path: Path) -> None:
    flags = ["--rate-limits", "default=2/minute", "--trusted-proxies", "127.0.0.1"]
    with served(f"sqlite:///{tmp_path}/x.db", tmp_path, *flags) as server:
        for address in ("192.0.2.1", "192.0.2.2"):
            answers = [httpx.get(f"{server.url}/api/projects", headers={"X-Forwarded-For": address}) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [401, 401, 429]
            assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
            assert 1 <= answers[2].json()["retryAfter"] <= 60
            assert 1 <= int(answers[2].headers["retry-after"]) <= 60


def test_a_postgresql_url_may_say_how_to_connect(postgres_database_url: str, tmp_path: Path) -> None:
    more = "&" if "?" in postgres_database_url else "?"
    with served(f"{postgres_database_url}{more}sslmode=prefer&target_session_attrs=read-write", tmp_path) as server:
        assert httpx.get(f"{server.url}/readyz", timeout=10).status_code == 200
        assert stop(server) == 0
    for wrong in ("sslmode=nonsense", "no_such_parameter=1"):
        line = assert_one_line(heartlane("serve", "--database", f"{postgres_database_url}{more}{wrong}"), 1)
        assert wrong.split("=", maxsplit=1)[0] in line
