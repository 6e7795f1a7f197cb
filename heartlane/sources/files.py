"""Tickets from a file: CSV with a line of headings, JSON (an array, or an object with `tickets`), or JSON Lines.

Columns and fields are those of a ticket (`title`, `description`, `roles`, `priority`, …), in any case and order, with
the names that other tools export them under beside them (`NAMES`); unknown ones are ignored. The whole file is read and
checked before anything is sent: all problems are told at once, each with its line.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from heartlane.lanes import bounds
from heartlane.lanes.tickets import Resolution
from heartlane.sources.errors import BadFile
from heartlane.sources.model import Cursor, Item, SourcePage
from heartlane.sources.roles import ROLES
from heartlane.wire.fields import EXTERNAL_KEY_MAX, REQUEST_TYPE_MAX, TICKET_PRIORITY_MAX

FILE_MAX: Final = 64 * 1024 * 1024
PROBLEMS_MAX: Final = 100
PAGE_SIZE: Final = bounds.TICKETS_PER_BATCH_MAX
NAMES: Final[Mapping[str, Sequence[str]]] = {
    "title": ("title", "summary", "name", "subject"),
    "description": ("description", "body", "text", "details"),
    "external_url": ("external_url", "url", "link", "html_url", "web_url"),
    "external_key": ("external_key", "key", "id", "issue key", "identifier"),
    "roles": ("roles", "role"),
    "labels": ("labels", "label", "tags"),
    "priority": ("priority",),
    "request_type": ("request_type", "type", "issue type", "kind"),
    "blocking": ("blocking",),
    "status": ("status", "state"),
    "resolution_type": ("resolution_type", "resolution"),
}
"""Field → the headings that it may stand under, the first that is there counts."""
CLOSED: Final = frozenset({"closed", "done", "completed", "resolved", "cancelled", "canceled", "live"})
TRUE: Final = frozenset({"true", "yes", "1", "x"})
FALSE: Final = frozenset({"false", "no", "0", ""})
NOT_A_ROW: Final = ""
"""In place of a field: what is wrong with the whole row."""
_URL: Final = re.compile(r"https?://[^\x00-\x20\x7f-\xa0]+")
_SPLIT: Final = re.compile(r"[,;|]")


class Row(NamedTuple):
    """One row as the file has it: where it stands, and its fields by their names here."""

    line: int
    fields: Mapping[str, Any]


class File:
    """The tickets of a file. Raises BadFile with all that is wrong with it."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self.subject = path.name
        self._items = _items(path)

    def __len__(self) -> int:
        return len(self._items)

    def start(self) -> Cursor:
        """From the first row on."""
        return {"row": 0}

    async def page(self, cursor: Cursor) -> SourcePage:
        """So many rows."""
        row = cursor.get("row")
        first = row if isinstance(row, int) and row >= 0 else 0
        items = list(islice(self._items, first, first + PAGE_SIZE))
        after = first + len(items)
        return SourcePage(items, {"row": after}, after >= len(self._items))


def _items(path: Path) -> list[Item]:
    problems: list[tuple[str, str]] = []
    items = []
    seen: dict[str, int] = {}
    for row in _rows(path):
        item = _item(row, problems)
        if item is None:
            continue
        name = item.url or item.key or ""
        other = seen.setdefault(name, row.line)
        if other != row.line:
            what = "external_url" if item.url else "external_key" if "external_key" in row.fields else "title"
            problems.append((f"line {row.line}", f"{what} is that of line {other} already"))
        items.append(item)
    if problems:
        shown = problems[:PROBLEMS_MAX]
        if len(problems) > PROBLEMS_MAX:
            shown.append(("further on", f"{len(problems) - PROBLEMS_MAX} more"))
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise BadFile(f"{path.name} has {count}; nothing was imported.", shown)
    if not items:
        raise BadFile(f"{path.name} has no ticket in it.")
    return items


# --- rows ---------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[Row]:
    kinds = {".csv": _csv_rows, ".json": _json_rows, ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows}
    read = kinds.get(path.suffix.lower())
    if read is None:
        raise BadFile(f"{path.name} must be a .csv, .json or .jsonl file.")
    try:
        if path.stat().st_size > FILE_MAX:
            raise BadFile(f"{path.name} is larger than {FILE_MAX} bytes; split it.")
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path.name} is not UTF-8 (at byte {error.start}).") from None
    except OSError as error:
        raise BadFile(f"{path} can't be read: {error.strerror}.") from None
    return read(path.name, text)


def _csv_rows(name: str, text: str) -> Iterator[Row]:
    try:
        dialect: Any = csv.Sniffer().sniff(text[:64_000].partition("\n")[0], ",;\t")
    except csv.Error:
        dialect = csv.excel
    csv.field_size_limit(FILE_MAX)
    reader = csv.reader(io.StringIO(text, newline=""), dialect, strict=True, doublequote=True)
    line = 1
    try:
        headings = [heading.strip() for heading in next(reader, [])]
        if _place("title", [heading.lower() for heading in headings]) is None:
            raise BadFile(f"{name} must begin with a line of headings, `title` among them.")
        line = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells[len(headings) :]):
                yield Row(line, {NOT_A_ROW: f"has {len(cells)} cells under {len(headings)} headings"})
            elif any(cell.strip() for cell in cells):
                yield Row(line, _named(dict(zip(headings, cells, strict=False))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadFile(f"{name} is no CSV at line {line}: {error}.") from None


def _json_rows(name: str, text: str) -> Iterator[Row]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{name} is no JSON: {error}.") from None
    rows = value.get("tickets") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise BadFile(f"{name} must be an array of tickets, or an object whose field tickets is one.")
    lines = _lines_of(text)
    for place, row in enumerate(rows):
        yield Row(next(lines, place + 1), _named(row) if isinstance(row, dict) else {NOT_A_ROW: "must be an object"})


def _lines_of(text: str) -> Iterator[int]:
    """The lines on which the objects of an array begin, as far as they can be told apart by a decoder."""
    decoder = json.JSONDecoder()
    start = text.find("[")
    line, counted = 1, 0
    while start >= 0:
        while start + 1 < len(text) and text[start + 1] in " \t\r\n,":
            start += 1
        start += 1
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            return
        line += text.count("\n", counted, start)
        counted = start
        yield line
        start = end - 1


def _jsonl_rows(name: str, text: str) -> Iterator[Row]:
    for line, part in enumerate(text.split("\n"), start=1):
        if not part.strip():
            continue
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            value = None
        yield Row(line, _named(value) if isinstance(value, dict) else {NOT_A_ROW: "must be a JSON object"})


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """Fields under their names here; what is empty is left out."""
    given = [name.strip().lower() for name in row]
    values = list(row.values())
    found = {}
    for field in NAMES:
        place = _place(field, given)
        if place is not None and values[place] not in (None, ""):
            found[field] = values[place]
    return found


def _place(field: str, given: Sequence[str]) -> int | None:
    return next((given.index(name) for name in NAMES[field] if name in given), None)


# --- one row ------------------------------------------------------------------------------------------------------


def _item(row: Row, problems: list[tuple[str, str]]) -> Item | None:
    """The row as an item; None, and what is wrong with it, for one that can't be taken."""
    check = _Check(row, problems)
    if NOT_A_ROW in row.fields:
        check.wrong(row.fields[NOT_A_ROW])
        return None
    title = check.text("title", longest=None)
    if not title:
        check.wrong("title is required")
    url = check.text("external_url", longest=bounds.URL_MAX)
    if url and not _URL.fullmatch(url):
        check.wrong("external_url must be an address that begins with http:// or https://")
    key = check.text("external_key", longest=EXTERNAL_KEY_MAX)
    status = check.text("status", longest=None).lower()
    resolution = check.text("resolution_type", longest=None).lower().replace(" ", "_").replace("'", "")
    closed = status in CLOSED
    item = Item(
        ref=key or f"line {row.line}",
        url=url or None,
        title=title,
        text=check.text("description", longest=None),
        labels=check.texts("labels"),
        closed=closed,
        resolution=resolution if closed and resolution in set(Resolution) else None,
        request_type=check.text("request_type", longest=REQUEST_TYPE_MAX) or None,
        priority=check.text("priority", longest=TICKET_PRIORITY_MAX) or None,
        blocking=check.flag("blocking"),
        roles=check.roles() or None,
        key=key or title[:EXTERNAL_KEY_MAX],
    )
    return item if check.good else None


class _Check:
    """Reads the fields of one row, and notes what is wrong with them."""

    def __init__(self, row: Row, problems: list[tuple[str, str]]) -> None:
        self._row = row
        self._problems = problems
        self.good = True

    def wrong(self, what: str) -> None:
        self.good = False
        self._problems.append((f"line {self._row.line}", what))

    def text(self, field: str, *, longest: int | None) -> str:
        value = self._row.fields.get(field, "")
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            self.wrong(f"{field} must be a text")
            return ""
        value = value.strip()
        if longest is not None and len(value) > longest:
            self.wrong(f"{field} must be at most {longest} characters long")
        return value

    def texts(self, field: str) -> list[str]:
        """An array of texts, or one text with them by comma."""
        value = self._row.fields.get(field, [])
        if isinstance(value, str):
            value = _SPLIT.split(value)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.wrong(f"{field} must be an array of texts")
            return []
        return [each.strip() for each in value if each.strip()]

    def roles(self) -> list[str]:
        roles = [role.lower() for role in self.texts("roles")]
        for role in roles:
            if role not in ROLES:
                self.wrong(f"roles must be of {', '.join(ROLES)}, not {role[:50]!r}")
        return [role for role in ROLES if role in roles]

    def flag(self, field: str) -> bool | None:
        value = self._row.fields.get(field)
        if value is None or isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word not in TRUE | FALSE:
            self.wrong(f"{field} must be true or false")
        return word in TRUE
