"""A server's application in this process, with clients of every scope, and hands to move its time.

The application is the real one, reached through ASGI; only the socket and Granian are left out (`tests/e2e` has them).
"""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import update

from heartlane.board.pages import make_router
from heartlane.server.context import Context
from heartlane.server.courier import Courier
from heartlane.server.sender import Sender
from heartlane.server.serve import make_app, make_context
from heartlane.server.settings import Settings
from heartlane.server.takeback import TakeBackLoop
from heartlane.server.watch import Watch
from heartlane.store import tokens
from heartlane.store.clock import Clock
from heartlane.store.schema import control
from heartlane.store.store import Store

_names = itertools.count(1)


class StandingClock(Clock):
    """Stands still between two calls of `advance`, so that a test can say each moment to the microsecond."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = datetime.now(UTC)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self.moment += timedelta(seconds=seconds)

    def adjusted(self, moment: datetime) -> datetime:
        """The standing time, whatever the database's clock says."""
        return self.moment


class Harness:
    """One server's parts.

    admin, operator, worker, viewer     clients of the account "default", one for each scope
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.store = context.store
        self.app = make_app(context, make_router())
        self.take_back = TakeBackLoop(context.store, context.metrics, 0.5)
        settings = context.settings
        sender = Sender(context.vault, settings.webhooks_allow, board_url=settings.public_url, attempt_seconds=1.0)
        self.courier = Courier(context.store, sender)
        self.watch = Watch(context.store)
        self._clients: list[httpx.AsyncClient] = []

    @classmethod
    async def start(cls, store: Store, settings: Settings) -> Harness:
        """Wire a server around the store and make its four clients."""
        harness = cls(make_context(settings, store))
        harness.admin = await harness.client("admin")
        harness.operator = await harness.client("operator")
        harness.worker = await harness.client("worker")
        harness.viewer = await harness.client("viewer")
        await harness.take_back.round()
        return harness

    admin: httpx.AsyncClient
    operator: httpx.AsyncClient
    worker: httpx.AsyncClient
    viewer: httpx.AsyncClient

    async def client(
        self, scope: tokens.Scope, *, account: str = "default", project_id: str | None = None
    ) -> httpx.AsyncClient:
        """A client with a new token of the scope."""
        account_name = None if project_id is not None else account
        _, secret = await tokens.create(
            self.store, f"{scope}-{next(_names)}", scope, account=account_name, project_id=project_id
        )
        return self.client_with(secret)

    def client_with(self, secret: str | None, address: str = "127.0.0.1") -> httpx.AsyncClient:
        """A client at this address that sends this token, or none."""
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(address, 123))
        client = httpx.AsyncClient(transport=transport, base_url="http://heartlane.test", headers=headers)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """End the clients and what the server has under way."""
        for client in self._clients:
            await client.aclose()
        await self.courier.close()
        await self.context.streams.close()
        await self.context.auth.close()

    async def let_pass(self, seconds: float) -> None:
        """Let time pass in which this server ran, then have it look for expired leases once."""
        self.store.clock.advance(seconds)
        async with self.store.writing() as tx:
            await tx.conn.execute(update(control).values(alive_at=tx.now))
        while await self.take_back.round() == 0.0:
            pass

    async def waiting_claims(self, count: int) -> None:
        """Return when so many claims wait for a lane, each after a first look of its own."""
        async with asyncio.timeout(20):
            while len(self.context.waiters) < count or self.store.ledger.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)

    async def be_down_for(self, seconds: float) -> None:
        """Let time pass in which no server ran, then have this one look for expired leases once."""
        self.store.clock.advance(seconds)
        while await self.take_back.round() == 0.0:
            pass

    async def deliver(self) -> None:
        """Have everything sent that is due now, and written down."""
        while await self.courier.round() == 0.0 or self.courier.busy:
            await self.courier.attempt_ended()

    # --- what most tests begin with -------------------------------------------------------------------------------

    async def project(self, **fields: Any) -> dict[str, Any]:
        """A new project."""
        response = await self.admin.post("/api/projects", json={"name": "Project", **fields})
        assert response.status_code == 201, response.text
        project: dict[str, Any] = response.json()["project"]
        return project

    async def approved(
        self, lanes: list[dict[str, Any]] | int = 1, *, project_id: str | None = None, **project: Any
    ) -> list[dict[str, Any]]:
        """The runs of a new, approved plan: its lanes as given, or so many backend lanes."""
        if project_id is None:
            project_id = (await self.project(**project))["id"]
        if isinstance(lanes, int):
            lanes = [
                {"laneKey": f"lane-{number}", "title": f"Lane {number}", "role": "backend"}
                for number in range(1, lanes + 1)
            ]
        body = {"projectId": project_id, "title": "Plan", "lanes": lanes}
        response = await self.operator.post("/api/agents/plan", json=body)
        assert response.status_code == 201, response.text
        plan_id = response.json()["plan"]["id"]
        response = await self.operator.post(f"/api/agents/plans/{plan_id}/approve")
        assert response.status_code == 200, response.text
        runs: list[dict[str, Any]] = response.json()["runs"]
        return runs

    async def claim(self, run_id: str, worker_id: str = "w1", **fields: Any) -> dict[str, Any]:
        """Claim one certain lane."""
        response = await self.worker.post(f"/api/agents/runs/{run_id}/claim", json={"worker_id": worker_id, **fields})
        assert response.status_code == 200, response.text
        run: dict[str, Any] = response.json()["run"]
        return run

    async def report(self, run_id: str, worker_id: str = "w1", **fields: Any) -> httpx.Response:
        """Send a report."""
        return await self.worker.post(f"/api/agents/runs/{run_id}/events", json={"worker_id": worker_id, **fields})

    async def read(self, run_id: str) -> dict[str, Any]:
        """The run as it is now."""
        response = await self.viewer.get(f"/api/agents/runs/{run_id}")
        assert response.status_code == 200, response.text
        run: dict[str, Any] = response.json()["run"]
        return run

    async def events(self, run_id: str, **query: Any) -> list[dict[str, Any]]:
        """The run's events, all pages of them."""
        found: list[dict[str, Any]] = []
        params = {"limit": 200, **query}
        while True:
            response = await self.viewer.get(f"/api/agents/runs/{run_id}/events", params=params)
            assert response.status_code == 200, response.text
            page = response.json()
            found += page["events"]
            if page["next_cursor"] is None:
                return found
            params["cursor"] = page["next_cursor"]


def assert_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """An error answer has this status and code and the contract's shape; its body."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body.get("code")) == (status, code), response.text
    assert isinstance(body["error"], str)
    assert body["error"]
    allowed = {"error", "code", "fieldErrors", "issues", "retryAfter", "relinkGithub", "run"}
    assert set(body) <= allowed, set(body) - allowed
    if status == 400:
        assert {issue["path"] for issue in body["issues"]} == set(body["fieldErrors"])
    if status in (429, 503):
        assert body["retryAfter"] > 0
        assert int(response.headers["retry-after"]) >= 1
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
    return body
