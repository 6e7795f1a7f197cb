"""Browsers that are logged in, and the one-time links they may log in with.

A session's secret (`hls_…`) lives in a cookie, a link's (`hll_…`) in the fragment of its address; both are made like a
token's, and stored only as their SHA-256. A session has the rights of the token it was made from, now: it is looked up
together with that token each time, so that it ends with it. A link can be used once: the row itself is the lock.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Select, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store import audit
from heartlane.store.audit import Actor
from heartlane.store.columns import Timestamp
from heartlane.store.ids import new_id
from heartlane.store.pages import Page, cursor_id, page
from heartlane.store.schema import accounts, tokens
from heartlane.store.session_schema import login_links, sessions
from heartlane.store.store import Store, WriteTransaction
from heartlane.store.tokens import DEFAULT_ACCOUNT, Token, hash_of, new_secret, select_tokens

PREFIX: Final = "hls_"
LINK_PREFIX: Final = "hll_"
LINK_LIFETIME: Final = timedelta(minutes=5)
KEPT: Final = timedelta(days=30)
"""How long a session that is over can still be listed."""
LINKS_KEPT: Final = timedelta(days=1)

Method = Literal["token", "link"]
EndReason = Literal["logged_out", "revoked", "replaced"]
FailureReason = Literal["unknown", "expired", "revoked", "used", "elsewhere"]


class Session(NamedTuple):
    """A browser that is or was logged in. Times are aware UTC.

    token_name      of the token whose rights it has; `scope` and `project_id` are that token's too
    method          how it was logged in
    last_used_at    to the minute
    expires_at      the latest moment it can last to
    """

    id: str
    account_id: str
    token_id: str
    token_name: str
    scope: str
    project_id: str | None
    method: Method
    address: str | None
    user_agent: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    end_reason: EndReason | None


class Found(NamedTuple):
    """A session by its secret: itself, its token as it is now, and the database's time."""

    session: Session
    token: Token
    now: datetime


class LoginFailed(Exception):
    """A login with something that opens nothing; `reason` says why, `token` which token it was where that is known."""

    def __init__(self, reason: FailureReason, token: Token | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.token = token


class Limits(NamedTuple):
    """How long sessions last: unused, and in all."""

    idle: timedelta
    absolute: timedelta


class Started(NamedTuple):
    """A session that has just begun, and its secret, which can't be had again."""

    session: Session
    secret: str


def _select() -> Select[Any]:
    return select(
        sessions.c.id,
        sessions.c.account_id,
        sessions.c.token_id,
        tokens.c.name,
        tokens.c.scope,
        tokens.c.project_id,
        sessions.c.method,
        sessions.c.address,
        sessions.c.user_agent,
        sessions.c.created_at,
        sessions.c.last_used_at,
        sessions.c.expires_at,
        sessions.c.ended_at,
        sessions.c.end_reason,
    ).join_from(sessions, tokens)


# --- reads --------------------------------------------------------------------------------------------------------


async def find_by_secret(store: Store, secret: str) -> Found | None:
    """The session with this secret, one that is over too. Raises StoreUnavailable."""
    wanted = hash_of(secret)
    on_server = store.dialect == "postgresql"
    clock = func.clock_timestamp(type_=Timestamp()) if on_server else literal(None, Timestamp())
    async with store.reading() as conn:
        query = _select().add_columns(sessions.c.secret_hash, clock).where(sessions.c.secret_hash == wanted)
        row = (await conn.execute(query)).one_or_none()
        if row is None or not hmac.compare_digest(row[-2], wanted):
            return None
        session = Session._make(row[:-2])
        token = Token._make((await conn.execute(select_tokens().where(tokens.c.id == session.token_id))).one())
    now = store.clock.adjusted(row[-1].astimezone(UTC)) if on_server else store.clock.host_time()
    return Found(session, token, now)


async def list_sessions(
    conn: AsyncConnection,
    account_id: str,
    now: datetime,
    limits: Limits,
    *,
    token_id: str | None,
    project_id: str | None,
    everything: bool,
    cursor: str | None,
    limit: int,
) -> Page:
    """The account's sessions, newest first: only this token's, or those of tokens limited to this project, where given.

    everything: those that are over too. Raises BadCursor.
    """
    query = _select().where(sessions.c.account_id == account_id)
    if token_id is not None:
        query = query.where(sessions.c.token_id == token_id)
    if project_id is not None:
        query = query.where(tokens.c.project_id == project_id)
    if not everything:
        query = query.where(
            sessions.c.ended_at.is_(None),
            sessions.c.expires_at > now,
            sessions.c.last_used_at > now - limits.idle,
            tokens.c.revoked_at.is_(None),
            tokens.c.expires_at.is_(None) | (tokens.c.expires_at > now),
        )
    if cursor is not None:
        query = query.where(sessions.c.id < cursor_id("sessions", cursor))
    rows = [Session._make(row) for row in await conn.execute(query.order_by(sessions.c.id.desc()).limit(limit + 1))]
    return page(rows, limit, "sessions", lambda session: session.id)


async def read_session(conn: AsyncConnection, session_id: str) -> Session | None:
    """The session, or None."""
    row = (await conn.execute(_select().where(sessions.c.id == session_id))).one_or_none()
    return None if row is None else Session._make(row)


# --- writes -------------------------------------------------------------------------------------------------------


async def log_in(tx: WriteTransaction, secret: str, actor: Actor, limits: Limits) -> Started:
    """Begin a session with a token, or with a link, which is used up by it. Raises LoginFailed."""
    if secret.startswith(LINK_PREFIX):
        token, method = await _use_link(tx, secret), _LINK
    else:
        query = select_tokens().where(tokens.c.token_hash == hash_of(secret))
        row = (await tx.conn.execute(query)).one_or_none()
        if row is None:
            raise LoginFailed("unknown")
        token, method = Token._make(row), _TOKEN
    state = token.state(tx.now)
    if state != "active":
        raise LoginFailed(state, token)
    if not token.is_for(actor.address):
        raise LoginFailed("elsewhere", token)
    await tx.conn.execute(delete(sessions).where(sessions.c.expires_at < tx.now - KEPT))
    new = new_secret(PREFIX)
    session_id = new_id()
    row_values = {
        "id": session_id,
        "account_id": token.account_id,
        "token_id": token.id,
        "secret_hash": hash_of(new),
        "method": method,
        "address": actor.address,
        "user_agent": actor.user_agent,
        "created_at": tx.now,
        "last_used_at": tx.now,
        "expires_at": tx.now + limits.absolute,
    }
    await tx.conn.execute(insert(sessions).values(row_values))
    session = await read_session(tx.conn, session_id)
    assert session is not None  # noqa: S101 - it was written just now
    who = actor._replace(kind="session", name=token.name, token_id=token.id, session_id=session_id)
    await audit.record(
        tx.conn,
        tx.now,
        who,
        "session.started",
        account_id=token.account_id,
        project_id=token.project_id,
        object_type="session",
        object_id=session_id,
        object_name=token.name,
        details={"method": method, "expires_at": session.expires_at},
    )
    return Started(session, new)


_TOKEN: Final[Method] = "token"  # noqa: S105 - a way to log in
_LINK: Final[Method] = "link"


async def _use_link(tx: WriteTransaction, secret: str) -> Token:
    """The token of a link, which is used up. Two that come at once: the second waits for the row, and finds it used."""
    mine = login_links.c.secret_hash == hash_of(secret)
    unused = update(login_links).where(mine, login_links.c.used_at.is_(None), login_links.c.expires_at > tx.now)
    used = await tx.conn.execute(unused.values(used_at=tx.now))
    row = (await tx.conn.execute(select_tokens().join(login_links).where(mine))).one_or_none()
    if row is None:
        raise LoginFailed("unknown")
    token = Token._make(row)
    if used.rowcount != 1:
        used_at = (await tx.conn.execute(select(login_links.c.used_at).where(mine))).scalar_one()
        raise LoginFailed("expired" if used_at is None else "used", token)
    return token


async def record_failure(tx: WriteTransaction, failure: LoginFailed, actor: Actor) -> None:
    """Note a login that failed: with the account of the token it was, else with the account `default`."""
    token = failure.token
    account_id = None if token is None else token.account_id
    if token is None:
        query = select(accounts.c.id).where(accounts.c.name == DEFAULT_ACCOUNT)
        account_id = (await tx.conn.execute(query)).scalar_one_or_none()
    await audit.record(
        tx.conn,
        tx.now,
        actor,
        "login.failed",
        account_id=account_id,
        project_id=None if token is None else token.project_id,
        object_type="token",
        object_id=None if token is None else token.id,
        object_name=None if token is None else token.name,
        details={"reason": failure.reason},
    )


async def end(tx: WriteTransaction, session: Session, reason: EndReason, actor: Actor) -> Session:
    """Let the session open nothing any more. One that was ended before stays as it was."""
    done = await tx.conn.execute(
        update(sessions)
        .where(sessions.c.id == session.id, sessions.c.ended_at.is_(None))
        .values(ended_at=tx.now, end_reason=reason)
    )
    if done.rowcount != 1:
        return await read_session(tx.conn, session.id) or session
    await audit.record(
        tx.conn,
        tx.now,
        actor,
        "session.ended",
        account_id=session.account_id,
        project_id=session.project_id,
        object_type="session",
        object_id=session.id,
        object_name=session.token_name,
        details={"reason": reason},
    )
    return session._replace(ended_at=tx.now, end_reason=reason)


async def make_link(tx: WriteTransaction, token_id: str, actor: Actor) -> tuple[str, datetime]:
    """A one-time link to log in with this token's rights: its secret, and until when it can be used."""
    await tx.conn.execute(delete(login_links).where(login_links.c.expires_at < tx.now - LINKS_KEPT))
    token = Token._make((await tx.conn.execute(select_tokens().where(tokens.c.id == token_id))).one())
    secret, link_id = new_secret(LINK_PREFIX), new_id()
    expires_at = tx.now + LINK_LIFETIME
    row = {
        "id": link_id,
        "token_id": token_id,
        "secret_hash": hash_of(secret),
        "created_at": tx.now,
        "expires_at": expires_at,
    }
    await tx.conn.execute(insert(login_links).values(row))
    await audit.record(
        tx.conn,
        tx.now,
        actor,
        "login_link.created",
        account_id=token.account_id,
        project_id=token.project_id,
        object_type="login_link",
        object_id=link_id,
        object_name=token.name,
        details={"expires_at": expires_at},
    )
    return secret, expires_at


async def touch(store: Store, session_ids: set[str]) -> None:
    """Note that these sessions were used just now. Raises StoreUnavailable."""
    async with store.writing() as tx:
        used = update(sessions).where(sessions.c.id.in_(sorted(session_ids)))
        await tx.conn.execute(used.values(last_used_at=tx.now))
