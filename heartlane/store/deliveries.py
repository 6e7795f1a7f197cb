"""The outbox, worked off: rows are taken under a lease, sent by the server, and settled.

A row is sent at least once: a server that dies while it sends leaves the row to the others, once its lease is over. In
normal running no two servers send the same one. What is finished stays a while, as the log of what was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import delete, select, update

from heartlane.store.news_schema import PENDING, webhook_attempts, webhook_deliveries, webhooks
from heartlane.store.store import Store, WriteTransaction

LEASE: Final = timedelta(seconds=60)
"""How long a server has for one attempt, much longer than any takes; then another server may try."""
KEPT_FOR: Final = timedelta(days=7)
"""How long a finished delivery stays in the log."""
PRUNED_AT_ONCE: Final = 500
LOOKED_AT: Final = 1_000
"""Due rows that are looked at in one go for some that may be sent now."""
DISABLE_AFTER: Final = timedelta(hours=24)
DISABLE_FAILURES: Final = 10
"""A webhook that has failed this long and so many times in a row, without any success between, is disabled."""


class Delivery(NamedTuple):
    """A row of the outbox that this server has taken to send, with what it takes to send it.

    attempt         the number of this attempt, from 1
    give_up_at      no attempt is made after it
    """

    number: int
    id: str
    webhook_id: str
    type: str
    body: str
    attempt: int
    give_up_at: datetime
    format: str
    url_sealed: str
    secret_sealed: str | None
    old_secret_sealed: str | None
    old_secret_until: datetime | None


class Attempt(NamedTuple):
    """How one attempt went.

    status      the answer's HTTP status; None where there was none
    error       why it counts as failed; None for a success
    answer      how the answer's body begins, as plain text
    retry_at    when to try again after a failure; None gives up
    gone        the endpoint says that it is no more
    """

    delivery: Delivery
    at: datetime
    status: int | None
    milliseconds: int
    error: str | None
    answer: str | None
    retry_at: datetime | None = None
    gone: bool = False


class Disabled(NamedTuple):
    """A webhook that `settle` has just disabled. reason: `gone` or `failing`."""

    webhook_id: str
    account_id: str
    project_id: str
    shown: str
    reason: str
    failures: int


class Look(NamedTuple):
    """The time, when the first row is due (None: there is none), and the projects that have webhooks."""

    now: datetime
    next_at: datetime | None
    projects: frozenset[str]


async def look(store: Store) -> Look:
    """What there is to do, from the head of an index, and who listens."""
    first = select(webhook_deliveries.c.next_at).where(PENDING).order_by(webhook_deliveries.c.next_at).limit(1)
    async with store.reading() as conn:
        next_at = (await conn.execute(first)).scalar_one_or_none()
        listening = await conn.execute(select(webhooks.c.project_id).where(webhooks.c.enabled).distinct())
        return Look(await store.now_on(conn), next_at, frozenset(listening.scalars()))


async def take(tx: WriteTransaction, room: int, allowed: Callable[[str], int]) -> list[Delivery]:
    """Take up to `room` due rows, the longest due first, of each webhook at most as many as are `allowed` for it now.

    Rows that another server is just taking are passed over; each that is taken is this server's for a lease.
    """
    deliveries = webhook_deliveries.c
    due = (
        select(deliveries.number, deliveries.webhook_id)
        .where(PENDING, deliveries.next_at <= tx.now)
        .order_by(deliveries.next_at, deliveries.number)
        .limit(LOOKED_AT)
    )
    left: dict[str, int] = {}
    full: list[str] = []
    numbers: list[int] = []
    while len(numbers) < room:
        # Webhooks that have their fill are left out of the next look, so that none stands before the others.
        query = due.where(deliveries.webhook_id.not_in(full)) if full else due
        found = (await tx.conn.execute(query)).all()
        full = []
        for number, webhook_id in found:
            if left.setdefault(webhook_id, allowed(webhook_id)) > 0 and len(numbers) < room:
                left[webhook_id] -= 1
                numbers.append(number)
        full = [webhook_id for webhook_id, more in left.items() if more <= 0]
        if len(found) < LOOKED_AT or not full or all(webhook_id not in full for _, webhook_id in found):
            break
    return await _lease(tx, numbers) if numbers else []


async def _lease(tx: WriteTransaction, numbers: Sequence[int]) -> list[Delivery]:
    deliveries = webhook_deliveries.c
    names = Delivery._fields
    of_hook = [webhooks.c[name] for name in names[names.index("format") :]]
    query = (
        select(
            deliveries.number,
            deliveries.id,
            deliveries.webhook_id,
            deliveries.type,
            deliveries.body,
            deliveries.attempts + 1,
            deliveries.give_up_at,
            *of_hook,
            webhooks.c.id,
        )
        .outerjoin(webhooks, webhooks.c.id == deliveries.webhook_id)
        .where(deliveries.number.in_(numbers), PENDING, deliveries.next_at <= tx.now)
        .order_by(deliveries.number)
        .with_for_update(of=webhook_deliveries, skip_locked=True)
    )
    taken = (await tx.conn.execute(query)).all()
    orphans = [row[0] for row in taken if row[-1] is None]
    if orphans:  # their webhook was deleted while they were written
        await tx.conn.execute(delete(webhook_deliveries).where(deliveries.number.in_(orphans)))
    jobs = [Delivery._make(row[:-1]) for row in taken if row[-1] is not None]
    if jobs:
        await tx.conn.execute(
            update(webhook_deliveries)
            .where(deliveries.number.in_([job.number for job in jobs]))
            .values(next_at=tx.now + LEASE, attempts=deliveries.attempts + 1)
        )
    return jobs


async def settle(tx: WriteTransaction, attempts: Sequence[Attempt]) -> list[Disabled]:
    """Write down how attempts went; the webhooks that are disabled by it.

    An attempt whose row was taken by another server since, or is gone, changes nothing.
    """
    hook_ids = sorted({attempt.delivery.webhook_id for attempt in attempts})
    # Webhooks before their rows, in id order, as everywhere: nobody waits in a circle.
    query = select(webhooks).where(webhooks.c.id.in_(hook_ids)).order_by(webhooks.c.id).with_for_update()
    hooks = {row.id: row for row in await tx.conn.execute(query)}
    disabled = []
    for hook_id in hook_ids:
        own = [attempt for attempt in attempts if attempt.delivery.webhook_id == hook_id]
        kept = [attempt for attempt in own if await _settle_one(tx, attempt)]
        if hook_id in hooks and kept:
            off = await _count(tx, hooks[hook_id], kept)
            if off is not None:
                disabled.append(off)
    return disabled


async def _settle_one(tx: WriteTransaction, attempt: Attempt) -> bool:
    delivery = attempt.delivery
    if attempt.error is None:
        values: dict[str, Any] = {"state": "delivered", "next_at": None, "finished_at": tx.now}
    elif attempt.retry_at is None:
        values = {"state": "failed", "next_at": None, "finished_at": tx.now}
    else:
        values = {"next_at": attempt.retry_at}
    mine = update(webhook_deliveries).where(
        webhook_deliveries.c.number == delivery.number,
        webhook_deliveries.c.attempts == delivery.attempt,
        webhook_deliveries.c.state == "pending",
    )
    if (await tx.conn.execute(mine.values(values))).rowcount != 1:
        return False
    await tx.conn.execute(
        webhook_attempts.insert().values(
            delivery_number=delivery.number,
            attempt=delivery.attempt,
            at=attempt.at,
            status=attempt.status,
            milliseconds=attempt.milliseconds,
            error=attempt.error,
            answer=attempt.answer,
        )
    )
    return True


async def _count(tx: WriteTransaction, hook: Any, attempts: Sequence[Attempt]) -> Disabled | None:
    failures, since = hook.failures, hook.failing_since
    for attempt in attempts:
        failures, since = (0, None) if attempt.error is None else (failures + 1, since or attempt.at)
    values: dict[str, Any] = {"failures": failures, "failing_since": since}
    reason = None
    if any(attempt.gone for attempt in attempts):
        reason = "gone"
    elif since is not None and failures >= DISABLE_FAILURES and tx.now - since >= DISABLE_AFTER:
        reason = "failing"
    if reason is not None and hook.enabled:
        values |= {"enabled": False, "disabled_reason": reason, "disabled_at": tx.now, "updated_at": tx.now}
        await drop_pending(tx, hook.id)
    if (values["failures"], values["failing_since"]) != (hook.failures, hook.failing_since) or len(values) > 2:
        await tx.conn.execute(update(webhooks).where(webhooks.c.id == hook.id).values(values))
    if reason is None or not hook.enabled:
        return None
    return Disabled(hook.id, hook.billing_account_id, hook.project_id, hook.name or hook.url_shown, reason, failures)


async def drop_pending(tx: WriteTransaction, webhook_id: str) -> None:
    """Send nothing more of what waits for a webhook, whose row the caller has locked."""
    waiting = (webhook_deliveries.c.webhook_id == webhook_id, webhook_deliveries.c.state == "pending")
    await tx.conn.execute(
        update(webhook_deliveries).where(*waiting).values(state="dropped", next_at=None, finished_at=tx.now)
    )


async def give_back(tx: WriteTransaction, deliveries: Collection[Delivery]) -> None:
    """Let go of rows that were taken and not sent: they are due at once, for any server."""
    for delivery in deliveries:
        await tx.conn.execute(
            update(webhook_deliveries)
            .where(
                webhook_deliveries.c.number == delivery.number,
                webhook_deliveries.c.attempts == delivery.attempt,
                webhook_deliveries.c.state == "pending",
            )
            .values(next_at=tx.now, attempts=delivery.attempt - 1)
        )


async def prune(tx: WriteTransaction) -> int:
    """Delete some of the deliveries that were finished long ago, with their attempts; how many."""
    old = (
        select(webhook_deliveries.c.number)
        .where(webhook_deliveries.c.finished_at <= tx.now - KEPT_FOR)
        .order_by(webhook_deliveries.c.finished_at)
        .limit(PRUNED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    numbers = list((await tx.conn.execute(old)).scalars())
    if numbers:
        await tx.conn.execute(delete(webhook_attempts).where(webhook_attempts.c.delivery_number.in_(numbers)))
        await tx.conn.execute(delete(webhook_deliveries).where(webhook_deliveries.c.number.in_(numbers)))
    return len(numbers)
