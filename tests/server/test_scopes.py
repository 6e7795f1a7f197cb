"""Who may call what: every route of the OpenAPI document × every kind of caller, by what the document itself declares.

The callers are tokens of each scope that see the project, another one or another account, tokens that are revoked or
expired, nobody, and browsers. What each is to be answered follows from the operation's `security`, `x-scope` and path;
the few that follow a rule of their own stand in `OWN_RULES`. A new route is among them by itself: it fails here until
its body has an example and the ids of its path are known to `World`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple

import httpx
import pytest

from heartlane.server.sessions import csrf_token
from heartlane.server.settings import load_settings
from heartlane.store import tokens
from heartlane.store.store import Store
from heartlane.wire import examples
from heartlane.wire.examples import REQUESTS
from tests.browser import Browser
from tests.conftest import SECRET_KEY
from tests.harness import Harness
from tests.server.test_openapi import OPERATIONS

Sees = Literal["project", "account", "other project", "other account"]
Kind = Literal["token", "session", "session without proof", "none", "revoked", "expired"]
WITHIN: Final = ("project", "account")
NOT_FOUND, FORBIDDEN = (404, "NOT_FOUND"), (403, "FORBIDDEN")
REFUSED: Final[dict[Kind, tuple[int, str]]] = {
    "none": (401, "NOT_AUTHENTICATED"),
    "revoked": (401, "TOKEN_REVOKED"),
    "expired": (401, "TOKEN_EXPIRED"),
}
RANKS: Final = {scope: rank for rank, scope in enumerate(tokens.SCOPES)}
ENGINES: Final = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
NO_END: Final = frozenset({"stream_run", "stream_work"})
"""Asked for their head alone."""


AWAY: Final = {"import_github": 503}
"""What got through to another service, which is away here: the operation and its answer then."""


class Operation(NamedTuple):
    """A route of the document."""

    name: str
    method: str
    path: str
    scope: tokens.Scope | None
    ways: tuple[frozenset[str], ...]

    @property
    def reads(self) -> bool:
        return self.method == "GET"


class Calls(NamedTuple):
    """A caller: what proves who it is, its scope, and how far it sees."""

    kind: Kind
    scope: tokens.Scope
    sees: Sees
    headers: dict[str, str]
    owns_the_session: bool = False

    def __str__(self) -> str:
        return f"{self.kind} of scope {self.scope} that sees the {self.sees}"


ALL: Final = [
    Operation(
        operation["operationId"],
        method.upper(),
        path,
        operation.get("x-scope"),
        tuple(frozenset(way) for way in operation["security"]),
    )
    for method, path, operation in OPERATIONS
]
CLOSED: Final = [operation for operation in ALL if operation.ways]


def expected(operation: Operation, caller: Calls) -> tuple[int, str] | None:
    """The status and code of a refusal; None where the call gets through to what it asks for."""
    if caller.kind in REFUSED:
        return REFUSED[caller.kind]
    assert operation.scope is not None
    if caller.kind != "token":
        by_cookie = [way for way in operation.ways if "session" in way]
        if not by_cookie or (caller.kind == "session without proof" and "csrf" in by_cookie[0]):
            return FORBIDDEN
    if RANKS[caller.scope] < RANKS[operation.scope]:
        return FORBIDDEN
    if operation.name in OWN_RULES:
        return OWN_RULES[operation.name](caller)
    return NOT_FOUND if "{" in operation.path and caller.sees not in WITHIN else None


OWN_RULES: Final[dict[str, Callable[[Calls], tuple[int, str] | None]]] = {
    # A new project is of the caller's account, whichever that is; a token of one project makes no others.
    "create_project": lambda caller: None if caller.sees in ("account", "other account") else FORBIDDEN,
    # Their bodies name the project's own things.
    "create_plan": lambda caller: None if caller.sees in WITHIN else NOT_FOUND,
    "claim_next": lambda caller: None if caller.sees in WITHIN else NOT_FOUND,
    # One's own sessions, and for an admin those of all that it sees. The session at hand is of the viewer's token.
    "end_session": lambda caller: (
        None if caller.owns_the_session or (caller.scope == "admin" and caller.sees in WITHIN) else NOT_FOUND
    ),
}


class World:
    """A project with enough of everything for each operation that changes something to have things of its own."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.project = self.milestone = self.ticket = ""
        self.runs: dict[str, str] = {}
        self.plans: dict[str, str] = {}
        self.hook = self.delivery = self.notice = self.session = ""

    async def build(self) -> World:
        harness = self.harness
        self.project = (await harness.project(repo_url="http://127.0.0.1/acme/shop"))["id"]
        path = f"/api/projects/{self.project}"
        self.milestone = await self._made("milestone", f"{path}/milestones", {"name": "Milestone"})
        self.ticket = await self._made("ticket", f"{path}/tickets", self.body(_operation("create_ticket")))
        others = {each.name for each in ALL if each.path.startswith("/api/agents/runs/{id}") and not each.reads}
        runs = await harness.approved(len(others) + 1, project_id=self.project)
        self.runs = dict(zip(["", *sorted(others)], (run["id"] for run in runs), strict=True))
        for name in others - {"claim_run", "retry_run"} | {""}:
            await harness.claim(self.runs[name])
        for name in ("", "approve_plan", "reject_plan"):
            lanes = [{"laneKey": "a", "title": "A", "role": "qa"}]
            self.plans[name] = await self._made(
                "plan", "/api/agents/plan", {"projectId": self.project, "title": "P", "lanes": lanes}
            )
        self.hook = await self._made("webhook", f"{path}/webhooks", {"url": "https://example.com/x"})
        self.delivery = await self._made("delivery", f"{path}/webhooks/{self.hook}/test")
        await harness.admin.put(f"{path}/github", json={})
        await harness.operator.post(f"/api/agents/runs/{self.runs['retry_run']}/cancel")
        await harness.operator.post(f"/api/agents/runs/{self.runs['resume_run']}/pause")
        # A lane that waits for a person makes the notice.
        waiting = {"type": "phase_change", "payload": {"phase": "waiting", "for": "permission"}}
        await harness.report(self.runs[""], events=[waiting])
        await harness.watch.round()
        (notice,) = (await harness.viewer.get("/api/agents/notices")).json()["notices"]
        self.notice = notice["id"]
        return self

    async def _made(self, what: str, path: str, body: Any = None) -> str:
        answer = await self.harness.admin.post(path, json=body)
        assert answer.status_code == 201, answer.text
        made: str = answer.json()[what]["id"]
        return made

    def path(self, operation: Operation) -> str:
        """The operation's path with ids that are there. Raises KeyError for one that isn't known here."""
        first = {
            "projects": self.project,
            "runs": self.runs.get(operation.name, self.runs[""]),
            "plans": self.plans.get(operation.name, self.plans[""]),
            "notices": self.notice,
            "sessions": self.session,
        }
        known = {
            "milestoneId": self.milestone,
            "ticketId": self.ticket,
            "webhookId": self.hook,
            "deliveryId": self.delivery,
        }
        path = re.sub(r"/(\w+)/\{id\}", lambda found: f"/{found[1]}/{first[found[1]]}", operation.path)
        return re.sub(r"\{(\w+)\}", lambda found: known[found[1]], path)

    def body(self, operation: Operation) -> Any:
        """The operation's first example about things that are there; None where it takes no body."""
        if operation.name not in REQUESTS:
            return None
        body = json.dumps(next(iter(REQUESTS[operation.name].values())))
        body = body.replace(examples.MILESTONE, self.milestone).replace(examples.TICKET, self.ticket)
        body = body.replace(examples.PROJECT, self.project).replace(examples.WORKER, "w1")
        told = json.loads(body)
        told.pop("wait_seconds", None)
        if operation.name == "claim_next":
            told["project_id"] = self.project
        if "ticketIds" in told:
            told["ticketIds"] = [self.ticket]
        if "ticket_ids" in told:
            told["ticket_ids"] = [self.ticket]
        return told

    async def snapshot(self) -> str:
        """All that a call might have changed, which none that is refused may."""
        project = f"/api/projects/{self.project}"
        paths = [f"{project}{part}" for part in ("", "/milestones", "/tickets", "/webhooks", "/budget", "/github")]
        paths += [f"{project}/notice-rules", f"{project}/webhooks/{self.hook}/deliveries", "/api/projects"]
        paths += ["/api/agents/plans", "/api/agents/runs", "/api/agents/notices", "/api/audit"]
        return json.dumps([(await self.harness.admin.get(path, params={"limit": 200})).json() for path in paths])


def _operation(name: str) -> Operation:
    return next(each for each in ALL if each.name == name)


async def callers_of(world: World) -> list[Calls]:
    """One of every kind of caller. The world's session becomes one of the viewer's that sees the project."""
    harness = world.harness
    other = (await harness.project(name="Other"))["id"]
    reaches: dict[Sees, dict[str, Any]] = {
        "project": {"project_id": world.project},
        "account": {"account": "default"},
        "other project": {"project_id": other},
        "other account": {"account": "acme"},
    }
    made = [Calls("none", "admin", "account", {})]
    for sees, reach in reaches.items():
        for scope in tokens.SCOPES:
            _, secret = await tokens.create(harness.store, f"{scope} of {sees}", scope, **reach)
            owner = sees == "project" and scope == "viewer"
            made.append(Calls("token", scope, sees, _bearer(secret), owner))
            if sees != "project":
                continue
            cookie = await _logged_in(harness, secret)
            proof = {"x-csrf-token": csrf_token(cookie.partition("=")[2])}
            made.append(Calls("session", scope, sees, {"cookie": cookie, **proof}, owner))
            made.append(Calls("session without proof", scope, sees, {"cookie": cookie}, owner))
            if owner:
                await _logged_in(harness, secret)
                listed = await harness.client_with(secret).get("/api/sessions")
                world.session = listed.json()["sessions"][0]["id"]
    dead, dead_secret = await tokens.create(harness.store, "revoked", "admin")
    await tokens.revoke(harness.store, dead.id)
    _, old_secret = await tokens.create(harness.store, "expired", "admin", lifetime=timedelta(seconds=1))
    harness.store.clock.advance(2)
    made.append(Calls("revoked", "admin", "account", _bearer(dead_secret)))
    made.append(Calls("expired", "admin", "account", _bearer(old_secret)))
    return made


def _bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def _logged_in(harness: Harness, secret: str) -> str:
    """The cookie of a new session, as a browser sends it."""
    browser = Browser(harness)
    assert (await browser.log_in(secret)).status_code == 303
    ((name, value),) = browser.cookies.items()
    return f"{name}={value}"


@pytest.fixture(name="harness")
async def without_github(store: Store) -> AsyncIterator[Harness]:
    """A server whose GitHub is away."""
    settings = {"rate_limits": "off", "secret_key": SECRET_KEY, "github_api_url": "http://127.0.0.1:1"}
    harness = await Harness.start(store, load_settings({**settings, "database": "sqlite:///unused"}))
    yield harness
    await harness.close()


@ENGINES
async def test_every_route_is_open_to_those_that_the_document_names_and_to_nobody_else(harness: Harness) -> None:
    world = await World(harness).build()
    callers = await callers_of(world)
    client = harness.client_with(None)

    async def call(operation: Operation, caller: Calls) -> httpx.Response:
        method = "HEAD" if operation.name in NO_END else operation.method
        body = world.body(operation)
        path = world.path(operation)
        return (
            await client.request(method, path, headers=caller.headers, json=body)
            if body is not None
            else (await client.request(method, path, headers=caller.headers))
        )

    before = await world.snapshot()
    wrong: list[str] = []
    passes: list[tuple[Operation, Calls]] = []
    for operation in CLOSED:
        for caller in callers:
            refusal = expected(operation, caller)
            if refusal is None:
                passes.append((operation, caller))
                continue
            answer = await call(operation, caller)
            code = refusal[1] if operation.name in NO_END else answer.json().get("code")
            if (answer.status_code, code) != refusal:
                wrong.append(f"{operation.name}: {caller}: {answer.status_code} {answer.text[:150]}, not {refusal}")
    assert not wrong, "\n".join(wrong)
    assert await world.snapshot() == before, "a call that was refused changed something"

    ours = {world.project, world.milestone, world.ticket, world.hook, world.delivery, world.notice, world.session}
    ours |= set(world.runs.values()) | set(world.plans.values())
    got_through: set[str] = set()
    # What takes things away comes last.
    for operation, caller in sorted(passes, key=lambda each: each[0].method == "DELETE"):
        answer = await call(operation, caller)
        if answer.is_success or AWAY.get(operation.name) == answer.status_code:
            got_through.add(operation.name)
        # What an earlier caller did may stand in the way: that is no question of who calls.
        elif answer.status_code != 409 and (answer.status_code, operation.method) != (404, "DELETE"):
            wrong.append(f"{operation.name}: {caller}: {answer.status_code} {answer.text[:200]}")
        if caller.sees not in WITHIN and operation.name != "end_session":
            wrong += [f"{operation.name}: {caller}: shows {each}" for each in ours if each in answer.text]
    wrong += [f"{each.name}: nobody got through" for each in CLOSED if each.name not in got_through]
    assert not wrong, "\n".join(wrong)


@ENGINES
async def test_what_takes_no_token_shows_nothing_of_anybody(harness: Harness) -> None:
    world = await World(harness).build()
    client = harness.client_with(None)
    for operation in ALL:
        if operation.ways:
            continue
        answer = await client.request(operation.method, operation.path)
        assert operation.name == "hear_github" or answer.status_code in (200, 307), operation
        assert not [each for each in (world.project, *world.runs.values(), "w1") if each in answer.text], operation


def test_the_table_has_no_rule_for_what_is_not_there() -> None:
    names = {each.name for each in CLOSED}
    assert {*OWN_RULES, *NO_END} <= names
    assert len(CLOSED) > 40
