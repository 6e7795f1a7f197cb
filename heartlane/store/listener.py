"""Hears PostgreSQL's notifications: what other servers on the same database have committed."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import asyncpg
import structlog

from heartlane.store.feed import CHANNEL, EVERYTHING, Feed, decode
from heartlane.store.postgres import connect

log = structlog.get_logger(__name__)

PROBE_SECONDS: Final = 5.0
"""How often the connection is tried: a peer that vanished without a word is noticed this soon. One that closes the
connection is noticed at once."""
RETRY_SECONDS: Final = 0.1
RETRY_SECONDS_MAX: Final = 1.0
LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # PostgreSQL ended the connection while nothing was asked of it
)


class Listener:
    """Keeps one connection that LISTENs, and hands what it hears to the feed.

    Notifications sent while there was no connection are lost; after each new connection EVERYTHING is published, so
    that hearers look for themselves.
    """

    def __init__(self, url: str, server_id: str, feed: Feed) -> None:
        self._url = url
        self._server_id = server_id
        self._feed = feed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen from now on, in a task of its own."""
        self._task = asyncio.get_running_loop().create_task(self._listen_forever())

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen_forever(self) -> None:
        wait = RETRY_SECONDS
        while True:
            try:
                connection = await connect(self._url)
            except LOST as error:
                log.warning("listener_reconnecting", error=type(error).__name__)
                await _pause(wait)
                wait = min(wait * 2, RETRY_SECONDS_MAX)
                continue
            wait = RETRY_SECONDS
            try:
                await self._listen(connection)
            except LOST as error:
                log.warning("listener_lost", error=type(error).__name__)
            finally:
                connection.terminate()
            await _pause(RETRY_SECONDS)

    async def _listen(self, connection: asyncpg.Connection[Any]) -> None:
        closed = asyncio.Event()
        connection.add_termination_listener(lambda connection: closed.set())
        await connection.add_listener(CHANNEL, self._hear)
        self._feed.publish(EVERYTHING)
        while not closed.is_set():
            try:
                await asyncio.wait_for(closed.wait(), PROBE_SECONDS)
            except TimeoutError:
                await connection.execute("SELECT 1")
        raise ConnectionResetError

    def _hear(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        announcement = decode(self._server_id, str(payload))
        if announcement is not None:
            self._feed.publish(announcement)


async def _pause(seconds: float) -> None:
    """Wait about so long; servers that lost their connections together don't come back in step."""
    await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
