"""Browsers that are logged in: the cookie, the proof that a change is meant, and how a session begins and ends.

A session's secret is in a cookie that no script can read. A browser sends it with whatever any site asks it to send
here (`SameSite=Lax` keeps it from most of that), so a change by cookie needs two proofs more: `X-CSRF-Token` with a
value that only this server's own pages can know, and no sign that another site sent it.

The value is a hash of the session's secret: there is nothing to store, and it ends with the session.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import structlog

from heartlane.server.auth import NO_TOKEN, Authenticator, Principal, session_credential
from heartlane.server.errors import ApiError
from heartlane.server.origin import Origins
from heartlane.server.settings import Settings
from heartlane.store import sessions, tokens
from heartlane.store.audit import USER_AGENT_MAX, Actor, tame
from heartlane.store.sessions import Limits, LoginFailed, Session, Started
from heartlane.store.store import Store

Scope = Mapping[str, Any]

COOKIE: Final = "heartlane"
CSRF_HEADER: Final = "X-CSRF-Token"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
FAILURES_RECORDED_A_MINUTE: Final = 60
"""Failed logins that are written down; more of them within a minute are only logged, so that nobody fills the disk."""
DEFAULT_PORTS: Final = {True: "443", False: "80"}
FAILURES: Final = {
    "unknown": "This is no token of this server: it is mistyped, cut off or of another one.",
    "expired": "This {what} has expired; get a new one.",
    "revoked": "This token has been revoked; use the one that replaced it.",
    "used": "This link was used before; a link logs in once. Get a new one.",
    "elsewhere": "This {what} is of a token that may not be used from this address.",
}
log = structlog.get_logger(__name__)


def csrf_token(secret: str) -> str:
    """What a change by this session has to carry in `X-CSRF-Token`."""
    digest = hashlib.sha256(b"heartlane csrf:" + secret.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def user_agent(scope: Scope) -> str | None:
    """What the client says it is, as far as that is kept."""
    said = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"user-agent"), None)
    return None if said is None else tame(said, USER_AGENT_MAX)


class Sessions:
    """The sessions of one server.

    monotonic   the clock by which failed logins are counted
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        auth: Authenticator,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.origins = Origins(settings)
        self.limits = limits_of(settings)
        self._store = store
        self._auth = auth
        self._monotonic = monotonic
        self._failures: tuple[float, int] = (monotonic(), 0)

    # --- who calls ------------------------------------------------------------------------------------------------

    def secret(self, scope: Scope) -> str | None:
        """The session's secret out of the request's cookie, or None."""
        wanted = self.cookie_name(scope)
        value: bytes
        for name, value in scope["headers"]:
            if name == b"cookie":
                for part in value.decode("latin-1").split(";"):
                    key, _, text = part.strip().partition("=")
                    if key == wanted:
                        return text.strip('"')
        return None

    async def identify(self, scope: Scope, address: str) -> tuple[Principal, bytes]:
        """The caller by its cookie, and its credential; for requests without an `Authorization` header.

        Raises ApiError: 401 without a session that lasts, 403 for a change that lacks its proofs; StoreUnavailable.
        """
        self.origins.refuse_strange_host(scope)
        secret = self.secret(scope)
        if secret is None:
            raise ApiError("NOT_AUTHENTICATED", NO_TOKEN)
        credential = session_credential(secret)
        principal = await self._auth.authenticate(credential, address)
        if scope["method"] not in SAFE_METHODS:
            sent = next((value for name, value in scope["headers"] if name == b"x-csrf-token"), b"")
            self.require_proof(scope, secret, sent.decode("latin-1"))
        return principal, credential

    def require_proof(self, scope: Scope, secret: str, sent: str) -> None:
        """Raise the 403 of a change by cookie that nobody at this browser may have meant; `sent` is its CSRF token."""
        if not self.origins.is_own(scope, unknown=True):
            raise ApiError(
                "FORBIDDEN", "A change by cookie must come from this server's own pages, not another site's."
            )
        if not hmac.compare_digest(sent.encode(), csrf_token(secret).encode()):
            what = "is not this session's" if sent else "is missing"
            raise ApiError(
                "FORBIDDEN",
                f"A change by cookie needs the header {CSRF_HEADER}, which {what}: GET /api/me has it as csrf_token.",
            )

    # --- login and logout -----------------------------------------------------------------------------------------

    async def log_in(self, scope: Scope, secret: str, address: str) -> Started:
        """Begin a session with a token or a one-time link's secret; the one that the browser had before ends.

        Raises ApiError: 401 for what opens nothing, 403 for another site's form, 429; StoreUnavailable.
        """
        self.origins.refuse_strange_host(scope)
        if not self.origins.is_own(scope, unknown=False):
            raise ApiError("FORBIDDEN", "A login must come from this server's own page, not another site's.")
        self._auth.refuse_braked(address)
        secret = secret.strip()
        actor = Actor("anonymous", address=address, user_agent=user_agent(scope))
        prefix = sessions.LINK_PREFIX if secret.startswith(sessions.LINK_PREFIX) else tokens.PREFIX
        try:
            if not secret.isascii() or not tokens.is_well_formed(secret, prefix):
                raise LoginFailed("unknown")
            async with self._store.writing() as tx:
                started = await sessions.log_in(tx, secret, actor, self.limits)
        except LoginFailed as failure:
            self._auth.note_bad_token(address)
            await self._record(failure, actor)
            what = "link" if prefix == sessions.LINK_PREFIX else "token"
            raise ApiError("NOT_AUTHENTICATED", FAILURES[failure.reason].format(what=what)) from None
        await self._end_former(scope, actor)
        log.info("logged_in", token=started.session.token_name, session_id=started.session.id, client=address)
        return started

    async def _record(self, failure: LoginFailed, actor: Actor) -> None:
        log.info("login_failed", reason=failure.reason, client=actor.address)
        began, count = self._failures
        if self._monotonic() - began >= 60:
            began, count = self._monotonic(), 0
        self._failures = (began, count + 1)
        if count < FAILURES_RECORDED_A_MINUTE:
            async with self._store.writing() as tx:
                await sessions.record_failure(tx, failure, actor)

    async def _end_former(self, scope: Scope, actor: Actor) -> None:
        """End the session that the browser had: its cookie is about to be overwritten."""
        secret = self.secret(scope)
        if secret is None or not secret.isascii() or not tokens.is_well_formed(secret, sessions.PREFIX):
            return
        found = await sessions.find_by_secret(self._store, secret)
        if found is not None and found.session.ended_at is None:
            async with self._store.writing() as tx:
                await sessions.end(tx, found.session, "replaced", session_actor(found.session, actor))

    async def log_out(self, scope: Scope, address: str, csrf: str) -> None:
        """End the browser's session, if it has one. Raises ApiError (403), StoreUnavailable."""
        self.origins.refuse_strange_host(scope)
        secret = self.secret(scope)
        if secret is None or not secret.isascii() or not tokens.is_well_formed(secret, sessions.PREFIX):
            return
        self.require_proof(scope, secret, csrf)
        found = await sessions.find_by_secret(self._store, secret)
        if found is None or found.session.ended_at is not None:
            return
        actor = Actor("session", address=address, user_agent=user_agent(scope))
        async with self._store.writing() as tx:
            await sessions.end(tx, found.session, "logged_out", session_actor(found.session, actor))
        self._auth.forget(session_credential(secret))

    # --- the cookie -----------------------------------------------------------------------------------------------

    def cookie_name(self, scope: Scope) -> str:
        """The cookie's name at this address.

        Over TLS it has the prefix by which browsers see to it that no other host set it. Cookies know no ports, so a
        server on a port of its own has it in the name: two servers on one machine don't log each other's people out.
        """
        https = self.origins.is_https(scope)
        port = self.origins.host(scope).rpartition("]")[2].partition(":")[2]
        name = COOKIE if not port or port == DEFAULT_PORTS[https] else f"{COOKIE}-{port}"
        return f"__Host-{name}" if https else name

    def cookie(self, scope: Scope, started: Started | None) -> str:
        """The `Set-Cookie` of a new session; None takes the cookie away."""
        value, age = ("", 0) if started is None else (started.secret, int(self.limits.absolute.total_seconds()))
        secure = "; Secure" if self.origins.is_https(scope) else ""
        return f"{self.cookie_name(scope)}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"


def limits_of(settings: Settings) -> Limits:
    """How long sessions last by the settings."""
    return Limits(timedelta(seconds=settings.session_idle_seconds), timedelta(seconds=settings.session_seconds))


def session_actor(session: Session, client: Actor) -> Actor:
    """Whoever uses a session, at the client's address."""
    return client._replace(kind="session", name=session.token_name, token_id=session.token_id, session_id=session.id)
