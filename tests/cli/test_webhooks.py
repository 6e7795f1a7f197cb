"""`heartlane webhooks` and `heartlane notices`, against a running server and a real receiver."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from standardwebhooks import Webhook

from tests.cli.command import Ended, heartlane, here, served
from tests.receiver import Receiver, status


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A receiver in a thread of its own."""
    receiver, ready, loop = Receiver(), threading.Event(), asyncio.new_event_loop()
    ending = asyncio.Event()

    async def serve() -> None:
        async with receiver:
            ready.set()
            await ending.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield receiver
    loop.call_soon_threadsafe(ending.set)
    thread.join(10)
    loop.close()


class Site(NamedTuple):
    """A server, and how to call it."""

    url: str
    token: str

    def call(self, *arguments: str) -> Ended:
        return here(*arguments, HEARTLANE_URL=self.url, HEARTLANE_TOKEN=self.token, NO_PROXY="127.0.0.1")

    def json(self, *arguments: str) -> Any:
        ended = self.call(*arguments, "--json")
        assert ended.code == 0, ended
        return json.loads(ended.out)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("webhooks")
    database = f"sqlite:///{folder}/heartlane.db"
    with served(database, folder, "--webhooks-allow", "127.0.0.1", "--rate-limits", "off") as server:
        made = heartlane("token", "create", "cli", "--scope", "admin", HEARTLANE_DATABASE=database)
        site = Site(server.url, made.out.strip())
        import httpx

        headers = {"Authorization": f"Bearer {site.token}"}
        with httpx.Client(base_url=site.url, headers=headers, trust_env=False) as client:
            assert client.post("/api/projects", json={"name": "Shop"}).status_code == 201
        yield site
        key = Path(f"{folder}/heartlane.db.key")
        assert key.stat().st_mode & 0o777 == 0o600


def test_a_webhook_from_its_creation_to_its_end(site: Site, receiver: Receiver) -> None:
    made = site.call("webhooks", "create", receiver.url("/cli"), "--event", "plan.*", "--name", "Bot")
    assert made.code == 0, made
    secret = made.out.splitlines()[-1].removeprefix("secret: ")
    assert secret.startswith("whsec_")
    assert "it is not shown again" in made.err
    sent = site.call("webhooks", "test", "Bot")
    assert (sent.code, "delivered" in sent.out) == (0, True), sent
    (received,) = receiver.got("/cli")
    assert Webhook(secret).verify(received.body, dict(received.headers))["type"] == "webhook.test"

    receiver.answers["/cli"] = [status(500, b"not \x1b[31mnow"), status(200)]
    failed = site.call("webhooks", "test", "Bot")
    assert failed.code == 1
    assert "it didn't arrive: Answered 500." in failed.err
    assert "\x1b" not in failed.out
    (delivery, _) = site.json("webhooks", "deliveries", "Bot")["deliveries"]
    assert delivery["state"] == "pending"
    again = site.call("webhooks", "resend", "Bot", delivery["id"][-8:])
    assert (again.code, "delivered" in again.out) == (0, True), again
    assert [each["state"] for each in site.json("webhooks", "deliveries", "Bot")["deliveries"]] == ["delivered"] * 2
    assert "webhook.test" in site.call("webhooks", "deliveries", "Bot").out

    rotated = site.json("webhooks", "rotate", "Bot", "--overlap-seconds", "60")
    assert rotated["secret"] not in ("", secret)
    changed = site.json("webhooks", "change", "Bot", "--event", "*", "--name", "All")["webhook"]
    assert (changed["name"], changed["events"]) == ("All", ["*"])
    assert site.call("webhooks", "disable", "All").code != 0, "it asks first"
    assert site.json("webhooks", "disable", "All", "--yes")["webhook"]["enabled"] is False
    assert "off (by_hand)" in site.call("webhooks", "list").out
    assert site.call("webhooks", "enable", "All").code == 0
    assert site.json("webhooks", "show", "All")["webhook"]["enabled"] is True
    assert site.json("webhooks", "delete", "All", "--yes")["webhook"]["name"] == "All"
    assert site.json("webhooks", "list")["webhooks"] == []


def test_what_is_wrong_is_one_line(site: Site) -> None:
    refused = site.call("webhooks", "create", "http://10.0.0.1/x")
    assert refused.code == 2
    assert "leads to an address that is not public" in refused.err
    assert site.call("webhooks", "create", "https://example.com", "--event", "run.eaten").code == 2
    assert "there is no webhook" in site.call("webhooks", "show", "nobody").err


def test_an_address_that_is_a_secret_comes_by_standard_input(site: Site) -> None:
    import subprocess
    import sys

    from tests.cli.command import environment

    variables = environment(HEARTLANE_URL=site.url, HEARTLANE_TOKEN=site.token, NO_PROXY="127.0.0.1")
    arguments = ["webhooks", "create", "-", "--format", "slack", "--name", "Slack", "--json"]
    made = subprocess.run(
        [sys.executable, "-m", "heartlane", *arguments],
        input="https://slack.example/services/T0/B0/hush\n",
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    webhook = json.loads(made.stdout)
    assert (webhook["webhook"]["url"], webhook["secret"]) == ("https://slack.example/***", None)
    assert site.call("webhooks", "delete", "Slack", "--yes").code == 0


def test_notices_are_listed_and_dismissed(site: Site) -> None:
    import httpx

    headers = {"Authorization": f"Bearer {site.token}"}
    with httpx.Client(base_url=site.url, headers=headers, trust_env=False) as client:
        project = client.get("/api/projects").json()["projects"][0]["id"]
        lanes = [{"laneKey": "a", "title": "Lane\x1b[31m", "role": "backend"}]
        plan = client.post("/api/agents/plan", json={"projectId": project, "title": "P", "lanes": lanes}).json()["plan"]
        run = client.post(f"/api/agents/plans/{plan['id']}/approve").json()["runs"][0]["id"]
        client.post(f"/api/agents/runs/{run}/claim", json={"worker_id": "w1"})
        fatal = {"type": "error", "payload": {"message": "no", "fatal": True}}
        client.post(f"/api/agents/runs/{run}/events", json={"worker_id": "w1", "events": [fatal]})
    shown = site.call("notices", "list")
    assert "lane_failed" in shown.out
    assert "\x1b" not in shown.out
    (notice,) = site.json("notices", "list", "--project", "Shop", "--kind", "lane_failed")["notices"]
    told = site.call("notices", "dismiss", notice["id"][-8:], "no-such", "--json")
    assert told.code == 19, "one of the two went wrong"
    (done, refused) = json.loads(told.out)["results"]
    assert (done["notice"]["closed_by"], refused["error"]["code"]) == ("dismissed", "NOT_FOUND")
    assert site.call("notices", "dismiss", notice["id"]).out == f"{notice['id'][-8:]} (lane_failed): dismissed\n"
    assert "Nothing needs a person." in site.call("notices", "list").err
    assert [each["closed_by"] for each in site.json("notices", "list", "--closed")["notices"]] == ["dismissed"]
