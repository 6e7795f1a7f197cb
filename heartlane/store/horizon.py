"""Up to where the event log is whole: positions that are missing below that point will never be there.

PostgreSQL hands out positions before it is known who commits first, so that a row may appear below rows that were read
already. Positions are handed out without gaps, so a row is safe to tell of once all positions below it have been seen.
Where one is missing, whoever may yet fill it is a transaction that is writing to the log just now, and holds the lock
for it: once each of those has ended, what is still missing was given up (a rollback, a crash) and is passed over.

    A takes 5 ── B takes 6, commits ── look: 6 without 5, so A is waited for ── A commits ── look: 5, 6

No transaction is waited for but those that write events, whatever else the database does. SQLite has one writer, and
gives a position back when a transaction is undone: there is never anything to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store.log import LogRow
from heartlane.store.schema import events
from heartlane.store.store import Store

LOOK_AGAIN_SECONDS: Final = 0.01
"""How long a transaction that holds a position is given before the next look: most commit within this."""

# The lock is taken before a position is, and given back after the row can be seen.
WRITING: Final = text("""
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'events'::regclass AND mode = 'RowExclusiveLock'
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


class Horizon:
    """Follows the log from one position on; for one reader of it."""

    def __init__(self) -> None:
        self._closed = 0
        self._newest = 0
        self._pending: frozenset[str] | None = None

    @property
    def waits(self) -> bool:
        """Whether something is missing that may come yet, so that it is worth to look again soon."""
        return self._pending is not None

    async def before_reading(self, conn: AsyncConnection) -> None:
        """What is called in the same transaction as, and before, every reading of the log."""
        if self._pending is None:
            return
        self._pending &= await _writing(conn)
        if not self._pending:
            self._closed, self._pending = self._newest, None

    async def whole(self, conn: AsyncConnection, rows: Sequence[LogRow], after: int) -> Sequence[LogRow]:
        """As many of the rows that were read behind `after`, in order, as nothing can come in between any more."""
        if conn.dialect.name == "sqlite":
            return rows
        for place, row in enumerate(rows):
            if row.position != after + 1 and row.position > self._closed:
                if self._pending is None:
                    self._newest = rows[-1].position
                    self._pending = await _writing(conn)
                return rows[:place]
            after = row.position
        return rows


async def newest_whole(store: Store) -> int:
    """The newest position, once nothing can come below it any more; 0 for an empty log. Raises StoreUnavailable."""
    async with store.reading() as conn:
        newest: int = (await conn.execute(select(func.coalesce(func.max(events.c.position), 0)))).scalar_one()
        pending = frozenset[str]() if store.dialect == "sqlite" else await _writing(conn)
    while pending:
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        async with store.reading() as conn:
            pending &= await _writing(conn)
    return newest


async def _writing(conn: AsyncConnection) -> frozenset[str]:
    """The transactions that are writing to the log just now."""
    return frozenset((await conn.execute(WRITING)).scalars())
