"""A body that doesn't come to its end is not waited for for ever, on a hot route, another one and the login's form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from tests.harness import Harness

ORIGIN = (b"origin", b"http://heartlane.test")
ROUTES = {
    "/api/agents/runs/claim": (b"application/json", 400),
    "/api/projects": (b"application/json", 400),
    "/login": (b"application/x-www-form-urlencoded", 400),
}


async def send_part(harness: Harness, path: str, kind: bytes, *, end: str | None) -> tuple[int, bytes]:
    """The answer to a request whose body begins and then stops; `end`: what the server is told then, if anything."""
    begun: dict[str, Any] = {"type": "http.request", "body": b" ", "more_body": True}
    told = iter([begun])
    heard: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        message = next(told, None)
        if message is None and end is not None:
            return {"type": end}
        if message is None:
            await asyncio.Event().wait()
        return message or begun

    async def send(message: MutableMapping[str, Any]) -> None:
        heard.append(message)

    secret = harness.admin.headers["authorization"].encode()
    given = [(b"host", b"heartlane.test"), (b"content-type", kind)]
    given.append(ORIGIN if path == "/login" else (b"authorization", secret))
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": given,
        "client": ("127.0.0.1", 40_000),
        "server": ("heartlane.test", 80),
    }
    async with asyncio.timeout(20):
        await harness.app(scope, receive, send)
    return heard[0]["status"], b"".join(message.get("body", b"") for message in heard)


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_without_an_end_is_given_up(path: str, harness: Harness) -> None:
    kind, status = ROUTES[path]
    harness.context.patience.seconds = 0.2
    answered, body = await send_part(harness, path, kind, end=None)
    assert answered == status
    assert b"must arrive within 0.2 s" in body
    # Nobody else is let go with it.
    assert harness.context.gate.inside == 0
    assert (await harness.admin.get("/api/me")).status_code == 200


@pytest.mark.parametrize("path", ["/api/agents/runs/claim", "/api/projects"])
async def test_a_body_that_is_cut_off_is_an_error_of_the_one_shape(path: str, harness: Harness) -> None:
    """Also what breaks the rules of chunked bodies is told so: whoever sent it is still there."""
    answered, body = await send_part(harness, path, b"application/json", end="http.disconnect")
    assert answered == 400
    assert json.loads(body)["issues"] == [{"path": "body", "message": "must be sent to its end"}]


async def test_a_client_that_really_goes_is_not_taken_for_late(harness: Harness) -> None:
    harness.context.patience.seconds = 60
    sending = asyncio.create_task(send_part(harness, "/api/projects", b"application/json", end=None))
    await asyncio.sleep(0.05)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (await harness.admin.post("/api/projects", json={"name": "x"})).status_code == 201
