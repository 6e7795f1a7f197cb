"""What a server does when SQLite says that its file is damaged: it stops, and stays stopped.

A damaged page is found when it is read. From then on nothing is read from the file and nothing written to it: what else
is wrong nobody knows, and a write into a damaged tree of pages makes the damage larger. Every request is answered 503
and `/readyz` fails, until a person has restored the file and started the server again.

Not promised: that damage is found which leaves the pages well-formed, such as a bit that has changed inside a text.
`heartlane db check` finds some of that, by comparing every run with its log.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import structlog

from heartlane.store.errors import StoreDamaged

RETRY_SECONDS: Final = 30.0
"""Nothing gets better by itself: clients that try again need not do so often."""
MESSAGE: Final = (
    "The database file is damaged, so that nothing is read from it or written to it any more. "
    "Whoever runs this server has to restore it from a backup."
)

log = structlog.get_logger(__name__)


def is_damage(error: BaseException | None) -> bool:
    """Whether an error of SQLite's says that the file is damaged, or is no database at all."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # the driver's own: a text that is none
        return str(error).startswith("Could not decode to UTF-8")
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Damage:
    """What is known of a database's damage; shared by all that use it in this process."""

    def __init__(self) -> None:
        self._found: BaseException | None = None

    def refuse(self) -> None:
        """Raises StoreDamaged once damage was found."""
        if self._found is not None:
            raise self._error(self._found)

    def found(self, cause: BaseException, *, maybe_done: bool = False) -> StoreDamaged:
        """Note it, and have it logged the first time; the error to raise."""
        if self._found is None:
            self._found = cause
            log.error("database_damaged", error=str(cause), cure="heartlane db check; heartlane db restore BACKUP")
        return self._error(cause, maybe_done)

    def _error(self, cause: BaseException, maybe_done: bool = False) -> StoreDamaged:
        return StoreDamaged(MESSAGE, RETRY_SECONDS, cause=cause, maybe_done=maybe_done)
