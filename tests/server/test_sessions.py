"""Browsers that are logged in: the cookie, the proofs of a change, and how a session begins and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from heartlane.server.settings import load_settings
from heartlane.store import tokens
from heartlane.store.session_schema import sessions as sessions_table
from heartlane.store.store import Store
from tests.browser import Browser
from tests.harness import Harness, StandingClock, assert_error
from tests.streaming import tapped

ORIGIN = "http://heartlane.test"
UUID = "01a20be7-1de3-7b10-af81-2ca4104bbdf0"


@pytest.fixture
def browser(harness: Harness) -> Browser:
    return Browser(harness)


async def secret_of(harness: Harness, scope: tokens.Scope = "operator", **fields: Any) -> str:
    return (await tokens.create(harness.store, "anna", scope, **fields))[1]


# --- logging in ---------------------------------------------------------------------------------------------------


async def test_a_token_logs_a_browser_in(harness: Harness, browser: Browser) -> None:
    page = await browser.get("/login")
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    secret = await secret_of(harness)
    answer = await browser.log_in(secret)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("heartlane=hls_")
    assert {part.strip() for part in cookie.split(";")[1:]} == {"Path=/", "Max-Age=604800", "HttpOnly", "SameSite=Lax"}
    assert secret not in answer.text + str(answer.headers)
    me = (await browser.get("/api/me")).json()["me"]
    assert (me["name"], me["scope"], me["session"]["method"]) == ("anna", "operator", "token")
    assert "anna" in (await browser.get("/login")).text
    assert (await browser.get("/api/agents/runs")).status_code == 200


async def test_what_is_no_token_logs_nobody_in(browser: Browser) -> None:
    for sent in ("", "   ", "rubbish", "hlt_" + "x" * 49, tokens.new_secret(), "hll_", "ü" * 53):
        answer = await browser.log_in(sent, next="/plans?status=pending")
        assert answer.status_code == (401 if sent.strip() else 400), sent
        assert "set-cookie" not in answer.headers
        assert 'role="alert"' in answer.text
        assert 'value="/plans?status=pending"' in answer.text  # where one was going is not lost
        assert not sent.strip() or sent not in answer.text
    assert_error(await browser.get("/api/me"), 401, "NOT_AUTHENTICATED")


async def test_a_dead_token_is_told_why_it_logs_nobody_in(harness: Harness, browser: Browser) -> None:
    token, revoked = await tokens.create(harness.store, "old", "viewer")
    await tokens.revoke(harness.store, token.id)
    _, expired = await tokens.create(harness.store, "ci", "viewer", lifetime=timedelta(seconds=10))
    harness.store.clock.advance(11)
    assert "revoked" in (await browser.log_in(revoked)).text
    assert "expired" in (await browser.log_in(expired)).text


async def test_bad_tokens_in_the_form_slow_their_address_down_as_in_headers(harness: Harness, browser: Browser) -> None:
    secret = await secret_of(harness)
    assert (await harness.viewer.get("/api/agents/runs")).status_code == 200
    for _ in range(20):
        assert (await browser.log_in(tokens.new_secret())).status_code == 401
    answer = await browser.log_in(secret)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    bad = harness.client_with(tokens.new_secret())
    assert_error(await bad.get("/api/agents/runs"), 429, "RATE_LIMITED")
    assert (await harness.viewer.get("/api/agents/runs")).status_code == 200


async def test_a_login_takes_a_new_session_whatever_the_browser_came_with(harness: Harness, browser: Browser) -> None:
    """Session fixation: a cookie that somebody planted is never made good, and the session before ends."""
    planted = tokens.new_secret("hls_")
    browser.cookies["heartlane"] = planted
    secret = await secret_of(harness)
    await browser.log_in(secret)
    first = browser.cookies["heartlane"]
    assert first != planted
    await browser.log_in(secret)
    assert browser.cookies["heartlane"] not in (first, planted)
    for old in (first, planted):
        other = Browser(harness)
        other.cookies["heartlane"] = old
        await asyncio.sleep(0)
        assert_error(await other.get("/api/me"), 401, "NOT_AUTHENTICATED")
    rows = (await browser.get("/api/sessions?all=true")).json()["sessions"]
    assert [row["end_reason"] for row in rows] == [None, "replaced"]


PLACES: dict[str, str] = {
    "/plans?status=pending#top": "/plans?status=pending#top",
    "/lanes/1?q=%C3%BC&role=qa": "/lanes/1?q=%C3%BC&role=qa",
    "//evil.example": "/",
    "/\\evil.example": "/",
    "/%09/evil.example": "/%09/evil.example",
    "/\t/evil.example": "/",
    "\t//evil.example": "/",
    "https://evil.example/": "/",
    "javascript:alert(1)": "/",
    "evil.example": "/",
    "/a\r\nset-cookie: x=1": "/",
    "/login?next=/login": "/",
    "/logout": "/",
    "/api/agents/runs": "/",
    "/" + "x" * 3000: "/",
    "": "/",
}


async def test_after_the_login_one_is_where_one_was_and_never_elsewhere(harness: Harness, browser: Browser) -> None:
    secret = await secret_of(harness)
    for asked, gone_to in PLACES.items():
        answer = await browser.log_in(secret, next=asked)
        assert answer.headers.get_list("location") == [gone_to], asked
        assert answer.headers.get_list("set-cookie") == [answer.headers["set-cookie"]], asked


ORIGINS: tuple[tuple[dict[str, str], int], ...] = (
    ({"origin": ORIGIN}, 303),
    ({"sec-fetch-site": "same-origin"}, 303),
    ({}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "http://evil.example"}, 403),
    ({"origin": "http://heartlane.test.evil.example"}, 403),
    ({"origin": "http://heartlane.test:81"}, 403),
    ({"origin": ORIGIN, "sec-fetch-site": "cross-site"}, 403),
    ({"origin": ORIGIN, "sec-fetch-site": "same-site"}, 403),
)


async def test_another_sites_form_logs_nobody_in(harness: Harness, browser: Browser) -> None:
    secret = await secret_of(harness)
    for headers, status in ORIGINS:
        answer = await browser.request("POST", "/login", data={"token": secret}, headers=headers)
        assert answer.status_code == status, headers
        assert ("set-cookie" in answer.headers) is (status == 303)


FORM = "application/x-www-form-urlencoded"
FORMS = (
    (b"{}", "application/json", 415),
    (b"token=" + b"x" * 20_000, FORM, 413),
    (b"&".join(b"a=1" for _ in range(100)), FORM, 400),
    (b"token=\xff\xfe", FORM, 400),
    (b"token=%ff%00", FORM, 401),
    (b"", FORM, 400),
)


async def test_a_form_that_the_page_never_sends_is_refused(browser: Browser) -> None:
    for content, kind, status in FORMS:
        answer = await browser.post("/login", content=content, headers={"content-type": kind})
        assert answer.status_code == status, content[:50]
        assert "set-cookie" not in answer.headers


# --- one-time links -----------------------------------------------------------------------------------------------


async def link_of(client: httpx.AsyncClient) -> str:
    """The secret of a new link."""
    answer = await client.post("/api/login-links")
    assert answer.status_code == 201, answer.text
    url: str = answer.json()["login_link"]["url"]
    place, _, fragment = url.partition("#")
    assert place == f"{ORIGIN}/login"
    assert fragment.startswith("link=hll_")
    return fragment.removeprefix("link=")


async def test_a_link_logs_in_once(harness: Harness, browser: Browser) -> None:
    link = await link_of(harness.operator)
    for _ in range(3):  # a preview, a scanner, the person
        assert (await browser.get("/login")).status_code == 200
    assert (await browser.log_in(link)).status_code == 303
    me = (await browser.get("/api/me")).json()["me"]
    assert (me["scope"], me["session"]["method"]) == ("operator", "link")
    again = await Browser(harness).log_in(link)
    assert again.status_code == 401
    assert "used before" in again.text


async def test_a_link_lasts_five_minutes(harness: Harness, browser: Browser) -> None:
    early, late = await link_of(harness.viewer), await link_of(harness.viewer)
    harness.store.clock.advance(299)
    assert (await browser.log_in(early)).status_code == 303
    harness.store.clock.advance(2)
    answer = await browser.log_in(late)
    assert (answer.status_code, "link has expired" in answer.text) == (401, True)


async def test_of_two_who_open_a_link_at_once_one_is_logged_in(harness: Harness) -> None:
    for _ in range(5):
        link = await link_of(harness.viewer)
        answers = await asyncio.gather(*(Browser(harness).log_in(link) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [303, 401, 401]


async def test_a_link_of_a_revoked_token_opens_nothing(harness: Harness, browser: Browser) -> None:
    token, secret = await tokens.create(harness.store, "gone", "viewer")
    link = await link_of(harness.client_with(secret))
    await tokens.revoke(harness.store, token.id)
    assert (await browser.log_in(link)).status_code == 401


async def test_a_session_cant_make_a_link_that_outlasts_it(harness: Harness, browser: Browser) -> None:
    await browser.log_in(await secret_of(harness))
    assert_error(await browser.change("POST", "/api/login-links"), 403, "FORBIDDEN")


# --- the cookie on every route ------------------------------------------------------------------------------------


async def test_the_cookie_opens_what_its_token_opens(harness: Harness, browser: Browser) -> None:
    project = await harness.project()
    await browser.log_in(await secret_of(harness, "operator"))
    for path in ("projects", "agents/runs", "agents/workers", "agents/plans", f"projects/{project['id']}/tickets"):
        assert (await browser.get(f"/api/{path}")).status_code == 200, path
    lanes = [{"laneKey": "a", "title": "A", "role": "backend"}]
    plan = await browser.change(
        "POST", "/api/agents/plan", json={"projectId": project["id"], "title": "P", "lanes": lanes}
    )
    assert plan.status_code == 201
    approved = await browser.change("POST", f"/api/agents/plans/{plan.json()['plan']['id']}/approve")
    run_id = approved.json()["runs"][0]["id"]
    for path, body in (
        (f"agents/runs/{run_id}/claim", {"worker_id": "me"}),
        (f"agents/runs/{run_id}/events", {"worker_id": "me"}),
        ("agents/runs/claim", {"worker_id": "me"}),
        (f"agents/runs/{run_id}/pause", None),
    ):
        answer = await browser.change("POST", f"/api/{path}", json=body)
        assert answer.status_code == 200, (path, answer.text)
    assert_error(await browser.change("POST", "/api/projects", json={"name": "X"}), 403, "FORBIDDEN")


async def test_a_session_sees_its_tokens_project_alone(harness: Harness, browser: Browser) -> None:
    mine, other = await harness.project(), await harness.project()
    await browser.log_in(await secret_of(harness, "viewer", project_id=mine["id"]))
    assert [each["id"] for each in (await browser.get("/api/projects")).json()["projects"]] == [mine["id"]]
    assert_error(await browser.get(f"/api/projects/{other['id']}"), 404, "NOT_FOUND")


CHANGES = (
    ("POST", f"/api/agents/runs/{UUID}/events"),
    ("POST", "/api/agents/runs/claim"),
    ("POST", f"/api/agents/runs/{UUID}/pause"),
    ("POST", f"/api/agents/plans/{UUID}/approve"),
    ("PATCH", f"/api/projects/{UUID}"),
    ("DELETE", f"/api/sessions/{UUID}"),
)
PROOFS: tuple[tuple[dict[str, str], bool], ...] = (
    ({"x-csrf-token": "{csrf}", "origin": ORIGIN}, True),
    ({"x-csrf-token": "{csrf}", "origin": ORIGIN, "sec-fetch-site": "same-origin"}, True),
    ({"x-csrf-token": "{csrf}"}, True),
    ({"origin": ORIGIN, "sec-fetch-site": "same-origin"}, False),
    ({"x-csrf-token": "", "origin": ORIGIN}, False),
    ({"x-csrf-token": "{other}", "origin": ORIGIN}, False),
    ({"x-csrf-token": "{csrf}x", "origin": ORIGIN}, False),
    ({"x-csrf-token": "{csrf}", "origin": "http://evil.example"}, False),
    ({"x-csrf-token": "{csrf}", "origin": "null"}, False),
    ({"x-csrf-token": "{csrf}", "origin": ORIGIN, "sec-fetch-site": "cross-site"}, False),
    ({"x-csrf-token": "{csrf}", "sec-fetch-site": "same-site"}, False),
)


async def test_a_change_by_cookie_needs_both_proofs(harness: Harness, browser: Browser) -> None:
    other = Browser(harness)
    await other.log_in(await secret_of(harness))
    secret = await secret_of(harness, "admin")
    await browser.log_in(secret)
    texts = {"csrf": await browser.csrf(), "other": await other.csrf()}
    for method, path in CHANGES:
        for proof, passes in PROOFS:
            headers = {name: text.format(**texts) for name, text in proof.items()}
            answer = await browser.request(method, path, headers=headers)
            if passes:
                assert answer.status_code in (400, 404), (path, proof)  # let in, and then there is nothing there
            else:
                assert_error(answer, 403, "FORBIDDEN")
        # A bearer token needs none of that, wherever it says that it comes from, and goes before the cookie.
        headers = {"authorization": f"Bearer {secret}", "origin": "http://evil.example", "sec-fetch-site": "cross-site"}
        assert (await browser.request(method, path, headers=headers)).status_code in (400, 404)


async def test_a_session_is_no_bearer_token(harness: Harness, browser: Browser) -> None:
    await browser.log_in(await secret_of(harness))
    secret = browser.cookies["heartlane"]
    for header in (f"Bearer {secret}", f"Session {secret}", f"\0session {secret}"):
        answer = await harness.client_with(None).get("/api/me", headers={"authorization": header})
        if "\0" not in header:
            assert_error(answer, 401, "NOT_AUTHENTICATED")


# --- where a session ends -----------------------------------------------------------------------------------------


async def test_logging_out_ends_the_session(harness: Harness, browser: Browser) -> None:
    await browser.log_in(await secret_of(harness))
    stale = browser.cookies["heartlane"]
    refused = await browser.post("/logout", data={"csrf_token": "wrong"})
    assert_error(refused, 403, "FORBIDDEN")
    assert (await browser.get("/api/me")).status_code == 200
    answer = await browser.post("/logout", data={"csrf_token": await browser.csrf()})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    browser.cookies["heartlane"] = stale
    body = assert_error(await browser.get("/api/me"), 401, "NOT_AUTHENTICATED")
    assert "log in again" in body["error"]
    again = await browser.post("/logout", data={"csrf_token": ""})
    assert again.status_code in (303, 403)


@pytest.fixture
async def standing(database_url: str) -> AsyncIterator[Harness]:
    store = await Store.open(database_url, clock=StandingClock())
    harness = await Harness.start(
        store,
        load_settings(
            {
                "rate_limits": "off",
                "database": "sqlite:///unused",
                "session_seconds": 7200,
                "session_idle_seconds": 600,
            }
        ),
    )
    yield harness
    await harness.close()
    await store.close()


async def test_a_session_ends_unused_and_in_the_end_anyway(standing: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartlane.server.auth.LAST_USED_LINGER_SECONDS", 0)
    monkeypatch.setattr("heartlane.server.auth.TRUST_SECONDS", 0)
    monkeypatch.setattr("heartlane.server.auth.LAST_USED_SECONDS", 0)
    idle, used = Browser(standing), Browser(standing)
    for each in (idle, used):
        await each.log_in(await secret_of(standing))
    for _ in range(12):
        standing.store.clock.advance(599)
        assert (await used.get("/api/me")).status_code == 200
        writing = standing.context.auth._writing_used
        assert writing is not None
        await writing
    assert "not used for too long" in assert_error(await idle.get("/api/me"), 401, "NOT_AUTHENTICATED")["error"]
    standing.store.clock.advance(12)
    assert "as long as it may" in assert_error(await used.get("/api/me"), 401, "NOT_AUTHENTICATED")["error"]
    assert (await standing.admin.get("/api/sessions")).json()["sessions"] == []


async def refused_within_two_seconds(browser: Browser, code: str) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await browser.get("/api/agents/runs")
    while answer.status_code == 200 and loop.time() - began < 10:
        await asyncio.sleep(0.05)
        answer = await browser.get("/api/agents/runs")
    assert_error(answer, 401, code)
    assert loop.time() - began < 3  # two, and what a busy machine adds


async def test_a_session_ends_with_its_token(harness: Harness, browser: Browser) -> None:
    token, secret = await tokens.create(harness.store, "anna", "viewer")
    await browser.log_in(secret)
    assert (await browser.get("/api/agents/runs")).status_code == 200
    await tokens.revoke(harness.store, token.id)
    await refused_within_two_seconds(browser, "TOKEN_REVOKED")


async def test_a_session_that_is_ended_is_refused_on_every_server(harness: Harness, browser: Browser) -> None:
    await browser.log_in(await secret_of(harness))
    second = await Harness.start(harness.store, harness.context.settings)
    elsewhere = Browser(second)
    elsewhere.cookies = browser.cookies
    assert (await elsewhere.get("/api/agents/runs")).status_code == 200
    (session,) = (await harness.admin.get("/api/sessions")).json()["sessions"]
    ended = await harness.admin.delete(f"/api/sessions/{session['id'].upper()}")
    assert ended.json()["session"]["end_reason"] == "revoked"
    assert (await harness.admin.delete(f"/api/sessions/{session['id']}")).json() == ended.json()
    await refused_within_two_seconds(elsewhere, "NOT_AUTHENTICATED")
    await second.close()


async def test_streams_of_a_session_end_with_it(harness: Harness, browser: Browser) -> None:
    (run,) = await harness.approved()
    await browser.log_in(await secret_of(harness))
    (session,) = (await browser.get("/api/sessions")).json()["sessions"]
    headers = {"host": "heartlane.test", "cookie": f"heartlane={browser.cookies['heartlane']}"}
    async with (
        tapped(harness.app, f"/api/agents/runs/{run['id']}/stream", headers) as of_run,
        tapped(harness.app, "/api/agents/stream", headers) as of_all,
    ):
        assert (of_run.status, of_all.status) == (200, 200)
        assert (await of_run.next()).event == "run"
        await harness.admin.delete(f"/api/sessions/{session['id']}")
        for stream in (of_run, of_all):
            end = await stream.until(lambda told: told.event == "end")
            assert end.data["code"] == "NOT_AUTHENTICATED"


# --- lists --------------------------------------------------------------------------------------------------------


async def test_who_sees_and_ends_which_sessions(harness: Harness) -> None:
    project = await harness.project()
    people = {
        "own": await secret_of(harness, "viewer"),
        "limited": await secret_of(harness, "admin", project_id=project["id"]),
        "acme": await secret_of(harness, "admin", account="acme"),
    }
    for secret in people.values():
        await Browser(harness).log_in(secret)

    async def seen(client: httpx.AsyncClient) -> dict[str, str]:
        listed = (await client.get("/api/sessions")).json()["sessions"]
        return {row["id"]: row["scope"] for row in listed}

    sights = {name: await seen(harness.client_with(secret)) for name, secret in people.items()}
    assert [len(each) for each in sights.values()] == [1, 1, 1]
    assert await seen(harness.admin) == sights["own"] | sights["limited"]
    assert await seen(harness.operator) == {}
    acme = harness.client_with(people["acme"])
    for session_id in await seen(harness.admin):
        for stranger in (acme, harness.operator):
            assert_error(await stranger.delete(f"/api/sessions/{session_id}"), 404, "NOT_FOUND")
    (own,) = sights["own"]
    assert (await harness.client_with(people["own"]).delete(f"/api/sessions/{own}")).status_code == 200
    assert_error(await harness.admin.delete("/api/sessions/nonsense"), 400, "INVALID_REQUEST")


async def test_the_list_goes_by_pages(harness: Harness) -> None:
    secret = await secret_of(harness)
    for _ in range(5):
        await Browser(harness).log_in(secret)
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await harness.admin.get("/api/sessions", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        found += [row["id"] for row in answer.json()["sessions"]]
        cursor = answer.json()["next_cursor"]
    assert len(found) == len(set(found)) == 5
    assert found == sorted(found, reverse=True)


# --- what is kept -------------------------------------------------------------------------------------------------


async def test_only_hashes_are_stored(harness: Harness, browser: Browser) -> None:
    await browser.log_in(await secret_of(harness))
    async with harness.store.reading() as conn:
        (row,) = await conn.execute(select(sessions_table))
    assert browser.cookies["heartlane"] not in str(row)
    assert row.secret_hash == tokens.hash_of(browser.cookies["heartlane"])


# --- over TLS, by other names -------------------------------------------------------------------------------------


async def with_settings(store: Store, **settings: Any) -> Harness:
    return await Harness.start(store, load_settings({"rate_limits": "off", "database": "sqlite:///unused", **settings}))


async def test_over_tls_the_cookie_is_the_hosts_alone(store: Store) -> None:
    harness = await with_settings(store, trusted_proxies="127.0.0.1", allowed_hosts="*.example.com")
    browser = Browser(harness, "https://lanes.example.com")
    browser.headers["x-forwarded-proto"] = "https"
    answer = await browser.log_in(await secret_of(harness))
    assert answer.headers["set-cookie"].startswith("__Host-heartlane=hls_")
    assert answer.headers["set-cookie"].endswith("; Secure")
    assert (await browser.get("/api/me")).status_code == 200
    # A cookie that somebody on the network set without TLS is not looked at.
    plain = {"heartlane": browser.cookies["__Host-heartlane"]}
    browser.cookies = plain
    assert_error(await browser.get("/api/me"), 401, "NOT_AUTHENTICATED")
    await harness.close()


async def test_who_isnt_trusted_cant_say_that_it_came_over_tls(harness: Harness, browser: Browser) -> None:
    browser.headers["x-forwarded-proto"] = "https"
    answer = await browser.log_in(await secret_of(harness))
    assert answer.headers["set-cookie"].startswith("heartlane=")


async def test_a_port_of_its_own_is_in_the_cookies_name(harness: Harness) -> None:
    for base, name in (
        ("http://127.0.0.1:8484", "heartlane-8484"),
        ("http://[::1]:8484", "heartlane-8484"),
        ("http://localhost", "heartlane"),
    ):
        answer = await Browser(harness, base).log_in(await secret_of(harness))
        assert answer.headers["set-cookie"].partition("=")[0] == name


async def test_links_lead_to_the_public_address(store: Store) -> None:
    harness = await with_settings(store, public_url="https://lanes.example.com/")
    url = (await harness.viewer.post("/api/login-links")).json()["login_link"]["url"]
    assert url.startswith("https://lanes.example.com/login#link=hll_")
    browser = Browser(harness, "https://lanes.example.com")
    answer = await browser.log_in(url.partition("=")[2])
    assert answer.headers["set-cookie"].startswith("__Host-heartlane=")
    await harness.close()


OWN_NAMES = (
    "localhost:8484",
    "board.localhost",
    "127.0.0.1:8484",
    "[::1]:8484",
    "192.168.1.5",
    "heartlane:8484",
    "nas.local",
    "lanes.corp.internal",
    "HEARTLANE.TEST",
    "lanes.example.com",
    "a.b.example.org:81",
)
STRANGE_NAMES = ("evil.example.com", "localhost.evil.example", "127.0.0.1.evil.example", "example.org", "", "[evil]")


async def test_a_name_that_is_not_this_servers_is_refused(store: Store) -> None:
    """DNS rebinding: a site's own name that points here makes its pages no pages of this server's."""
    harness = await with_settings(store, public_url="https://lanes.example.com", allowed_hosts="x.test,*.example.org")
    client = harness.client_with(None)
    for host in OWN_NAMES:
        for path in ("/login", "/docs"):
            assert (await client.get(path, headers={"host": host})).status_code == 200, host
    for host in STRANGE_NAMES:
        for method, path in (
            ("GET", "/login"),
            ("GET", "/docs"),
            ("GET", "/api/agents/runs"),
            ("POST", "/login"),
            ("POST", "/api/agents/runs/claim"),
        ):
            body = assert_error(await client.request(method, path, headers={"host": host}), 400, "INVALID_REQUEST")
            assert "HEARTLANE_ALLOWED_HOSTS" in body["error"]
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(path, headers={"host": host})).status_code == 200
        # What a bearer token opens, no site can ask for: workers may use any name.
        assert (await harness.viewer.get("/api/agents/runs", headers={"host": host})).status_code == 200
    await harness.close()


async def test_any_name_where_that_is_wanted(store: Store) -> None:
    harness = await with_settings(store, allowed_hosts="*")
    assert (await harness.client_with(None).get("/login", headers={"host": "any.example"})).status_code == 200
    await harness.close()
