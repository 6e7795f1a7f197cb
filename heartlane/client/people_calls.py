"""Who calls, who is logged in, who did what: every route as a function that builds a `Call`."""

from __future__ import annotations

from datetime import datetime

from heartlane.client.call import Call, Id, Page, delete, get, listing, part, post, query_of
from heartlane.wire import people_answers as answers
from heartlane.wire.people_answers import AuditEntryObject, LoginLinkObject, MeObject, SessionObject


def me() -> Call[MeObject]:
    """The token that calls, and what it may."""
    return get("/api/me", answers.MeAnswer, lambda answer: answer.me)


def create_login_link() -> Call[LoginLinkObject]:
    """A link that logs one browser in, once, within 5 minutes, with this token's rights."""
    return post("/api/login-links", answers.LoginLinkAnswer, lambda answer: answer.login_link, None)


def sessions(*, all: bool | None = None, limit: int | None = None) -> Call[Page[SessionObject]]:
    """Browsers that are logged in, newest first; with `all` those that were, too."""
    query = query_of(all=all, limit=limit)
    return listing("/api/sessions", answers.SessionList, lambda answer: answer.sessions, query)


def end_session(session_id: Id) -> Call[SessionObject]:
    """Log a browser out."""
    return delete(f"/api/sessions/{part(session_id)}", answers.SessionAnswer, lambda answer: answer.session)


def audit(
    *,
    project_id: Id | None = None,
    action: str | None = None,
    actor: str | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    oldest_first: bool | None = None,
    limit: int | None = None,
) -> Call[Page[AuditEntryObject]]:
    """What was done, newest first unless told otherwise. `action` is an action's name or its first part (`run`),
    `actor` a token's name or id; `since` counts in, `until` doesn't."""
    query = query_of(
        project_id=project_id,
        action=action,
        actor=actor,
        since=_moment(since),
        until=_moment(until),
        oldest_first=oldest_first,
        limit=limit,
    )
    return listing("/api/audit", answers.AuditList, lambda answer: answer.entries, query)


def _moment(moment: datetime | str | None) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment
