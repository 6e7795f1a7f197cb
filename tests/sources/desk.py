"""A project of a server's application, into which sources are imported as the command line does it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from heartlane.cli.tickets_sink import ServerSink
from heartlane.client.aio import AsyncClient
from heartlane.sources.http import Api, Patience
from heartlane.sources.importing import Progress, Wanted, run_import
from heartlane.sources.model import Source
from tests.harness import Harness


class Stop(Exception):
    """The import is killed here."""


class Desk:
    """One project, and what came into it.

    said        what imports said; waited: seconds that they waited
    """

    def __init__(self, harness: Harness, client: AsyncClient, project_id: str) -> None:
        self.harness = harness
        self.client = client
        self.project_id = project_id
        self.said: list[str] = []
        self.waited: list[float] = []
        self._apis: list[Api] = []
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def opened(self, api: Api) -> Api:
        """An API that is closed with the desk."""
        self._apis.append(api)
        return api

    async def close(self) -> None:
        """Close every connection."""
        for api in self._apis:
            await api.__aexit__()
        await self.client.aclose()

    def patience(self, **options: Any) -> Patience:
        """Patience whose waits take no time, but are kept."""

        async def sleep(seconds: float) -> None:
            self.waited.append(seconds)
            self.now += timedelta(seconds=seconds)

        return Patience(self.said.append, **{"sleep": sleep, "now": lambda: self.now, "chance": lambda: 0.0, **options})

    async def bring(
        self,
        source: Source,
        wanted: Wanted | None = None,
        *,
        cursor: Mapping[str, Any] | None = None,
        stop_after: int | None = None,
    ) -> Progress:
        """Import. `stop_after`: die as soon as so many pages are written, before that is kept."""
        progress = Progress(source.start() if cursor is None else cursor)

        async def keep(so_far: Progress) -> None:
            if so_far.pages == stop_after:
                raise Stop

        await run_import(source, ServerSink(self.client, self.project_id), wanted or Wanted(), progress, keep)
        return progress

    async def tickets(self) -> dict[str, dict[str, Any]]:
        """The project's tickets by title; fails where two have the same."""
        found: dict[str, dict[str, Any]] = {}
        async for ticket in self.client.tickets(self.project_id, limit=200):
            assert ticket.title not in found
            found[ticket.title] = ticket.model_dump(mode="json")
        return found


async def make_desk(harness: Harness, patch: pytest.MonkeyPatch) -> Desk:
    """A desk on a server's application."""
    token = harness.operator.headers["authorization"].removeprefix("Bearer ")
    patch.setenv("HEARTLANE_TOKEN", token)
    client = AsyncClient("http://heartlane.test", transport=httpx.ASGITransport(harness.app))
    return Desk(harness, client, (await harness.project())["id"])
