"""Who did what: an append-only log, written in the transaction of the change itself.

Whatever changes something by a person's hand calls `record` once, in the transaction that makes the change: an entry is
there exactly when the change is. Nothing updates or deletes an entry; the database's own triggers refuse to. Commands
on runs are recorded by the ledger (`heartlane.store.batch`), which is given the actor with the command.
"""

from __future__ import annotations

import getpass
import platform
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Select, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store.ids import new_id
from heartlane.store.pages import Page, Reach, cursor_number, page
from heartlane.store.schema import audit
from heartlane.wire.parse import dump_json

ActorKind = Literal["token", "session", "command_line", "server", "anonymous"]
USER_AGENT_MAX: Final = 300
"""Characters kept of what a client says it is."""
NAME_MAX: Final = 300
"""Characters kept of an object's name, such as a title."""
DETAILS_BYTES_MAX: Final = 20_000
"""An entry's details are never larger; one that would be says so instead."""
LIST_NAME: Final = "audit"
_COLUMNS: Final = tuple(column for column in audit.c if column.name != "number")


class Actor(NamedTuple):
    """Who does something.

    kind        token: a call with a bearer token; session: a browser that is logged in; command_line: `heartlane …` on
                the database itself; server: by itself; anonymous: nobody known, as in a login that failed
    name        the token's name; on the command line `user@host`
    address     the client's address, and user_agent what it says it is; None where there is none
    """

    kind: ActorKind
    name: str | None = None
    token_id: str | None = None
    session_id: str | None = None
    address: str | None = None
    user_agent: str | None = None


SERVER: Final = Actor("server")


class Entry(NamedTuple):
    """One entry: who did what to which object of which account (and project), and when by the database's clock.

    object_id       the object's id, or None where it has none
    details         what else there is to know: {"before": …, "after": …} for settings, reasons, states; no secrets
    """

    id: str
    account_id: str | None
    project_id: str | None
    at: datetime
    action: str
    object_type: str
    object_id: str | None
    object_name: str | None
    actor_kind: ActorKind
    actor_name: str | None
    token_id: str | None
    session_id: str | None
    address: str | None
    user_agent: str | None
    details_json: str


class AuditFilter(NamedTuple):
    """Which entries. None: any.

    action      an action's name, or its first part (`run` for `run.paused` and all others of runs)
    actor       a token's id or name, or a name of the command line's
    since       from this moment on; until: before this one
    """

    project_id: str | None = None
    action: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def command_line_actor() -> Actor:
    """Whoever works on the database by the command line: the user and the machine, as the system names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = "unknown"
    return Actor("command_line", f"{user}@{platform.node() or 'unknown'}")


def make_entry(
    now: datetime,
    actor: Actor,
    action: str,
    *,
    account_id: str | None,
    object_type: str,
    object_id: str | None,
    object_name: str | None = None,
    project_id: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> Entry:
    """An entry to be written in the transaction whose time is `now`."""
    text = dump_json(dict(details or {}))
    if len(text.encode()) > DETAILS_BYTES_MAX:
        text = dump_json({"left_out": f"the details were longer than {DETAILS_BYTES_MAX} bytes"})
    return Entry(
        id=new_id(),
        account_id=account_id,
        project_id=project_id,
        at=now,
        action=action,
        object_type=object_type,
        object_id=object_id,
        object_name=_cut(object_name, NAME_MAX),
        actor_kind=actor.kind,
        actor_name=_cut(actor.name, NAME_MAX),
        token_id=actor.token_id,
        session_id=actor.session_id,
        address=actor.address,
        user_agent=_cut(actor.user_agent, USER_AGENT_MAX),
        details_json=text,
    )


async def record(
    conn: AsyncConnection,
    now: datetime,
    actor: Actor,
    action: str,
    *,
    account_id: str | None,
    object_type: str,
    object_id: str | None,
    object_name: str | None = None,
    project_id: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write one entry in the transaction under way: `await record(tx.conn, tx.now, actor, "budget.changed", …)`.

    action      `object.done`, in the past tense
    details     JSON; at most DETAILS_BYTES_MAX; never a secret
    """
    entry = make_entry(
        now,
        actor,
        action,
        account_id=account_id,
        object_type=object_type,
        object_id=object_id,
        object_name=object_name,
        project_id=project_id,
        details=details,
    )
    await record_entries(conn, [entry])


async def record_entries(conn: AsyncConnection, entries: Iterable[Entry | None]) -> None:
    """Write entries in the transaction under way; None stands for nothing to tell."""
    rows = [entry._asdict() for entry in entries if entry is not None]
    if rows:
        await conn.execute(insert(audit), rows)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The details of changed settings: what differs, as it was and as it is.

    >>> changes({"name": "Shop", "max_failures": 5}, {"name": "Shop", "max_failures": 9})
    {'before': {'max_failures': 5}, 'after': {'max_failures': 9}}
    """
    names = [name for name in after if name != "updated_at" and before.get(name) != after[name]]
    return {"before": {name: before.get(name) for name in names}, "after": {name: after[name] for name in names}}


async def list_entries(
    conn: AsyncConnection, reach: Reach, wanted: AuditFilter, *, oldest_first: bool, cursor: str | None, limit: int
) -> Page:
    """The entries within reach, newest first or oldest first. Raises BadCursor."""
    query = _within(reach, wanted).order_by(audit.c.number if oldest_first else audit.c.number.desc())
    if cursor is not None:
        place = cursor_number(LIST_NAME, cursor)
        query = query.where(audit.c.number > place if oldest_first else audit.c.number < place)
    rows = (await conn.execute(query.limit(limit + 1))).all()
    shown = page(rows, limit, LIST_NAME, lambda row: row.number)
    return Page([Entry._make(row[1:]) for row in shown.rows], shown.next_cursor)


def details_of(entry: Entry) -> orjson.Fragment:
    """The details as they are answered."""
    return orjson.Fragment(entry.details_json)


def _within(reach: Reach, wanted: AuditFilter) -> Select[Any]:
    conditions: list[ColumnElement[bool]] = [audit.c.account_id == reach.account_id]
    if reach.project_id is not None:
        conditions.append(audit.c.project_id == reach.project_id)
    if wanted.project_id is not None:
        conditions.append(audit.c.project_id == wanted.project_id)
    if wanted.action is not None:
        family = audit.c.action.startswith(f"{wanted.action}.", autoescape=True)
        conditions.append(or_(audit.c.action == wanted.action, family))
    if wanted.actor is not None:
        named = audit.c.actor_name == wanted.actor
        conditions.append(or_(named, audit.c.token_id == wanted.actor) if _is_id(wanted.actor) else named)
    if wanted.since is not None:
        conditions.append(audit.c.at >= wanted.since)
    if wanted.until is not None:
        conditions.append(audit.c.at < wanted.until)
    return select(audit.c.number, *_COLUMNS).where(*conditions)


def _is_id(text: str) -> bool:
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and all(c in "0123456789abcdef-" for c in text)


def tame(text: str, most: int) -> str:
    """A client's text, at most so long, without what a terminal would act on and PostgreSQL can't store."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def _cut(text: str | None, most: int) -> str | None:
    return None if text is None else tame(text, most)
