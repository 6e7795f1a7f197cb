"""PostgreSQL's partitions of the event log: one a week, made ahead of time.

Should none be there for a moment in time, the row goes to the partition `events_rest`, so that a report is never
refused for want of one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from heartlane.store.errors import StoreUnavailable
from heartlane.store.store import Store

WEEKS_AHEAD: Final = 4

LOCK_MILLISECONDS: Final = 200
"""How long to wait for the lock on the log. While somebody waits for it, so does every report; and a backup may hold on
to its own for hours. There are weeks left to try again in."""

log = structlog.get_logger(__name__)


def week_of(moment: datetime) -> datetime:
    """The Monday, 00:00 UTC, on or before a moment.

    >>> week_of(datetime(2026, 11, 24, 4, 0, tzinfo=UTC)).isoformat()
    '2026-11-23T00:00:00+00:00'
    """
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


async def ensure_partitions(store: Store, now: datetime) -> list[str]:
    """Make the partitions of this week and the next ones that are missing; their names. Nothing to do on SQLite.

    Gives up for now where somebody reads the log for long. Raises StoreUnavailable when the database can't be asked.
    """
    if store.dialect != "postgresql":
        return []
    made = []
    for week in range(WEEKS_AHEAD + 1):
        start = week_of(now) + timedelta(weeks=week)
        name = f"events_{start:%Y%m%d}"
        async with store.reading() as conn:
            if (await conn.execute(text("SELECT to_regclass(:name)"), {"name": name})).scalar() is not None:
                continue
        try:
            async with store.writing() as tx:
                await tx.conn.execute(text(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}"))
                await tx.conn.execute(
                    text(
                        f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF events "
                        f"FOR VALUES FROM ('{start.isoformat()}') TO ('{(start + timedelta(weeks=1)).isoformat()}')"
                    )
                )
        except StoreUnavailable as error:
            log.info("partition_waits", name=name, error=str(error))
            break
        except DBAPIError:
            # Another server made it just now, or events of that week are in `events_rest` already and stay there.
            continue
        made.append(name)
    return made
