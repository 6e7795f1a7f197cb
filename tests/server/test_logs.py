"""Logs: the request's id in each line, and no secret in any."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from heartlane.server import logs
from heartlane.server.logs import AccessLog, begin_request, log_hot_request, logs_hot_routes
from heartlane.server.settings import Settings, load_settings
from heartlane.store.tokens import new_secret

PASSWORD = "s3cret/p@ss"
DATABASE = "postgresql://me:s3cret%2Fp%40ss@db.example/heartlane"


@pytest.fixture
def log_to() -> Iterator[Callable[..., io.StringIO]]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(log_format: str = "json", log_level: str = "debug") -> io.StringIO:
        stream = io.StringIO()
        flags = {"database": DATABASE, "log_format": log_format, "log_level": log_level}
        logs.configure(load_settings(flags), stream)
        return stream

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# --- no secret ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_no_way_of_logging_a_secret_shows_it(log_format: str, log_to: Callable[..., io.StringIO]) -> None:
    secret = new_secret()
    stream = log_to(log_format)
    log = structlog.get_logger("heartlane.test")

    class Holder:
        def __repr__(self) -> str:
            return f"<Holder of {secret} at {DATABASE}>"

    said = f"got {secret}"
    log.info(said)
    log.info("header", authorization=f"Bearer {secret}", headers={"Authorization": "Basic dXNlcjpwYXNz"})
    log.info("nested", data={"a": [{"token": "plain-secret-1"}, secret]}, holder=Holder(), both=(Holder(), secret))
    log.info("raw", headers=[(b"authorization", b"Token plain-secret-2 plain-secret-3")])
    log.info("Authorization: Digest plain-secret-4, plain-secret-5")
    log.info("database", url=DATABASE, password=PASSWORD, other=f"the password is {PASSWORD}")
    log.info("query", url="postgresql://h/x?user=a&password=plain-secret-6&b=1")
    logging.getLogger("library").warning("connecting to %s with %s", DATABASE, f"bearer {secret}")
    logging.getLogger("library").error("failed", extra={"token": "plain-secret-7"})
    try:
        raise ConnectionError(f"cannot connect to {DATABASE} as {secret}; Authorization: plain-secret-8")
    except ConnectionError:
        log.exception("failed", holder=Holder())
        logging.getLogger("library").exception("failed too")
    text = stream.getvalue()
    assert len(text.splitlines()) > 9
    assert "db.example" in text
    for hidden in (secret, secret[6:40], "plain-secret", "s3cret", "dXNlcjpwYXNz"):
        assert hidden not in text


def test_local_variables_are_in_no_traceback(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to("human")
    local_secret = "in-a-local"
    try:
        raise ValueError("plain")
    except ValueError:
        structlog.get_logger("heartlane.test").exception("failed", length=len(local_secret))
    assert "Traceback" in stream.getvalue()
    assert "in-a-local" not in stream.getvalue()


def test_a_short_or_common_password_doesnt_blot_out_the_log() -> None:
    for url in ("postgresql://heartlane:heartlane@db/heartlane", "postgresql://u:abc@db/x", "sqlite:///x.db"):
        settings = load_settings({"database": url})
        assert logs.database_secrets(settings.database) == []


def test_a_clients_text_neither_steers_the_terminal_nor_starts_a_line(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to("human")
    structlog.get_logger("heartlane.test").info("seen", path="/x\x1b[2J\n2026 [info] forged", worker="\x9b31m")
    assert len(stream.getvalue().splitlines()) == 1
    assert not re.search(r"[\x1b\x9b]", stream.getvalue())


# --- format and level ---------------------------------------------------------------------------------------------


def test_a_line_is_json_where_nobody_watches(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to("auto")
    structlog.get_logger("heartlane.test").warning("something", runs=3)
    (line,) = lines(stream)
    assert {"message": "something", "runs": 3, "level": "warning", "logger": "heartlane.test"}.items() <= line.items()
    assert line["timestamp"].endswith("Z")


def test_a_terminal_gets_lines_for_people() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure(Settings(log_format="auto"), stream)
        structlog.get_logger("heartlane.test").info("something")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    assert "something" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_lower_levels_are_left_out_and_libraries_are_quiet(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to(log_level="info")
    structlog.get_logger("heartlane.test").debug("no")
    structlog.get_logger("heartlane.test").info("yes")
    logging.getLogger("sqlalchemy.engine").info("no")
    assert [line["message"] for line in lines(stream)] == ["yes"]


# --- requests -----------------------------------------------------------------------------------------------------


def test_a_sane_request_id_is_kept_and_any_other_replaced() -> None:
    assert begin_request([(b"host", b"x"), (b"x-request-id", b"abc-1/2:3")]) == b"abc-1/2:3"
    for bad in (b"", b"a b", b"a\n", b"x" * 129, b"\xff", b"<script>", b"-a", b"hlt_abc"):
        new = begin_request([(b"x-request-id", bad)])
        assert re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]+", new), bad
    assert begin_request([]) != begin_request([])


def http(path: str = "/api/projects", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "query_string": b"token=hlt_zzzz", "headers": list(headers)}


async def answered(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await AccessLog(app, lambda _: "192.0.2.1")(scope, receive, send)  # type: ignore[arg-type]
    return sent


def test_a_request_has_one_line_and_its_id_is_in_each_of_its_lines(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to(log_level="info")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        structlog.get_logger("heartlane.test").info("inside")
        await asyncio.create_task(log_from_a_task())
        await send({"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    async def log_from_a_task() -> None:
        logging.getLogger("library").warning("task")

    async def both() -> list[list[dict[str, Any]]]:
        requests = [answered(app, http("/api/a", (b"x-request-id", name))) for name in (b"one", b"two")]
        return list(await asyncio.gather(*requests))

    first, second = asyncio.run(both())
    assert (b"x-request-id", b"one") in first[0]["headers"]
    assert (b"x-request-id", b"two") in second[0]["headers"]
    found = lines(stream)
    for name in ("one", "two"):
        assert [line["message"] for line in found if line["request_id"] == name] == ["inside", "task", "request"]
    line = found[-1]
    assert (line["method"], line["path"], line["status"], line["client"]) == ("GET", "/api/a", 201, "192.0.2.1")
    assert line["milliseconds"] >= 0
    assert "hlt_" not in stream.getvalue()


def test_a_request_that_breaks_off_has_its_line_too(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        asyncio.run(answered(app, http()))
    assert lines(stream)[-1]["status"] is None


@pytest.mark.parametrize(("path", "status", "logged"), [("/healthz", 200, 0), ("/readyz", 503, 1), ("/api/x", 200, 1)])
def test_a_probe_is_logged_only_when_it_went_wrong(
    path: str, status: int, logged: int, log_to: Callable[..., io.StringIO]
) -> None:
    stream = log_to(log_level="info")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})

    asyncio.run(answered(app, http(path)))
    assert len(lines(stream)) == logged


def test_hot_routes_log_at_debug_alone(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to(log_level="info")
    assert not logs_hot_routes()
    log_hot_request(http(), 200, 0.0, "192.0.2.1")
    assert stream.getvalue() == ""
    stream = log_to(log_level="debug")
    assert logs_hot_routes()
    log_hot_request(http(), 200, 0.0, "192.0.2.1")
    assert lines(stream)[0]["level"] == "debug"
