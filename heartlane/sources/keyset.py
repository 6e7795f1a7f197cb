"""Walking a list by the time of its last change, which is how nothing is missed while the list changes underneath.

GitHub and GitLab page by number: whatever leaves the list (an issue that loses its label) moves all behind it one
place forward, over the edge of a page, where nobody looks any more. So each page here begins at the time at which the
page before ended, oldest change first. What changes meanwhile only moves to the end, and is met there. Only where a
whole page has one and the same time, as after a bulk change, does the next one go by number.

The last page's cursor is where the next run begins: what changed since, and a page's edge read twice.
"""

from __future__ import annotations

from typing import Any

from heartlane.sources.model import Cursor
from heartlane.sources.read import text_of

PAGE_SIZE = 100


def query_at(cursor: Cursor, since_name: str) -> dict[str, str]:
    """The query of the page at a cursor."""
    query = {"per_page": str(PAGE_SIZE), "page": str(_page(cursor))}
    since = text_of(cursor, "since")
    return query | {since_name: since} if since else query


def cursor_after(cursor: Cursor, rows: list[Any], *, has_more: bool) -> Cursor:
    """Where it goes on after these rows; with no more of them, where the next run begins."""
    since = text_of(cursor, "since")
    times = [time for row in rows if (time := text_of(row, "updated_at"))]
    last = max(times, default=since)
    if has_more and last == since:
        return {"since": since, "page": _page(cursor) + 1}
    return {"since": last, "page": 1}


def _page(cursor: Cursor) -> int:
    page = cursor.get("page")
    return page if isinstance(page, int) and page > 0 else 1
