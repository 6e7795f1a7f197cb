"""The server's own import of a linked project's issues from GitHub: a button rather than a command.

The first page is read and written while the caller waits, so that whoever presses the button hears of a broken link at
once. The rest goes on in the background, page by page. How it stands is kept with the link: a server that ends leaves
it to the next one, or to another on the same database, a minute later.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from heartlane.server.errors import ApiError, Issue, invalid_request
from heartlane.server.settings import Settings
from heartlane.sources.errors import SourceError, SourceLimited, SourceRefused
from heartlane.sources.github import GitHub, github_api
from heartlane.sources.http import Api, Patience
from heartlane.sources.importing import Progress, Wanted, run_import
from heartlane.sources.repository import host_of_api, repository_of
from heartlane.sources.roles import read_rules
from heartlane.sources.shape import Shaped
from heartlane.store import github, ticket_sync
from heartlane.store.errors import StoreError
from heartlane.store.github import Link, Linked
from heartlane.store.projects import Project
from heartlane.store.store import Store
from heartlane.store.ticket_sync import told_of

log = structlog.get_logger(__name__)

LOOK_EVERY_SECONDS: Final = 2.0
LEASE: Final = timedelta(seconds=60)
"""How long an import is one server's without a sign of it; each page renews it."""
AGAIN: Final = timedelta(seconds=60)
"""When an import that GitHub didn't answer goes on."""
ATTEMPTS_MAX: Final = 20
NOTES_KEPT: Final = 20


class StoreSink:
    """Writes into the database itself."""

    def __init__(self, store: Store, project_id: str) -> None:
        self._store = store
        self._project_id = project_id

    async def put(self, tickets: Sequence[Shaped]) -> Sequence[str]:
        """All of them or none. Raises StoreError."""
        async with self._store.writing() as tx:
            told = [told_of(each.fields) for each in tickets]
            return [each.outcome for each in await ticket_sync.sync_tickets(tx, self._project_id, told)]


class Importer:
    """Runs the imports of one server until it is closed."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on in a task of its own."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop; what is under way goes on elsewhere, or later."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def begin(self, linked: Linked) -> Mapping[str, Any]:
        """Import the first page and, where there are more, have the rest follow; how it stands then.

        Raises ApiError: GITHUB_LINK_BROKEN where GitHub refuses, UNAVAILABLE where it doesn't answer or has us wait.
        """
        state: dict[str, Any] = {"state": "running", "cursor": {}, "attempts": 0}
        try:
            await self._import(linked, state, pages_max=1)
        except SourceRefused as error:
            # Kept with the link: whoever looks at it later sees that it is broken, and why.
            state.update(_figures(_progress(state)))
            await self._failed(linked, state, error)
            raise ApiError("GITHUB_LINK_BROKEN", str(error), relink_github=error.token or error.hidden) from None
        except SourceLimited as error:
            raise ApiError("UNAVAILABLE", str(error), retry_after=error.seconds) from None
        except SourceError as error:
            raise ApiError("UNAVAILABLE", str(error), retry_after=AGAIN.total_seconds()) from None
        return state

    async def round(self) -> bool:
        """Go on with one import that is due; whether there was one. Raises StoreError."""
        async with self._store.reading() as conn:
            if not await github.has_due_import(conn, await self._store.now_on(conn)):
                return False
        async with self._store.writing() as tx:
            linked = await github.take_due_import(tx, tx.now + LEASE)
        if linked is None:
            return False
        state = json.loads(linked.link.import_json or "{}")
        try:
            await self._import(linked, state, pages_max=None)
        except (SourceError, ApiError) as error:
            await self._failed(linked, state, error)
        return True

    async def _run(self) -> None:
        while True:
            wait = LOOK_EVERY_SECONDS
            try:
                if await self.round():
                    wait = 0.0
            except StoreError as error:
                log.warning("import_waits", error=str(error))
            except Exception:
                log.exception("import_failed")
            await asyncio.sleep(wait)

    async def _import(self, linked: Linked, state: dict[str, Any], *, pages_max: int | None) -> None:
        """Walk on from where `state` is, which is kept after each page."""
        project, link = linked
        api = self._api()
        async with api:
            source = GitHub(api, self.repository(project), labels=[] if link.label is None else [link.label])
            progress = _progress(state)
            wanted = Wanted(read_rules(json.loads(link.roles_json)), "open", link.milestone_id)

            async def keep(so_far: Progress) -> None:
                async with self._store.writing() as tx:
                    state.update(_figures(so_far), attempts=0, updated_at=_stamp(tx.now))
                    due_at = None if so_far.finished else tx.now + (LEASE if pages_max is None else timedelta())
                    await github.keep_import(tx, project.id, state, due_at)

            await run_import(source, StoreSink(self._store, project.id), wanted, progress, keep, pages_max=pages_max)
        if progress.finished:
            log.info("imported_from_github", project_id=project.id, read=progress.read, **progress.outcomes)

    async def _failed(self, linked: Linked, state: dict[str, Any], error: SourceError | ApiError) -> None:
        """Keep why it can't go on, and when it is tried again, if ever."""
        attempts = int(state.get("attempts", 0)) + 1
        refused = isinstance(error, SourceRefused | ApiError) or attempts >= ATTEMPTS_MAX
        wait = timedelta(seconds=error.seconds) if isinstance(error, SourceLimited) else AGAIN
        text = error.error if isinstance(error, ApiError) else str(error)
        async with self._store.writing() as tx:
            state.update(
                state="failed" if refused else "waiting", error=text, attempts=attempts, updated_at=_stamp(tx.now)
            )
            await github.keep_import(tx, linked.project.id, state, None if refused else tx.now + wait)
        log.warning("import_stopped", project_id=linked.project.id, again=not refused, error=text)

    def repository(self, project: Project) -> str:
        """`owner/name` of the project's repository at the GitHub that this server knows. Raises ApiError."""
        found = repository_of(project.repo_url)
        host = host_of_api(self._settings.github_api_url)
        if found is None or found.host != host:
            raise invalid_request([Issue("repo_url", f"of the project must be that of a repository at {host}")])
        return found.name

    def _api(self) -> Api:
        token = self._settings.github_token
        # The caller waits, or the next round comes: nobody sleeps here.
        patience = Patience(lambda text: None, wait=False, tries=1)
        return github_api(
            self._settings.github_api_url,
            None if token is None else token.get_secret_value(),
            patience,
            "HEARTLANE_GITHUB_TOKEN",
        )


def import_body(link: Link) -> dict[str, Any] | None:
    """How the last import stands, as it is answered; None where there was none."""
    if link.import_json is None:
        return None
    state = json.loads(link.import_json)
    names = ("state", "read", "created", "updated", "unchanged", "skipped", "left_out", "notes", "error", "updated_at")
    return {name: state.get(name) for name in names}


def _progress(state: Mapping[str, Any]) -> Progress:
    progress = Progress(state.get("cursor") or {})
    progress.read, progress.left_out = int(state.get("read", 0)), int(state.get("left_out", 0))
    progress.outcomes = {name: int(state.get(name, 0)) for name in progress.outcomes}
    progress.notes = list(state.get("notes", []))
    return progress


def _figures(progress: Progress) -> dict[str, Any]:
    return {
        "state": "done" if progress.finished else "running",
        "cursor": dict(progress.cursor),
        "read": progress.read,
        "left_out": progress.left_out,
        **progress.outcomes,
        "notes": progress.notes[:NOTES_KEPT],
        "error": None,
    }


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
