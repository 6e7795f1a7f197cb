"""A server hears what others commit, also after its connection was cut: what it missed then is late, but never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from heartlane.server.settings import load_settings
from heartlane.store import listener as listening
from heartlane.store.batch import Announcement
from heartlane.store.feed import EVERYTHING
from heartlane.store.postgres import connect
from heartlane.store.store import Store
from tests.harness import Harness
from tests.store.fleet import Fleet, eventually

NOTICED_SECONDS = 3.5
"""A closed connection is replaced within this, on a slow machine too. A waiting claim's poll comes later."""


class Ears:
    """What a store hears."""

    def __init__(self, store: Store) -> None:
        self.heard: list[Announcement] = []
        store.feed.subscribe(self.heard.append)

    async def hear(self, count: int = 1, seconds: float = 30.0) -> list[Announcement]:
        """The next announcements, forgotten by that."""

        async def there() -> bool:
            return len(self.heard) >= count

        await eventually(there, seconds)
        heard, self.heard[:] = list(self.heard), []
        return heard


@pytest.fixture
async def other(postgres_database_url: str) -> AsyncIterator[Store]:
    """Another server's store on the same PostgreSQL."""
    store = await Store.open(postgres_database_url)
    yield store
    await store.close()


@pytest.fixture
async def ears(postgres_database_url: str) -> AsyncIterator[Ears]:
    """A store that listens, and has said so."""
    store = await Store.open(postgres_database_url)
    try:
        ears = Ears(store)
        assert await ears.hear() == [EVERYTHING]
        yield ears
    finally:
        await store.close()


async def cut(url: str, *, again_and_again: float = 0.0) -> None:
    """Cut every connection that listens; go on doing so for a while."""
    connection = await asyncpg.connect(url)
    try:
        deadline = asyncio.get_running_loop().time() + again_and_again
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        assert await connection.fetchval(query) > 0
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
            await connection.fetchval(query)
    finally:
        await connection.close()


async def test_it_hears_what_another_server_commits(ears: Ears, other: Store) -> None:
    fleet = await Fleet.found(other)
    (run,) = await fleet.lanes()
    (opened,) = await ears.hear()
    assert [(opening.project_id, opening.lanes) for opening in opened.openings] == [(fleet.project_id, 1)]
    await fleet.claim(run)
    (claimed,) = await ears.hear()
    assert claimed.run_ids == [run.id]


async def test_what_is_too_much_for_a_payload_is_heard_as_everything(ears: Ears, other: Store) -> None:
    fleet = await Fleet.found(other)
    lanes = await fleet.lanes(300)
    await ears.hear()
    await asyncio.gather(*(fleet.claim(run) for run in lanes))

    # Up to 256 share a transaction, and a payload holds about 200 ids.
    async def heard() -> bool:
        return EVERYTHING in ears.heard

    await eventually(heard)


async def test_a_connection_that_is_cut_is_noticed_at_once_and_whoever_waits_looks_for_itself(
    ears: Ears, other: Store, postgres_database_url: str
) -> None:
    await cut(postgres_database_url)
    assert (await ears.hear(seconds=NOTICED_SECONDS))[0] is EVERYTHING
    fleet = await Fleet.found(other)
    (run,) = await fleet.lanes()
    assert any(announced.openings for announced in await ears.hear())
    await fleet.claim(run)
    assert (await ears.hear())[0].run_ids == [run.id]


async def test_what_happened_while_it_was_deaf_isnt_lost(ears: Ears, other: Store, postgres_database_url: str) -> None:
    fleet = await Fleet.found(other)
    deaf = asyncio.ensure_future(cut(postgres_database_url, again_and_again=0.3))
    for _ in range(10):
        await fleet.lanes()
        await asyncio.sleep(0.02)
    await deaf

    async def all_heard() -> bool:
        return EVERYTHING in ears.heard

    await eventually(all_heard)
    ears.heard.clear()
    # And it hears on.
    await fleet.lanes()
    assert await ears.hear()


async def test_it_goes_on_trying_while_the_database_is_away(
    postgres_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    async def away_three_times(url: str) -> asyncpg.Connection[Any]:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) <= 3:
            raise ConnectionRefusedError
        return await connect(url)

    monkeypatch.setattr(listening, "connect", away_three_times)
    store = await Store.open(postgres_database_url)
    try:
        assert await Ears(store).hear() == [EVERYTHING]
    finally:
        await store.close()
    assert len(tries) == 4
    assert tries[3] - tries[0] > 0.1, "it waits between two tries"


async def test_a_silent_connection_is_tried(
    ears: Ears, postgres_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that vanished without a word is found by asking it."""
    monkeypatch.setattr(listening, "PROBE_SECONDS", 0.05)
    await cut(postgres_database_url)
    await ears.hear()
    connection = await asyncpg.connect(postgres_database_url)
    try:

        async def asked() -> bool:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT 1'"
            count: int = await connection.fetchval(query)
            return count > 0

        await eventually(asked)
    finally:
        await connection.close()


async def test_a_claim_that_waits_gets_its_lane_though_the_connection_was_cut(
    other: Store, postgres_database_url: str
) -> None:
    settings = load_settings({"rate_limits": "off", "database": "sqlite:///unused"})
    store = await Store.open(postgres_database_url)
    here, there = await Harness.start(store, settings), await Harness.start(other, settings)
    try:
        waiting = asyncio.ensure_future(
            here.worker.post("/api/agents/runs/claim", json={"worker_id": "w1", "wait_seconds": 30})
        )

        async def waits() -> bool:
            return len(here.context.waiters) == 1

        await eventually(waits)
        await cut(postgres_database_url)
        (run,) = await there.approved()
        # Long before the poll, which comes every few seconds in any case.
        response = await asyncio.wait_for(waiting, NOTICED_SECONDS)
        assert response.json()["run"]["id"] == run["id"]
    finally:
        await here.close()
        await there.close()
        await store.close()
