"""The outbox between several servers on one PostgreSQL, and what it costs where nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import pytest
from sqlalchemy import func, select, update

from heartlane.server.courier import Courier
from heartlane.server.sender import Sender
from heartlane.server.settings import load_settings
from heartlane.store import telling
from heartlane.store.deliveries import KEPT_FOR, prune
from heartlane.store.news_schema import webhook_attempts, webhook_deliveries
from heartlane.store.outbox import News
from heartlane.store.rows import Rows
from heartlane.store.store import Store
from tests.conftest import SECRET_KEY
from tests.harness import Harness
from tests.receiver import Receiver

SETTINGS = {
    "rate_limits": "off",
    "database": "sqlite:///unused",
    "secret_key": SECRET_KEY,
    "webhooks_allow": "127.0.0.1",
}


@pytest.fixture
async def pair(postgres_database_url: str) -> AsyncIterator[tuple[Harness, Harness]]:
    """Two servers on one database."""
    stores = [await Store.open(postgres_database_url) for _ in range(2)]
    one, other = [await Harness.start(store, load_settings(SETTINGS)) for store in stores]
    yield one, other
    for harness in (one, other):
        await harness.close()
        await harness.store.close()


async def test_two_servers_share_what_is_due_and_send_each_once(pair: tuple[Harness, Harness]) -> None:
    one, other = pair
    async with Receiver() as receiver:
        project = await one.project()
        made = await one.admin.post(
            f"/api/projects/{project['id']}/webhooks", json={"url": receiver.url(), "events": ["run.claimed"]}
        )
        runs = await one.approved(40, project_id=project["id"])
        # The other learns of the project's first webhook with its next look at the outbox.
        await other.courier.round()
        for run, server in zip(runs, [one, other] * 20, strict=True):
            await server.claim(run["id"])
        await asyncio.gather(one.deliver(), other.deliver())
        assert len(receiver.got()) == 40
        assert {each.json["data"]["run"]["id"] for each in receiver.got()} == {run["id"] for run in runs}
        path = f"/api/projects/{project['id']}/webhooks/{made.json()['webhook']['id']}/deliveries"
        log = (await other.operator.get(path, params={"limit": 200})).json()["deliveries"]
        assert [(each["state"], len(each["attempts"])) for each in log] == [("delivered", 1)] * 40


async def test_what_a_server_took_and_never_sent_is_sent_by_another(pair: tuple[Harness, Harness]) -> None:
    one, other = pair
    async with Receiver() as receiver:
        project = await one.project()
        hook = await one.admin.post(f"/api/projects/{project['id']}/webhooks", json={"url": receiver.url()})
        await one.operator.post(f"/api/projects/{project['id']}/webhooks/{hook.json()['webhook']['id']}/test")
        dead = Courier(one.store, Sender(one.context.vault, one.context.settings.webhooks_allow))
        assert len(await dead._write(8)) == 1  # it takes the row, and dies
        await other.deliver()
        assert receiver.got() == []
        async with other.store.writing() as tx:
            await tx.conn.execute(update(webhook_deliveries).values(next_at=tx.now))
        await other.deliver()
        assert len(receiver.got()) == 1
        await dead.close()


async def test_where_nobody_listens_nobody_is_asked_who_does(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def tell(rows: Rows, news: Sequence[News], now: datetime) -> bool:
        asked.extend(each.type for each in news)
        return False

    monkeypatch.setattr(telling, "tell", tell)
    quiet, loud = await harness.approved(2)
    await harness.claim(quiet["id"])
    assert asked == []
    await harness.admin.post(f"/api/projects/{loud['project_id']}/webhooks", json={"url": "https://example.com"})
    await harness.claim(loud["id"])
    await harness.report(loud["id"])
    await harness.report(loud["id"], phase="tests", log_line="x")
    assert asked == ["run.claimed"], "and what is no news asks nobody in any case"


async def test_what_is_finished_is_forgotten_after_a_week_with_its_attempts(harness: Harness) -> None:
    async with Receiver() as receiver:
        project = await harness.project()
        hook = await harness.admin.post(f"/api/projects/{project['id']}/webhooks", json={"url": receiver.url()})
        await harness.operator.post(f"/api/projects/{project['id']}/webhooks/{hook.json()['webhook']['id']}/test")
        await harness.deliver()
    for wait, left in ((KEPT_FOR.total_seconds() - 60, 1), (120, 0)):
        harness.store.clock.advance(wait)
        async with harness.store.writing() as tx:
            await prune(tx)
        async with harness.store.reading() as conn:
            for table in (webhook_deliveries, webhook_attempts):
                assert (await conn.execute(select(func.count()).select_from(table))).scalar_one() == left
