"""Claims a lane, and never two for one.

A claim of the next lane can't simply be sent again: the first may have been done although its answer never came, and
then a second lane would be claimed, and the first lie there until its lease runs out. So each claim under way has a
worker id of its own, and after a lost answer the lanes that this id holds are looked at before anything else: one that
is there is the lost one, and is taken up by its id (the holder's second claim renews, and is the same attempt). A long
poll that got lost may still claim until its time is up; until then it is looked for, and no other claim is made.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

from heartlane.client import calls
from heartlane.client.call import Call, Id
from heartlane.client.errors import ApiError, ClaimRefused, HeartlaneError, NotFound
from heartlane.client.retry import RetryPolicy, is_passing, may_be_done
from heartlane.lanes.bounds import LEASE_SECONDS_DEFAULT, WORKER_ID_MAX
from heartlane.wire.answers import ClaimAnswer, RunDetail, RunObject
from heartlane.wire.names import RoleName

T = TypeVar("T")

POLL_SECONDS: Final = 10.0
"""How long one claim waits at the server, and no longer than a third of the lease, which is counted from its begin. A
longer wait is several of these."""
LATE_SECONDS: Final = 2.0
"""How long after its time a lost claim may still be done."""
LOOK_SECONDS: Final = 1.0
ERROR_SECONDS_MAX: Final = 10.0


class Sender(Protocol):
    """What claiming needs of a client."""

    clock: Callable[[], float]
    chance: Callable[[], float]

    async def send_once(self, call: Call[T], *, seconds: float | None = None) -> T:
        """The answer to one call, tried once. Raises HeartlaneError."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lane, for how long.

    run_id          that very lane; else the best that fits
    wait_seconds    how long to wait for one; None: until there is one
    """

    run_id: Id | None = None
    roles: Sequence[RoleName] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    project_id: Id | None = None
    lease_seconds: int = LEASE_SECONDS_DEFAULT
    wait_seconds: float | None = 0.0


class Claimed(NamedTuple):
    """A lane that is ours, how far its reports went, and when the claim was sent."""

    run: RunDetail
    last_seq: int
    sent_at: float


class WorkerIds:
    """Worker ids of one process: no two claims that are under way or held share one.

    >>> ids = WorkerIds("box.7")
    >>> first, second = ids.take(), ids.take()
    >>> ids.give_back(first)
    >>> first, second, ids.take()
    ('box.7', 'box.7/2', 'box.7')
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or new_worker_id()
        self._taken: set[str] = set()

    def take(self) -> str:
        """An id that nobody has."""
        number = 1
        while (worker_id := self.name if number == 1 else f"{self.name}/{number}") in self._taken:
            number += 1
        self._taken.add(worker_id)
        return worker_id

    def give_back(self, worker_id: str) -> None:
        """The id is free again."""
        self._taken.discard(worker_id)


def new_worker_id() -> str:
    """An id that no other process has, and no later one of this machine."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"[-WORKER_ID_MAX + 10 :]


async def claim(sender: Sender, wanted: Wanted, worker_id: str) -> Claimed | None:
    """A lane, or None when there was none in time. Raises HeartlaneError; what passes by is tried again meanwhile."""
    if wanted.run_id is not None:
        return await _claim_run(sender, wanted.run_id, worker_id, wanted.lease_seconds)
    return await _Search(sender, wanted, worker_id).run()


async def claim_anew(
    sender: Sender, wanted: Wanted, worker_id: str, doubted: Collection[tuple[UUID, int]]
) -> Claimed | None:
    """As `claim`, but never an attempt (run and number) that was let go without the server's word.

    Reports of it may be under way still, and arrive between those of whoever takes it up again: one of each would have
    the same `seq`, and the second be taken for the first sent twice. Such an attempt is given back, which fences those.
    """
    while True:
        claimed = await claim(sender, wanted, worker_id)
        if claimed is None or (claimed.run.id, claimed.run.attempt) not in doubted:
            return claimed
        reason = "the worker had let go of it without an answer"
        call = calls.release_run(claimed.run.id, worker_id=worker_id, attempt=claimed.run.attempt, reason=reason)
        with suppress(ClaimRefused, NotFound):
            await send_until(sender, call, sender.clock() + RetryPolicy().seconds)


async def _claim_run(sender: Sender, run_id: Id, worker_id: str, lease_seconds: int) -> Claimed:
    sent_at = sender.clock()
    call = calls.claim_run(run_id, worker_id, lease_seconds=lease_seconds)
    answer = await send_until(sender, call, sent_at + RetryPolicy().seconds)
    if answer.run is None:
        raise TypeError("a claim of one lane is answered with it")
    return Claimed(answer.run, answer.last_seq, sent_at)


async def send_until(sender: Sender, call: Call[T], until: float) -> T:
    """The answer to a call that may be repeated, tried until it comes. Raises what it failed with last."""
    tries = 0
    while True:
        try:
            return await sender.send_once(call)
        except HeartlaneError as error:
            tries += 1
            wait = backoff(tries, sender.chance(), error.retry_after)
            if not is_passing(error) or sender.clock() + wait >= until:
                raise
            await asyncio.sleep(wait)


def backoff(tries: int, chance: float, retry_after: float | None) -> float:
    """Seconds to wait after so many failures in a row.

    >>> [backoff(tries, 1.0, None) for tries in (1, 3, 9)], backoff(1, 0.5, 7)
    ([0.4, 1.6, 10.0], 7.2)
    """
    return min(ERROR_SECONDS_MAX, 0.2 * 2.0 ** min(tries, 30)) * chance + (retry_after or 0)


class _Search:
    """One claim of the next lane.

    _doubt_until    a claim whose answer got lost may be done until then; None: there is no such
    """

    def __init__(self, sender: Sender, wanted: Wanted, worker_id: str) -> None:
        self._sender = sender
        self._wanted = wanted
        self._worker_id = worker_id
        self._doubt_until: float | None = None
        wait = wanted.wait_seconds
        self._until = float("inf") if wait is None else sender.clock() + wait

    async def run(self) -> Claimed | None:
        tries = 0
        while True:
            try:
                found = await (self._ask() if self._doubt_until is None else self._look())
            except HeartlaneError as error:
                tries += 1
                wait = backoff(tries, self._sender.chance(), error.retry_after)
                doubtful = self._doubt_until is not None and self._sender.clock() < self._doubt_until
                if not is_passing(error) or (self._sender.clock() + wait >= self._until and not doubtful):
                    raise
                await asyncio.sleep(min(wait, LOOK_SECONDS) if doubtful else wait)
                continue
            tries = 0
            if found is not None:
                return found
            if self._doubt_until is not None:
                await asyncio.sleep(LOOK_SECONDS * self._sender.chance())
            elif self._sender.clock() >= self._until:
                return None

    async def _ask(self) -> Claimed | None:
        sent_at = self._sender.clock()
        wait = max(0.0, min(POLL_SECONDS, self._wanted.lease_seconds / 3, self._until - sent_at))
        call = calls.claim_next(
            self._worker_id,
            lease_seconds=self._wanted.lease_seconds,
            project_id=self._wanted.project_id,
            roles=self._wanted.roles,
            labels=self._wanted.labels,
            wait_seconds=round(wait, 3),
            one_at_a_time=True,
        )
        self._doubt_until = sent_at + wait + LATE_SECONDS
        try:
            answer = await self._sender.send_once(call)
        except HeartlaneError as error:
            if not may_be_done(error):
                self._doubt_until = None
            elif isinstance(error, ApiError):
                self._doubt_until = self._sender.clock()  # it has answered: what it did, it has done
            raise
        self._doubt_until = None
        return None if answer.run is None else Claimed(answer.run, answer.last_seq, sent_at)

    async def _look(self) -> Claimed | None:
        """The lane of a claim whose answer got lost, if there is one."""
        sent_at = self._sender.clock()
        lost = await find_unreported(self._sender, self._worker_id)
        if lost is not None:
            call = calls.claim_run(lost.id, self._worker_id, lease_seconds=self._wanted.lease_seconds)
            try:
                answer: ClaimAnswer = await self._sender.send_once(call)
            except (ClaimRefused, NotFound):
                return None
            self._doubt_until = None
            return None if answer.run is None else Claimed(answer.run, answer.last_seq, sent_at)
        if self._doubt_until is not None and sent_at >= self._doubt_until:
            self._doubt_until = None
        return None


async def find_unreported(sender: Sender, worker_id: str) -> RunObject | None:
    """A lane that this worker has claimed and never reported on. Raises HeartlaneError."""
    page = await sender.send_once(calls.runs(worker_id=worker_id, state="claimed", limit=1))
    return page.items[0] if page.items else None


async def give_back_lost(sender: Sender, worker_id: str) -> None:
    """Release what a claim got that was broken off while it was under way. Raises HeartlaneError."""
    for pause in (0.1, 1.0):
        await asyncio.sleep(pause)
        run = await find_unreported(sender, worker_id)
        if run is not None:
            reason = "the claim was broken off"
            await sender.send_once(calls.release_run(run.id, worker_id=worker_id, attempt=run.attempt, reason=reason))
            return
