"""One simulated server: the real hot routes, ledger and take-back, on the simulated disk and network.

What is left out of a real one: the socket with Granian, the look-up of tokens, and FastAPI in front of the few other
calls that workers make, which go by the same bodies to the same ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from heartlane.lanes.commands import Command, Release
from heartlane.lanes.decisions import Decision
from heartlane.server.auth import Principal
from heartlane.server.claims import Claims
from heartlane.server.errors import render
from heartlane.server.failures import as_api_error
from heartlane.server.hot import read_body, refuse
from heartlane.server.serve import make_context
from heartlane.server.settings import load_settings
from heartlane.server.takeback import TakeBackLoop
from heartlane.server.telemetry import telemetry
from heartlane.store.batch import Announcement
from heartlane.store.runs import RunFilter, list_runs
from heartlane.wire.requests import ReleaseBody
from heartlane.wire.run_json import JSON_OPTIONS, run_body
from tests.simulation.loop import Process
from tests.simulation.storage import SimulatedStore

if TYPE_CHECKING:
    from tests.simulation.world import World

SETTINGS: Final = load_settings(
    {
        "rate_limits": "off",
        "database": "sqlite:///unused",
        "secret_key": "3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs=",
    }
)
HEADERS: Final = [(b"authorization", b"Bearer simulated"), (b"content-type", b"application/json")]


class HttpAnswer(NamedTuple):
    """An answer as it travels."""

    status: int
    headers: dict[str, str]
    content: bytes


class Server:
    """One process that serves, from its start to its crash."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.process = Process(world.loop, f"server-{number}")
        self.flights: dict[asyncio.Future[HttpAnswer], None] = {}
        self.store: SimulatedStore
        self.process.run(self._start)

    def _start(self) -> None:
        world = self.world
        batch_size = world.random.choice((1, 8, 256))
        self.store = SimulatedStore(world, self.process, batch_size)
        self.context = make_context(SETTINGS, self.store)
        principal = Principal("token", "simulated", world.account_id, None, "admin")
        self.context.auth.known = lambda header, client_ip: principal  # type: ignore[method-assign]
        self._telemetry = telemetry(self.context)
        self._claims = Claims(self.context)
        self._take_back = TakeBackLoop(self.store, self.context.metrics, 0.5)
        # A SQLite file has one server; several share a database as servers on PostgreSQL do.
        self._take_back._first = not world.any_server()
        self._hears_others = False
        self.store.feed.subscribe(self._relay)
        self._take_back.start()

    # --- what it serves -------------------------------------------------------------------------------------------

    async def handle(
        self, method: str, path: str, query: Sequence[tuple[str, str]], body: bytes, gone: Any
    ) -> HttpAnswer | None:
        """The answer to a request; None where nobody is there to hear it. `gone` resolves when the client hangs up."""
        parts = path.removeprefix("/api/agents/runs").strip("/").split("/")
        if method == "POST" and parts[-1] == "events":
            return await self._hot(self._telemetry, path, body, gone, parts[0])
        if method == "POST" and parts == ["claim"]:
            return await self._hot(self._claims.next, path, body, gone)
        if method == "POST" and parts[-1] == "claim":
            return await self._hot(self._claims.one, path, body, gone, parts[0])
        try:
            if method == "GET" and parts == [""]:
                return _json(await self._list(dict(query)))
            if method == "POST" and parts[-1] == "release":
                asked = read_body(ReleaseBody, body)
                command = Release(asked.worker_id, asked.attempt, asked.reason, asked.retry_after, asked.failed)
                return _json(await self.command(parts[0], command))
        except Exception as error:  # noqa: BLE001 - every way out is an answer
            status, headers, content = render(as_api_error(error, path))
            return HttpAnswer(status, {name.decode(): value.decode() for name, value in headers}, content)
        raise RuntimeError(f"nobody serves {method} {path}")

    async def _hot(self, route: Any, path: str, body: bytes, gone: Any, path_id: str = "") -> HttpAnswer | None:
        heard = [False]
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if not heard[0]:
                heard[0] = True
                return {"type": "http.request", "body": body}
            await gone
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            said.append(message)

        scope = {"type": "http", "path": path, "headers": HEADERS, "client": ("10.0.0.1", 4_000)}
        await route(scope, receive, send, path_id)
        if len(said) < 2:
            return None
        headers = {name.decode(): value.decode() for name, value in said[0]["headers"]}
        return HttpAnswer(said[0]["status"], headers, said[1]["body"])

    async def _list(self, query: dict[str, str]) -> dict[str, Any]:
        wanted = RunFilter(self.world.account_id, states=(query["state"],), worker_id=query["worker_id"])
        async with self.store.reading() as conn:
            now = await self.store.now_on(conn)
            found = await list_runs(conn, wanted, after=None, limit=int(query["limit"]), now=now)
        return {"runs": [run_body(run, now) for run in found], "next_cursor": None}

    async def command(self, run_id: str, command: Command) -> dict[str, Any]:
        """A command of a holder's or a person's, and the answer to it. Raises ApiError and StoreError."""
        outcome = await self.store.ledger.submit(run_id, command, account_id=self.world.account_id)
        if outcome.run is None or not isinstance(outcome.decision, Decision):
            raise refuse(outcome)
        return {"ok": True, "run": run_body(outcome.run, outcome.now)}

    # --- with the others ------------------------------------------------------------------------------------------

    def _relay(self, announcement: Announcement) -> None:
        """Have the other servers hear of a commit, as NOTIFY does: late, or never."""
        if self._hears_others:
            return
        for other in self.world.servers:
            if other is not self and not self.world.chance(self.world.faults.notice_lost):
                self.world.later(self.world.network_seconds(), other.hear, announcement)

    def hear(self, announcement: Announcement) -> None:
        """An announcement of another server's."""
        if self.process.alive:
            self._hears_others = True
            self.process.run(self.store.feed.publish, announcement)
            self._hears_others = False


def _json(value: Any) -> HttpAnswer:
    return HttpAnswer(200, {"content-type": "application/json"}, orjson.dumps(value, option=JSON_OPTIONS))
