"""Hands on a server's database from outside: tokens, time that passes at once, and locks that hold every change up."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import httpx
from sqlalchemy import select, update

from heartlane.lanes.run import Run
from heartlane.server.settings import load_settings
from heartlane.store import tokens
from heartlane.store.schema import control, runs
from heartlane.store.store import Store, sqlite_path
from tests.harness import Harness

MOVED: Final = tuple(name for name in Run._fields if name.endswith("_at") or name in ("last_heartbeat", "not_before"))
"""Every time of a run."""


@asynccontextmanager
async def opened(database: str) -> AsyncIterator[Store]:
    """The database, opened beside whichever servers run on it."""
    store = await Store.open(database)
    try:
        yield store
    finally:
        await store.close()


async def new_token(database: str, scope: tokens.Scope = "admin", name: str = "e2e") -> str:
    """A new token's secret."""
    async with opened(database) as store:
        return (await tokens.create(store, name, scope))[1]


async def let_pass(database: str, passed: timedelta) -> None:
    """Let time pass at once while no server runs: everything that the database knows is so much older."""
    async with opened(database) as store, store.writing() as tx:
        columns = [runs.c[name] for name in MOVED]
        for number, *moments in (await tx.conn.execute(select(runs.c.number, *columns))).all():
            older = {name: moment - passed for name, moment in zip(MOVED, moments, strict=True) if moment is not None}
            await tx.conn.execute(update(runs).where(runs.c.number == number).values(older))
        alive_at, resumed_at = (await tx.conn.execute(select(control.c.alive_at, control.c.resumed_at))).one()
        older = {"alive_at": alive_at - passed, "resumed_at": resumed_at - passed}
        await tx.conn.execute(update(control).values(older))


async def resumed_at(database: str) -> datetime | None:
    """Since when a server runs, after a time without any; None before the first one has noted that it does."""
    async with opened(database) as store, store.reading() as conn:
        moment: datetime | None = (await conn.execute(select(control.c.resumed_at))).scalar_one()
        return moment


async def take_back_at(database: str, run_id: str) -> datetime:
    """When the take-back will look at a run next."""
    async with opened(database) as store, store.reading() as conn:
        query = select(runs.c.take_back_at).where(runs.c.id == run_id)
        moment: datetime = (await conn.execute(query)).scalar_one()
        return moment


@asynccontextmanager
async def read_without_server(database: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application in this process, to see what is in the database while no server runs."""
    async with opened(database) as store:
        harness = await Harness.start(store, load_settings({"rate_limits": "off", "database": database}))
        yield harness.admin
        await harness.close()


@asynccontextmanager
async def held_up(database: str) -> AsyncIterator[None]:
    """No run changes within the block: another program holds a lock that every change waits for. Reads go on."""
    if database.startswith("sqlite:"):
        other = sqlite3.connect(sqlite_path(database), isolation_level=None, check_same_thread=False)
        try:
            await asyncio.to_thread(other.execute, "PRAGMA busy_timeout = 10000")
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            yield
        finally:
            other.close()
        return
    connection: asyncpg.Connection[Any] = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE runs IN EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def locked(postgres_url: str, run_id: str) -> AsyncIterator[None]:
    """Within the block another transaction has one run locked, and leaves it as it is."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(postgres_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM runs WHERE id = $1 FOR UPDATE", run_id)
            yield
    finally:
        await connection.close()
