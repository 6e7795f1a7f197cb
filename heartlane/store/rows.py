"""A few reads and inserts that go the same way inside a batch of the ledger (on either driver) and inside any other
write transaction: what is written beside a change, whichever way that comes, is written once.

SQL is given with `{ids}` where a list of ids stands: `WHERE project_id {ids}`. Times are aware datetimes, ids texts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, Protocol

import asyncpg
import orjson
from sqlalchemy import Table, bindparam, insert, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store.columns import to_micros

Row = Sequence[Any]
Values = Mapping[str, Any]


class Rows(Protocol):
    """One open write transaction. Every method is required."""

    async def by_ids(self, statement: str, ids: Sequence[str]) -> Sequence[Row]:
        """The rows of a SELECT with one list of ids."""

    async def insert(self, table: Table, rows: Sequence[Values]) -> None:
        """Insert rows that all have the same columns."""

    async def insert_new(self, table: Table, rows: Sequence[Values]) -> list[int]:
        """Insert those that no unique index has already; the places of those that were."""


class TransactionRows:
    """Of a write transaction of the store's."""

    def __init__(self, conn: AsyncConnection) -> None:
        self._conn = conn

    async def by_ids(self, statement: str, ids: Sequence[str]) -> Sequence[Row]:
        query = text(statement.format(ids="IN :ids")).bindparams(bindparam("ids", expanding=True))
        if self._conn.dialect.name == "postgresql":
            query = text(statement.format(ids="= ANY(CAST(:ids AS uuid[]))"))
        return (await self._conn.execute(query, {"ids": list(ids)})).all()

    async def insert(self, table: Table, rows: Sequence[Values]) -> None:
        await self._conn.execute(insert(table), list(rows))

    async def insert_new(self, table: Table, rows: Sequence[Values]) -> list[int]:
        make = postgresql.insert if self._conn.dialect.name == "postgresql" else sqlite.insert
        made = []
        for place, row in enumerate(rows):
            statement = make(table).values(row).on_conflict_do_nothing().returning(table.c.id)
            if (await self._conn.execute(statement)).first() is not None:
                made.append(place)
        return made


class SqliteRows:
    """Of a batch on SQLite. Nothing here ever suspends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def by_ids(self, statement: str, ids: Sequence[str]) -> Sequence[Row]:
        asked = statement.format(ids="IN (SELECT value FROM json_each(?))")
        return self._connection.execute(asked, (orjson.dumps(ids),)).fetchall()

    async def insert(self, table: Table, rows: Sequence[Values]) -> None:
        statement = _insert_sqlite(table, tuple(rows[0]))
        self._connection.executemany(statement, [_sqlite_values(row) for row in rows])

    async def insert_new(self, table: Table, rows: Sequence[Values]) -> list[int]:
        statement = _insert_sqlite(table, tuple(rows[0])) + " ON CONFLICT DO NOTHING"
        return [
            place
            for place, row in enumerate(rows)
            if self._connection.execute(statement, _sqlite_values(row)).rowcount == 1
        ]


class PostgresRows:
    """Of a batch on PostgreSQL."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    async def by_ids(self, statement: str, ids: Sequence[str]) -> Sequence[Row]:
        rows: Sequence[Row] = await self._connection.fetch(statement.format(ids="= ANY($1::uuid[])"), ids)
        return rows

    async def insert(self, table: Table, rows: Sequence[Values]) -> None:
        statement = _insert_postgres(table, tuple(rows[0]))
        await self._connection.executemany(statement, [tuple(row.values()) for row in rows])

    async def insert_new(self, table: Table, rows: Sequence[Values]) -> list[int]:
        statement = _insert_postgres(table, tuple(rows[0])) + " ON CONFLICT DO NOTHING RETURNING 1"
        return [
            place
            for place, row in enumerate(rows)
            if await self._connection.fetchval(statement, *row.values()) is not None
        ]


_INSERT: Final = "INSERT INTO {table} ({columns}) VALUES ({values})"


@cache
def _insert_sqlite(table: Table, names: tuple[str, ...]) -> str:
    return _INSERT.format(
        table=table.name, columns=", ".join(f'"{name}"' for name in names), values=", ".join("?" for _ in names)
    )


@cache
def _insert_postgres(table: Table, names: tuple[str, ...]) -> str:
    values = ", ".join(f"${place}" for place, _ in enumerate(names, 1))
    return _INSERT.format(table=table.name, columns=", ".join(f'"{name}"' for name in names), values=values)


def _sqlite_values(row: Values) -> list[Any]:
    return [to_micros(value) if isinstance(value, datetime) else value for value in row.values()]
