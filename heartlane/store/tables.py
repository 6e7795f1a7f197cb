"""Every table in one form for both engines: for exports, for moves, and to tell whether two databases are equal.

A row's values are as Python has them on either engine: ids as text, times as aware datetimes, flags as booleans.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store import github_schema, news_schema, schema  # noqa: F401 - their tables belong to the metadata
from heartlane.store.columns import metadata, to_micros

ROWS_AT_ONCE: Final = 1_000

SECRETS: Final = frozenset(
    {
        "tokens.token_hash",
        "sessions.secret_hash",
        "login_links.secret_hash",
        "webhooks.url_sealed",
        "webhooks.secret_sealed",
        "webhooks.old_secret_sealed",
    }
)
"""Columns that hold secrets, or what one could be guessed from; never exported."""


def all_tables() -> list[Table]:
    """Every table, each behind those that it refers to."""
    return list(metadata.sorted_tables)


async def rows_of(conn: AsyncConnection, table: Table, names: Sequence[str]) -> AsyncIterator[Sequence[Any]]:
    """The rows of a table, in the order of its key, with these columns; some of them are in memory at a time."""
    query = select(*(table.c[name] for name in names)).order_by(*table.primary_key.columns)
    result = await conn.stream(query.execution_options(yield_per=ROWS_AT_ONCE))
    async for row in result:
        yield row


class Digest:
    """The digest of a set of rows, whatever their order: equal sets have equal digests.

    rows    how many there are
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: Sequence[Any]) -> None:
        """One row."""
        self.rows += 1
        plain = [to_micros(value) if isinstance(value, datetime) else value for value in row]
        self._sum += int.from_bytes(hashlib.sha256(orjson.dumps(plain)).digest(), "big")

    def __str__(self) -> str:
        return f"{self._sum % 2**256:064x}"
