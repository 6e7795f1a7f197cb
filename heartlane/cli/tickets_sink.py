"""Where `heartlane tickets import` puts its tickets: the server, or with `--dry-run` what would be printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from heartlane.cli.errors import CommandError
from heartlane.client.aio import AsyncClient
from heartlane.client.retry import RetryPolicy
from heartlane.sources.shape import Shaped

PATIENT = RetryPolicy(tries=40, seconds=900.0, longest_seconds=20.0)
"""An import outlives a restart of the server, and waits for its rate limit."""


def heartlane_client() -> AsyncClient:
    """The server that the environment names. Raises NotConfigured."""
    return AsyncClient(retry=PATIENT)


class ServerSink:
    """Writes through `PUT /api/projects/{id}/tickets`."""

    def __init__(self, client: AsyncClient, project_id: str) -> None:
        self.shown: list[dict[str, Any]] = []
        self._client = client
        self._project_id = project_id

    async def put(self, tickets: Sequence[Shaped]) -> Sequence[str]:
        """All of them or none. Raises HeartlaneError."""
        results = await self._client.sync_tickets(self._project_id, [each.fields for each in tickets])
        return [str(result.outcome) for result in results]


class DrySink:
    """Writes nothing: says of each ticket whether it would be made, or is known.

    shown   the tickets, in the order read
    """

    def __init__(self, client: AsyncClient, project_id: str) -> None:
        self.shown: list[dict[str, Any]] = []
        self._client = client
        self._project_id = project_id
        self._known: set[str] | None = None

    async def put(self, tickets: Sequence[Shaped]) -> Sequence[str]:
        """`created`, `known` or `skipped` for each. Raises HeartlaneError."""
        known = await self._names()
        outcomes = []
        for each in tickets:
            fields = dict(each.fields)
            create = fields.pop("create")
            name = fields.get("external_url") or fields["external_key"]
            outcome = "known" if name in known else "created" if create else "skipped"
            outcomes.append(outcome)
            if outcome != "skipped":
                self.shown.append({"outcome": outcome, "ref": each.ref, **fields, "notes": list(each.notes)})
        return outcomes

    async def _names(self) -> set[str]:
        if self._known is None:
            self._known = {
                name
                async for ticket in self._client.tickets(self._project_id, limit=200)
                if (name := ticket.external_url or ticket.external_key) is not None
            }
        return self._known


async def project_of(client: AsyncClient, text: str) -> str:
    """The id of the project of this id or name. Raises CommandError, HeartlaneError."""
    if _is_id(text):
        return str((await client.read_project(text)).id)
    return _only([str(each.id) async for each in client.projects(limit=200) if each.name == text], "project", text)


async def milestone_of(client: AsyncClient, project_id: str, text: str | None) -> str | None:
    """The id of the project's milestone of this id or name; None for None. Raises CommandError, HeartlaneError."""
    if text is None:
        return None
    if _is_id(text):
        return str((await client.read_milestone(project_id, text)).id)
    found = [str(each.id) async for each in client.milestones(project_id, limit=200) if each.name == text]
    return _only(found, "milestone", text)


def _only(found: Sequence[str], what: str, name: str) -> str:
    if len(found) != 1:
        count = "there is no" if not found else f"{len(found)} times there is a"
        raise CommandError(f"{count} {what} {name!r} that this token sees; its id will do as well")
    return found[0]


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
