"""Lists by keyset: how far the caller may see, and the cursor that says where the next page begins.

A cursor is opaque to clients. It names the last row of the page before, never a count, so that a page costs the same
wherever it stands, and rows that come or go meanwhile are neither skipped nor told twice.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, and_

from heartlane.store.schema import projects

T = TypeVar("T")

CURSOR_MAX: Final = 1_200
"""Characters of a cursor; the longest, a worker's name of 200 characters, stays below it."""
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class BadCursor(ValueError):
    """The cursor was not made by this list."""


class Reach(NamedTuple):
    """How far a caller sees: one account, and within it one project or (None) all of them."""

    account_id: str
    project_id: str | None = None

    def of_projects(self) -> ColumnElement[bool]:
        """The rows of `projects` within reach, as a condition."""
        mine = projects.c.billing_account_id == self.account_id
        return mine if self.project_id is None else and_(mine, projects.c.id == self.project_id)


class Page(NamedTuple):
    """One page of a list, and the cursor of the next; None on the last."""

    rows: Sequence[Any]
    next_cursor: str | None


def page(rows: Sequence[T], limit: int, list_name: str, key: Callable[[T], str | int]) -> Page:
    """The page out of up to `limit + 1` rows that were read: the one too many tells that there is a next page."""
    if len(rows) <= limit:
        return Page(rows, None)
    shown = rows[:limit]
    return Page(shown, encode_cursor(list_name, key(shown[-1])))


def encode_cursor(list_name: str, key: str | int) -> str:
    """The cursor behind the row with this key in the named list.

    >>> encode_cursor("runs", 17)
    'cnVuczoxNw'
    """
    return base64.urlsafe_b64encode(f"{list_name}:{key}".encode()).decode().rstrip("=")


def cursor_text(list_name: str, cursor: str) -> str:
    """The key within a cursor of the named list. Raises BadCursor."""
    if len(cursor) > CURSOR_MAX or not _BASE64URL.fullmatch(cursor):
        raise BadCursor
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise BadCursor from None
    name, colon, key = text.partition(":")
    # Base64 has spellings that mean the same; only the one we make is a cursor.
    if name != list_name or not colon or not key or "\0" in key or encode_cursor(name, key) != cursor:
        raise BadCursor
    return key


def cursor_id(list_name: str, cursor: str) -> str:
    """The id within a cursor. Raises BadCursor."""
    key = cursor_text(list_name, cursor)
    if not _UUID.fullmatch(key):
        raise BadCursor
    return key


def cursor_number(list_name: str, cursor: str) -> int:
    """The number within a cursor. Raises BadCursor."""
    key = cursor_text(list_name, cursor)
    if not key.isascii() or not key.isdecimal() or len(key) > 18:
        raise BadCursor
    return int(key)
