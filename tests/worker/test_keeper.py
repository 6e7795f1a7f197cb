"""The keeper's reading of answers that overtake each other; its renewals are tested by whole workers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from heartlane.client.lease import Lease
from heartlane.client.settings import Secret
from heartlane.worker.clock import boottime
from heartlane.worker.exchange import Exchange, Reply
from heartlane.worker.keeper import Holding, Keeper
from tests.worker.conftest import until

PAUSE = Reply(200, {"directive": "pause"})
CONTINUE = Reply(200, {"directive": "continue"})


class Answers(BaseHTTPRequestHandler):
    """Says `continue` to every report."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"directive": "continue"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """A keeper that was not started, of a lease of an hour on a server that never pauses."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    exchange = Exchange(f"http://127.0.0.1:{server.server_port}", Secret("t"))
    keeper = Keeper(exchange, Holding("r", "w", 1, 3600), Lease(3600, boottime()), lambda: None)
    yield keeper
    keeper.stop()
    exchange.close()
    server.shutdown()
    server.server_close()


def test_an_answer_that_was_overtaken_holds_nothing_still(keeper: Keeper) -> None:
    first, second = boottime(), boottime() + 0.001
    keeper.heard(CONTINUE, second)
    keeper.heard(PAUSE, first)
    assert not keeper.paused


def test_a_pause_that_nobody_can_date_is_asked_about_at_once(keeper: Keeper) -> None:
    first, second = boottime(), boottime()
    keeper.heard(CONTINUE, first)
    keeper.heard(PAUSE, second)  # sent before the other was heard: it may be the older
    assert keeper.paused
    keeper.start()
    until(lambda: not keeper.paused)
