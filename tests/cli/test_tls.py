"""A server that speaks TLS by itself, with a certificate of the test's own authority, and those who call it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from heartlane import Client
from tests.authority import Authority
from tests.cli.command import Served, assert_one_line, heartlane, here, served, stop


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tls')}/heartlane.db"


@pytest.fixture(scope="module")
def token(database: str) -> str:
    return heartlane("token", "create", "me", "--scope", "admin", HEARTLANE_DATABASE=database).out.strip()


@pytest.fixture(scope="module")
def server(
    authority: Authority, database: str, token: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    given = authority.give()
    flags = ("--tls-cert", str(given.cert), "--tls-key", str(given.key))
    with served(database, tmp_path_factory.mktemp("log"), *flags) as server:
        assert server.url.startswith("https://")
        yield server
        assert stop(server) == 0


@pytest.fixture
def browser(server: Served, authority: Authority) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=authority.cert)
    with httpx.Client(base_url=server.url, verify=trust, timeout=20) as client:
        yield client


def test_every_answer_says_that_browsers_come_by_tls_alone(browser: httpx.Client, token: str) -> None:
    sent = {"Authorization": f"Bearer {token}"}
    answers = [browser.get(path) for path in ("/", "/login", "/docs", "/healthz", "/api/me", "/nowhere")]
    answers.append(browser.post("/api/agents/runs/claim", json={"worker_id": "w"}, headers=sent))
    answers.append(browser.post("/api/agents/runs/claim", json={}))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 401, 404, 200, 401]
    for answer in answers:
        assert answer.headers["strict-transport-security"] == "max-age=15552000", answer.url


def test_a_browsers_cookie_is_sent_by_tls_alone(browser: httpx.Client, server: Served, token: str) -> None:
    answer = browser.post("/login", data={"token": token}, headers={"Origin": server.url})
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-heartlane-")
    assert {"Secure", "HttpOnly", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "domain" not in cookie.lower()
    assert browser.get("/api/me").json()["me"]["session"] is not None


def test_who_trusts_the_authority_gets_in_and_nobody_else(server: Served, authority: Authority, token: str) -> None:
    known = {"HEARTLANE_URL": server.url, "HEARTLANE_TOKEN": token}
    ended = here("projects", "list", SSL_CERT_FILE=str(authority.cert), **known)
    assert ended.code == 0, ended
    assert "certificate" in assert_one_line(here("projects", "list", **known), 13)
    with Client(server.url, token, verify=authority.cert) as client:
        assert client.me().name == "me"
    found = here("doctor", "--json", SSL_CERT_FILE=str(authority.cert), **known)
    assert "no secure connection" not in found.out + found.err


def test_neither_plain_http_nor_an_older_tls_is_spoken(server: Served, authority: Authority) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20)
    old = ssl.create_default_context(cafile=authority.cert)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize(
    ("cert", "key", "code", "said"),
    [
        ("server.pem", None, 2, "HEARTLANE_TLS_KEY is missing"),
        (None, "server.key", 2, "HEARTLANE_TLS_CERT is missing"),
        ("none.pem", "server.key", 1, "Can't read the TLS certificate"),
        ("server.pem", "none.key", 1, "Can't read the TLS key"),
        ("server.pem", "other.key", 1, "another certificate's"),
        ("server.pem", "locked.key", 1, "locked with a password"),
        ("server.key", "server.key", 1, "Can't use the TLS certificate"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_one_line(
    cert: str | None, key: str | None, code: int, said: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    for name, password in (("server", None), ("other", None), ("locked", b"secret")):
        authority.give(name, password)
    flags = [] if cert is None else ["--tls-cert", str(tmp_path / cert)]
    flags += [] if key is None else ["--tls-key", str(tmp_path / key)]
    ended = here("serve", "--port", "0", "--database", f"sqlite:///{tmp_path}/x.db", *flags)
    assert ended.code == code, ended
    assert said in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
