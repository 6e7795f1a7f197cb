"""Accounts and their tokens: made, listed, revoked, rotated, and looked up by hash.

A token is `hlt_`, 43 characters that carry 256 random bits, and 6 characters of checksum. The checksum lets a mistyped
or made-up token be refused without asking the database, and secret scanners tell a real one from a look-alike. Only
the SHA-256 of the whole is stored: with that many random bits a slow password hash would add nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, get_args
from uuid import UUID

from sqlalchemy import Select, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store import audit
from heartlane.store.audit import Actor
from heartlane.store.columns import Timestamp
from heartlane.store.ids import new_id
from heartlane.store.schema import accounts, projects, tokens
from heartlane.store.store import Store, WriteTransaction
from heartlane.wire.networks import is_within, parse_networks

Scope = Literal["viewer", "worker", "operator", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
"""Each may do all that those before it may."""
PREFIX: Final = "hlt_"
DEFAULT_ACCOUNT: Final = "default"
NAME_MAX: Final = 200
"""Characters of a token's or an account's name."""
LIFETIME_MAX: Final = timedelta(days=36_500)
NETWORKS_MAX: Final = 50
"""Networks that one token may be limited to."""
RANDOM_BYTES: Final = 32
HINT_LENGTH: Final = len(PREFIX) + 8
"""Shown in lists. What stays hidden is still 208 random bits."""
_REST: Final = re.compile(r"[A-Za-z0-9_-]{49}")
_CHECKSUM_LENGTH: Final = 6


class TokenError(Exception):
    """What was asked for can't be done with the tokens there are; nothing was changed. The text says why."""


class Token(NamedTuple):
    """A token as lists show it. Times are aware UTC; None: never expires, not revoked, never used.

    worker_prefix   how the ids of the workers begin that it may speak as; None: any
    networks        from where it may be used, networks by comma; None: from anywhere
    """

    id: str
    name: str
    scope: Scope
    account_id: str
    account: str
    project_id: str | None
    hint: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    worker_prefix: str | None = None
    networks: str | None = None

    def is_for(self, address: str | None) -> bool:
        """Whether it may be used from this address."""
        return self.networks is None or is_within(address or "", parse_networks(self.networks))

    def state(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """Whether the token opens anything at `now`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


# --- the secret ---------------------------------------------------------------------------------------------------


def new_secret(prefix: str = PREFIX) -> str:
    """A new token, or a secret of another kind. The only moment at which it exists in the clear is now."""
    body = prefix + secrets.token_urlsafe(RANDOM_BYTES)
    return body + _checksum(body)


def is_well_formed(secret: str, prefix: str = PREFIX) -> bool:
    """Whether this can be a token (or a secret of another kind) at all: its shape and its checksum."""
    if not secret.startswith(prefix) or not _REST.fullmatch(secret, len(prefix)):
        return False
    return hmac.compare_digest(secret[-_CHECKSUM_LENGTH:], _checksum(secret[:-_CHECKSUM_LENGTH]))


def hash_of(secret: str) -> str:
    """What is stored instead of the token: its SHA-256, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    digest = hashlib.sha256(b"heartlane token checksum:" + body.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode()[:_CHECKSUM_LENGTH]


# --- reads --------------------------------------------------------------------------------------------------------


def select_tokens() -> Select[Any]:
    """The query of tokens, in the order of `Token`'s fields."""
    return select(
        tokens.c.id,
        tokens.c.name,
        tokens.c.scope,
        tokens.c.account_id,
        accounts.c.name,
        tokens.c.project_id,
        tokens.c.hint,
        tokens.c.created_at,
        tokens.c.expires_at,
        tokens.c.revoked_at,
        tokens.c.last_used_at,
        tokens.c.worker_prefix,
        tokens.c.networks,
    ).join_from(tokens, accounts)


async def find_by_secret(store: Store, secret: str) -> tuple[Token, datetime] | None:
    """The token with this secret, revoked and expired ones too, and the database's time. Raises StoreUnavailable."""
    wanted = hash_of(secret)
    on_server = store.dialect == "postgresql"
    clock = func.clock_timestamp(type_=Timestamp()) if on_server else literal(None, Timestamp())
    async with store.reading() as conn:
        found = await conn.execute(
            select_tokens().add_columns(tokens.c.token_hash, clock).where(tokens.c.token_hash == wanted)
        )
        row = found.one_or_none()
    if row is None or not hmac.compare_digest(row[-2], wanted):
        return None
    now = store.clock.adjusted(row[-1].astimezone(UTC)) if on_server else store.clock.host_time()
    return Token._make(row[:-2]), now


async def list_tokens(store: Store, *, account: str | None = None) -> list[Token]:
    """Every token, or one account's, oldest first. Raises StoreUnavailable."""
    query = select_tokens().order_by(tokens.c.id)
    if account is not None:
        query = query.where(accounts.c.name == account)
    async with store.reading() as conn:
        return [Token._make(row) for row in await conn.execute(query)]


async def find(store: Store, name_or_id: str, *, account: str | None = None) -> Token:
    """The one token with this id, or this name among those not revoked. Raises TokenError, StoreUnavailable."""
    named = [token for token in await list_tokens(store, account=account) if token.name == name_or_id]
    by_id = _uuid(name_or_id)
    if by_id is not None and not named:
        named = [token for token in await list_tokens(store, account=account) if token.id == by_id]
        if named:
            return named[0]
    live = [token for token in named if token.revoked_at is None]
    if len(live) == 1:
        return live[0]
    if live:
        ids = ", ".join(token.id for token in live)
        raise TokenError(f"{len(live)} tokens are named {name_or_id!r}; name one of them by its id: {ids}")
    if named:
        raise TokenError(f"the token {name_or_id!r} is revoked already")
    raise TokenError(f"there is no token {name_or_id!r}")


# --- writes -------------------------------------------------------------------------------------------------------


async def account_named(store: Store, name: str = DEFAULT_ACCOUNT) -> str:
    """The id of the account of this name, which is made if there is none. Raises TokenError, StoreUnavailable."""
    _check_name("an account", name)
    async with store.writing() as tx:
        return await _account(tx.conn, store.dialect, name, tx.now)


async def create(
    store: Store,
    name: str,
    scope: Scope,
    *,
    account: str | None = None,
    project_id: str | None = None,
    lifetime: timedelta | None = None,
    worker_prefix: str | None = None,
    networks: Iterable[str] = (),
    actor: Actor | None = None,
) -> tuple[Token, str]:
    """Make a token; returns it and its secret, which can't be had again.

    account     the account's name, made if there is none; left out: the project's, or `default`
    project_id  the one project the token sees, which has to be the account's; None: all of the account
    lifetime    None: never expires
    worker_prefix   of scope worker alone: how the ids of the workers begin that it may speak as; None: any
    networks    from where it may be used: addresses and networks; none: from anywhere
    actor       who makes it, for the audit log; None: whoever uses the command line

    Raises TokenError, StoreUnavailable.
    """
    _check_name("a token", name)
    if account is not None:
        _check_name("an account", account)
    if scope not in SCOPES:
        raise TokenError(f"there is no scope {scope!r}; there are {', '.join(SCOPES)}")
    _check_lifetime(lifetime)
    _check_worker_prefix(scope, worker_prefix)
    limits = {"worker_prefix": worker_prefix, "networks": _networks(networks)}
    async with store.writing() as tx:
        account_id: str | None = None
        if project_id is not None:
            project_id, account_id = await _project(tx.conn, project_id, account)
        if account_id is None:
            account_id = await _account(tx.conn, store.dialect, account or DEFAULT_ACCOUNT, tx.now)
        token, secret = await _insert(
            tx.conn,
            name=name,
            scope=scope,
            account_id=account_id,
            project_id=project_id,
            now=tx.now,
            lifetime=lifetime,
            limits=limits,
        )
        details: dict[str, Any] = {"scope": scope, "expires_at": token.expires_at}
        details |= {name: limit for name, limit in limits.items() if limit is not None}
        await _record(tx, actor, "token.created", token, details)
        return token, secret


async def revoke(store: Store, token_id: str, *, actor: Actor | None = None) -> bool:
    """Let the token open nothing any more, from now on. False if it was revoked before. Raises StoreUnavailable.

    actor: who revokes it, for the audit log; None: whoever uses the command line.
    """
    async with store.writing() as tx:
        if not await _revoke(tx.conn, token_id, tx.now):
            return False
        row = (await tx.conn.execute(select_tokens().where(tokens.c.id == token_id))).one()
        await _record(tx, actor, "token.revoked", Token._make(row), {})
        return True


async def rotate(
    store: Store, token_id: str, *, lifetime: timedelta | None = None, actor: Actor | None = None
) -> tuple[Token, str]:
    """Revoke the token and make one of the same name, scope, reach and limits, in one step; returns it and its secret.

    lifetime: None gives the new token as long as the old one was given. Raises TokenError, StoreUnavailable.
    """
    _check_lifetime(lifetime)
    async with store.writing() as tx:
        row = (await tx.conn.execute(select_tokens().where(tokens.c.id == token_id))).one_or_none()
        if row is None:
            raise TokenError(f"there is no token {token_id!r}")
        old = Token._make(row)
        if not await _revoke(tx.conn, old.id, tx.now):
            raise TokenError(f"the token {old.name!r} is revoked already; make a new one")
        if lifetime is None and old.expires_at is not None:
            lifetime = old.expires_at - old.created_at
        token, secret = await _insert(
            tx.conn,
            name=old.name,
            scope=old.scope,
            account_id=old.account_id,
            project_id=old.project_id,
            now=tx.now,
            lifetime=lifetime,
            limits={"worker_prefix": old.worker_prefix, "networks": old.networks},
        )
        await _record(tx, actor, "token.revoked", old, {"replaced_by": token.id})
        await _record(tx, actor, "token.created", token, {"scope": token.scope, "in_place_of": old.id})
        return token, secret


async def touch(store: Store, token_ids: Iterable[str]) -> None:
    """Note that these tokens were used just now. Raises StoreUnavailable."""
    async with store.writing() as tx:
        await tx.conn.execute(update(tokens).where(tokens.c.id.in_(sorted(token_ids))).values(last_used_at=tx.now))


async def _record(
    tx: WriteTransaction, actor: Actor | None, action: str, token: Token, details: Mapping[str, Any]
) -> None:
    await audit.record(
        tx.conn,
        tx.now,
        actor or audit.command_line_actor(),
        action,
        account_id=token.account_id,
        project_id=token.project_id,
        object_type="token",
        object_id=token.id,
        object_name=token.name,
        details=details,
    )


async def _account(conn: AsyncConnection, dialect: str, name: str, now: datetime) -> str:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    new = make(accounts).values(id=new_id(), name=name, created_at=now).on_conflict_do_nothing()
    await conn.execute(new)
    account_id: str = (await conn.execute(select(accounts.c.id).where(accounts.c.name == name))).scalar_one()
    return account_id


async def _project(conn: AsyncConnection, project_id: str, account: str | None) -> tuple[str, str]:
    """The ids of a project and of its account. Raises TokenError."""
    wanted = _uuid(project_id)
    query = select(projects.c.id, accounts.c.id, accounts.c.name).join_from(projects, accounts)
    row = (await conn.execute(query.where(projects.c.id == wanted))).one_or_none() if wanted else None
    if row is None or account not in (None, row[2]):
        raise TokenError(f"there is no project {project_id!r}" + (f" in account {account!r}" if account else ""))
    return row[0], row[1]


async def _insert(
    conn: AsyncConnection,
    *,
    name: str,
    scope: Scope,
    account_id: str,
    project_id: str | None,
    now: datetime,
    lifetime: timedelta | None,
    limits: Mapping[str, str | None],
) -> tuple[Token, str]:
    secret = new_secret()
    token_id = new_id()
    row = {
        "id": token_id,
        "account_id": account_id,
        "project_id": project_id,
        "name": name,
        "scope": scope,
        "token_hash": hash_of(secret),
        "hint": secret[:HINT_LENGTH],
        "created_at": now,
        "expires_at": None if lifetime is None else now + lifetime,
        **limits,
    }
    await conn.execute(insert(tokens).values(row))
    return Token._make((await conn.execute(select_tokens().where(tokens.c.id == token_id))).one()), secret


async def _revoke(conn: AsyncConnection, token_id: str, now: datetime) -> bool:
    done = await conn.execute(
        update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    return done.rowcount == 1


def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _check_name(what: str, name: str) -> None:
    if not name.strip() or len(name) > NAME_MAX or not name.isprintable():
        raise TokenError(f"the name of {what} must be 1 to {NAME_MAX} printable characters")


def _check_lifetime(lifetime: timedelta | None) -> None:
    if lifetime is not None and not timedelta(seconds=1) <= lifetime <= LIFETIME_MAX:
        raise TokenError(f"a token must last at least 1 second and at most {LIFETIME_MAX.days} days")


def _check_worker_prefix(scope: Scope, prefix: str | None) -> None:
    if prefix is None:
        return
    if scope != "worker":
        raise TokenError(f"only a token of scope worker speaks as workers; this one would be of scope {scope}")
    if not prefix.strip() or len(prefix) > NAME_MAX or not prefix.isprintable():
        raise TokenError(f"the beginning of a worker's id must be 1 to {NAME_MAX} printable characters")


def _networks(texts: Iterable[str]) -> str | None:
    """The networks as they are stored, or None for none. Raises TokenError."""
    text = ",".join(texts)
    try:
        found = parse_networks(text)
    except ValueError as error:
        raise TokenError(f"the networks of a token {error}") from None
    if text and not found:
        raise TokenError("the networks of a token name none")
    if len(found) > NETWORKS_MAX:
        raise TokenError(f"a token may be limited to at most {NETWORKS_MAX} networks")
    return ",".join(dict.fromkeys(map(str, found))) or None
