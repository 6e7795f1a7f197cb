"""What can go wrong with the storage itself. (What a command may not do is a `Refusal`, a value.)"""

from __future__ import annotations


class StoreError(Exception):
    """The storage did not do what was asked, or can't say whether it did. The tree:

    StoreError
    ├── StoreUnavailable   the database is gone, full or busy; ask again after `retry_after` seconds
    │   └── StoreDamaged   its file is damaged: asking again doesn't help before a person has mended it
    ├── Overloaded         more commands wait than the ledger may hold; ask again after `retry_after` seconds
    ├── SchemaMismatch     the database's schema is not the one this version works with
    └── InUse              a server has the database open, or another command works on it
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class StoreUnavailable(StoreError):
    """The database can't be reached or can't write.

    message         a sentence without anything of the driver's: fit for a client of the API
    cause           the driver's own error, told in `str()` alone: for the log and the command line
    maybe_done      it broke off during COMMIT, so the change may have been made; else it was not
    """

    def __init__(
        self,
        message: str,
        retry_after: float = 1.0,
        *,
        cause: BaseException | None = None,
        maybe_done: bool = False,
    ) -> None:
        super().__init__(message, retry_after)
        self.cause = cause
        self.maybe_done = maybe_done

    def __str__(self) -> str:
        if self.cause is None:
            return self.message
        # A timeout has no words of its own.
        return f"{self.message.removesuffix('.')}: {str(self.cause) or type(self.cause).__name__}"


class StoreDamaged(StoreUnavailable):
    """The database file is damaged, so that nothing that it says can be relied on."""


class Overloaded(StoreError):
    """The ledger's queue is full. The command was not accepted."""


class SchemaMismatch(StoreError):
    """The database was made by a newer version, or is not Heartlane's."""


class InUse(StoreError):
    """Somebody has the database open who must not have: the text says who, and what to do."""
