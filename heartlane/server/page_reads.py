"""The few database connections that readers of old events share, so that a rush of them leaves some for requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store.errors import StoreUnavailable
from heartlane.store.store import Store

READS_AT_ONCE: Final = 3
"""Connections in use together."""


class PageReads:
    """Takes turns. Whoever has one reads a page, and gives the connection back before it tells anybody of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._turns = asyncio.Semaphore(READS_AT_ONCE)
        self._closed = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one page. Raises StoreError."""
        if self._closed:
            raise StoreUnavailable("The server is shutting down.")
        async with self._turns, self.store.reading() as conn:
            yield conn

    async def close(self) -> None:
        """Return once nobody reads, and nobody will."""
        self._closed = True
        for _ in range(READS_AT_ONCE):
            await self._turns.acquire()
