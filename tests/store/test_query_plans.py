"""What runs all day on SQLite finds its rows by an index, however long the queue, and without any statistics."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from heartlane.store import control, sqlite
from heartlane.store.pages import Reach
from heartlane.store.runs import RunFilter, list_runs
from heartlane.store.store import Store
from heartlane.store.upgrade import upgrade_async
from heartlane.store.workers import WorkerFilter, list_workers

ID = "018f0000-0000-7000-8000-00000000000a"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty SQLite store: without statistics, as every new installation is."""
    url = f"sqlite:///{tmp_path / 'heartlane.sqlite3'}"
    await upgrade_async(url)
    store = await Store.open(url)
    yield store
    await store.close()


@contextlib.contextmanager
def asked(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """Every statement with its parameters that is asked of the database for reading within the block."""
    found: list[tuple[str, Any]] = []

    def note(*arguments: Any) -> None:
        statement, parameters = arguments[2], arguments[3]
        if statement.startswith("SELECT"):
            found.append((statement, parameters))

    event.listen(store._reader.sync_engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(store._reader.sync_engine, "before_cursor_execute", note)


def plan(store: Store, statement: str, parameters: Any) -> str:
    """How SQLite goes about it, a line a step."""
    path = store._engine._path  # type: ignore[union-attr]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))


async def test_the_look_for_what_is_due_next_reads_the_heads_of_two_indexes(store: Store) -> None:
    with asked(store) as statements:
        await control.upcoming(store)
    found = plan(store, *statements[-1])
    assert "runs_take_back_idx" in found
    assert "runs_delayed_idx" in found
    assert "SCAN runs" not in found.replace("SCAN runs USING", "")


@pytest.mark.parametrize(
    ("look", "index"),
    [(control.due_for_take_back, "runs_take_back_idx"), (control.due_again, "runs_delayed_idx")],
)
async def test_what_is_due_is_found_by_its_own_index(store: Store, look: Any, index: str) -> None:
    with asked(store) as statements:
        await look(store, NOW)
    assert index in plan(store, *statements[-1])


async def test_a_claim_looks_at_the_head_of_the_queue_and_at_what_is_due(store: Store) -> None:
    for statement, values in ((sqlite.ACCOUNT_HEAD, (ID,)), (sqlite.PROJECT_HEAD, (ID, ""))):
        head = plan(store, statement, (*values, "", "backend", 1))
        assert "USING INDEX runs_claimable_by_" in head
        assert "TEMP B-TREE" not in head
    due = plan(store, sqlite.CLAIMABLE_DUE, (0, ID))
    assert "runs_delayed_idx (not_before>? AND not_before<?)" in due


async def test_what_bounds_a_project_is_found_by_its_own_index(store: Store) -> None:
    assert "projects_limited_idx" in plan(store, sqlite.LIMITS, ('["a"]',))
    assert "runs_active_idx" in plan(store, sqlite.ACTIVE, ('["a"]',))


async def test_a_batch_finds_its_runs_by_id_and_writes_them_by_number(store: Store) -> None:
    assert "INDEX" in plan(store, sqlite.LOCK_RUNS, ('["a"]',)).splitlines()[0]
    for statement in sqlite.UPDATE_RUN.values():
        assert "INTEGER PRIMARY KEY" in plan(store, statement, [None] * statement.count("?"))


@pytest.mark.parametrize(
    ("narrowed", "index"),
    [
        ({}, "runs_account_idx"),
        ({"project_id": ID}, "runs_project_idx"),
        ({"plan_id": ID}, "runs_plan_idx"),
        ({"states": ("failed",)}, "runs_state_idx"),
        ({"worker_id": "w1"}, "runs_worker_idx"),
    ],
)
async def test_a_list_is_read_in_the_order_of_an_index(store: Store, narrowed: dict[str, Any], index: str) -> None:
    with asked(store) as statements:
        async with store.reading() as conn:
            await list_runs(conn, RunFilter(ID, **narrowed), after=10, limit=50, now=NOW)
    found = plan(store, *statements[-1])
    assert index in found
    assert "TEMP B-TREE" not in found


async def test_workers_are_listed_by_their_own_index(store: Store) -> None:
    with asked(store) as statements:
        async with store.reading() as conn:
            await list_workers(conn, Reach(ID), WorkerFilter(), after=None, limit=50, now=NOW)
    names, asks, lanes = (plan(store, *statement) for statement in statements)
    assert "runs_worker_idx" in names
    assert "workers_seen_pkey" in names or "sqlite_autoindex_workers_seen" in names
    assert "workers_seen_pkey" in asks or "sqlite_autoindex_workers_seen" in asks
    assert "runs_worker_idx" in lanes
