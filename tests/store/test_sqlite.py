"""The embedded engine: durable, one writer, readers in nobody's way, and a file that others may hold for a while."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from heartlane.lanes.run import Event
from heartlane.store import sqlite
from heartlane.store.errors import StoreUnavailable
from heartlane.store.schema import accounts, runs
from heartlane.store.store import Store
from heartlane.store.upgrade import upgrade_async
from tests.store.fleet import Fleet, eventually

LINE = Event("log_line", {"line": "12 tests passed"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is: in a folder with a space in its name."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    return folder / "heartlane.db"


@pytest.fixture
async def fleet(path: Path) -> AsyncIterator[Fleet]:
    """An account on a SQLite file."""
    url = f"sqlite:///{path}"
    await upgrade_async(url)
    store = await Store.open(url)
    yield await Fleet.found(store)
    if not store.ledger._closing:
        await store.close()


@contextmanager
def writing_beside(path: Path) -> Iterator[None]:
    """Another process in the middle of a write."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


async def test_both_writers_are_durable(fleet: Fleet, path: Path) -> None:
    """WAL, and an fsync with every commit: what was answered survives a power cut."""
    asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    durable = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}
    async with fleet.store.writing() as tx:
        found = {name: (await tx.conn.execute(text(f"PRAGMA {name}"))).scalar() for name in asked}
    assert found == durable
    await fleet.lanes()
    await fleet.claim_next()  # from now on the ledger has its connection
    connection = fleet.store._engine._connection  # type: ignore[union-attr]
    assert connection is not None
    assert {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in asked} == durable
    assert path.with_name("heartlane.db-wal").stat().st_size > 0


async def test_a_reader_cant_write(fleet: Fleet) -> None:
    async with fleet.store.reading() as conn:
        with pytest.raises(DBAPIError, match="readonly"):
            await conn.execute(text("DELETE FROM runs"))


async def test_a_foreign_key_that_points_nowhere_is_refused(fleet: Fleet) -> None:
    with pytest.raises(DBAPIError, match="FOREIGN KEY"):
        async with fleet.store.writing() as tx:
            await tx.conn.execute(text("INSERT INTO run_prompts VALUES ('nobody', 'x')"))


async def test_a_long_read_holds_up_no_write_and_sees_none(fleet: Fleet) -> None:
    (run,) = await fleet.lanes()
    async with fleet.store.reading() as conn:
        before = (await conn.execute(select(runs.c.state, runs.c.event_count))).one()
        await asyncio.wait_for(fleet.claim(run), 5)
        await asyncio.wait_for(fleet.report(run, LINE), 5)
        await asyncio.wait_for(fleet.new_project(), 5)
        assert (await conn.execute(select(runs.c.state, runs.c.event_count))).one() == before
    assert (await fleet.read(run)).event_count == 2


async def test_a_long_write_holds_up_no_read_but_the_ledger(fleet: Fleet) -> None:
    (run,) = await fleet.lanes()
    async with fleet.store.writing() as tx:
        await tx.conn.execute(accounts.update().values(name="renamed"))
        report = asyncio.ensure_future(fleet.claim(run))
        assert (await asyncio.wait_for(fleet.read(run), 5)).state == "queued"
        await asyncio.sleep(0.02)
        assert not report.done(), "one writer at a time"
    assert (await report).state == "claimed"


async def test_a_write_of_another_process_is_waited_for(fleet: Fleet, path: Path) -> None:
    (run,) = await fleet.lanes()
    with writing_beside(path):
        claim = asyncio.ensure_future(fleet.claim(run))
        await asyncio.sleep(0.05)
        assert not claim.done()
    assert (await claim).state == "claimed"


async def test_one_that_takes_too_long_is_told_and_nothing_is_lost(
    fleet: Fleet, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [pragma if "busy_timeout" not in pragma else "PRAGMA busy_timeout = 50" for pragma in sqlite.PRAGMAS]
    monkeypatch.setattr(sqlite, "PRAGMAS", short)
    (run,) = await fleet.lanes()
    with writing_beside(path):
        with pytest.raises(StoreUnavailable, match="locked") as error:
            await fleet.claim(run)
        assert error.value.retry_after > 0
        assert (await fleet.read(run)).state == "queued"
    assert (await fleet.claim(run)).state == "claimed"


async def test_the_write_ahead_log_is_folded_back_when_nobody_reads(fleet: Fleet, path: Path) -> None:
    """Readers hold no snapshot between requests, so that the log beside the file doesn't grow for ever."""
    lanes = await fleet.lanes(50)
    await asyncio.gather(*(fleet.claim(run) for run in lanes))
    log = path.with_name("heartlane.db-wal")

    def grown() -> int:
        return path.stat().st_size

    async def folded() -> bool:
        await asyncio.gather(*(fleet.report(run, *[Event("action", {"of": "x" * 4_000})] * 20) for run in lanes))
        await fleet.read(lanes[0])
        return grown() > 2 * 4096 * 2000

    await eventually(folded)
    # 2,000 pages begin a checkpoint; the largest transaction may come on top.
    assert log.stat().st_size < 4096 * 2000 * 3


async def test_closing_leaves_one_file(fleet: Fleet, path: Path) -> None:
    await fleet.lanes(3)
    await fleet.claim_next()
    await fleet.store.close()
    assert [each.name for each in path.parent.iterdir()] == ["heartlane.db"]
    again = await Store.open(f"sqlite:///{path}")
    try:
        assert await Fleet(again, fleet.account_id, fleet.project_id).claim_next("w2") is not None
    finally:
        await again.close()
