"""Webhooks and the log of what was sent to them: made, listed, changed. What is secret comes and goes sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.news import TEST
from heartlane.store.deliveries import drop_pending
from heartlane.store.ids import new_id
from heartlane.store.news_schema import OPEN, notices, webhook_attempts, webhook_deliveries, webhooks
from heartlane.store.outbox import GIVE_UP_AFTER, News, body_of, delivery_row
from heartlane.store.pages import Page, cursor_id, cursor_number, page
from heartlane.store.store import WriteTransaction

WEBHOOKS_MAX: Final = 50
"""Webhooks of one project: each change that they listen for writes a row for each."""


class Webhook(NamedTuple):
    """One row of `webhooks`, without what is sealed.

    failures            attempts in a row that failed; 0 after a success
    disabled_reason     `by_hand`, `gone` (the endpoint answered 410) or `failing` (for a day)
    old_secret_until    until when the secret before the present one is signed with, too
    """

    id: str
    billing_account_id: str
    project_id: str
    name: str | None
    format: str
    url_shown: str
    events_json: str
    old_secret_until: datetime | None
    enabled: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    failures: int
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime


class LoggedAttempt(NamedTuple):
    """One row of `webhook_attempts`."""

    delivery_number: int
    attempt: int
    at: datetime
    status: int | None
    milliseconds: int
    error: str | None
    answer: str | None


class LoggedDelivery(NamedTuple):
    """One delivery of the log, with its attempts, oldest first."""

    number: int
    id: str
    webhook_id: str
    type: str
    body: str
    state: str
    next_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    attempts: Sequence[LoggedAttempt] = ()


_COLUMNS: Final = tuple(webhooks.c[name] for name in Webhook._fields)
_LOGGED: Final = tuple(webhook_deliveries.c[name] for name in LoggedDelivery._fields if name != "attempts")


async def create_webhook(
    tx: WriteTransaction, account_id: str, project_id: str, values: Mapping[str, Any]
) -> Webhook | None:
    """A new webhook of a project that the caller has looked up; `values`: column → value. None: it has enough."""
    count = select(func.count()).where(webhooks.c.project_id == project_id)
    if (await tx.conn.execute(count)).scalar_one() >= WEBHOOKS_MAX:
        return None
    row = {
        "id": new_id(),
        "billing_account_id": account_id,
        "project_id": project_id,
        "failures": 0,
        "created_at": tx.now,
        "updated_at": tx.now,
        **values,
    }
    await tx.conn.execute(webhooks.insert().values(row))
    made = await read_webhook(tx.conn, project_id, row["id"])
    assert made is not None  # noqa: S101 - it was written just now
    return made


async def list_webhooks(conn: AsyncConnection, project_id: str, *, cursor: str | None, limit: int) -> Page:
    """The webhooks of a project that the caller has looked up, newest first. Raises BadCursor."""
    query = select(*_COLUMNS).where(webhooks.c.project_id == project_id)
    if cursor is not None:
        query = query.where(webhooks.c.id < cursor_id("webhooks", cursor))
    found = await conn.execute(query.order_by(webhooks.c.id.desc()).limit(limit + 1))
    return page([Webhook._make(row) for row in found], limit, "webhooks", lambda hook: hook.id)


async def read_webhook(
    conn: AsyncConnection, project_id: str, webhook_id: str, *, lock: bool = False
) -> Webhook | None:
    """The webhook, or None where the project has none of that id."""
    query = select(*_COLUMNS).where(webhooks.c.id == webhook_id, webhooks.c.project_id == project_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else Webhook._make(row)


async def change_webhook(tx: WriteTransaction, webhook: Webhook, values: Mapping[str, Any]) -> Webhook:
    """Change the given columns of a webhook that the caller has locked.

    Disabled, it drops what still waits; enabled, it begins anew, and its notice is closed.
    """
    changes = dict(values)
    if not changes:
        return webhook
    if changes.get("enabled") is False and webhook.enabled:
        changes |= {"disabled_reason": "by_hand", "disabled_at": tx.now}
        await drop_pending(tx, webhook.id)
    if changes.get("enabled") is True and not webhook.enabled:
        changes |= {"disabled_reason": None, "disabled_at": None, "failures": 0, "failing_since": None}
        await _close_notices(tx, webhook.id)
    changes["updated_at"] = tx.now
    await tx.conn.execute(update(webhooks).where(webhooks.c.id == webhook.id).values(changes))
    return webhook._replace(**{name: value for name, value in changes.items() if name in Webhook._fields})


async def rotate_secret(tx: WriteTransaction, webhook: Webhook, sealed: str, overlap: timedelta) -> Webhook:
    """Sign with another secret from now on, and for `overlap` with the one before, too. The caller has locked it."""
    until = tx.now + overlap if overlap else None
    await tx.conn.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook.id)
        .values(
            old_secret_sealed=webhooks.c.secret_sealed if overlap else None,
            old_secret_until=until,
            secret_sealed=sealed,
            updated_at=tx.now,
        )
    )
    return webhook._replace(old_secret_until=until, updated_at=tx.now)


async def delete_webhook(tx: WriteTransaction, webhook: Webhook) -> None:
    """Delete a webhook that the caller has locked, with its log and all that waits for it."""
    own = select(webhook_deliveries.c.number).where(webhook_deliveries.c.webhook_id == webhook.id)
    await tx.conn.execute(delete(webhook_attempts).where(webhook_attempts.c.delivery_number.in_(own)))
    await tx.conn.execute(delete(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook.id))
    await tx.conn.execute(delete(webhooks).where(webhooks.c.id == webhook.id))
    await _close_notices(tx, webhook.id)


async def _close_notices(tx: WriteTransaction, webhook_id: str) -> None:
    about = (notices.c.webhook_id == webhook_id, OPEN)
    await tx.conn.execute(update(notices).where(*about).values(closed_at=tx.now, closed_by="progress"))


# --- the log ------------------------------------------------------------------------------------------------------


async def send_test(tx: WriteTransaction, webhook: Webhook, project_name: str) -> LoggedDelivery:
    """Put a test into the outbox; it is sent whether or not the webhook is enabled."""
    body = body_of(News(TEST, webhook.project_id, {"webhook": {"id": webhook.id}}), project_name, tx.now)
    row = delivery_row(webhook.id, TEST, body, tx.now)
    await tx.conn.execute(webhook_deliveries.insert().values(row))
    tx.told = True
    made = await read_delivery(tx.conn, webhook.id, row["id"])
    assert made is not None  # noqa: S101 - it was written just now
    return made


async def list_deliveries(
    conn: AsyncConnection, webhook_id: str, *, state: str | None, cursor: str | None, limit: int
) -> Page:
    """What was and will be sent to a webhook that the caller has looked up, newest first. Raises BadCursor."""
    query = select(*_LOGGED).where(webhook_deliveries.c.webhook_id == webhook_id)
    if state is not None:
        query = query.where(webhook_deliveries.c.state == state)
    if cursor is not None:
        query = query.where(webhook_deliveries.c.number < cursor_number("deliveries", cursor))
    found = await conn.execute(query.order_by(webhook_deliveries.c.number.desc()).limit(limit + 1))
    rows = [LoggedDelivery(*row) for row in found]
    shown = page(rows, limit, "deliveries", lambda delivery: delivery.number)
    return Page(await _with_attempts(conn, shown.rows), shown.next_cursor)


async def read_delivery(conn: AsyncConnection, webhook_id: str, delivery_id: str) -> LoggedDelivery | None:
    """One delivery, or None where the webhook has none of that id."""
    query = select(*_LOGGED).where(
        webhook_deliveries.c.id == delivery_id, webhook_deliveries.c.webhook_id == webhook_id
    )
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else (await _with_attempts(conn, [LoggedDelivery(*row)]))[0]


async def resend(tx: WriteTransaction, webhook_id: str, delivery_id: str) -> LoggedDelivery | None:
    """Send a delivery again, now and as long as a new one is tried; its id stays. One that waits already is due now."""
    own = update(webhook_deliveries).where(
        webhook_deliveries.c.id == delivery_id, webhook_deliveries.c.webhook_id == webhook_id
    )
    # A row that is being sent just now is under a lease: it goes out once more, by whoever takes it next.
    again = {"state": "pending", "next_at": tx.now, "give_up_at": tx.now + GIVE_UP_AFTER, "finished_at": None}
    if (await tx.conn.execute(own.values(again))).rowcount == 0:
        return None
    tx.told = True
    return await read_delivery(tx.conn, webhook_id, delivery_id)


async def _with_attempts(conn: AsyncConnection, rows: Sequence[LoggedDelivery]) -> list[LoggedDelivery]:
    numbers = [row.number for row in rows]
    query = (
        select(webhook_attempts)
        .where(webhook_attempts.c.delivery_number.in_(numbers))
        .order_by(webhook_attempts.c.delivery_number, webhook_attempts.c.attempt)
    )
    made: dict[int, list[LoggedAttempt]] = {}
    for row in (await conn.execute(query)).all() if numbers else ():
        made.setdefault(row.delivery_number, []).append(LoggedAttempt._make(row))
    return [row._replace(attempts=made.get(row.number, [])) for row in rows]
