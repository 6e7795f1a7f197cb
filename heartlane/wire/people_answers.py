"""The shape of the answers about people: who calls, who is logged in, who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from heartlane.wire.answers import Answer
from heartlane.wire.names import Open

ScopeName = Literal["viewer", "worker", "operator", "admin"]
LoginMethodName = Literal["token", "link"]
EndReasonName = Literal["logged_out", "revoked", "replaced"]
ActorKindName = Literal["token", "session", "command_line", "server", "anonymous"]


class SessionObject(Answer):
    """A browser that is or was logged in."""

    id: UUID
    account_id: UUID
    token_id: UUID
    """The token whose rights it has."""
    token_name: str
    scope: Open[ScopeName]
    project_id: UUID | None
    """The one project that the token is limited to."""
    method: Open[LoginMethodName]
    """How it was logged in: by a token, or by a one-time link."""
    address: str | None
    """The client's address at the login."""
    user_agent: str | None
    """What the client said it is."""
    created_at: datetime
    last_used_at: datetime
    """To the minute."""
    expires_at: datetime
    """The latest it can last to."""
    ended_at: datetime | None
    end_reason: Open[EndReasonName] | None


class SessionAnswer(Answer):
    """One session."""

    session: SessionObject


class SessionList(Answer):
    """Sessions, newest first."""

    sessions: list[SessionObject]
    next_cursor: str | None


class MeObject(Answer):
    """Who calls, and what it may."""

    token_id: UUID
    name: str
    """The token's name."""
    scope: Open[ScopeName]
    account_id: UUID
    project_id: UUID | None
    """The one project that the token is limited to."""
    worker_prefix: str | None = None
    """How the ids of the workers begin that the token may speak as; null: any."""
    networks: list[str] = Field(default_factory=list)
    """From where the token may be used; empty: from anywhere."""
    session: SessionObject | None
    """The calling browser's session; null where the token itself was sent."""
    csrf_token: str | None
    """What the browser's changes carry in `X-CSRF-Token`; null where the token itself was sent."""


class MeAnswer(Answer):
    """Who calls."""

    me: MeObject


class LoginLinkObject(Answer):
    """A link that logs one browser in, once."""

    url: str
    """It is a secret until it was used."""
    expires_at: datetime


class LoginLinkAnswer(Answer):
    """A link that was just made. It is shown this once."""

    login_link: LoginLinkObject


class AuditEntryObject(Answer):
    """One thing that was done, by whom, and to what."""

    id: UUID
    account_id: UUID
    project_id: UUID | None
    at: datetime
    """By the database's clock."""
    action: str
    """What was done, such as `plan.approved`; more may be added."""
    object_type: str
    """What it was done to: `plan`, `run`, `token`, …"""
    object_id: str | None
    object_name: str | None
    """Its title or name at that time."""
    actor_kind: Open[ActorKindName]
    """`token`: a call with it; `session`: a browser that was logged in with it; `command_line`: `heartlane …` on the
    database itself; `anonymous`: nobody known, as in a login that failed."""
    actor_name: str | None
    """The token's name; of the command line `user@host`."""
    token_id: UUID | None
    session_id: UUID | None
    address: str | None
    user_agent: str | None
    details: dict[str, Any]
    """What else there is to know, by action: a reason, the states `before` and `after`."""


class AuditList(Answer):
    """What was done, newest first."""

    entries: list[AuditEntryObject]
    next_cursor: str | None
