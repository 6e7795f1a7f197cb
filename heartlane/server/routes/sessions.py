"""Who calls, browsers that are logged in, and one-time links to log in with."""

# ruff: noqa: FAST003 - the parameters of the path are aliased: PathId is `id`
from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from heartlane.server.auth import Principal, may
from heartlane.server.bodies import list_body
from heartlane.server.depends import Json, PathId, Server, Viewer, actor_of, not_found
from heartlane.server.errors import ApiError
from heartlane.server.sessions import csrf_token
from heartlane.store import sessions
from heartlane.store.sessions import Session
from heartlane.wire.people_answers import LoginLinkAnswer, MeAnswer, SessionAnswer, SessionList
from heartlane.wire.queries import SessionQuery

router = APIRouter(prefix="/api", tags=["Sessions"])


@router.get("/me", response_model=MeAnswer, summary="Who am I?")
async def read_me(principal: Viewer, context: Server, request: Request) -> Json:
    """The token that calls and what it may; for a browser its session, and the `csrf_token` that its changes carry."""
    session = None
    csrf = None
    if principal.session_id is not None:
        async with context.store.reading() as conn:
            found = await sessions.read_session(conn, principal.session_id)
        session = None if found is None else session_body(found)
        csrf = csrf_token(context.sessions.secret(request.scope) or "")
    me = {
        "token_id": principal.token_id,
        "name": principal.name,
        "scope": principal.scope,
        "account_id": principal.account_id,
        "project_id": principal.project_id,
        "worker_prefix": principal.worker_prefix,
        "networks": [str(network) for network in principal.networks],
        "session": session,
        "csrf_token": csrf,
    }
    return Json({"me": me})


@router.get("/sessions", response_model=SessionList, summary="List sessions")
async def list_sessions(principal: Viewer, context: Server, query: Annotated[SessionQuery, Query()]) -> Json:
    """Browsers that are logged in, newest first: those of the calling token; for an admin all within its reach."""
    admin = may(principal, "admin")
    now = await context.store.now()
    async with context.store.reading() as conn:
        page = await sessions.list_sessions(
            conn,
            principal.account_id,
            now,
            context.sessions.limits,
            token_id=None if admin else principal.token_id,
            project_id=principal.project_id if admin else None,
            everything=query.all,
            cursor=query.cursor,
            limit=query.limit,
        )
    return Json(list_body("sessions", page, session_body))


@router.delete("/sessions/{id}", response_model=SessionAnswer, summary="End a session")
async def end_session(principal: Viewer, context: Server, request: Request, session_id: PathId) -> Json:
    """The browser is logged out, on every server within 2 seconds. Ending it again changes nothing. Takes no body.

    Any caller may end the sessions of its own token; an admin all those within its reach.
    """
    async with context.store.writing() as tx:
        session = await sessions.read_session(tx.conn, session_id)
        if session is None or not _is_within(principal, session):
            raise not_found("session")
        ended = await sessions.end(tx, session, "revoked", actor_of(request, principal))
    return Json({"session": session_body(ended)})


@router.post("/login-links", status_code=201, response_model=LoginLinkAnswer, summary="Make a one-time login link")
async def create_login_link(principal: Viewer, context: Server, request: Request) -> Json:
    """A link that logs one browser in, once, within 5 minutes, with the rights of the calling token. Takes no body.

    Needs the token itself: a session can't make another one, which might outlast it.
    """
    context.sessions.origins.refuse_strange_host(request.scope)
    if principal.session_id is not None:
        raise ApiError("FORBIDDEN", "A session can't make login links; send the token: Authorization: Bearer <token>.")
    async with context.store.writing() as tx:
        secret, expires_at = await sessions.make_link(tx, principal.token_id, actor_of(request, principal))
    # In the fragment, which no browser sends and no proxy logs, and which no preview of the link can use up.
    url = f"{context.sessions.origins.base_url(request.scope)}/login#link={secret}"
    return Json({"login_link": {"url": url, "expires_at": expires_at}}, status_code=201)


def session_body(session: Session) -> dict[str, Any]:
    """A session as it is answered."""
    return session._asdict()


def _is_within(principal: Principal, session: Session) -> bool:
    if session.token_id == principal.token_id:
        return True
    return may(principal, "admin") and principal.sees(session.account_id, session.project_id)
