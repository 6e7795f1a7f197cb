"""The group-commit ledger: the one way in which an existing run changes.

Concurrent requests `submit` commands; a committer takes what has gathered, has the engine apply it in ONE durable
transaction, and only then answers every caller. While a batch commits, the next gathers, so under load many commands
share one fsync; an idle ledger commits a single command at once, for a batch is never waited for.

    submit ──► queue (bounded) ──► committer ──► engine: lock, decide, write, COMMIT ──► answers, announcement

A refusal or a fault of one command never touches its neighbours. When a batch of several fails as a whole for another
reason than an unreachable database, its commands are applied one by one, so that only the one at fault fails.
Not promised: the order of two commands that were under way at the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from heartlane.lanes.commands import Command
from heartlane.store.audit import Actor
from heartlane.store.batch import Announcement, ClaimNext, OnRun, Outcome
from heartlane.store.errors import Overloaded, StoreUnavailable

log = structlog.get_logger(__name__)

BATCH_SIZE_MAX: Final = 256
QUEUE_LIMIT_DEFAULT: Final = 10_000


class Applied(NamedTuple):
    """What an engine answers for one committed batch. `told`: something went into the outbox."""

    outcomes: Sequence[Outcome | Exception]
    announcement: Announcement
    told: bool = False


class Engine(Protocol):
    """How a batch becomes durable; the two engines are `SqliteEngine` and `PostgresEngine`."""

    async def apply(self, entries: Sequence[OnRun | ClaimNext]) -> Applied:
        """Apply the batch in one transaction and commit it. Raises StoreUnavailable; any other error is a fault."""


class BatchObserver(Protocol):
    """Who wants to hear of every batch (metrics)."""

    def __call__(self, size: int, seconds: float) -> None: ...


class Ledger:
    """Collects commands and commits them in batches.

    queue_limit     commands that may wait; one more is refused with Overloaded
    committers      batches that may be under way at once, each on a connection of its own
    """

    def __init__(
        self,
        engine: Engine,
        announce: Callable[[Announcement], None],
        *,
        queue_limit: int = QUEUE_LIMIT_DEFAULT,
        batch_size: int = BATCH_SIZE_MAX,
        committers: int = 1,
    ) -> None:
        self._engine = engine
        self._announce = announce
        self._queue: deque[tuple[OnRun | ClaimNext, asyncio.Future[Outcome]]] = deque()
        self._queue_limit = queue_limit
        self._batch_size = batch_size
        self._arrival = asyncio.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._committers = [self._loop.create_task(self._commit_forever()) for _ in range(committers)]
        self.on_batch: BatchObserver | None = None
        self.on_told: Callable[[], None] | None = None

    @property
    def waiting(self) -> int:
        """Commands in the queue now."""
        return len(self._queue)

    async def submit(
        self,
        run_id: str,
        command: Command,
        *,
        account_id: str | None = None,
        project_id: str | None = None,
        urgent: bool = False,
        actor: Actor | None = None,
    ) -> Outcome:
        """Apply one command to one run; the answer is durable.

        account_id, project_id  a run of another account or project is answered as NOT_FOUND; None sees all
        actor                   the person whose command it is: recorded in the audit log, in the same transaction
        urgent                  accepted even when the queue is full, and before all that waits (the server's own hand)

        Raises Overloaded or StoreUnavailable.
        """
        return await self._enqueue(OnRun(run_id, command, account_id, project_id, actor), urgent)

    async def claim_next(self, claim: ClaimNext) -> Outcome:
        """Claim the best lane that fits; `run` is None when there is none. Raises Overloaded or StoreUnavailable."""
        return await self._enqueue(claim, urgent=False)

    def _enqueue(self, entry: OnRun | ClaimNext, urgent: bool) -> asyncio.Future[Outcome]:
        if self._closing:
            raise StoreUnavailable("The server is shutting down.")
        if len(self._queue) >= self._queue_limit and not urgent:
            raise Overloaded(f"{len(self._queue)} commands wait already; try again shortly.")
        answer: asyncio.Future[Outcome] = self._loop.create_future()
        (self._queue.appendleft if urgent else self._queue.append)((entry, answer))
        self._arrival.set()
        return answer

    async def _commit_forever(self) -> None:
        queue = self._queue
        while True:
            if not queue:
                if self._closing:
                    return
                self._arrival.clear()
                await self._arrival.wait()
                continue
            size = min(len(queue), self._batch_size)
            await self._commit([queue.popleft() for _ in range(size)])

    async def _commit(self, batch: Sequence[tuple[OnRun | ClaimNext, asyncio.Future[Outcome]]]) -> None:
        started = time.perf_counter()
        try:
            applied = await self._engine.apply([entry for entry, _ in batch])
        except StoreUnavailable as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        except Exception as error:
            if len(batch) == 1:
                log.exception("batch_failed", command=type(batch[0][0]).__name__)
                if not batch[0][1].done():
                    batch[0][1].set_exception(error)
                return
            log.warning("batch_split", size=len(batch), error=type(error).__name__)
            for entry in batch:
                await self._commit([entry])
            return
        if self.on_batch is not None:
            self.on_batch(len(batch), time.perf_counter() - started)
        for (_, answer), outcome in zip(batch, applied.outcomes, strict=True):
            if answer.done():  # the caller went away; what it asked for is done all the same
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
        if applied.told and self.on_told is not None:
            self.on_told()
        if applied.announcement.names_something:
            self._announce(applied.announcement)

    async def close(self) -> None:
        """Refuse new commands, commit what was accepted, and stop."""
        self._closing = True
        self._arrival.set()
        await asyncio.gather(*self._committers)
