"""Who calls: tokens are verified against the database, and trusted for at most a second without asking it again.

Sessions of browsers go the same way: what their cookie holds is a credential like a header, and a session is asked for
together with the token that it was made from. So all that is said of tokens here holds for sessions too.

A request with a token that was verified within the last second costs a hash and a look-up in a dict. The second counts
from before the database was asked, and asking takes no longer than another one, so that a revoked or expired token is
refused within two seconds on every server; when the database can't answer, nobody is let in past that.

The cache never holds a token: its keys are hashes of the header under a key of this process. Only tokens that exist
get an entry, so made-up ones can't push others out. They are counted by address instead, and an address that sent too
many is answered 429 without a look-up, except with tokens that are known to be good.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog

from heartlane.server.errors import ApiError
from heartlane.server.limits import LimitState, WindowStorage
from heartlane.store import sessions, tokens
from heartlane.store.errors import StoreError, StoreUnavailable
from heartlane.store.sessions import Session
from heartlane.store.store import Store
from heartlane.store.tokens import Scope, Token
from heartlane.wire.networks import Network, is_within, parse_networks

TRUST_SECONDS: Final = 1.0
"""How long a verified token is believed without asking again, from the moment it was asked."""
LOOK_UP_SECONDS: Final = 1.0
"""Longest a look-up may take before its requests are answered 503. With the trust it makes the promised 2 s."""
REFUSAL_SECONDS: Final = 60.0
"""How long a revoked or expired token, which never opens anything again, is refused without asking."""
KNOWN_MAX: Final = 10_000
"""Tokens remembered at once; past it the one verified longest ago is forgotten, and simply asked for again."""
HEADER_MAX: Final = 512
"""Bytes of an `Authorization` header; ours are 60."""
BAD_TOKENS_A_MINUTE: Final = 20
BRAKE_SECONDS: Final = 60.0
BRAKED_MAX: Final = 10_000
"""Addresses counted at once."""
LOOK_UPS_AT_ONCE: Final = 4
"""Look-ups under way at once for unknown tokens of one address; its other requests wait their turn."""
LAST_USED_SECONDS: Final = 60.0
"""How exact `last_used_at` is: it is written once in this time."""
LAST_USED_LINGER_SECONDS: Final = 1.0
"""How long a use waits for others, to be written with them."""

SESSION_IDLE: Final = timedelta(hours=12)
"""How long a session lasts unused, unless set otherwise."""
_SESSION: Final = b"\0session "
"""Before a session's secret, where a header would begin: no header can hold a NUL, so that none passes for it."""

_RANKS: Final[dict[str, int]] = {scope: rank for rank, scope in enumerate(tokens.SCOPES)}
NO_TOKEN: Final = "This needs a token: send it as `Authorization: Bearer <token>`."  # noqa: S105 - a sentence
log = structlog.get_logger(__name__)


class Principal(NamedTuple):
    """Who calls: a token, the account it belongs to, and the one project it is limited to (None: all of them).

    session_id      the session through which a browser uses the token, or None where the token itself was sent
    worker_prefix   how the ids of the workers begin that it may speak as, or None for any
    networks        from where the token may be used; none: from anywhere
    """

    token_id: str
    name: str
    account_id: str
    project_id: str | None
    scope: Scope
    session_id: str | None = None
    worker_prefix: str | None = None
    networks: tuple[Network, ...] = ()

    def sees(self, account_id: str, project_id: str | None) -> bool:
        """Whether something of this account and project exists for the caller. What it doesn't see is a 404."""
        return account_id == self.account_id and self.project_id in (None, project_id)


def may(principal: Principal, scope: Scope) -> bool:
    """Whether the caller's scope covers `scope`: viewer < worker < operator < admin."""
    return _RANKS[principal.scope] >= _RANKS[scope]


def require(principal: Principal, scope: Scope) -> None:
    """Raise the 403 of a caller whose scope doesn't cover `scope`."""
    if _RANKS[principal.scope] < _RANKS[scope]:
        raise ApiError(
            "FORBIDDEN",
            f"This needs a token of scope {scope}; the token {principal.name!r} is of scope {principal.scope}.",
        )


def require_worker(principal: Principal, worker_id: str) -> None:
    """Raise the 403 of a caller that may not speak as this worker."""
    prefix = principal.worker_prefix
    if prefix is not None and not worker_id.startswith(prefix):
        raise ApiError(
            "FORBIDDEN", f"The token {principal.name!r} is for workers alone whose worker_id begins with {prefix!r}."
        )


class _Known:
    """What is known of one token: whom it names or how it is refused, and until when that is believed."""

    __slots__ = ("principal", "refusal", "until", "used_at")

    def __init__(
        self, principal: Principal | None, refusal: tuple[str, str] | None, until: float, used_at: float | None
    ) -> None:
        self.principal = principal
        self.refusal = refusal
        self.until = until
        self.used_at = used_at


class _Found(NamedTuple):
    """What the database says: a token, its time, and the session where one was asked for."""

    token: Token
    now: datetime
    session: Session | None


class _LookUp(NamedTuple):
    """A look-up under way, and when it began."""

    began: float
    task: asyncio.Task[_Known | None]


def session_credential(secret: str) -> bytes:
    """A session's secret in the place of an `Authorization` header."""
    return _SESSION + secret.encode()


class Authenticator:
    """Turns credentials (`Authorization` headers, sessions' secrets) into principals. For one event loop.

    monotonic               the clock of the cache and the brake, in seconds
    bad_tokens_a_minute     how many bad tokens an address may send before it is slowed down
    session_idle            how long a session lasts unused
    """

    def __init__(
        self,
        store: Store,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        bad_tokens_a_minute: int = BAD_TOKENS_A_MINUTE,
        session_idle: timedelta = SESSION_IDLE,
    ) -> None:
        self._store = store
        self._session_idle = session_idle
        self._monotonic = monotonic
        self._bad_tokens_max = bad_tokens_a_minute
        self._keyed = hashlib.blake2b(key=os.urandom(32), digest_size=24)
        self._known: dict[bytes, _Known] = {}  # the one verified longest ago first
        self._look_ups: dict[bytes, _LookUp] = {}
        self._bad_tokens = WindowStorage(monotonic, BRAKED_MAX)
        self._places: dict[str, tuple[asyncio.Semaphore, int]] = {}
        self._used: set[str] = set()
        self._used_sessions: set[str] = set()
        self._writing_used: asyncio.Task[None] | None = None

    def known(self, header: bytes, client_ip: str) -> Principal | None:
        """The caller, if this very header was verified in the last second and may come from that address.

        Else None, and `authenticate` decides.
        """
        keyed = self._keyed.copy()
        keyed.update(header)
        entry = self._known.get(keyed.digest())
        if entry is None or entry.principal is None or self._monotonic() >= entry.until:
            return None
        networks = entry.principal.networks
        return entry.principal if not networks or is_within(client_ip, networks) else None

    async def authenticate(self, header: bytes | None, client_ip: str) -> Principal:
        """The caller. Raises ApiError, StoreUnavailable.

        The error is a 401, a 403 for a token that may not be used from that address, or a 429 for an address that sent
        too many bad tokens.
        """
        if header is None:
            raise ApiError("NOT_AUTHENTICATED", NO_TOKEN)
        if len(header) > HEADER_MAX:
            raise self._bad_token(client_ip, header)
        keyed = self._keyed.copy()
        keyed.update(header)
        digest = keyed.digest()
        entry = self._known.get(digest)
        if entry is None or (entry.principal is None and self._monotonic() >= entry.until):
            return await self._authenticate_unknown(header, digest, client_ip)
        if self._monotonic() >= entry.until:
            # Good when last seen, so neither the brake nor the queue of its address is for it.
            fresh = await self._look_up(digest, header)
            if fresh is None:
                raise self._bad_token(client_ip, header)
            entry = fresh
        return _principal(entry, client_ip)

    def forget(self, header: bytes) -> None:
        """Ask again for this credential at its next use: it was ended by this very server."""
        keyed = self._keyed.copy()
        keyed.update(header)
        self._known.pop(keyed.digest(), None)

    async def close(self) -> None:
        """End what is under way, and write which tokens were used; without it nothing but that is lost."""
        pending: list[asyncio.Task[Any]] = [look_up.task for look_up in self._look_ups.values()]
        if self._writing_used is not None:
            pending.append(self._writing_used)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if self._used or self._used_sessions:
            await self._write_used(linger_seconds=0)

    # --- tokens not known to be good ---

    async def _authenticate_unknown(self, header: bytes, digest: bytes, client_ip: str) -> Principal:
        self.refuse_braked(client_ip)
        if not _is_well_formed(header):
            raise self._bad_token(client_ip, header)
        async with self._place(client_ip):
            # Others of this address may have been answered while this one waited.
            entry = self._known.get(digest)
            if entry is None or self._monotonic() >= entry.until:
                self.refuse_braked(client_ip)
                entry = await self._look_up(digest, header)
        if entry is None:
            raise self._bad_token(client_ip, header)
        return _principal(entry, client_ip)

    def refuse_braked(self, client_ip: str) -> None:
        """Raise the 429 of an address that sent too many bad tokens."""
        if self._bad_tokens.get(client_ip) >= self._bad_tokens_max:
            wait = max(1, math.ceil(self._bad_tokens.get_expiry(client_ip) - self._monotonic()))
            raise ApiError(
                "RATE_LIMITED",
                f"Too many bad tokens came from this address; go on in {wait} s, with a good one.",
                retry_after=wait,
                headers=LimitState(self._bad_tokens_max, 0, wait, allowed=False).headers(),
            )

    def note_bad_token(self, client_ip: str) -> None:
        """Count a bad token against its address."""
        self._bad_tokens.incr(client_ip, BRAKE_SECONDS)

    def _bad_token(self, client_ip: str, header: bytes) -> ApiError:
        self.note_bad_token(client_ip)
        if header.startswith(_SESSION):
            return ApiError("NOT_AUTHENTICATED", "The session is not known here; log in again.")
        return ApiError("NOT_AUTHENTICATED", "The token is not valid: it is mistyped, cut off or not of this server.")

    @asynccontextmanager
    async def _place(self, client_ip: str) -> AsyncIterator[None]:
        """One of the few look-ups of an address; kept only while somebody uses it."""
        semaphore, users = self._places.get(client_ip) or (asyncio.Semaphore(LOOK_UPS_AT_ONCE), 0)
        self._places[client_ip] = (semaphore, users + 1)
        try:
            async with semaphore:
                yield
        finally:
            semaphore, users = self._places[client_ip]
            if users == 1:
                del self._places[client_ip]
            else:
                self._places[client_ip] = (semaphore, users - 1)

    # --- the database ---

    async def _look_up(self, digest: bytes, header: bytes) -> _Known | None:
        """What the database says of the token, asked once for all who want to know it now; None if there is none."""
        now = self._monotonic()
        look_up = self._look_ups.get(digest)
        if look_up is None or now - look_up.began >= TRUST_SECONDS:
            look_up = _LookUp(now, asyncio.create_task(self._ask(digest, header, now)))
            self._look_ups[digest] = look_up
            look_up.task.add_done_callback(lambda task: self._ended(digest, task))
        return await asyncio.shield(look_up.task)

    def _ended(self, digest: bytes, task: asyncio.Task[_Known | None]) -> None:
        look_up = self._look_ups.get(digest)
        if look_up is not None and look_up.task is task:
            del self._look_ups[digest]
        if not task.cancelled():
            task.exception()  # heard, even where every request that waited for it has gone

    async def _ask(self, digest: bytes, header: bytes, began: float) -> _Known | None:
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                found = await self._find(header)
        except TimeoutError:
            raise StoreUnavailable("The database took too long to verify a token.") from None
        before = self._known.pop(digest, None)
        if found is None:
            return None
        entry = self._judge(found, began, None if before is None else before.used_at)
        if len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[digest] = entry
        return entry

    async def _find(self, header: bytes) -> _Found | None:
        if header.startswith(_SESSION):
            in_session = await sessions.find_by_secret(self._store, header[len(_SESSION) :].decode())
            return None if in_session is None else _Found(in_session.token, in_session.now, in_session.session)
        found = await tokens.find_by_secret(self._store, _secret(header) or "")
        return None if found is None else _Found(*found, None)

    def _judge(self, found: _Found, began: float, used_at: float | None) -> _Known:
        token, now, session = found
        state = token.state(now)
        if state != "active":
            return _Known(None, _refusal(token, state), self._monotonic() + REFUSAL_SECONDS, None)
        ends = [] if token.expires_at is None else [token.expires_at]
        if session is not None:
            over = _over(session, now, self._session_idle)
            if over is not None:
                return _Known(None, ("NOT_AUTHENTICATED", over), self._monotonic() + REFUSAL_SECONDS, None)
            ends += [session.expires_at, session.last_used_at + self._session_idle]
        left = min([TRUST_SECONDS, *((end - now).total_seconds() for end in ends)])
        principal = Principal(
            token.id,
            token.name,
            token.account_id,
            token.project_id,
            token.scope,
            None if session is None else session.id,
            token.worker_prefix,
            () if token.networks is None else parse_networks(token.networks),
        )
        return _Known(principal, None, began + left, self._note_use(token, session, used_at, now))

    def _note_use(self, token: Token, session: Session | None, noted_at: float | None, now: datetime) -> float | None:
        """Have `last_used_at` written if it is old. Returns when this server last did so, on its own clock."""
        here = self._monotonic()
        if noted_at is not None and here - noted_at < LAST_USED_SECONDS:
            return noted_at
        last_used_at = token.last_used_at if session is None else session.last_used_at
        if last_used_at is not None and now - last_used_at < timedelta(seconds=LAST_USED_SECONDS):
            return noted_at
        self._used.add(token.id)
        if session is not None:
            self._used_sessions.add(session.id)
        if self._writing_used is None or self._writing_used.done():
            self._writing_used = asyncio.create_task(self._write_used(LAST_USED_LINGER_SECONDS))
        return here

    async def _write_used(self, linger_seconds: float) -> None:
        while self._used or self._used_sessions:
            await asyncio.sleep(linger_seconds)
            used, used_sessions = set(self._used), set(self._used_sessions)
            try:
                if used:
                    await tokens.touch(self._store, used)
                if used_sessions:
                    await sessions.touch(self._store, used_sessions)
            except StoreError as error:
                log.warning("last_used_not_written", tokens=len(used), error=str(error))
            self._used -= used
            self._used_sessions -= used_sessions


def _principal(entry: _Known, client_ip: str) -> Principal:
    principal = entry.principal
    if principal is None:
        code, error = entry.refusal or ("NOT_AUTHENTICATED", None)
        raise ApiError(code, error)
    if principal.networks and not is_within(client_ip, principal.networks):
        raise ApiError("FORBIDDEN", f"The token {principal.name!r} may not be used from the address {client_ip}.")
    return principal


def _refusal(token: Token, state: str) -> tuple[str, str]:
    if state == "revoked":
        return "TOKEN_REVOKED", f"The token {token.name!r} has been revoked; use the one that replaced it."
    when = f"{token.expires_at:%Y-%m-%d %H:%M:%S}" if token.expires_at else "an unknown time"
    return "TOKEN_EXPIRED", f"The token {token.name!r} expired at {when} UTC; rotate it, or make a new one."


def _over(session: Session, now: datetime, idle: timedelta) -> str | None:
    """Why a session is over, in a sentence; None while it lasts."""
    if session.ended_at is not None:
        return "The session was ended; log in again."
    if session.expires_at <= now:
        return "The session has lasted as long as it may; log in again."
    if session.last_used_at + idle <= now:
        return "The session was not used for too long; log in again."
    return None


def _is_well_formed(header: bytes) -> bool:
    """Whether this can be a credential at all: shape and checksum."""
    if header.startswith(_SESSION):
        text = header[len(_SESSION) :]
        return text.isascii() and tokens.is_well_formed(text.decode("ascii"), sessions.PREFIX)
    secret = _secret(header)
    return secret is not None and tokens.is_well_formed(secret)


def _secret(header: bytes) -> str | None:
    """The token of a `Bearer` header, or None where it is of another scheme or no ASCII text."""
    scheme, _, secret = header.partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    try:
        return secret.strip().decode("ascii")
    except UnicodeDecodeError:
        return None
