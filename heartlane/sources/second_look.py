"""Walking a list by a cursor of the source's own, and then looking once more for what changed meanwhile.

Linear and Jira give a cursor into a list without a lasting order of changes: what is made or changed during a walk may
come to stand before the place where it is. So a walk of several pages is followed by one over what has changed since
its beginning, until that is a single page. Where the last one began, the next import goes on.

    since   what the walk is narrowed to; none: everything
    after   the source's own cursor within the walk
    began   when the walk began, by the source's clock
    looks   how many walks of this import there were before
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from heartlane.sources.http import Answer
from heartlane.sources.model import Cursor
from heartlane.sources.read import text_of

LOOKS_MAX: Final = 5
"""Walks of one import; what changes again and again waits for the next one."""
OVERLAP: Final = timedelta(minutes=2)
"""Searches may lag behind what was written: a look begins so long before the last walk did."""


def next_cursor(cursor: Cursor, answer: Answer, after: str | None, now: datetime) -> tuple[Cursor, bool]:
    """The cursor behind a page, and whether that was the last one.

    after   the source's cursor of the next page; None behind the last page of a walk
    now     the time, where the source doesn't tell its own
    """
    began = text_of(cursor, "began") or _stamp(_date_of(answer, now))
    if after is not None:
        return {**cursor, "after": after, "began": began}, False
    had_pages = "after" in cursor
    if had_pages and _looks(cursor) < LOOKS_MAX:
        return {"since": began, "looks": _looks(cursor) + 1}, False
    return {"since": began}, True


def restarted(cursor: Cursor) -> Cursor:
    """The same walk from its beginning, for a cursor that the source doesn't know any more."""
    return {name: value for name, value in cursor.items() if name in ("since", "looks")}


def since_of(cursor: Cursor) -> datetime | None:
    """From when on the walk looks, with some overlap; None: from the beginning."""
    text = text_of(cursor, "since")
    try:
        return datetime.fromisoformat(text) - OVERLAP if text else None
    except ValueError:
        return None


def _looks(cursor: Cursor) -> int:
    looks = cursor.get("looks")
    return looks if isinstance(looks, int) else 0


def _date_of(answer: Answer, now: datetime) -> datetime:
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).astimezone(UTC)
    except ValueError:
        return now


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
