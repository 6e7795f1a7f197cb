"""The floor: the same server program as `heartlane serve`, around a constant answer.

`python -m bench.floor` starts through the same function, so with the same interface, event loop and flags. It reads
each request's body and answers 800 bytes of JSON: what the HTTP server itself costs, with no Heartlane in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop

from bench.load import FLOOR_RUN_ID
from heartlane.server.gate import Gate
from heartlane.server.logs import configure
from heartlane.server.serve import CannotStart, serve_app
from heartlane.server.settings import load_settings

ANSWER_BYTES: Final = 800
HEADERS: Final = [(b"content-type", b"application/json"), (b"content-length", str(ANSWER_BYTES).encode())]


def _answer() -> bytes:
    answer = {"ok": True, "run": {"id": FLOOR_RUN_ID, "summary": ""}}
    answer["run"] = {"id": FLOOR_RUN_ID, "summary": "x" * (ANSWER_BYTES - len(json.dumps(answer)))}
    body = json.dumps(answer).encode()
    assert len(body) == ANSWER_BYTES
    return body


ANSWER: Final = _answer()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Read the request's body, answer the constant."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


async def serve() -> None:
    """Serve the floor at HEARTLANE_HOST and HEARTLANE_PORT until SIGTERM."""
    settings = load_settings()
    configure(settings)
    await serve_app(app, settings, Gate())


def main() -> int:
    try:
        uvloop.run(serve())
    except CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
