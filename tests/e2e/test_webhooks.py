"""What goes out of servers as people run them: nothing is lost by a crash, nothing is doubled by a second server."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from heartlane.store.news_schema import webhook_deliveries
from tests.conftest import SECRET_KEY
from tests.e2e.database import new_token, opened
from tests.e2e.fleet import claim, client_of, get, make_plan, make_project, post
from tests.e2e.server_process import ServerProcess, closing, until
from tests.receiver import Receiver, hang

LANES = 12
MADE_ELSEWHERE_SECONDS = 4.0


def server_on(database: str, folder: Path, name: str = "server") -> ServerProcess:
    return ServerProcess(database, folder, name=name, secret_key=SECRET_KEY, webhooks_allow="127.0.0.1")


async def project_with_hook(client: httpx.AsyncClient, url: str, *events: str) -> tuple[str, str, str]:
    """A project with a webhook: its id, the path of the webhook, and its secret."""
    project_id = await make_project(client)
    path = f"/api/projects/{project_id}/webhooks"
    made = await post(client, path, 201, url=url, events=list(events) or ["*"])
    return project_id, f"{path}/{made['webhook']['id']}", made["secret"]


async def runs_of(client: httpx.AsyncClient, project_id: str, lanes: int) -> list[str]:
    plan_id = await make_plan(client, project_id, lanes)
    return [run["id"] for run in (await post(client, f"/api/agents/plans/{plan_id}/approve"))["runs"]]


async def leases_over(database: str) -> None:
    """Let the leases on what is being sent be over at once, as they are a minute after a server has died."""
    async with opened(database) as store, store.writing() as tx:
        being_sent = (webhook_deliveries.c.state == "pending", webhook_deliveries.c.attempts > 0)
        earlier = tx.now - timedelta(seconds=1)
        await tx.conn.execute(update(webhook_deliveries).where(*being_sent).values(next_at=earlier))


async def test_a_server_that_is_killed_before_it_has_sent_loses_nothing(database_url: str, tmp_path: Path) -> None:
    server = server_on(database_url, tmp_path)
    token = await new_token(database_url)
    with closing(server):
        await server.start_beside()
        async with Receiver() as receiver, client_of(server.url, token) as client:
            receiver.answers["/hook"] = [hang]
            project_id, path, secret = await project_with_hook(client, receiver.url(), "run.claimed")
            run_ids = await runs_of(client, project_id, LANES)
            await asyncio.gather(*(claim(client, run_id, "w1") for run_id in run_ids))
            server.kill()
            begun = {each.json["data"]["run"]["id"] for each in receiver.got()}
            assert len(begun) < LANES, "some were not even begun"
            receiver.answers["/hook"] = []
            await leases_over(database_url)
            await server.start_beside()
            await until(lambda: told_of(receiver) >= set(run_ids), "all are told", 30)

            async def all_delivered() -> bool:
                log = (await get(client, f"{path}/deliveries"))["deliveries"]
                return [each["state"] for each in log] == ["delivered"] * LANES

            await until(all_delivered, "and written down", 30)
            for received in receiver.got():
                Webhook(secret).verify(received.body, dict(received.headers))
            by_run: dict[str, set[str]] = {}
            for received in receiver.got():
                by_run.setdefault(received.json["data"]["run"]["id"], set()).add(received.headers["webhook-id"])
            assert all(len(ids) == 1 for ids in by_run.values()), "one id for each piece of news, repeated or not"
        assert server.stop() == 0
    for text in (secret.removeprefix("whsec_"), SECRET_KEY):
        assert text not in server.log()


async def test_a_report_that_crosses_a_budget_reaches_the_webhook_once_for_each_ceiling(
    database_url: str, tmp_path: Path
) -> None:
    server = server_on(database_url, tmp_path)
    token = await new_token(database_url)
    with closing(server):
        await server.start_beside()
        async with Receiver() as receiver, client_of(server.url, token) as client:
            project_id, _, secret = await project_with_hook(client, receiver.url(), "notice.*")
            run_ids = await runs_of(client, project_id, 3)
            ceilings = await client.put(f"/api/projects/{project_id}/budget", json={"tokens_per_day": 1000})
            assert ceilings.status_code == 200, ceilings.text
            await asyncio.gather(*(claim(client, run_id, "w1") for run_id in run_ids))

            async def use(tokens: int) -> list[Any]:
                """What all have heard by then of lanes that use as many each; it is asked again and again."""
                events = [{"type": "heartbeat", "payload": {"usage": {"input_tokens": tokens}}}]
                reports = (
                    post(client, f"/api/agents/runs/{run_id}/events", worker_id="w1", events=events)
                    for run_id in run_ids
                )
                return [answer["directive"] for answer in await asyncio.gather(*reports)]

            await use(270)
            await until(lambda: types_of(receiver) == ["notice.budget_80"], "80 % is told", 30)
            await use(340)

            async def all_held() -> bool:
                return await use(340) == ["pause"] * 3

            await until(all_held, "all are told to pause", 30)
            await until(lambda: len(receiver.got()) >= 2, "100 % is told", 30)
            await use(350)
            await post(client, f"/api/projects/{project_id}/budget/go-on", hours=1)

            async def all_go_on() -> bool:
                return await use(350) == ["continue"] * 3

            await until(all_go_on, "all go on", 30)
            assert types_of(receiver) == ["notice.budget_80", "notice.budget_100"]
            words = [Webhook(secret).verify(each.body, dict(each.headers)) for each in receiver.got()]
            assert "1,020 tokens of 1,000 tokens today" in words[1]["data"]["notice"]["text"]
        assert server.stop() == 0


def types_of(receiver: Receiver) -> list[str]:
    return [each.json["type"] for each in receiver.got()]


def told_of(receiver: Receiver) -> set[Any]:
    return {each.json["data"]["run"]["id"] for each in receiver.got()}


@pytest.mark.slow
async def test_two_servers_share_the_work_without_doubling(postgres_database_url: str, tmp_path: Path) -> None:
    servers = [server_on(postgres_database_url, tmp_path, name) for name in ("first", "second")]
    token = await new_token(postgres_database_url)
    with closing(*servers):
        for server in servers:
            server.spawn()
        for server in servers:
            await asyncio.to_thread(server.wait_ready)
        async with (
            Receiver() as receiver,
            client_of(servers[0].url, token) as one,
            client_of(servers[1].url, token) as other,
        ):
            project_id, path, _ = await project_with_hook(one, receiver.url(), "run.claimed")
            run_ids = await runs_of(one, project_id, 60)
            # A project's first webhook, made on one server, counts on the other with its next look.
            await asyncio.sleep(MADE_ELSEWHERE_SECONDS)
            clients = [one, other] * 30
            await asyncio.gather(
                *(claim(client, run_id, "w1") for client, run_id in zip(clients, run_ids, strict=True))
            )
            await until(lambda: len(told_of(receiver)) == 60, "all are told", 30)
            assert len(receiver.got()) == 60

            async def written_down() -> bool:
                log = (await get(one, f"{path}/deliveries", state="delivered", limit=200))["deliveries"]
                return len(log) == 60

            await until(written_down, "all are written down", 30)
