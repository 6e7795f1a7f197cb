"""What is no proper HTTP, and what never comes to an end, on the real socket: nobody gets more answers than requests,
no request hides in another one, and those who wait for nothing hold up nobody else."""

from __future__ import annotations

import asyncio
import re
import socket
import time
import zlib
from urllib.parse import urlsplit

import httpx
import pytest

from heartlane.server.serve import HEADER_SECONDS
from tests.e2e.conftest import Replicas
from tests.e2e.database import new_token

BODY = b'{"worker_id":"w"}'
CHUNKED = b"11\r\n" + BODY + b"\r\n0\r\n\r\n"
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CL, TE = b"Content-Length: 17\r\n", b"Transfer-Encoding: chunked\r\n"


def talk(url: str, sent: bytes, seconds: float = 10) -> bytes:
    """What a connection answers until it is closed, or says nothing more for a moment after a whole answer."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds) as connection:
        connection.sendall(sent)
        connection.settimeout(seconds)
        got = b""
        try:
            while more := connection.recv(65_536):
                got += more
                connection.settimeout(0.1)
        except (TimeoutError, ConnectionResetError):
            pass
        return got


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)]


@pytest.fixture
async def head(on_sqlite: Replicas) -> bytes:
    """The head of a claim, without its end."""
    token = await new_token(on_sqlite.database)
    lines = ("POST /api/agents/runs/claim HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}")
    return "".join(f"{line}\r\n" for line in (*lines, "Content-Type: application/json")).encode()


# Head and body → whether it may be read at all. Where it may, it is one request, and the connection ends with it.
AMBIGUOUS = {
    "a length and chunks": (CL.replace(b"17", b"4") + TE, CHUNKED + HIDDEN, True),
    "chunks and a length": (TE + CL.replace(b"17", b"6"), b"0\r\n\r\n" + HIDDEN, True),
    "two lengths": (CL + CL.replace(b"17", b"5"), BODY, False),
    "a list of lengths": (CL.replace(b"17", b"17, 5"), BODY, False),
    "a length with a sign": (CL.replace(b"17", b"+17"), BODY, False),
    "a negative length": (CL.replace(b"17", b"-1"), BODY, False),
    "a hexadecimal length": (CL.replace(b"17", b"0x11"), BODY, False),
    "a space before the colon": (CL.replace(b":", b" :"), BODY, False),
    "chunks with a space before the colon": (TE.replace(b":", b" :"), CHUNKED, False),
    "a coding like chunked": (TE.replace(b"chunked", b"xchunked"), CHUNKED, False),
    "chunked, then identity": (TE + TE.replace(b"chunked", b"identity"), CHUNKED, False),
    "chunked behind a control character": (TE.replace(b" c", b" \x0bc"), CHUNKED, False),
    "a folded line": (b"X: a\r\n " + CL, BODY, False),
    "a bare carriage return": (b"X: a\r" + CL, BODY, False),
    "a NUL": (b"X: a\0b\r\n" + CL, BODY, False),
    "a chunk of a negative size": (TE, b"-" + CHUNKED, False),
    "a chunk of an endless size": (TE, b"F" * 17 + CHUNKED, False),
    "a chunk without its end": (TE, b"11\r\n" + BODY + b"0\r\n\r\n" + HIDDEN, False),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
async def test_no_request_hides_in_another(case: str, head: bytes, on_sqlite: Replicas) -> None:
    lines, body, is_read = AMBIGUOUS[case]
    answer = await asyncio.to_thread(talk, on_sqlite.servers[0].url, head + lines + b"\r\n" + body)
    found = statuses(answer)
    assert len(found) == 1, answer
    assert b'"status":"ok"' not in answer, "the hidden request was answered"
    assert found[0] in ((200, 400) if is_read else (400,)), answer


async def test_a_request_within_a_body_is_a_body(on_sqlite: Replicas) -> None:
    sent = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    answer = await asyncio.to_thread(talk, on_sqlite.servers[0].url, sent + HIDDEN)
    assert statuses(answer) == [200]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(300)) + b"\r\n", 431),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /login HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example:80\r\n\r\n", 400),
        (b"G\xff / HTTP/1.1\r\n\r\n", 400),
    ],
)
async def test_a_head_that_is_too_much_or_makes_no_sense(sent: bytes, status: int, on_sqlite: Replicas) -> None:
    assert statuses(await asyncio.to_thread(talk, on_sqlite.servers[0].url, sent)) == [status]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../../etc/passwd",
        "/static/x/..%2f..%2f..%2fetc%2fpasswd",
        "/static/x/..%5c..%5cwindows%5cwin.ini",
        "/static//etc/passwd",
        "/static/x/%2e%2e%2f%2e%2e%2fpages.py",
        "/static/x/%00board.css",
        "/lanes/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
    ],
)
async def test_no_path_leads_out_of_the_static_files(path: str, on_sqlite: Replicas) -> None:
    sent = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    answer = await asyncio.to_thread(talk, on_sqlite.servers[0].url, sent)
    # A path of the board's pages is the frame that every page is; all else isn't there.
    assert statuses(answer) in ([404], [200])
    assert b"root:" not in answer
    assert b"def " not in answer
    assert statuses(answer) == [404] or b"<!doctype html>" in answer.lower()


@pytest.mark.parametrize(
    "place", ["/%0d%0aSet-Cookie:%20heartlane=x", "/x\u2028Set-Cookie: a=b", "//evil.example", "/\\x"]
)
async def test_no_header_is_put_in_by_where_a_login_leads(place: str, on_sqlite: Replicas) -> None:
    token = await new_token(on_sqlite.database)
    url = on_sqlite.servers[0].url
    async with httpx.AsyncClient(base_url=url) as browser:
        answer = await browser.post("/login", data={"token": token, "next": place}, headers={"Origin": url})
    assert answer.status_code == 303
    assert answer.headers["location"] in ("/", "/%0d%0aSet-Cookie:%20heartlane=x")
    assert len(answer.headers.get_list("set-cookie")) == 1


async def test_what_a_client_sends_starts_no_line_of_the_log(on_sqlite: Replicas) -> None:
    server = on_sqlite.servers[0]
    marks = ("/%0aFORGED-1", "/%1b%5b31mFORGED-2", "/%e2%80%a8FORGED-3")
    for path in marks:
        sent = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a FORGED-4\r\n\r\n".encode()
        await asyncio.to_thread(talk, server.url, sent)
    async with asyncio.timeout(10):
        while (log := server.log()).count("FORGED-") < len(marks):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert "\x1b" not in log
    for line in log.splitlines():
        assert not line.startswith("FORGED")
    assert "FORGED-4" not in log


async def test_a_body_that_unpacks_to_gigabytes_is_not_unpacked(head: bytes, on_sqlite: Replicas) -> None:
    packed = zlib.compress(b" " * 50_000_000)
    for coding in (b"gzip", b"deflate", b"br", b"identity, gzip"):
        lines = b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(packed))
        answer = await asyncio.to_thread(talk, on_sqlite.servers[0].url, head + lines + packed)
        assert statuses(answer) == [415]
        assert b"UNSUPPORTED_MEDIA_TYPE" in answer


# --- those who never come to an end -------------------------------------------------------------------------------


async def dribbling(url: str, count: int, sent: bytes) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(url)
    connections = await asyncio.gather(*(asyncio.open_connection(parts.hostname, parts.port) for _ in range(count)))
    for _, writer in connections:
        writer.write(sent)
    return connections


@pytest.mark.parametrize("part", ["a head", "a body"])
async def test_others_go_on_beside_those_who_send_one_byte_now_and_then(
    part: str, head: bytes, on_sqlite: Replicas
) -> None:
    sent = head if part == "a head" else head + CL + b"\r\n{"
    connections = await dribbling(on_sqlite.servers[0].url, 300, sent)
    try:
        began = time.monotonic()
        for _ in range(20):
            claim = await on_sqlite.one.post("/api/agents/runs/claim", json={"worker_id": "w"})
            assert claim.status_code == 200
            for _, writer in connections:
                if not writer.is_closing():
                    writer.write(b" " if part == "a body" else b"X")
        assert time.monotonic() - began < 10
    finally:
        for _, writer in connections:
            writer.close()


@pytest.mark.slow
async def test_who_takes_too_long_for_a_head_is_let_go(head: bytes, on_sqlite: Replicas) -> None:
    connections = await dribbling(on_sqlite.servers[0].url, 50, head)
    began = time.monotonic()
    async with asyncio.timeout(HEADER_SECONDS + 15):
        ends = [await reader.read() for reader, _ in connections]
    assert time.monotonic() - began > HEADER_SECONDS - 2
    assert set(ends) == {b""}
