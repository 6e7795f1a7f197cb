"""The clients themselves: what they make again, what they keep to themselves, and what they say when it can't be."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import heartlane
from heartlane.client import (
    AsyncClient,
    BadAnswer,
    Client,
    HeartlaneError,
    NotConfigured,
    RetryPolicy,
    Unreachable,
    calls,
)
from heartlane.client.call import Call
from heartlane.client.errors import NotFound, RateLimited, TokenRevoked
from heartlane.client.settings import Secret
from tests.client.faults import (
    client_on,
    drop_answer,
    drop_before_it_is_done,
    drop_request,
    faulty,
    hang,
    page,
    says,
    secret_of,
)
from tests.harness import Harness

TOKEN = "hlt_thisIsTheSecretThatNobodySees0123456789"
LOOPBACK = Path(__file__).with_name("loopback.pem")
"""A certificate for 127.0.0.1 that signs itself, with its key: for these tests alone."""
QUICK = RetryPolicy(tries=4, first_seconds=0.001, longest_seconds=0.002)
"""Tries as often as any, and hardly waits."""

FAULTS = {
    "no connection": drop_request,
    "cut off on the way": drop_before_it_is_done,
    "answer lost": drop_answer,
    "502 page": page(502),
    "503": says(503, "UNAVAILABLE", retryAfter=0.001),
    "429": says(429, "RATE_LIMITED", retryAfter=0.001),
    "200 page": page(200, "<html>Welcome to the airport</html>"),
    "404 page": page(404, "<html>No such page</html>"),
}


# --- made again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_what_may_be_repeated_is(harness: Harness, fault: Any) -> None:
    (run,) = await harness.approved(1)
    await harness.claim(run["id"])
    transport = faulty(harness)
    async with client_on(harness, transport, retry=QUICK) as client:
        transport.next("GET /api/agents/runs", fault, fault, fault)
        assert (await client.read_run(run["id"])).state == "claimed"
        transport.next("/events", fault, fault)
        event = {"type": "action", "payload": {"n": 1}}
        answer = await client.report(run["id"], "w1", attempt=1, seq=1, events=[event])
        assert answer.run.event_count == 2
        transport.next("/pause", fault)
        assert (await client.pause_run(run["id"])).state == "paused"
        transport.next("/claim", fault)
        claimed = await client.claim_run(run["id"], "w1")
        assert claimed.run is not None
        assert claimed.run.attempt == 1
    assert transport.left == 0
    assert [event["type"] for event in await harness.events(run["id"])] == ["claimed", "action", "paused"]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_what_may_not_be_repeated_is_done_once_at_most(harness: Harness, fault: Any) -> None:
    transport = faulty(harness)
    async with client_on(harness, transport, retry=QUICK) as client:
        transport.next("POST /api/projects", fault)
        if fault in (drop_request, FAULTS["429"]):
            await client.create_project("Once")
            assert transport.count("POST /api/projects") == 2
        else:
            with pytest.raises(HeartlaneError):
                await client.create_project("Once")
            assert transport.count("POST /api/projects") == 1
        made = [project async for project in client.projects()]
        assert len(made) == (1 if fault in (drop_request, drop_answer, FAULTS["429"]) else 0)


async def test_it_gives_up_and_says_why(harness: Harness) -> None:
    transport = faulty(harness)
    async with client_on(harness, transport, retry=QUICK) as client:
        transport.always("/healthz", drop_request)
        with pytest.raises(Unreachable, match=r"No answer from http://heartlane\.test: All connection attempts failed"):
            await client.health()
        assert transport.count("/healthz") == QUICK.tries
        transport.always("/readyz", says(429, "RATE_LIMITED", retryAfter=3600))
        with pytest.raises(RateLimited) as limited:
            await client.ready()
        assert limited.value.retry_after == 3600
        assert transport.count("/readyz") == 1


async def test_an_answer_that_never_comes(harness: Harness) -> None:
    transport = faulty(harness)
    transport.always("/healthz", hang)
    async with client_on(harness, transport) as client:
        with pytest.raises(Unreachable, match=r"within 0\.05 s") as unreachable:
            await client.send_once(calls.health(), seconds=0.05)
        assert unreachable.value.sent


async def test_a_proxys_word_on_when_to_come_back_is_heeded(harness: Harness) -> None:
    transport = faulty(harness)
    transport.next("/healthz", page(503, "<html>Busy</html>", **{"retry-after": "1"}))
    async with client_on(harness, transport, retry=RetryPolicy(first_seconds=0.001)) as client:
        began = time.monotonic()
        await client.health()
        assert time.monotonic() - began >= 1


# --- what nobody sees ----------------------------------------------------------------------------------------------


async def test_the_token_is_nowhere(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    token = secret_of(harness.admin)
    caplog.set_level(logging.DEBUG)
    transport = faulty(harness)
    seen: list[str] = []
    async with client_on(harness, transport, retry=QUICK) as client:
        seen += [repr(client), str(client), repr(vars(client))]
        transport.always("/healthz", page(502, f"<html>You sent {token}</html>"))
        transport.always("/readyz", drop_request)
        asked: list[Call[Any]] = [calls.health(), calls.ready(), calls.read_run("x")]
        for call in asked:
            with pytest.raises(HeartlaneError) as failed:
                await client.send(call)
            error = failed.value
            seen += [str(error), repr(error), repr(vars(error)), repr(error.__cause__)]
    assert len(caplog.records) > 0
    assert not any(token in text for text in [*seen, caplog.text, *(repr(vars(each)) for each in caplog.records)])


def test_a_secret_shows_itself_in_no_way() -> None:
    secret = Secret(TOKEN)
    assert TOKEN not in f"{secret!r} {secret!s} {secret}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)


# --- where and who -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No server and no token are named outside of the test."""
    for variable in ("HEARTLANE_URL", "HEARTLANE_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def test_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HEARTLANE_URL", "https://lanes.example:8443/base/")
    environment.setenv("HEARTLANE_TOKEN", f" {TOKEN}\n")
    with heartlane.Client() as client:
        assert client.url == "https://lanes.example:8443/base"
    with heartlane.Client("http://other.example/api/") as client:
        assert client.url == "http://other.example"


@pytest.mark.parametrize(
    "url",
    ["", "  ", "lanes.example", "ftp://x", "http://", "http://x:y", "http://x:99999", "http://x/?q=1", "http://x y"],
)
def test_a_bad_address(url: str) -> None:
    with pytest.raises(NotConfigured) as wrong:
        Client(url, TOKEN)
    assert len(str(wrong.value).splitlines()) == 1


def test_a_password_in_the_address_is_not_repeated() -> None:
    with pytest.raises(NotConfigured) as wrong:
        Client("http://me:geheim@lanes.example", TOKEN)
    assert "geheim" not in str(wrong.value)


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "tökèn", "x" * 501, "a\0"])
def test_a_bad_token(token: str) -> None:
    with pytest.raises(NotConfigured) as wrong:
        Client("http://x", token)
    assert token.strip() == "" or token not in str(wrong.value)


def test_ones_own_certificates(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path in (empty, tmp_path / "none.pem"):
        with pytest.raises(NotConfigured, match=path.name):
            Client("https://x", TOKEN, verify=path)
    for verify in (LOOPBACK, tmp_path, ssl.create_default_context(), False):
        Client("https://x", TOKEN, verify=verify).close()


# --- real sockets --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(answer: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Something on a socket that says the same to everybody and hangs up: where it is."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.settimeout(2)
                    with contextlib.suppress(OSError), connection:
                        secured = connection if tls is None else tls.wrap_socket(connection, server_side=True)
                        with secured:
                            secured.recv(65_536)
                            secured.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


ONCE = RetryPolicy(tries=1)


@pytest.mark.parametrize(
    ("answer", "kind", "sent"),
    [
        (b"", Unreachable, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", Unreachable, True),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unreachable, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", BadAnswer, None),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope", Unreachable, True),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\n<html>bad", BadAnswer, None),
    ],
)
def test_what_is_no_server(answer: bytes, kind: type[HeartlaneError], sent: bool | None) -> None:
    with answering(answer) as place, Client(f"http://{place}", TOKEN, retry=ONCE, trust_env=False) as client:
        with pytest.raises(kind) as failed:
            client.health()
        assert getattr(failed.value, "sent", None) is sent
        assert TOKEN not in str(failed.value)


def test_a_server_that_speaks_no_tls() -> None:
    plain = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    with answering(plain) as place, Client(f"https://{place}", TOKEN, retry=ONCE, trust_env=False) as client:
        with pytest.raises(Unreachable) as failed:
            client.health()
        assert not failed.value.sent
        assert "SSL" in str(failed.value)


def test_a_certificate_of_ones_own() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(LOOPBACK)
    body = b'{"status":"ok","version":"1.0"}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    with answering(answer, tls) as place:
        url = f"https://{place}"
        for verify in (LOOPBACK, str(LOOPBACK), ssl.create_default_context(cafile=LOOPBACK), False):
            with Client(url, TOKEN, verify=verify, retry=ONCE, trust_env=False) as client:
                assert client.health().status == "ok"
        with Client(url, TOKEN, retry=ONCE, trust_env=False) as client:
            with pytest.raises(Unreachable, match="certificate") as failed:
                client.health()
            assert not failed.value.sent


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with Client(f"http://127.0.0.1:{free.getsockname()[1]}", TOKEN, retry=ONCE, trust_env=False) as client:
            with pytest.raises(Unreachable) as failed:
                client.health()
            assert not failed.value.sent


# --- the synchronous one -------------------------------------------------------------------------------------------


async def test_the_synchronous_client_is_the_same(harness: Harness) -> None:
    """The application runs on this event loop, the client on its own: what is between them is the transport."""
    loop = asyncio.get_running_loop()
    inner = faulty(harness)

    class AcrossThreads(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            future = asyncio.run_coroutine_threadsafe(self._answer(request), loop)
            status, headers, content = await asyncio.wrap_future(future)
            return httpx.Response(status, headers=headers, content=content, request=request)

        async def _answer(self, request: httpx.Request) -> tuple[int, Any, bytes]:
            response = await inner.handle_async_request(request)
            return response.status_code, response.headers.raw, await response.aread()

    await harness.approved(3)

    def work() -> None:
        with Client("http://heartlane.test", secret_of(harness.admin), transport=AcrossThreads()) as client:
            assert client.health().status == "ok"
            assert [run.lane_key for run in client.runs(limit=2)] == ["lane-3", "lane-2", "lane-1"]
            runs = client.runs(limit=1)
            run = next(runs)
            runs.close()  # type: ignore[attr-defined]
            assert inner.count("GET /api/agents/runs") == 3
            assert client.read_run(run.id).state == "queued"
            with pytest.raises(NotFound):
                client.read_run("01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40")
            with client.claim(run.id, follow=False) as lane:
                lane.log("on it")
                lane.ship(summary="Done.")
                assert (lane.outcome, lane.run.summary, lane.should_stop) == ("shipped", "Done.", True)
                assert lane.stop_event.is_set()
        with pytest.raises(RuntimeError, match="closed"):
            client.health()
        client.close()

    await asyncio.to_thread(work)


def test_a_client_that_nobody_closes_takes_its_thread_along() -> None:
    client = Client("http://127.0.0.1:9", TOKEN, retry=ONCE, trust_env=False)
    with pytest.raises(Unreachable):
        client.health()
    thread = client._thread._thread
    assert thread is not None
    del client
    import gc

    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


async def test_a_revoked_token_is_said_to_be_so(harness: Harness) -> None:
    from heartlane.store import tokens

    token, secret = await tokens.create(harness.store, "gone", "admin", account="default")
    await tokens.revoke(harness.store, token.id)
    async with client_on(harness, token=secret) as client:
        with pytest.raises(TokenRevoked, match="has been revoked"):
            await anext(client.runs())


async def test_asyncs_url_is_shown(harness: Harness) -> None:
    async with AsyncClient("http://heartlane.test/", TOKEN) as client:
        assert repr(client) == "AsyncClient('http://heartlane.test')"
