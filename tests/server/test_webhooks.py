"""Webhooks: made, changed, told of what happens, signed, tried again, and what is written down of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from standardwebhooks import Webhook, WebhookVerificationError

from heartlane.server.settings import load_settings
from heartlane.store.columns import metadata
from heartlane.store.notices import Notice, add_notices
from heartlane.store.store import Store
from heartlane.wire.news import DeliveryAnswer, DeliveryList, WebhookAnswer, WebhookList, WebhookWithSecret
from tests.conftest import SECRET_KEY
from tests.harness import Harness, assert_error
from tests.receiver import Answer, Received, Receiver, break_off, endless, hang, status, trickle

HOUR = 3_600


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


class Hook:
    """A webhook of a new project, and the way to its log."""

    def __init__(self, harness: Harness, project_id: str, made: dict[str, Any]) -> None:
        self._harness = harness
        self.project_id = project_id
        self.id: str = made["webhook"]["id"]
        self.secret: str | None = made["secret"]
        self.path = f"/api/projects/{project_id}/webhooks/{self.id}"

    async def read(self) -> dict[str, Any]:
        response = await self._harness.operator.get(self.path)
        WebhookAnswer.model_validate(response.json(), extra="forbid")
        hook: dict[str, Any] = response.json()["webhook"]
        return hook

    async def log(self, **query: Any) -> list[dict[str, Any]]:
        response = await self._harness.operator.get(f"{self.path}/deliveries", params=query)
        DeliveryList.model_validate(response.json(), extra="forbid")
        deliveries: list[dict[str, Any]] = response.json()["deliveries"]
        return deliveries


async def hook_of(harness: Harness, url: str, project_id: str | None = None, **fields: Any) -> Hook:
    """A webhook of a project (a new one)."""
    if project_id is None:
        project_id = (await harness.project(name="Shop"))["id"]
    response = await harness.admin.post(f"/api/projects/{project_id}/webhooks", json={"url": url, **fields})
    assert response.status_code == 201, response.text
    WebhookWithSecret.model_validate(response.json(), extra="forbid")
    return Hook(harness, project_id, response.json())


def verified(received: Received, secret: str | None) -> dict[str, Any]:
    """The message, whose signature the scheme's own library has verified."""
    assert secret is not None
    message: dict[str, Any] = Webhook(secret).verify(received.body, dict(received.headers))
    return message


# --- made, listed, changed ----------------------------------------------------------------------------------------


async def test_a_webhook_is_made_listed_changed_and_deleted(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url("/secret-path?key=hidden"), name="Bot", events=["run.shipped", "plan.*"])
    assert hook.secret is not None
    assert hook.secret.startswith("whsec_")
    read = await hook.read()
    assert (read["name"], read["format"], read["enabled"], read["failures"]) == ("Bot", "standard", True, 0)
    assert read["url"] == f"http://127.0.0.1:{receiver.port}/***"
    assert read["events"] == ["plan.*", "run.shipped"]
    other = await hook_of(harness, receiver.url(), hook.project_id)
    listed = (await harness.operator.get(f"/api/projects/{hook.project_id}/webhooks")).json()
    WebhookList.model_validate(listed, extra="forbid")
    assert [each["id"] for each in listed["webhooks"]] == [other.id, hook.id]

    changed = await harness.admin.patch(hook.path, json={"events": ["*"], "name": None, "url": receiver.url("/other")})
    assert (changed.json()["webhook"]["events"], changed.json()["webhook"]["name"]) == (["*"], None)
    deleted = await harness.admin.delete(hook.path)
    assert deleted.json() == changed.json()
    assert_error(await harness.operator.get(hook.path), 404, "NOT_FOUND")
    assert_error(await harness.admin.delete(hook.path), 404, "NOT_FOUND")


async def test_only_who_may_sees_and_changes_them(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url())
    elsewhere = await harness.client("admin", account="elsewhere")
    (other_project,) = [await harness.project(name="Other")]
    limited = await harness.client("admin", project_id=other_project["id"])
    for stranger in (elsewhere, limited):
        assert_error(await stranger.get(hook.path), 404, "NOT_FOUND")
        assert_error(await stranger.patch(hook.path, json={"enabled": False}), 404, "NOT_FOUND")
        assert_error(await stranger.post(f"{hook.path}/test"), 404, "NOT_FOUND")
    assert_error(await harness.viewer.get(hook.path), 403, "FORBIDDEN")
    assert_error(await harness.operator.patch(hook.path, json={"enabled": False}), 403, "FORBIDDEN")
    assert_error(await harness.operator.post(f"{hook.path}/secret"), 403, "FORBIDDEN")
    # One webhook's deliveries are not another's.
    other = await hook_of(harness, receiver.url(), hook.project_id)
    delivery = (await harness.operator.post(f"{hook.path}/test")).json()["delivery"]["id"]
    assert_error(await harness.operator.get(f"{other.path}/deliveries/{delivery}"), 404, "NOT_FOUND")
    assert_error(await harness.operator.post(f"{other.path}/deliveries/{delivery}/resend"), 404, "NOT_FOUND")


async def test_all_that_is_wrong_is_told_at_once(harness: Harness) -> None:
    project = await harness.project()
    path = f"/api/projects/{project['id']}/webhooks"
    bad = {"url": "ftp://x", "events": ["run.eaten", "*"], "format": "teams", "name": ""}
    issues = assert_error(await harness.admin.post(path, json=bad), 400, "INVALID_REQUEST")["issues"]
    assert {issue["path"] for issue in issues} == {"url", "events.0", "format", "name"}
    assert_error(
        await harness.admin.post(path, json={"url": "https://example.com", "events": []}), 400, "INVALID_REQUEST"
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/x",
        "http://LOCALHOST./x",
        "https://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[::ffff:192.168.0.1]/",
        "http://[64:ff9b::a00:1]/",
        "http://100.64.1.1/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "https://user:password@example.com/",
        "https://example.com:22/",
        "https://example.com:99999/",
        "https://bücher.example/",
        "http://[zz]/",
    ],
)
async def test_an_address_that_nothing_may_go_to_is_refused(harness: Harness, url: str) -> None:
    project = await harness.project()
    response = await harness.admin.post(f"/api/projects/{project['id']}/webhooks", json={"url": url})
    (issue,) = assert_error(response, 400, "INVALID_REQUEST")["issues"]
    assert issue["path"] == "url"
    assert "password" not in response.text.replace("a user name or a password", "")


async def test_a_project_has_fifty_at_most(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url())
    path = f"/api/projects/{hook.project_id}/webhooks"
    for _ in range(49):
        assert (await harness.admin.post(path, json={"url": receiver.url()})).status_code == 201
    assert_error(await harness.admin.post(path, json={"url": receiver.url()}), 400, "INVALID_REQUEST")


# --- what happens is told -----------------------------------------------------------------------------------------


async def test_the_way_of_a_lane_is_told_signed_and_in_order(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url())
    (run,) = await harness.approved(project_id=hook.project_id)
    await harness.claim(run["id"])
    await harness.report(run["id"], events=[{"type": "phase_change", "payload": {"phase": "tests"}}])
    await harness.operator.post(f"/api/agents/runs/{run['id']}/pause")
    await harness.operator.post(f"/api/agents/runs/{run['id']}/resume")
    await harness.report(run["id"], phase="waiting")
    await harness.report(run["id"], phase="waiting")
    shipped = {"type": "ship_complete", "payload": {"pr_url": "https://example.com/pr/1", "summary": "Done <!here>"}}
    await harness.report(run["id"], events=[shipped])
    await harness.deliver()
    messages = [verified(each, hook.secret) for each in receiver.got()]
    assert sorted(each["type"] for each in messages) == sorted(
        [
            *("plan.created", "plan.approved", "run.claimed", "run.paused", "run.resumed", "run.waiting"),
            *("notice.lane_waiting", "run.shipped"),
        ]
    )
    told = {each["type"]: each for each in messages}
    assert told["run.shipped"]["data"]["project"] == {"id": hook.project_id, "name": "Shop"}
    last = told["run.shipped"]["data"]["run"]
    assert (last["id"], last["state"], last["pr_url"]) == (run["id"], "shipped", "https://example.com/pr/1")
    assert told["run.claimed"]["data"]["event"]["payload"]["worker_id"] == "w1"
    assert told["run.claimed"]["timestamp"] == told["run.claimed"]["data"]["run"]["claimed_at"]
    assert told["plan.created"]["data"]["plan"]["lane_count"] == 1
    assert len({each.headers["webhook-id"] for each in receiver.got()}) == len(messages)
    log = await hook.log()
    assert {each["state"] for each in log} == {"delivered"}
    assert [each["type"] for each in log][::-1][:3] == ["plan.created", "plan.approved", "run.claimed"]
    assert {each["attempts"][0]["answer"] for each in log} == {"ok"}


async def test_a_lease_that_runs_out_is_told_and_a_lane_that_fails_for_good(
    harness: Harness, receiver: Receiver
) -> None:
    project = await harness.project(max_failures=1)
    hook = await hook_of(harness, receiver.url(), project["id"], events=["run.lease_expired", "run.failed", "notice.*"])
    (run,) = await harness.approved(project_id=project["id"])
    await harness.claim(run["id"], lease_seconds=60)
    await harness.let_pass(61)
    await harness.deliver()
    told = {each.json["type"]: each.json["data"] for each in receiver.got()}
    assert set(told) == {"run.lease_expired", "run.failed", "notice.attempts_used_up"}
    assert told["run.lease_expired"]["event"]["payload"]["worker_id"] == "w1"
    assert told["notice.attempts_used_up"]["notice"]["run_id"] == run["id"]
    assert len(receiver.got()) == 3
    assert len(await hook.log()) == 3


async def test_each_webhook_hears_what_it_chose_and_no_other_projects_news(
    harness: Harness, receiver: Receiver
) -> None:
    hook = await hook_of(harness, receiver.url("/claims"), events=["run.claimed"])
    await hook_of(harness, receiver.url("/all"), hook.project_id)
    await hook_of(harness, receiver.url("/off"), hook.project_id, enabled=False)
    await hook_of(harness, receiver.url("/elsewhere"))
    (run,) = await harness.approved(project_id=hook.project_id)
    await harness.claim(run["id"])
    await harness.deliver()
    assert [each.json["type"] for each in receiver.got("/claims")] == ["run.claimed"]
    assert len(receiver.got("/all")) == 3
    assert receiver.got("/off") == receiver.got("/elsewhere") == []


async def test_a_change_that_is_undone_tells_nothing(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url())
    lanes = [{"laneKey": "a", "title": "A", "role": "backend", "after": ["nobody"]}]
    refused = await harness.operator.post(
        "/api/agents/plan", json={"projectId": hook.project_id, "title": "P", "lanes": lanes}
    )
    assert refused.status_code == 400
    project = (await harness.viewer.get(f"/api/projects/{hook.project_id}")).json()["project"]
    notice = Notice("budget_80", "b:1", project["billing_account_id"], hook.project_id, "80 %")

    async def tell_and_undo() -> None:
        async with harness.store.writing() as tx:
            assert await add_notices(tx, [notice]) == 1
            raise RuntimeError("undone")

    with pytest.raises(RuntimeError, match="undone"):
        await tell_and_undo()
    await harness.deliver()
    assert await hook.log() == []
    assert receiver.requests == []


@pytest.mark.parametrize(("kind", "field"), [("slack", "text"), ("discord", "content")])
async def test_slack_and_discord_get_one_message_that_mentions_nobody(
    harness: Harness, receiver: Receiver, kind: str, field: str
) -> None:
    hook = await hook_of(harness, receiver.url("/services/T0/B0/token"), format=kind)
    assert hook.secret is None
    title = "<!channel> @everyone [x](javascript:1) \u202egnp.exe"
    (run,) = await harness.approved([{"laneKey": "a", "title": title, "role": "backend"}], project_id=hook.project_id)
    await harness.claim(run["id"])
    payload = {"pr_url": "https://example.com/pr/1", "summary": "a & b"}
    await harness.report(run["id"], events=[{"type": "ship_complete", "payload": payload}])
    await harness.deliver()
    got = receiver.got("/services/T0/B0/token")
    bodies = [each.json for each in got]
    assert not any("webhook-signature" in each.headers for each in got)
    assert all(body.get("allowed_mentions", {"parse": []}) == {"parse": []} for body in bodies)
    (shipped,) = [body[field] for body in bodies if "Shipped" in body[field]]
    assert "<https://example.com/pr/1>" in shipped
    assert "\u202e" not in shipped
    assert ("&lt;!channel&gt;" if kind == "slack" else "\\<!channel\\>") in shipped
    assert kind == "slack" or "\\@everyone \\[x\\]\\(javascript\\:1\\)" in shipped
    assert (await harness.operator.post(f"{hook.path}/test")).status_code == 201
    await harness.deliver()
    assert receiver.got("/services/T0/B0/token")[-1].json[field].endswith("it works.")
    assert_error(await harness.admin.post(f"{hook.path}/secret"), 400, "INVALID_REQUEST")


@pytest.mark.parametrize(("kind", "field"), [("slack", "text"), ("discord", "content")])
async def test_a_message_leads_to_its_page_of_the_board_where_that_is_known(
    store: Store, receiver: Receiver, kind: str, field: str
) -> None:
    settings = {"database": "sqlite:///unused", "secret_key": SECRET_KEY, "webhooks_allow": "127.0.0.1"}
    harness = await Harness.start(store, load_settings({**settings, "public_url": "https://lanes.example.com/"}))
    hook = await hook_of(harness, receiver.url("/services/T0/B0/token"), format=kind)
    (run,) = await harness.approved(project_id=hook.project_id, max_failures=1)
    await harness.claim(run["id"])
    long = "#" * 5_000
    await harness.report(run["id"], events=[{"type": "error", "payload": {"message": long, "fatal": True}}])
    project = await harness.admin.get(f"/api/projects/{hook.project_id}")
    account = project.json()["project"]["billing_account_id"]
    async with harness.store.writing() as tx:
        notice = Notice("budget_80", "b", account, hook.project_id, "#" * 1_000)
        await add_notices(tx, [notice])
    await harness.deliver()
    texts = [each.json[field] for each in receiver.got("/services/T0/B0/token")]
    assert all(len(text) <= 2_000 for text in texts)
    places = {text.rpartition("\n")[2] for text in texts}
    board = "https://lanes.example.com"
    assert places == {f"<{board}/plans/{run['plan_id']}>", f"<{board}/lanes/{run['id']}>", f"<{board}/notices>"}
    await harness.close()


# --- attempts -----------------------------------------------------------------------------------------------------


async def test_a_failure_is_tried_again_under_the_same_id_later_and_later(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url(), events=["plan.created"])
    receiver.answers["/hook"] = [status(500, b"no\x1b[31m"), break_off, status(302, location="/x"), status(204)]
    await harness.operator.post(
        "/api/agents/plan",
        json={
            "projectId": hook.project_id,
            "title": "P",
            "lanes": [{"laneKey": "a", "title": "A", "role": "backend"}],
        },
    )
    for attempts, (too_soon, then) in enumerate([(3, 4), (11, 8), (35, 20)], 1):
        for wait in (0, too_soon):
            harness.store.clock.advance(wait)
            await harness.deliver()
            assert len(receiver.got()) == attempts
            assert [each["state"] for each in await hook.log(state="pending")] == ["pending"]
        harness.store.clock.advance(then)
    await harness.deliver()
    assert len({each.headers["webhook-id"] for each in receiver.got()}) == 1
    assert len({each.body for each in receiver.got()}) == 1
    (delivery,) = await hook.log()
    assert (delivery["state"], delivery["next_attempt_at"]) == ("delivered", None)
    assert [each["attempt"] for each in delivery["attempts"]] == [1, 2, 3, 4]
    assert [each["status"] for each in delivery["attempts"]] == [500, None, 302, 204]
    assert delivery["attempts"][0]["answer"] == "no\ufffd[31m"
    assert "redirects are not followed" in delivery["attempts"][2]["error"]
    assert delivery["attempts"][3]["error"] is None
    assert (await hook.read())["failures"] == 0
    detail = await harness.operator.get(f"{hook.path}/deliveries/{delivery['id']}")
    DeliveryAnswer.model_validate(detail.json(), extra="forbid")
    assert detail.json()["delivery"]["body"] == receiver.got()[0].json


@pytest.mark.parametrize(
    ("answer", "error"),
    [(hang, "No answer within 1 s."), (trickle, "No answer within 1 s."), (endless, None), (break_off, "")],
    ids=["hangs", "a byte at a time", "never ends", "breaks off"],
)
async def test_an_endpoint_that_misbehaves_costs_one_attempt(
    harness: Harness, receiver: Receiver, answer: Answer, error: str | None
) -> None:
    hook = await hook_of(harness, receiver.url())
    receiver.answers["/hook"] = [answer]
    await harness.operator.post(f"{hook.path}/test")
    await harness.deliver()
    (delivery,) = await hook.log()
    (attempt,) = delivery["attempts"]
    assert attempt["milliseconds"] < 5_000
    if error is None:
        assert (delivery["state"], len(attempt["answer"]) <= 1_024) == ("delivered", True)
        assert "\x1b" not in attempt["answer"]
        assert "\x00" not in attempt["answer"]
    else:
        assert delivery["state"] == "pending"
        assert error in attempt["error"]


async def test_a_slow_endpoint_holds_up_no_other_and_gets_four_at_once(harness: Harness, receiver: Receiver) -> None:
    slow = await hook_of(harness, receiver.url("/slow"), events=["run.claimed"])
    await hook_of(harness, receiver.url("/quick"), slow.project_id, events=["run.claimed"])
    receiver.answers["/slow"] = [hang]
    runs = await harness.approved(12, project_id=slow.project_id)
    for run in runs:
        await harness.claim(run["id"])
    while len(receiver.got("/quick")) < 12:
        await harness.courier.round()
        await asyncio.sleep(0.01)
    assert len(receiver.got("/slow")) == 4


async def test_retry_after_is_waited_for(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url())
    receiver.answers["/hook"] = [status(429, retry_after="120"), status(200)]
    await harness.operator.post(f"{hook.path}/test")
    await harness.deliver()
    harness.store.clock.advance(119)
    await harness.deliver()
    assert len(receiver.got()) == 1
    harness.store.clock.advance(2)
    await harness.deliver()
    assert len(receiver.got()) == 2


async def test_410_disables_at_once_with_a_notice_that_the_others_hear(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url(), name="Bot")
    await hook_of(harness, receiver.url("/other"), hook.project_id, events=["notice.*"])
    receiver.answers["/hook"] = [status(410)]
    (run,) = await harness.approved(project_id=hook.project_id)
    await harness.deliver()
    read = await hook.read()
    assert (read["enabled"], read["disabled_reason"]) == (False, "gone")
    (told,) = [each.json for each in receiver.got("/other")]
    assert told["type"] == "notice.webhook_disabled"
    assert told["data"]["notice"]["webhook_id"] == hook.id
    before = len(receiver.got())
    await harness.claim(run["id"])
    await harness.deliver()
    assert len(receiver.got()) == before
    # Enabled again it begins anew, and the notice is closed.
    receiver.answers["/hook"] = [status(200)]
    assert (await harness.admin.patch(hook.path, json={"enabled": True})).json()["webhook"]["failures"] == 0
    open_notices = (await harness.viewer.get("/api/agents/notices", params={"open": "true"})).json()["notices"]
    assert open_notices == []
    failed = (await hook.log(state="failed"))[0]
    again = await harness.operator.post(f"{hook.path}/deliveries/{failed['id']}/resend")
    assert again.json()["delivery"]["state"] == "pending"
    await harness.deliver()
    (sent,) = [each for each in await hook.log() if each["id"] == failed["id"]]
    assert [each["status"] for each in sent["attempts"]] == [410, 200]
    assert receiver.got()[-1].headers["webhook-id"] == failed["id"]


async def test_a_day_without_success_gives_up_and_disables(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url())
    receiver.answers["/hook"] = [status(500)]
    await harness.operator.post(f"{hook.path}/test")
    attempts = 0
    for _ in range(40):
        await harness.deliver()
        attempts = len(receiver.got())
        if not await hook.log(state="pending"):
            break
        harness.store.clock.advance(HOUR)
    (delivery,) = await hook.log()
    assert delivery["state"] == "failed"
    assert 10 <= attempts <= 20
    span = datetime.fromisoformat(delivery["finished_at"]) - datetime.fromisoformat(delivery["created_at"])
    assert timedelta(hours=23) <= span <= timedelta(hours=26)
    assert (await hook.read())["disabled_reason"] == "failing"
    notices = (await harness.viewer.get("/api/agents/notices")).json()["notices"]
    assert [each["kind"] for each in notices] == ["webhook_disabled"]


async def test_what_is_disabled_by_hand_drops_what_waits(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url())
    await harness.approved(project_id=hook.project_id)
    await harness.admin.patch(hook.path, json={"enabled": False})
    await harness.deliver()
    assert receiver.requests == []
    assert {each["state"] for each in await hook.log()} == {"dropped"}
    await harness.operator.post(f"{hook.path}/test")
    await harness.deliver()
    assert len(receiver.got()) == 1, "a test goes all the same"


async def test_a_rotated_secret_signs_beside_the_old_one_for_its_time(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url())
    rotated = (await harness.admin.post(f"{hook.path}/secret", json={"overlap_seconds": 60})).json()
    assert rotated["webhook"]["old_secret_until"] is not None
    for wait in (0, 61):
        harness.store.clock.advance(wait)
        await harness.operator.post(f"{hook.path}/test")
        await harness.deliver()
    both, alone = receiver.got()
    verified(both, hook.secret)
    verified(both, rotated["secret"])
    verified(alone, rotated["secret"])
    with pytest.raises(WebhookVerificationError):
        verified(alone, hook.secret)


async def test_no_secret_is_stored_answered_or_logged(
    harness: Harness, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = await hook_of(harness, receiver.url("/services/T0/hush-hush"))
    rotated = (await harness.admin.post(f"{hook.path}/secret")).json()["secret"]
    receiver.answers["/services/T0/hush-hush"] = [status(500, f"you sent {rotated}".encode()), break_off]
    for _ in range(2):
        await harness.operator.post(f"{hook.path}/test")
        await harness.deliver()
    assert hook.secret is not None
    secrets = [text.removeprefix("whsec_") for text in (hook.secret, rotated)] + ["hush-hush"]
    answers = [(await harness.operator.get(path)).text for path in (hook.path, f"{hook.path}/deliveries")]
    answers.append((await harness.admin.patch(hook.path, json={"name": "x"})).text)
    answers.append((await harness.admin.get("/api/audit")).text)
    async with harness.store.reading() as conn:
        for table in metadata.sorted_tables:
            answers += [str(tuple(row)) for row in await conn.execute(select(table))]
    logged = capfd.readouterr()
    for text in (*answers, logged.out, logged.err):
        assert not [secret for secret in secrets if secret in text]


async def test_what_was_done_with_webhooks_is_in_the_audit_log(harness: Harness, receiver: Receiver) -> None:
    hook = await hook_of(harness, receiver.url(), name="Bot")
    await harness.admin.patch(hook.path, json={"events": ["run.*"]})
    await harness.admin.post(f"{hook.path}/secret")
    await harness.admin.delete(hook.path)
    entries = (await harness.admin.get("/api/audit", params={"action": "webhook"})).json()
    (name,) = [key for key in entries if key != "next_cursor"]
    found = entries[name]
    assert [each["action"] for each in found][::-1] == [
        f"webhook.{verb}" for verb in ("created", "changed", "secret_rotated", "deleted")
    ]
    assert found[2]["details"] == {"before": {"events": ["*"]}, "after": {"events": ["run.*"]}}
