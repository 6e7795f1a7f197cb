"""Time as the store sees it: the database's clock, plus an offset that is zero outside of tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """The offset that is added to the database's clock. Tests advance it instead of sleeping."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self.offset += timedelta(seconds=seconds)

    def host_time(self) -> datetime:
        """This machine's time: the database's clock where the database is a file on it."""
        return datetime.now(UTC) + self.offset
