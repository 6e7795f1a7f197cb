"""Projects that are linked with GitHub: what its webhooks do, and what they can't; imports by the server itself."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from heartlane.server.settings import load_settings
from heartlane.store.store import Store
from heartlane.wire.github_answers import GithubHeardAnswer, GithubLinkAnswer
from tests.harness import Harness, assert_error
from tests.sources.tracker import HTML, TOKEN, FakeGitHub, Reply, speaking

SECRET = "5f1d8a2c9e7b4f60a3d2c1b0"
OTHER_SECRET = "0b1c2d3a06f4b7e9c2a8d1f5"
REPOSITORY = "https://github.com/Acme/Shop"
PULL = f"{REPOSITORY}/pull/204"
_deliveries = itertools.count(1)


class Shop:
    """One project that is linked with a repository, and GitHub's messages about that."""

    def __init__(self, harness: Harness, project_id: str) -> None:
        self.harness = harness
        self.path = f"/api/projects/{project_id}"
        self.github = harness.client_with(None)

    async def link(self, **fields: Any) -> dict[str, Any]:
        response = await self.harness.admin.put(f"{self.path}/github", json=fields)
        assert response.status_code == 200, response.text
        GithubLinkAnswer.model_validate(response.json(), extra="forbid")
        linked: dict[str, Any] = response.json()["github"]
        return linked

    async def post(self, event: str, message: Any, *, secret: str = SECRET, **headers: str) -> httpx.Response:
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        signature = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
        sent = {
            "content-type": "application/json",
            "x-github-event": event,
            "x-github-delivery": f"delivery-{next(_deliveries)}",
            "x-hub-signature-256": signature,
            **headers,
        }
        return await self.github.post("/api/hooks/github", content=raw, headers=sent)

    async def tell(self, event: str, message: dict[str, Any], **headers: str) -> dict[str, Any]:
        """Send a message that is believed; what became of it."""
        response = await self.post(event, {"repository": {"html_url": REPOSITORY}, **message}, **headers)
        assert response.status_code in (200, 202), response.text
        GithubHeardAnswer.model_validate(response.json(), extra="forbid")
        heard: dict[str, Any] = response.json()
        assert (response.status_code == 202) == (heard["ignored"] is not None)
        return heard

    async def issue(self, action: str, *labels: str, number: int = 12, **fields: Any) -> dict[str, Any]:
        issue = {
            "number": number,
            "html_url": f"{REPOSITORY}/issues/{number}",
            "title": "Totals without a reload",
            "body": "The total follows when a line changes.",
            "state": "open",
            "labels": [{"name": label} for label in labels],
            **fields,
        }
        return await self.tell("issues", {"action": action, "issue": issue})

    async def pull(self, action: str, *, merged: bool = False, url: str = PULL) -> dict[str, Any]:
        pull = {"html_url": url, "title": "Totals", "merged": merged, "state": "closed"}
        return await self.tell("pull_request", {"action": action, "pull_request": pull, "sender": {"login": "ada"}})

    async def tickets(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await self.harness.viewer.get(f"{self.path}/tickets")).json()["tickets"]
        return listed

    async def ticket(self) -> dict[str, Any]:
        (ticket,) = await self.tickets()
        return ticket


@pytest.fixture
def tracker() -> Iterator[FakeGitHub]:
    fake = FakeGitHub("acme/shop")
    with speaking(fake):
        yield fake


@pytest.fixture
async def harness(store: Store, tracker: FakeGitHub) -> AsyncIterator[Harness]:
    settings = {
        "rate_limits": "off",
        "database": "sqlite:///unused",
        "github_webhook_secret": f"{OTHER_SECRET}, {SECRET}",
        "github_token": TOKEN,
        "github_api_url": tracker.url,
    }
    harness = await Harness.start(store, load_settings(settings))
    yield harness
    await harness.close()


@pytest.fixture
async def shop(harness: Harness) -> Shop:
    host = httpx.URL(harness.context.settings.github_api_url).host
    project = await harness.project(repo_url=f"git@{host}:Acme/shop.git")
    shop = Shop(harness, project["id"])
    await shop.link(label="agent", roles={"backend": ["area/api*"]})
    # Messages name the repository by its page; this one stands at the address that the fake answers at.
    patched = await harness.admin.patch(shop.path, json={"repo_url": "git@github.com:Acme/shop.git"})
    assert patched.status_code == 200
    return shop


# --- issues -------------------------------------------------------------------------------------------------------


async def test_a_labelled_issue_becomes_a_ticket_and_is_followed(shop: Shop) -> None:
    assert (await shop.issue("opened"))["tickets"] == 0
    assert await shop.tickets() == []
    heard = await shop.issue("labeled", "Agent", "area/api-v2")
    assert heard == {"ok": True, "duplicate": False, "ignored": None, "projects": 1, "tickets": 1, "lanes": 0}
    ticket = await shop.ticket()
    assert (ticket["external_url"], ticket["status"]) == (f"{REPOSITORY}/issues/12", "open")
    assert ticket["roles"] == {"backend": "pending", "merged": "pending"}
    await shop.issue("edited", "agent", "qa", title="Totals at once")
    ticket = await shop.ticket()
    assert (ticket["title"], ticket["roles"]["qa"], ticket["roles"]["backend"]) == (
        "Totals at once",
        "pending",
        "skipped",
    )
    await shop.issue("closed", "agent", "qa", title="Totals at once", state="closed", state_reason="not_planned")
    assert (await shop.ticket())["resolution_type"] == "wont_fix"
    await shop.issue("reopened", "agent", "qa", title="Totals at once")
    assert (await shop.ticket())["status"] == "open"
    await shop.issue("unlabeled", "qa", title="Totals at once")
    assert (await shop.ticket())["resolution_type"] == "no_longer_relevant"
    await shop.issue("labeled", "agent", "qa", title="Totals at once")
    await shop.issue("deleted", "agent", "qa", title="Totals at once")
    assert (await shop.ticket())["resolution_type"] == "no_longer_relevant"


async def test_a_delivery_that_comes_again_changes_nothing(shop: Shop) -> None:
    message = {
        "action": "labeled",
        "repository": {"html_url": REPOSITORY},
        "issue": {"number": 1, "html_url": f"{REPOSITORY}/issues/1", "title": "A title", "labels": [{"name": "agent"}]},
    }
    answers = await asyncio.gather(*(shop.post("issues", message, **{"x-github-delivery": "same"}) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["duplicate"] for answer in answers) == [False, True, True, True, True]
    ticket = await shop.ticket()
    closed = {**message, "issue": {**message["issue"], "state": "closed"}}  # type: ignore[dict-item]
    again = await shop.post("issues", closed, **{"x-github-delivery": "same"})
    assert again.json() == {"ok": True, "duplicate": True, "ignored": None, "projects": 0, "tickets": 0, "lanes": 0}
    assert await shop.ticket() == ticket
    shop.harness.store.clock.advance(8 * 86_400)
    await shop.tell("ping", {})
    assert (await shop.post("issues", closed, **{"x-github-delivery": "same"})).json()["duplicate"] is False


async def test_only_what_is_signed_is_believed(shop: Shop) -> None:
    message = {"action": "labeled", "issue": {}, "repository": {"html_url": REPOSITORY}}
    wrong = [
        await shop.post("issues", message, secret="not the secret"),
        await shop.post("issues", message, **{"x-hub-signature-256": ""}),
        await shop.post("issues", message, **{"x-hub-signature-256": "sha1=" + "0" * 40}),
        await shop.post("issues", b'{"a": 1}', **{"x-hub-signature-256": "sha256=" + "0" * 64}),
    ]
    for response in wrong:
        body = assert_error(response, 401, "NOT_AUTHENTICATED")
        assert "X-Hub-Signature-256" in body["error"]
    assert (await shop.post("ping", {}, secret=OTHER_SECRET)).status_code == 200  # the new one, while both count
    token = shop.harness.admin.headers["authorization"]
    assert_error(await shop.post("ping", {}, secret="nothing", authorization=token), 401, "NOT_AUTHENTICATED")


async def test_what_is_signed_and_wrong_is_said_plainly(shop: Shop) -> None:
    assert_error(await shop.post("issues", b"no json"), 400, "INVALID_REQUEST")
    assert_error(await shop.post("issues", [1]), 400, "INVALID_REQUEST")
    assert_error(await shop.post("", {}), 400, "INVALID_REQUEST")
    assert_error(await shop.post("ping", {}, **{"x-github-delivery": "x" * 101}), 400, "INVALID_REQUEST")
    form = await shop.post("ping", b"payload=%7B%7D", **{"content-type": "application/x-www-form-urlencoded"})
    assert_error(form, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert_error(await shop.post("ping", b" " * (4 * 1024 * 1024 + 1)), 413, "PAYLOAD_TOO_LARGE")
    for message in ({}, {"issue": 7}, {"issue": {"html_url": "https://x", "pull_request": {}}}, {"issue": None}):
        assert (await shop.tell("issues", {"action": "opened", **message}))["ignored"] == "it is no issue"
    assert "star" in (await shop.tell("star", {"action": "created"}))["ignored"]
    assert "synchronize" in (await shop.tell("pull_request", {"action": "synchronize", "pull_request": {}}))["ignored"]
    other = {"repository": {"html_url": "https://github.com/acme/other"}, "action": "opened", "issue": {}}
    assert "no project here" in (await shop.tell("issues", other))["ignored"]
    assert await shop.tickets() == []


async def test_without_a_secret_nothing_is_taken(store: Store) -> None:
    harness = await Harness.start(store, load_settings({"rate_limits": "off", "database": "sqlite:///unused"}))
    shop = Shop(harness, "")
    body = assert_error(await shop.post("ping", {}, secret=""), 404, "NOT_FOUND")
    assert "HEARTLANE_GITHUB_WEBHOOK_SECRET" in body["error"]
    await harness.close()


# --- pull requests ------------------------------------------------------------------------------------------------


async def shipped(shop: Shop, urls: dict[str, str]) -> dict[str, str]:
    """The lanes of the project's tickets by role, shipped with these pull requests."""
    operator = shop.harness.operator
    milestone = (await shop.harness.admin.post(f"{shop.path}/milestones", json={"name": "Spring"})).json()["milestone"]
    ids = [ticket["id"] for ticket in await shop.tickets()]
    plan = (await operator.post("/api/agents/plan", json={"milestoneId": milestone["id"], "ticketIds": ids})).json()
    runs = (await operator.post(f"/api/agents/plans/{plan['plan']['id']}/approve")).json()["runs"]
    lanes = {run["role"]: run["id"] for run in runs}
    for role, run_id in lanes.items():
        await shop.harness.claim(run_id)
        event = {"type": "ship_complete", "payload": {"pr_url": urls[role]}}
        assert (await shop.harness.report(run_id, events=[event])).status_code == 200
    return lanes


async def test_a_merged_pull_request_is_noted_and_closes_its_ticket(shop: Shop) -> None:
    await shop.issue("opened", "agent", "backend")
    run_id = (await shipped(shop, {"backend": PULL}))["backend"]
    before = await shop.harness.read(run_id)
    assert (await shop.pull("opened"))["lanes"] == 1
    assert (await shop.pull("closed"))["tickets"] == 0
    assert (await shop.ticket())["status"] == "open"
    heard = await shop.pull("closed", merged=True)
    assert (heard["lanes"], heard["tickets"]) == (1, 1)
    events = await shop.harness.events(run_id, type="pull_request")
    assert [event["payload"]["state"] for event in events] == ["opened", "closed", "merged"]
    assert events[-1]["payload"] == {"url": PULL, "state": "merged", "title": "Totals", "by": "ada"}
    after = await shop.harness.read(run_id)
    assert (after["state"], after["event_count"]) == ("shipped", before["event_count"] + 3)
    ticket = await shop.ticket()
    assert (ticket["status"], ticket["roles"]) == ("closed", {"backend": "done", "merged": "done"})
    assert (await shop.pull("closed", merged=True))["tickets"] == 0


async def test_a_ticket_of_two_pull_requests_waits_for_both(shop: Shop) -> None:
    await shop.issue("opened", "agent", "backend", "frontend")
    await shipped(shop, {"backend": PULL, "frontend": f"{PULL}5/"})
    assert (await shop.pull("closed", merged=True))["tickets"] == 0
    assert (await shop.ticket())["roles"]["merged"] == "pending"
    assert (await shop.pull("closed", merged=True, url=f"{PULL}5"))["tickets"] == 1
    assert (await shop.ticket())["status"] == "closed"


async def test_a_pull_request_of_nobody_here(shop: Shop) -> None:
    assert (await shop.pull("closed", merged=True)) == {
        "ok": True, "duplicate": False, "ignored": None, "projects": 1, "tickets": 0, "lanes": 0,
    }  # fmt: skip


# --- the link -----------------------------------------------------------------------------------------------------


async def test_a_link_is_made_read_changed_and_ended(shop: Shop) -> None:
    harness = shop.harness
    read = (await harness.viewer.get(f"{shop.path}/github")).json()["github"]
    assert (read["repository"], read["label"], read["hears"], read["last_import"]) == ("acme/shop", "agent", True, None)
    assert read["roles"] == {"backend": ["area/api*"]}
    entries = (await harness.admin.get("/api/audit", params={"action": "github"})).json()["entries"]
    assert [entry["action"] for entry in entries] == ["github.linked"]
    assert_error(await harness.admin.put(f"{shop.path}/github", json={}), 400, "INVALID_REQUEST")  # at github.com now
    assert_error(await harness.operator.put(f"{shop.path}/github", json={}), 403, "FORBIDDEN")
    bad = {"label": "", "roles": {"chef": ["x"], "qa": [""]}}
    body = assert_error(await harness.admin.put(f"{shop.path}/github", json=bad), 400, "INVALID_REQUEST")
    assert len(body["issues"]) == 3
    ended = await harness.admin.delete(f"{shop.path}/github")
    assert ended.json()["github"] == read
    for response in (
        await harness.viewer.get(f"{shop.path}/github"),
        await harness.admin.delete(f"{shop.path}/github"),
        await harness.operator.post(f"{shop.path}/github/import"),
    ):
        assert_error(response, 404, "NOT_FOUND")
    assert "no project here" in (await shop.issue("opened", "agent"))["ignored"]


# --- imports by the server ----------------------------------------------------------------------------------------


@pytest.fixture
async def mirrored(harness: Harness, tracker: FakeGitHub) -> Shop:
    """A project whose repository stands at the fake."""
    project = await harness.project(repo_url=f"http://{httpx.URL(tracker.url).host}/acme/shop")
    shop = Shop(harness, project["id"])
    await shop.link(label="agent")
    return shop


async def imported(shop: Shop) -> httpx.Response:
    return await shop.harness.operator.post(f"{shop.path}/github/import")


async def state_of(shop: Shop) -> dict[str, Any]:
    state: dict[str, Any] = (await shop.harness.viewer.get(f"{shop.path}/github")).json()["github"]["last_import"]
    return state


async def test_the_first_page_at_once_and_the_rest_behind(mirrored: Shop, tracker: FakeGitHub) -> None:
    tracker.page_max = 3
    for number in range(7):
        tracker.issue(f"Issue {number}", "agent")
    tracker.issue("Not wanted")
    response = await imported(mirrored)
    GithubLinkAnswer.model_validate(response.json(), extra="forbid")
    state = response.json()["github"]["last_import"]
    assert (response.status_code, state["state"], state["created"]) == (200, "running", 3)
    importer = mirrored.harness.context.importer
    assert await importer.round()
    assert not await importer.round()
    state = await state_of(mirrored)
    assert (state["state"], state["created"], state["error"]) == ("done", 7, None)
    assert len(await mirrored.tickets()) == 7
    tracker.page_max = 100
    state = (await imported(mirrored)).json()["github"]["last_import"]
    assert (state["state"], state["unchanged"]) == ("done", 7)


async def test_a_broken_link_is_said_as_such(mirrored: Shop, tracker: FakeGitHub) -> None:
    tracker.tokens = {"another"}
    body = assert_error(await imported(mirrored), 401, "GITHUB_LINK_BROKEN")
    assert body["relinkGithub"] is True
    assert "HEARTLANE_GITHUB_TOKEN" in body["error"]
    assert TOKEN not in body["error"]
    tracker.tokens = {TOKEN}
    tracker.repository = "acme/elsewhere"
    assert assert_error(await imported(mirrored), 401, "GITHUB_LINK_BROKEN")["relinkGithub"] is True
    state = await state_of(mirrored)
    assert (state["state"], state["read"]) == ("failed", 0)
    assert "acme/shop" in state["error"]
    tracker.fail(Reply(422, {"message": "Validation Failed"}))
    assert assert_error(await imported(mirrored), 401, "GITHUB_LINK_BROKEN")["relinkGithub"] is False
    state = await state_of(mirrored)
    tracker.fail(Reply(429, {}, {"retry-after": "30"}))
    assert assert_error(await imported(mirrored), 503, "UNAVAILABLE")["retryAfter"] == 30
    tracker.fail(HTML)
    assert_error(await imported(mirrored), 503, "UNAVAILABLE")
    assert await state_of(mirrored) == state, "one that has to wait says so to its caller alone"


async def test_an_import_waits_for_a_limit_and_gives_up_on_a_broken_link(mirrored: Shop, tracker: FakeGitHub) -> None:
    tracker.page_max = 2
    for number in range(4):
        tracker.issue(f"Issue {number}", "agent")
    await imported(mirrored)
    importer = mirrored.harness.context.importer
    tracker.fail(Reply(429, {}, {"retry-after": "600"}))
    assert await importer.round()
    state = await state_of(mirrored)
    assert (state["state"], state["created"]) == ("waiting", 2)
    assert "rate limit" in state["error"]
    assert not await importer.round()
    mirrored.harness.store.clock.advance(601)
    assert await importer.round()
    assert (await state_of(mirrored))["state"] == "done"
    await imported(mirrored)
    tracker.tokens = set()
    assert await importer.round()
    state = await state_of(mirrored)
    assert state["state"] == "failed"
    assert not await importer.round()
