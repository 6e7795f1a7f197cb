"""Who has a database open: one server at a time on a SQLite file, and none while a command replaces what is in it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from heartlane.store.errors import InUse, StoreUnavailable

SERVED: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'heartlane' AND pid <> pg_backend_pid()
"""


@contextlib.contextmanager
def only_user(path: Path, refusal: str) -> Iterator[None]:
    """Hold a SQLite database's lock file, as its server does.

    refusal     what is said where somebody else holds it

    Raises InUse, and StoreUnavailable where the file can't be made.
    """
    lock_path = Path(f"{path.resolve()}.lock")  # one lock for one file, whatever links lead to it
    try:
        lock: IO[str] = lock_path.open("w")
    except OSError as error:
        raise StoreUnavailable(f"Can't write beside the database {path}: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InUse(refusal) from None
        yield


async def refuse_served(conn: AsyncConnection, what: str) -> None:
    """Raises InUse where servers are connected to the PostgreSQL database; `what` is not to be done beside them."""
    connections: int = (await conn.execute(text(SERVED))).scalar_one()
    if connections:
        raise InUse(f"A server runs on the database ({connections} connections). Stop every server, and {what} again.")
