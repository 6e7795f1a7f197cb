"""Tokens that are limited: to workers whose ids begin in one way, and to networks. Projects and time have tests of
their own in `test_auth.py` and `test_scopes.py`."""

from __future__ import annotations

from typing import Any

import pytest

from heartlane.server.settings import load_settings
from heartlane.store import tokens
from heartlane.store.store import Store
from heartlane.store.tokens import TokenError
from heartlane.wire.networks import is_within, parse_networks
from tests.browser import Browser
from tests.harness import Harness, assert_error

INSIDE, OUTSIDE = "10.1.2.3", "192.0.2.9"


async def limited(harness: Harness, scope: tokens.Scope = "worker", **limits: Any) -> tuple[tokens.Token, str]:
    return await tokens.create(harness.store, "limited", scope, **limits)


# --- the workers that it may speak as -----------------------------------------------------------------------------


async def test_a_token_speaks_only_as_workers_of_its_prefix(harness: Harness) -> None:
    mine, theirs = await harness.approved(2)
    _, secret = await limited(harness, worker_prefix="build-9.")
    client = harness.client_with(secret)
    await harness.claim(theirs["id"], "build-8.backend.1")
    lane = f"/api/agents/runs/{mine['id']}"
    for path, body in (
        ("/api/agents/runs/claim", {}),
        (f"{lane}/claim", {}),
        (f"/api/agents/runs/{theirs['id']}/claim", {}),
        (f"/api/agents/runs/{theirs['id']}/events", {"log_line": "x"}),
        (f"/api/agents/runs/{theirs['id']}/release", {}),
    ):
        for worker in ("build-8.backend.1", "build-9", "Build-9.backend.1", " build-9.x"):
            refused = await client.post(path, json={"worker_id": worker, **body})
            assert "build-9." in assert_error(refused, 403, "FORBIDDEN")["error"], (path, worker)
    assert (await harness.read(mine["id"]))["state"] == "queued"
    held = await harness.read(theirs["id"])
    assert (held["state"], held["worker_id"], held["log_line"]) == ("claimed", "build-8.backend.1", None)
    # Its own workers do all that workers do, and an operator's release is no way round.
    for path, body in ((f"{lane}/claim", {}), (f"{lane}/events", {"log_line": "x"}), (f"{lane}/release", {})):
        done = await client.post(path, json={"worker_id": "build-9.backend.1", **body})
        assert done.status_code == 200, done.text
    assert_error(await client.post(f"/api/agents/runs/{theirs['id']}/release"), 403, "FORBIDDEN")


@pytest.mark.parametrize("scope", ["viewer", "operator", "admin"])
async def test_only_a_workers_token_has_a_prefix(scope: tokens.Scope, store: Store) -> None:
    with pytest.raises(TokenError, match="only a token of scope worker"):
        await tokens.create(store, "x", scope, worker_prefix="w")


# --- where it may be used -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["10.0.0.0/8", "10.1.2.3", "2001:db8::/32"])
async def test_a_token_is_used_from_its_networks_alone(network: str, harness: Harness) -> None:
    inside = "2001:db8::7" if ":" in network else INSIDE
    (run,) = await harness.approved()
    _, secret = await limited(harness, networks=[network])
    here, there = harness.client_with(secret, inside), harness.client_with(secret, OUTSIDE)
    report = {"worker_id": "w1"}
    # Known or not, by a hot route or another: from elsewhere it opens nothing, and goes on working where it may.
    for _ in range(2):
        for path in (f"/api/agents/runs/{run['id']}/claim", f"/api/agents/runs/{run['id']}/events"):
            refused = assert_error(await there.post(path, json=report), 403, "FORBIDDEN")
            assert OUTSIDE in refused["error"]
        assert_error(await there.get("/api/me"), 403, "FORBIDDEN")
        assert_error(await there.get(f"/api/agents/runs/{run['id']}/stream"), 403, "FORBIDDEN")
        assert (await here.post(f"/api/agents/runs/{run['id']}/claim", json=report)).status_code == 200
        assert (await here.post(f"/api/agents/runs/{run['id']}/events", json=report)).status_code == 200
        me = (await here.get("/api/me")).json()["me"]
        assert (me["networks"], me["worker_prefix"]) == ([str(parse_networks(network)[0])], None)


async def test_an_address_that_is_refused_counts_for_no_bad_token(harness: Harness) -> None:
    _, secret = await limited(harness, networks=["10.0.0.0/8"])
    there = harness.client_with(secret, OUTSIDE)
    for _ in range(30):
        assert_error(await there.get("/api/me"), 403, "FORBIDDEN")


async def test_a_forwarded_address_counts_where_a_proxy_is_trusted_and_nowhere_else(store: Store) -> None:
    proxy = "172.16.0.1"
    for trusted, said, status in (
        (None, INSIDE, 403),
        (proxy, INSIDE, 200),
        (proxy, OUTSIDE, 403),
        (proxy, f"{INSIDE}, {OUTSIDE}", 403),
        ("172.16.0.2", INSIDE, 403),
    ):
        harness = await Harness.start(store, load_settings({"trusted_proxies": trusted}))
        _, secret = await limited(harness, networks=["10.0.0.0/8"])
        client = harness.client_with(secret, proxy)
        answer = await client.get("/api/me", headers={"X-Forwarded-For": said})
        assert answer.status_code == status, (trusted, said)
        await harness.close()


async def test_a_browser_logs_in_and_stays_within_the_networks(harness: Harness) -> None:
    token, secret = await limited(harness, "viewer", networks=["10.0.0.0/8"])
    browser = Browser(harness)
    browser._client = harness.client_with(None, OUTSIDE)
    refused = await browser.log_in(secret)
    assert refused.status_code == 401
    assert "may not be used from this address" in refused.text
    assert not browser.cookies
    # A link that is opened elsewhere isn't used up by it.
    made = await harness.client_with(secret, INSIDE).post("/api/login-links")
    link = made.json()["login_link"]["url"].partition("link=")[2]
    assert (await browser.log_in(link)).status_code == 401
    browser._client = harness.client_with(None, INSIDE)
    assert (await browser.log_in(link)).status_code == 303
    assert (await browser.get("/api/me")).json()["me"]["token_id"] == token.id
    # A cookie that was stolen opens nothing elsewhere.
    browser._client = harness.client_with(None, OUTSIDE)
    assert_error(await browser.get("/api/me"), 403, "FORBIDDEN")
    failed = (await harness.admin.get("/api/audit", params={"action": "login.failed"})).json()["entries"]
    assert {entry["details"]["reason"] for entry in failed} == {"elsewhere"}


# --- how limits are kept ------------------------------------------------------------------------------------------


async def test_limits_cost_no_look_up(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = await limited(harness, networks=["127.0.0.0/8"], worker_prefix="w")
    client = harness.client_with(secret)
    found = tokens.find_by_secret
    asked = []

    async def counted(store: Store, text: str) -> Any:
        asked.append(text)
        return await found(store, text)

    monkeypatch.setattr(tokens, "find_by_secret", counted)
    monkeypatch.setattr("heartlane.server.auth.TRUST_SECONDS", 600.0)
    for _ in range(5):
        assert (await client.post("/api/agents/runs/claim", json={"worker_id": "w1"})).status_code == 200
    assert len(asked) == 1


async def test_a_rotated_token_keeps_its_limits_and_the_audit_log_has_them(harness: Harness) -> None:
    limits: dict[str, Any] = {"worker_prefix": "build-", "networks": ["10.0.0.7/8", "10.0.0.0/8", "2001:db8::1"]}
    token, _ = await limited(harness, **limits)
    assert (token.worker_prefix, token.networks) == ("build-", "10.0.0.0/8,2001:db8::1/128")
    new, secret = await tokens.rotate(harness.store, token.id)
    assert new[-2:] == token[-2:]
    assert_error(await harness.client_with(secret, OUTSIDE).get("/api/me"), 403, "FORBIDDEN")
    answer = await harness.admin.get("/api/audit", params={"action": "token.created", "limit": 200})
    details = [entry["details"] for entry in answer.json()["entries"] if entry["object_id"] == token.id]
    assert details[0]["networks"] == "10.0.0.0/8,2001:db8::1/128"
    assert details[0]["worker_prefix"] == "build-"


@pytest.mark.parametrize(
    "wrong",
    [
        {"networks": ["10.0.0.0/33"]},
        {"networks": ["example.com"]},
        {"networks": [" , "]},
        {"networks": [f"10.0.{number}.0/24" for number in range(51)]},
        {"worker_prefix": ""},
        {"worker_prefix": "a\nb"},
        {"worker_prefix": "x" * 201},
    ],
)
async def test_limits_that_cant_be_are_refused(wrong: dict[str, Any], store: Store) -> None:
    with pytest.raises(TokenError):
        await tokens.create(store, "x", "worker", **wrong)
    assert await tokens.list_tokens(store) == []


def test_an_address_is_within_a_network_however_it_is_written() -> None:
    networks = parse_networks("10.0.0.0/8, 2001:db8::/32")
    within = [each for each in ("10.9.9.9", "::ffff:10.0.0.1", "2001:DB8::1") if is_within(each, networks)]
    without = [each for each in ("", "local", "11.0.0.1", "::1", "10.0.0.0/8", "10.1") if is_within(each, networks)]
    assert (len(within), without) == (3, [])
