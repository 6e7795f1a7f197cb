"""Works the outbox off: takes what is due, sends it, and writes down how it went.

Every server on a database does this. Rows are taken under a lease, so that in normal running no two send the same one,
and one that was taken by a server that died is sent by another. Each webhook has a few places of its own, so that one
that is slow holds up nothing but its own news.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

import structlog

from heartlane.server.sender import Sender
from heartlane.store.deliveries import (
    PRUNED_AT_ONCE,
    Attempt,
    Delivery,
    Disabled,
    give_back,
    look,
    prune,
    settle,
    take,
)
from heartlane.store.errors import StoreError
from heartlane.store.notices import Notice, add_notices
from heartlane.store.notices import prune as prune_notices
from heartlane.store.store import Store

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 2.0
"""Longest time between two looks at the outbox, and so until a webhook of another server's is known here."""
AT_ONCE: Final = 32
"""Attempts under way at once on one server."""
OF_ONE_WEBHOOK: Final = 4
"""Of these, to one webhook."""
PRUNE_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 1.0


class Courier:
    """Runs rounds until it is closed.

    look_seconds    longest time between two looks
    """

    def __init__(self, store: Store, sender: Sender, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._store = store
        self._sender = sender
        self._look_seconds = look_seconds
        self._arrival = asyncio.Event()
        self._under_way: dict[asyncio.Task[Attempt], Delivery] = {}
        self._of_webhook: Counter[str] = Counter()
        self._ended: list[Attempt] = []
        self._pruned = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        store.audience.on_told = self._arrival.set

    @property
    def busy(self) -> bool:
        """Whether attempts are under way, or ended and not yet written down."""
        return bool(self._under_way or self._ended)

    async def attempt_ended(self) -> None:
        """Wait until one of the attempts under way has ended, if any is."""
        if self._under_way and not self._ended:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)

    def start(self) -> None:
        """Go on in a task of its own."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            self._arrival.clear()
            try:
                wait = await self.round()
            except StoreError as error:
                log.warning("deliveries_wait", error=str(error))
                wait = RETRY_SECONDS
            except Exception:
                log.exception("deliveries_failed")
                wait = RETRY_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._arrival.wait()
            except TimeoutError:
                pass

    async def round(self) -> float:
        """One round; how many seconds until the next one is due, unless something comes before. Raises StoreError."""
        now, next_at, self._store.audience.projects = await look(self._store)
        room = AT_ONCE - len(self._under_way)
        due = next_at is not None and next_at <= now and room > 0
        taken: list[Delivery] = []
        settled = bool(self._ended)
        if due or settled:
            taken = await self._write(room if due else 0)
        elif time.monotonic() - self._pruned > PRUNE_SECONDS:
            await self._prune()
        for delivery in taken:
            self._begin(delivery)
        if taken or settled:  # what was settled may have brought news of its own, or made room for what is due
            return 0.0
        if next_at is None or next_at <= now:  # what is due and was not taken waits for a place, or for another server
            return self._look_seconds
        return min(self._look_seconds, (next_at - now).total_seconds())

    async def _write(self, room: int) -> list[Delivery]:
        ended = list(self._ended)
        taken: list[Delivery] = []
        async with self._store.writing() as tx:
            disabled = await settle(tx, ended) if ended else []
            await add_notices(tx, [_notice_of(each, tx.now.isoformat()) for each in disabled])
            if room:
                taken = await take(tx, room, lambda webhook_id: OF_ONE_WEBHOOK - self._of_webhook[webhook_id])
        del self._ended[: len(ended)]
        for each in disabled:
            log.warning("webhook_disabled", webhook_id=each.webhook_id, reason=each.reason, failures=each.failures)
        return taken

    def _begin(self, delivery: Delivery) -> None:
        task = asyncio.get_running_loop().create_task(self._send(delivery))
        self._under_way[task] = delivery
        self._of_webhook[delivery.webhook_id] += 1
        task.add_done_callback(self._end)

    async def _send(self, delivery: Delivery) -> Attempt:
        now = await self._store.now()
        return await self._sender.send(delivery, now)

    def _end(self, task: asyncio.Task[Attempt]) -> None:
        delivery = self._under_way.pop(task)
        self._of_webhook[delivery.webhook_id] -= 1
        if self._of_webhook[delivery.webhook_id] <= 0:
            del self._of_webhook[delivery.webhook_id]
        if not task.cancelled():
            error = task.exception()
            if error is None:
                self._ended.append(task.result())
            elif not isinstance(error, StoreError):  # its row comes up again when the lease is over
                log.error("delivery_failed", delivery_id=delivery.id, exc_info=error)
        self._arrival.set()

    async def _prune(self) -> None:
        async with self._store.writing() as tx:
            more = max(await prune(tx), await prune_notices(tx)) >= PRUNED_AT_ONCE
        if not more:
            self._pruned = time.monotonic()

    async def close(self) -> None:
        """End what is under way: what was sent is written down, what was not is left to the next server."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        left = dict(self._under_way)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        try:
            if left or self._ended:
                async with self._store.writing() as tx:
                    await settle(tx, self._ended)
                    done = {attempt.delivery.number for attempt in self._ended}
                    await give_back(tx, [each for each in left.values() if each.number not in done])
                self._ended.clear()
        except StoreError as error:
            log.warning("deliveries_wait", error=str(error))
        finally:
            await self._sender.close()


def _notice_of(disabled: Disabled, episode: str) -> Notice:
    why = "its endpoint says that it is gone" if disabled.reason == "gone" else "nothing has reached it for a day"
    return Notice(
        "webhook_disabled",
        f"webhook_disabled:{disabled.webhook_id}:{episode}",
        disabled.account_id,
        disabled.project_id,
        f"The webhook {disabled.shown} was disabled: {why} ({disabled.failures} failures in a row).",
        webhook_id=disabled.webhook_id,
        details={"reason": disabled.reason, "failures": disabled.failures},
    )
