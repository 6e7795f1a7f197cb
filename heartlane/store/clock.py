"""Time as the store sees it: the database's clock, plus an offset that is zero outside of tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """What the database's clock is adjusted by: nothing, outside of tests. Tests advance it instead of sleeping."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self.offset += timedelta(seconds=seconds)

    def adjusted(self, moment: datetime) -> datetime:
        """The time to go by when the database's clock says `moment`."""
        return moment + self.offset

    def host_time(self) -> datetime:
        """This machine's time: the database's clock where the database is a file on it."""
        return self.adjusted(datetime.now(UTC))
