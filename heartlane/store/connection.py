"""One connection to a database for what is done beside servers: upgrades, checks, exports, moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from heartlane.store.damage import is_damage
from heartlane.store.errors import StoreDamaged, StoreUnavailable
from heartlane.store.postgres import CONNECT_SECONDS

APPLICATION: Final = "heartlane-db"
"""What these connections are called in PostgreSQL, where a server's are called `heartlane`."""
SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


@asynccontextmanager
async def connection(
    url: str, *, write: bool = False, snapshot: bool = False, pragmas: Sequence[str] = ()
) -> AsyncIterator[AsyncConnection]:
    """One transaction on `sqlite:///path` or `postgresql://…`: committed on a clean exit, undone on an exception.

    write       takes the write lock of a SQLite file at once
    snapshot    every statement sees the database as it was at the first one, and none may write
    pragmas     for SQLite, run before the transaction

    Raises StoreUnavailable, StoreDamaged.
    """
    if url.startswith("sqlite:"):
        engine = create_async_engine(make_url(url).set(drivername="sqlite+aiosqlite"), poolclass=NullPool)
        begin = "BEGIN IMMEDIATE" if write else "BEGIN"

        def on_connect(connection: Any, record: Any) -> None:
            connection.isolation_level = None
            for pragma in ("PRAGMA busy_timeout = 30000", *pragmas):
                connection.cursor().execute(pragma)

        def on_begin(connection: Any) -> None:
            connection.exec_driver_sql(begin)

        event.listen(engine.sync_engine, "connect", on_connect)
        event.listen(engine.sync_engine, "begin", on_begin)
    else:
        settings = {"application_name": APPLICATION, "timezone": "UTC"}
        arguments = {"dsn": url, "timeout": CONNECT_SECONDS, "server_settings": settings}
        engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, connect_args=arguments)
    try:
        async with engine.begin() as conn:
            if snapshot and conn.dialect.name == "postgresql":
                await conn.execute(text(SNAPSHOT))
            yield conn
    except (DBAPIError, OSError, TimeoutError) as error:
        cause = getattr(error, "orig", None) or error
        if is_damage(cause):
            raise StoreDamaged("The database file is damaged.", cause=cause) from error
        raise StoreUnavailable("The database can't be used.", cause=cause) from error
    finally:
        await engine.dispose()
