"""Secrets out of events: by value, by name, by pattern, over the lines of a key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heartlane.wire.secrets import MASK
from heartlane.worker.redact import BadPattern, Redactor, is_secret_name, secret_values

TOKEN = "hlt_r3p0rt-token"
ENV = {
    "GITHUB_TOKEN": "gh-value-1234",
    "DB_PASSWORD": 'p4ss"word\\x',
    "CERT_KEY": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhk\nBAQEFAASCBKcwggSjA\n-----END PRIVATE KEY-----",
    "PATH": "/usr/bin:/bin",
    "MODEL": "not-a-secret-at-all",
}


def line(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "log_line", "payload": {"line": text, **more}, "at": "2026-01-02T03:04:05Z"}


def test_every_string_of_a_payload_is_masked_wherever_it_is_nested() -> None:
    redactor = Redactor(values=[TOKEN], env=ENV, patterns=[r"ACME-\d+"])
    secrets = [TOKEN, "gh-value-1234", 'p4ss"word\\x', "ACME-12345", "AKIAIOSFODNN7EXAMPLE"]
    payload = {
        "line": " ".join(secrets),
        "nested": [{"deep": {secret: [f"x {secret} y" for secret in secrets]}} for secret in secrets],
        "tuple": tuple(secrets),
        "json": json.dumps({"output": secrets}),
        "url": "https://x/?p=p4ss%22word%5Cx",
        "input_tokens": 12,
        "ok": True,
        "none": None,
    }
    event = {"type": "action", "payload": payload, "at": "2026-01-02T03:04:05Z"}
    masked = redactor.event(event)
    text = json.dumps(masked)
    for secret in secrets:
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text
        assert json.dumps(json.dumps(secret))[3:-3] not in text
    assert "p4ss%22" not in text
    assert MASK in text
    assert (masked["type"], masked["at"]) == ("action", "2026-01-02T03:04:05Z")
    assert (masked["payload"]["input_tokens"], masked["payload"]["ok"], masked["payload"]["none"]) == (12, True, None)
    assert payload["line"] == " ".join(secrets), "the event that was given was changed"


def test_what_stands_under_a_secrets_name_is_masked() -> None:
    payload = {"password": "x", "Authorization": "y", "token": 5, "secret": "", "args": {"TOKEN": "z"}, "key": "plain"}
    masked = Redactor().event({"type": "action", "payload": payload})["payload"]
    assert masked == {
        "password": MASK, "Authorization": MASK, "token": 5, "secret": "", "args": {"TOKEN": MASK}, "key": "plain",
    }  # fmt: skip


def test_an_event_without_a_payload_is_left_as_it_is() -> None:
    assert Redactor().event({"type": "heartbeat"}) == {"type": "heartbeat"}


def test_the_nesting_of_a_payload_is_no_way_around() -> None:
    payload: Any = "hlt_at-the-bottom"
    for _ in range(5_000):
        payload = [payload]
    assert "hlt_at" not in json.dumps(Redactor().event({"type": "action", "payload": {"x": payload}}))


@pytest.mark.parametrize(
    "name",
    ["GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "MYSQL_PWD", "PGPASSWORD", "DATABASE_URL", "my_apikey",
     "SENTRY_DSN", "HEARTLANE_TOKEN", "GH_PAT", "SSH_PASSPHRASE", "SESSION_COOKIE", "NPM_AUTH"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["PATH", "PWD", "OLDPWD", "SSH_AUTH_SOCK", "MAX_TOKENS", "TOKENIZERS_PARALLELISM", "KEYBOARD", "AUTHOR", "HOME",
     "COMPASS", "SECRETARY", "PATTERN"],
)  # fmt: skip
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


def test_values_that_cant_be_secrets_are_not_masked(tmp_path: Path) -> None:
    key_file = tmp_path / "key.json"
    key_file.touch()
    env = {
        "A_TOKEN": "short", "B_TOKEN": "1234567890", "C_TOKEN": "disabled", "D_TOKEN": "PostgreSQL", "E_TOKEN": "",
        "F_KEY": str(key_file), "G_KEY": str(tmp_path / "not-there"), "H_TOKEN": "real-1234", "I_PASSWORD": "justaword",
    }  # fmt: skip
    assert secret_values(env) == [str(tmp_path / "not-there"), "real-1234", "justaword"]


def test_a_private_key_that_comes_line_by_line_is_masked_to_its_end() -> None:
    redactor = Redactor()
    key = ["-----BEGIN RSA PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED", "", *["MIIEpAIBAAKCAQEA" * 4] * 10, "Zg=="]
    lines = ["before", *key, "-----END RSA PRIVATE KEY-----", "after it", "MIIEpAIBAAKCAQEA"]
    masked = [redactor.event(line(text))["payload"]["line"] for text in lines]
    assert masked[0] == "before"
    assert masked[1:-3] == ["-----BEGIN RSA PRIVATE KEY-----***", *[MASK] * (len(key) - 1)]
    assert masked[-3:] == [MASK, "after it", "MIIEpAIBAAKCAQEA"]


def test_a_key_is_followed_in_its_own_stream_and_not_beyond_what_a_key_can_be() -> None:
    redactor = Redactor()
    begin = "-----BEGIN PRIVATE KEY-----"
    redactor.event(line(begin, stream="stdout"))
    assert redactor.event(line("MIIE", stream="stderr"))["payload"]["line"] == "MIIE"
    assert redactor.event(line("MIIE", stream="stdout"))["payload"]["line"] == MASK
    assert redactor.event(line("no key, any more", stream="stdout"))["payload"]["line"] == "no key, any more"
    assert redactor.event(line("MIIE", stream="stdout"))["payload"]["line"] == "MIIE"
    redactor.event(line(begin))
    shown = [redactor.event(line("abcd"))["payload"]["line"] for _ in range(500)]
    assert shown.count(MASK) < 300
    assert shown[-1] == "abcd"


def test_a_multi_line_value_is_masked_line_by_line_too() -> None:
    redactor = Redactor(env=ENV)
    for text in ENV["CERT_KEY"].splitlines()[1:-1]:
        assert redactor.text(f"x {text} y") == f"x {MASK} y"


def test_a_pattern_that_is_none_is_one_clear_error() -> None:
    for pattern in ("(", "[a", "*"):
        with pytest.raises(BadPattern, match="not a regular expression"):
            Redactor(patterns=[pattern])
    with pytest.raises(BadPattern, match="everywhere"):
        Redactor(patterns=["x*"])
