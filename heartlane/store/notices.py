"""Notices: what a person should know, told once for each episode, closed by progress or by hand.

    await add_notices(tx, [Notice("budget_80", key="budget_80:2026-01-02", …)])

in the transaction of what it is about. The key names the episode: the same one in the same project is never told twice,
on whichever server; a condition that comes back after it was gone has another key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.lanes.news import NOTICE_KINDS
from heartlane.store.ids import new_id
from heartlane.store.news_schema import OPEN, notice_rules, notices
from heartlane.store.outbox import News, tell
from heartlane.store.pages import Page, Reach, cursor_number, page
from heartlane.store.rows import Rows, TransactionRows
from heartlane.wire.parse import dump_json

if TYPE_CHECKING:
    from heartlane.store.store import WriteTransaction

PLAN_WAITING_SECONDS: Final = 3_600
TEXT_MAX: Final = 1_000
KEPT_FOR: Final = timedelta(days=90)
"""How long a closed notice is kept, and its key remembered."""
PRUNED_AT_ONCE: Final = 500

RULES: Final[Mapping[str, Mapping[str, Any]]] = {
    kind: {"enabled": True, **({"after_seconds": PLAN_WAITING_SECONDS} if kind == "plan_waiting" else {})}
    for kind in NOTICE_KINDS
}
"""Kind → what holds for it unless a project says otherwise."""

RULES_OF: Final = "SELECT CAST(project_id AS text), rules_json FROM notice_rules WHERE project_id {ids}"


class Notice(NamedTuple):
    """A notice about to be told.

    kind        one of `heartlane.lanes.news.NOTICE_KINDS`
    key         names the episode within the project
    text        a sentence or two for a person; cut to 1,000 characters
    details     JSON values that say more
    """

    kind: str
    key: str
    account_id: str
    project_id: str
    text: str
    run_id: str | None = None
    plan_id: str | None = None
    webhook_id: str | None = None
    worker_id: str | None = None
    details: Mapping[str, Any] = {}


class NoticeRow(NamedTuple):
    """One row of `notices`."""

    number: int
    id: str
    billing_account_id: str
    project_id: str
    kind: str
    key: str
    text: str
    run_id: str | None
    plan_id: str | None
    webhook_id: str | None
    worker_id: str | None
    details_json: str
    raised_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    dismissed_by: str | None


def rules_of(rules_json: str | None) -> dict[str, dict[str, Any]]:
    """The rules of a project, those that it doesn't set as they are by default."""
    own: dict[str, dict[str, Any]] = json.loads(rules_json) if rules_json else {}
    return {kind: {**rule, **own.get(kind, {})} for kind, rule in RULES.items()}


async def add_notices(tx: WriteTransaction, wanted: Sequence[Notice]) -> int:
    """Tell those that are new and that their projects' rules allow, and have them sent; how many that were."""
    raised, told = await write_notices(TransactionRows(tx.conn), wanted, tx.now)
    tx.told = tx.told or told
    return len(raised)


async def write_notices(rows: Rows, wanted: Sequence[Notice], now: datetime) -> tuple[list[str], bool]:
    """The same inside any transaction: the ids of the new ones, and whether anything went into the outbox."""
    if not wanted:
        return [], False
    asked = sorted({notice.project_id for notice in wanted})
    found: dict[str, str] = dict([tuple(row) for row in await rows.by_ids(RULES_OF, asked)])
    rules = {notice.project_id: rules_of(found.get(notice.project_id)) for notice in wanted}
    allowed = [notice for notice in wanted if rules[notice.project_id][notice.kind]["enabled"]]
    if not allowed:
        return [], False
    made = [_row(notice, now) for notice in allowed]
    new = await rows.insert_new(notices, made)
    if not new:
        return [], False
    news = [
        News(f"notice.{allowed[place].kind}", allowed[place].project_id, {"notice": notice_data(made[place])})
        for place in new
    ]
    return [made[place]["id"] for place in new], await tell(rows, news, now)


def _row(notice: Notice, now: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "billing_account_id": notice.account_id,
        "project_id": notice.project_id,
        "kind": notice.kind,
        "key": notice.key,
        "text": notice.text[:TEXT_MAX].replace("\0", ""),
        "run_id": notice.run_id,
        "plan_id": notice.plan_id,
        "webhook_id": notice.webhook_id,
        "worker_id": notice.worker_id,
        "details_json": dump_json(dict(notice.details)),
        "raised_at": now,
    }


def notice_data(row: Mapping[str, Any]) -> dict[str, Any]:
    """A notice as it is answered and sent."""
    return {
        "id": row["id"],
        "project_id": row["project_id"],
        "kind": row["kind"],
        "text": row["text"],
        "run_id": row["run_id"],
        "plan_id": row["plan_id"],
        "webhook_id": row["webhook_id"],
        "worker_id": row["worker_id"],
        "details": json.loads(row["details_json"]),
        "raised_at": row["raised_at"],
        "closed_at": row.get("closed_at"),
        "closed_by": row.get("closed_by"),
        "dismissed_by": row.get("dismissed_by"),
    }


async def close_notices(tx: WriteTransaction, ids: Sequence[str]) -> None:
    """Close notices whose condition is gone."""
    if ids:
        await tx.conn.execute(
            update(notices).where(notices.c.id.in_(ids), OPEN).values(closed_at=tx.now, closed_by="progress")
        )


async def close_by_key(tx: WriteTransaction, project_id: str, keys: Sequence[str]) -> None:
    """The same by project and keys."""
    await tx.conn.execute(
        update(notices)
        .where(notices.c.project_id == project_id, notices.c.key.in_(keys), OPEN)
        .values(closed_at=tx.now, closed_by="progress")
    )


async def close_by_kind(tx: WriteTransaction, project_id: str, kinds: Sequence[str]) -> None:
    """The same by project and kinds."""
    if kinds:
        await tx.conn.execute(
            update(notices)
            .where(notices.c.project_id == project_id, notices.c.kind.in_(kinds), OPEN)
            .values(closed_at=tx.now, closed_by="progress")
        )


async def list_notices(
    conn: AsyncConnection,
    reach: Reach,
    *,
    project_id: str | None,
    is_open: bool | None,
    kind: str | None,
    cursor: str | None,
    limit: int,
) -> Page:
    """The notices within reach, newest first. Raises BadCursor."""
    query = select(notices).where(*_within(reach))
    if project_id is not None:
        query = query.where(notices.c.project_id == project_id)
    if kind is not None:
        query = query.where(notices.c.kind == kind)
    if is_open is not None:
        query = query.where(OPEN if is_open else notices.c.closed_at.is_not(None))
    if cursor is not None:
        query = query.where(notices.c.number < cursor_number("notices", cursor))
    found = await conn.execute(query.order_by(notices.c.number.desc()).limit(limit + 1))
    return page([NoticeRow._make(row) for row in found], limit, "notices", lambda notice: notice.number)


async def dismiss_notice(tx: WriteTransaction, notice_id: str, reach: Reach, by: str) -> NoticeRow | None:
    """Close a notice by hand; one that is closed already stays as it is. None where there is none within reach."""
    query = select(notices).where(notices.c.id == notice_id, *_within(reach)).with_for_update()
    row = (await tx.conn.execute(query)).one_or_none()
    if row is None:
        return None
    notice = NoticeRow._make(row)
    if notice.closed_at is not None:
        return notice
    values = {"closed_at": tx.now, "closed_by": "dismissed", "dismissed_by": by}
    await tx.conn.execute(update(notices).where(notices.c.number == notice.number).values(values))
    return notice._replace(closed_at=tx.now, closed_by="dismissed", dismissed_by=by)


def _within(reach: Reach) -> list[Any]:
    mine = [notices.c.billing_account_id == reach.account_id]
    if reach.project_id is not None:
        mine.append(notices.c.project_id == reach.project_id)
    return mine


async def read_rules(conn: AsyncConnection, project_id: str) -> dict[str, dict[str, Any]]:
    """The rules of a project that the caller has looked up."""
    query = select(notice_rules.c.rules_json).where(notice_rules.c.project_id == project_id)
    return rules_of((await conn.execute(query)).scalar_one_or_none())


async def write_rules(tx: WriteTransaction, project_id: str, rules: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Set the rules of a project that the caller has looked up: what isn't named is as by default."""
    make = postgresql.insert if tx.conn.dialect.name == "postgresql" else sqlite.insert
    text = dump_json(dict(rules))
    values = {"rules_json": text, "updated_at": tx.now}
    statement = make(notice_rules).values(project_id=project_id, **values)
    await tx.conn.execute(statement.on_conflict_do_update(index_elements=["project_id"], set_=values))
    return rules_of(text)


async def prune(tx: WriteTransaction) -> int:
    """Delete some of the notices that were closed long ago; how many."""
    old = (
        select(notices.c.number)
        .where(notices.c.closed_at.is_not(None), notices.c.closed_at <= tx.now - KEPT_FOR)
        .order_by(notices.c.closed_at)
        .limit(PRUNED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    numbers = list((await tx.conn.execute(old)).scalars())
    if numbers:
        await tx.conn.execute(delete(notices).where(notices.c.number.in_(numbers)))
    return len(numbers)
