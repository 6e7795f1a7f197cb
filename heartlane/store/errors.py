"""What can go wrong with the storage itself. (What a command may not do is a `Refusal`, a value.)"""

from __future__ import annotations


class StoreError(Exception):
    """The storage did not do what was asked, or can't say whether it did. The tree:

    StoreError
    ├── StoreUnavailable   the database is gone, full or busy; ask again after `retry_after` seconds
    ├── Overloaded         more commands wait than the ledger may hold; ask again after `retry_after` seconds
    └── SchemaMismatch     the database's schema is not the one this version works with
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnavailable(StoreError):
    """The database can't be reached or can't write. The outcome of a write under way may be unknown."""


class Overloaded(StoreError):
    """The ledger's queue is full. The command was not accepted."""


class SchemaMismatch(StoreError):
    """The database was made by a newer version, or is not Heartlane's."""
