"""A database of either engine, looked at from outside of Heartlane: by its driver alone, so that any schema will do."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import make_url

from heartlane.store.connection import connection
from heartlane.store.migrations import runner

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_sqlite(url: str) -> bool:
    """Which engine it is."""
    return url.startswith("sqlite:")


async def migrate_to(url: str, revision: str) -> None:
    """Bring an empty database to a revision."""
    async with connection(url, write=True) as conn:
        await conn.run_sync(runner.run, revision)


async def fetch(url: str, query: str, *arguments: Any) -> list[dict[str, Any]]:
    """Run one statement; its rows by column name. Parameters are written $1, $2, … on both engines."""
    if is_sqlite(url):
        with closing(sqlite3.connect(make_url(url).database or "", isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            for place in range(len(arguments), 0, -1):
                query = query.replace(f"${place}", f"?{place}")
            return [dict(row) for row in connection.execute(query, arguments)]
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


async def tables(url: str) -> set[str]:
    """The names of its tables, without PostgreSQL's partitions and what the tools keep for themselves."""
    query = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        if is_sqlite(url)
        else "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    return {row["name"] for row in await fetch(url, query)} - {"alembic_version"}


async def fill(url: str, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write rows, table by table in this order, as the engine keeps them."""
    for table, rows in tables.items():
        if table == "control":
            await fetch(url, "DELETE FROM control")  # the one row that a schema brings along
        for row in rows:
            names = ", ".join(f'"{name}"' for name in row)
            places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
            values = map(neutral, row.values()) if is_sqlite(url) else row.values()
            await fetch(url, f"INSERT INTO {table} ({names}) VALUES ({places})", *values)
        for key in ("number", "position"):
            if not is_sqlite(url) and key in rows[0]:
                # The rows came with their numbers; the next one goes on from there, as it would have.
                await fetch(url, f"SELECT setval(pg_get_serial_sequence('{table}', '{key}'), max({key})) FROM {table}")


async def read(url: str, table: str) -> list[dict[str, Any]]:
    """Every row of a table, with values that are the same on both engines."""
    return [{name: neutral(value) for name, value in row.items()} for row in await fetch(url, f"SELECT * FROM {table}")]


def neutral(value: Any) -> Any:
    """A value as SQLite has it: times in microseconds, flags as 0 and 1, ids as text."""
    if isinstance(value, datetime):
        return (value - EPOCH) // datetime.resolution
    if isinstance(value, UUID):
        return str(value)
    return int(value) if isinstance(value, bool) else value
