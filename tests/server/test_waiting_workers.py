"""Workers that hold nothing and ask for a lane: known on every server some seconds later, and as long as they ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from heartlane.server import presence
from heartlane.server.settings import load_settings
from heartlane.store import workers as kept
from heartlane.store.clock import Clock
from heartlane.store.fleet_schema import workers_seen
from heartlane.store.store import Store
from heartlane.wire.answers import WorkerList
from tests.harness import Harness

PATH = "/api/agents/workers"


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[Harness]:
    """A server whose time can be moved."""
    store = await Store.open(database_url, clock=Clock())
    harness = await Harness.start(store, load_settings({"rate_limits": "off", "database": "sqlite:///unused"}))
    yield harness
    await harness.close()
    await store.close()


async def ask(harness: Harness, worker_id: str = "w1", client: Any = None, **fields: Any) -> Any:
    """A claim, its answer's run."""
    response = await (client or harness.worker).post("/api/agents/runs/claim", json={"worker_id": worker_id, **fields})
    assert response.status_code == 200, response.text
    return response.json()["run"]


async def listed(harness: Harness, client: Any = None, **query: Any) -> dict[str, Any]:
    """The workers by name, once what was noted has been written."""
    await harness.context.presence.round()
    response = await (client or harness.viewer).get(PATH, params=query)
    WorkerList.model_validate(response.json(), extra="forbid")
    return {each["worker_id"]: each for each in response.json()["workers"]}


async def statuses(harness: Harness, client: Any = None, **query: Any) -> dict[str, str]:
    return {name: each["status"] for name, each in (await listed(harness, client, **query)).items()}


async def until_it_waits(harness: Harness) -> dict[str, Any]:
    """The one worker, once its poll has looked for a lane and waits."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not found:
            await asyncio.sleep(0.01)
            found = list((await listed(harness)).values())
    assert [each["status"] for each in found] == ["waiting"]
    return found[0]


async def test_a_worker_that_waits_is_known_with_what_it_asks_for(harness: Harness) -> None:
    polling = asyncio.ensure_future(
        ask(harness, roles=["test", "backend"], labels={"os": "linux"}, wait_seconds=30, lease_seconds=60)
    )
    worker = await until_it_waits(harness)
    assert (worker["status"], worker["runs"], worker["since"]) == ("waiting", [], None)
    assert {**worker["asks"], "since": None} == {
        "project_id": None,
        "roles": ["backend", "test"],
        "labels": {"os": "linux"},
        "since": None,
    }
    asked_since = worker["asks"]["since"]
    assert worker["last_heard"] >= asked_since

    (run,) = await harness.approved()
    assert (await polling)["id"] == run["id"]
    (worker,) = (await listed(harness)).values()
    assert (worker["status"], worker["asks"], len(worker["runs"])) == ("working", None, 1)
    harness.store.clock.advance(45)
    assert await statuses(harness) == {"w1": "silent"}
    await harness.report(run["id"], events=[{"type": "ship_complete"}])
    assert await statuses(harness) == {"w1": "idle"}

    harness.store.clock.advance(5)
    await ask(harness)
    (worker,) = (await listed(harness)).values()
    assert worker["status"] == "waiting"
    assert worker["asks"]["since"] > asked_since, "it had a lane in between"


async def test_it_waits_from_poll_to_poll_at_any_server_and_is_idle_after_the_last(
    harness: Harness, database_url: str
) -> None:
    await ask(harness)
    before = (await listed(harness))["w1"]["asks"]["since"]
    other = await Harness.start(await Store.open(database_url, clock=harness.store.clock), harness.context.settings)
    try:
        harness.store.clock.advance(presence.BETWEEN_POLLS_SECONDS - 5)
        await ask(other, roles=["qa"])
        worker = (await listed(other))["w1"]
        assert (worker["asks"]["since"], worker["asks"]["roles"]) == (before, ["qa"])
        assert (await listed(harness))["w1"] == worker
        harness.store.clock.advance(presence.BETWEEN_POLLS_SECONDS + 5)
        assert await statuses(harness) == {"w1": "idle"}
        await ask(other)
        assert (await listed(other))["w1"]["asks"]["since"] > before
    finally:
        await other.close()
        await other.store.close()


async def test_one_that_goes_away_while_it_waits_is_idle_at_once(harness: Harness) -> None:
    """As a server sees it: the connection is gone. A worker that is killed looks the same."""
    gone = asyncio.Event()
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": b'{"worker_id":"w1","wait_seconds":30}', "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    secret = harness.worker.headers["authorization"].encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/agents/runs/claim",
        "headers": [(b"authorization", secret), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "query_string": b"",
    }
    polling = asyncio.ensure_future(harness.app(scope, receive, send))
    await until_it_waits(harness)
    gone.set()
    await polling
    assert sent == []
    assert await statuses(harness) == {"w1": "idle"}


async def test_who_sees_whom(harness: Harness) -> None:
    mine, other = await harness.project(), await harness.project()
    limited = await harness.client("worker", project_id=mine["id"])
    await ask(harness, "everywhere")
    await ask(harness, "told", project_id=other["id"])
    await ask(harness, "limited", limited)
    await ask(harness, "stranger", await harness.client("worker", account="another"))
    assert set(await listed(harness)) == {"everywhere", "told", "limited"}
    # Who would take a lane of that project.
    assert set(await listed(harness, project_id=mine["id"])) == {"everywhere", "limited"}
    assert set(await listed(harness, project_id=other["id"])) == {"everywhere", "told"}
    # A token of one project sees nothing of the others, nor of the account at large.
    viewer = await harness.client("viewer", project_id=mine["id"])
    assert set(await listed(harness, viewer)) == {"limited"}
    assert await listed(harness, viewer, project_id=other["id"]) == {}
    (asking,) = (await listed(harness, viewer)).values()
    assert asking["asks"]["project_id"] == mine["id"]
    stranger = await harness.client("viewer", account="another")
    assert set(await listed(harness, stranger)) == {"stranger"}


async def test_pages_and_narrowed(harness: Harness) -> None:
    runs = await harness.approved(2)
    await ask(harness, "a", roles=["qa"])
    await ask(harness, "c", roles=["qa"])
    for run, worker in zip(runs, "bc", strict=True):
        await harness.claim(run["id"], worker)
    await harness.context.presence.round()
    names: list[str] = []
    query: dict[str, Any] = {"limit": 1}
    while query.get("cursor", "") is not None:
        page = (await harness.viewer.get(PATH, params=query)).json()
        names += [each["worker_id"] for each in page["workers"]]
        query["cursor"] = page["next_cursor"]
    assert names == ["a", "b", "c"]
    assert await statuses(harness, holding="true") == {"b": "working", "c": "working"}
    assert await statuses(harness, holding="false") == {"a": "waiting"}
    response = await harness.viewer.get(PATH, params={"holding": "maybe"})
    assert response.status_code == 400


async def test_a_busy_worker_is_never_written(harness: Harness) -> None:
    """One that has its lane at once costs no row: fleets that have work to do are not slowed by it."""
    await harness.approved(2)
    assert await ask(harness) is not None
    await harness.context.presence.round()
    async with harness.store.reading() as conn:
        assert (await conn.execute(select(func.count()).select_from(workers_seen))).scalar_one() == 0


async def test_what_is_remembered_is_bounded(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "KNOWN_MAX", 3)
    for number in range(5):
        await ask(harness, f"w{number}")
    assert set(await listed(harness)) == {"w0", "w1", "w2"}
    monkeypatch.setattr(presence, "KNOWN_MAX", 100)
    await ask(harness, "later")
    await listed(harness)
    async with harness.store.writing() as tx:
        old = update(workers_seen).where(workers_seen.c.worker_id == "w0")
        await tx.conn.execute(old.values(seen_at=tx.now - kept.SHOWN - timedelta(seconds=1)))
        older = update(workers_seen).where(workers_seen.c.worker_id == "w1")
        await tx.conn.execute(older.values(seen_at=tx.now - kept.KEPT - timedelta(seconds=1)))
    assert set(await listed(harness)) == {"w2", "later"}
    await kept.forget_workers(harness.store)
    assert await rows(harness) == ["later", "w0", "w2"]
    # Of too many in one account the last heard stay; another account's are its own.
    monkeypatch.setattr(kept, "KEPT_MAX", 1)
    harness.store.clock.advance(1)
    await ask(harness, "w2")
    await ask(harness, "stranger", await harness.client("worker", account="another"))
    await harness.context.presence.round()
    await kept.forget_workers(harness.store)
    assert await rows(harness) == ["stranger", "w2"]


async def rows(harness: Harness) -> list[str]:
    async with harness.store.reading() as conn:
        query = select(workers_seen.c.worker_id).order_by(workers_seen.c.worker_id)
        return sorted((await conn.execute(query)).scalars())


async def test_two_servers_write_down_the_same_workers_at_once(harness: Harness, database_url: str) -> None:
    other = await Harness.start(await Store.open(database_url, clock=harness.store.clock), harness.context.settings)
    try:
        for number in range(50):
            for server in (harness, other):
                await ask(server, f"w{number * (1 if server is harness else -1)}")
        await asyncio.gather(*(server.context.presence.round() for server in (harness, other) * 3))
        assert len(await listed(harness, limit=200)) == 99
    finally:
        await other.close()
        await other.store.close()


async def test_what_is_left_is_written_at_the_end(harness: Harness) -> None:
    await ask(harness)
    await harness.context.presence.close()
    assert await rows(harness) == ["w1"]
