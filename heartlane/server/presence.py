"""Which workers wait for a lane: noted as they ask, and written down every few seconds, many at once.

    poll ── asks ──┐                                   ┌── GET /api/agents/workers, on every server
    lane, or gone ─┴─> in memory ── every 2 s ──> workers_seen

Only what has changed is written: a poll of 30 s costs one row, a worker that has its lane at once none. A report has
nothing to do with it. What a server that is killed had in memory is lost, and known again with the worker's next poll.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog

from heartlane.store.batch import ClaimNext
from heartlane.store.errors import StoreError
from heartlane.store.store import Store
from heartlane.store.workers import Ask, forget_workers, note_asks

log = structlog.get_logger(__name__)

FLUSH_SECONDS: Final = 2.0
"""How late others may know."""
RETRY_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 600.0
BETWEEN_POLLS_SECONDS: Final = 60.0
"""A worker whose poll has ended counts as waiting for so long: it asks again, here or at another server."""
KNOWN_MAX: Final = 10_000
"""Waiting workers that one server knows at once; one beyond them is known when its lane is."""
ROWS_AT_ONCE: Final = 500
"""Rows in one transaction: SQLite has one writer, which reports wait for."""


class _Key(NamedTuple):
    account_id: str
    worker_id: str
    project_id: str | None


class _Asking(NamedTuple):
    """Moments are of this server's monotonic clock, in seconds."""

    claim: ClaimNext
    since: float
    until: float
    seen: float


class Presence:
    """The workers that ask this server for lanes. Runs rounds from `start` until it is closed.

    clock   seconds that only grow, as `time.monotonic`
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[_Key, _Asking] = {}
        self._unwritten: dict[_Key, None] = {}
        self._forgotten_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def asks(self, claim: ClaimNext, wait_seconds: float) -> None:
        """There is no lane for this claim just now, and it waits for one so long."""
        key = _key(claim)
        now = self._clock()
        known = self._known.get(key)
        if known is None and len(self._known) >= KNOWN_MAX:
            return
        since = known.since if known is not None and known.until >= now else now
        self._known[key] = _Asking(claim, since, now + wait_seconds + BETWEEN_POLLS_SECONDS, now)
        self._unwritten[key] = None

    def asks_no_more(self, claim: ClaimNext) -> None:
        """It has its lane, or has gone."""
        key = _key(claim)
        known = self._known.get(key)
        if known is not None:
            now = self._clock()
            self._known[key] = known._replace(until=min(known.until, now), seen=now)
            self._unwritten[key] = None

    def start(self) -> None:
        """Go on in a task of its own."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop, and write down what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._flush()
        except StoreError as error:
            log.warning("waiting_workers_not_written", workers=len(self._unwritten), error=str(error))

    async def _run(self) -> None:
        while True:
            wait = FLUSH_SECONDS
            try:
                await self.round()
            except StoreError as error:
                log.warning("waiting_workers_not_written", workers=len(self._unwritten), error=str(error))
                wait = RETRY_SECONDS
            except Exception:
                log.exception("presence_failed")
                wait = RETRY_SECONDS
            # Servers that started together drift apart.
            await asyncio.sleep(wait * random.uniform(0.8, 1.0))  # noqa: S311 - jitter, not a secret

    async def round(self) -> None:
        """Write down what is new, and now and then have old ones forgotten. Raises StoreError."""
        await self._flush()
        now = self._clock()
        if now - self._forgotten_at > FORGET_SECONDS:
            self._forgotten_at = now
            await forget_workers(self._store)

    async def _flush(self) -> None:
        while self._unwritten:
            keys = list(self._unwritten)[:ROWS_AT_ONCE]
            async with self._store.writing() as tx:
                here = self._clock()
                written = {key: self._known[key] for key in keys if key in self._known}
                await note_asks(tx, [_ask(key, asking, tx.now, here) for key, asking in written.items()])
            for key, asking in written.items():
                if self._known.get(key) is asking:  # else it has asked once more meanwhile
                    self._unwritten.pop(key, None)
        here = self._clock()
        for key in [key for key, asking in self._known.items() if asking.until <= here]:
            if key not in self._unwritten:
                del self._known[key]


def _key(claim: ClaimNext) -> _Key:
    return _Key(claim.account_id, claim.worker_id, claim.project_id)


def _ask(key: _Key, asking: _Asking, now: datetime, here: float) -> Ask:
    """With the database's times: `now` is its clock, `here` this server's, at the same moment."""

    def moment(seconds: float) -> datetime:
        return now + timedelta(seconds=seconds - here)

    claim = asking.claim
    return Ask(*key, claim.roles, claim.labels, moment(asking.since), moment(asking.until), moment(asking.seen))
