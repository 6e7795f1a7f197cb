"""What every reading verb prints: a table for people, or the API's own JSON for programs.

A verb takes `output: Output = Format.TABLE, as_json: AsJson = False`, and ends with one of

    show_list("runs", rows, COLUMNS, chosen(output, as_json), empty="There are no lanes.")
    show_one("run", answer, LINES, chosen(output, as_json))

where rows and answer are dictionaries as the API answers them (`heartlane.cli.api` reads them so). JSON is these,
unchanged; only a table makes words of them. What a table shows is hostile text: agents, tickets and users of other
tools wrote it. It is made harmless here, in `one_line` and `many_lines`, and nowhere else.

Colours come on a terminal alone. NO_COLOR (any value) takes them away, FORCE_COLOR brings them into a pipe.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TextIO

import typer

from heartlane.worker.text import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Row = Mapping[str, Any]


class Format(StrEnum):
    """How a verb prints what it has read."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


Output = Annotated[
    Format,
    typer.Option("--output", "-o", help="For people, or as the API's JSON: one document, or a line for each thing."),
]
AsJson = Annotated[bool, typer.Option("--json", help="The same as --output json.")]


def chosen(output: Format, as_json: bool) -> Format:
    """What both options say together."""
    return Format.JSON if as_json else output


class Column(NamedTuple):
    """One column of a table, or one line of a thing that is shown alone.

    heading     what stands above it
    value       the field it shows, or what makes the cell of a row
    wide        takes the room that others leave, and is cut first where there is too little
    right       numbers
    style       of a cell, by its text: a style's name, or a mapping of texts to styles
    least       only where the table is at least so many characters wide
    most        characters of a cell, in a table that is too wide otherwise
    """

    heading: str
    value: str | Callable[[Row], Any]
    wide: bool = False
    right: bool = False
    style: str | Mapping[str, str] = ""
    least: int = 0
    most: int | None = None


STATE_STYLES: Final[Mapping[str, str]] = {
    "queued": "dim",
    "released": "dim",
    "claimed": "cyan",
    "running": "green",
    "shipping": "bold green",
    "shipped": "blue",
    "paused": "yellow",
    "failed": "bold red",
    # plans
    "pending": "yellow",
    "approved": "green",
    "rejected": "red",
    # tickets and milestones
    "open": "green",
    "closed": "dim",
}
"""What a state looks like, wherever one is shown."""

# --- text ---------------------------------------------------------------------------------------------------------

UNBOUNDED: Final = 100_000
"""Characters of a line in a pipe."""
CELL_MAX: Final = 500
"""Characters of one cell; no terminal shows more in a line."""
_NOT_PLAIN_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_INVISIBLE: Final = dict.fromkeys((*range(0x200B, 0x200E), 0x2060, 0xFEFF, 0x00AD))


def one_line(value: Any, limit: int = CELL_MAX) -> str:
    """Any text on one line, without what a terminal would obey, and cut to `limit` characters.

    >>> one_line("a\\x1b[31m\\n  b\\u202e")
    'a b<U+202E>'
    """
    text = " ".join(plain(str(value)[: 4 * limit]).translate(_INVISIBLE).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def many_lines(value: Any) -> str:
    """The same with its lines kept, whole: for prompts and descriptions."""
    return plain(str(value).replace("\r\n", "\n")).translate(_INVISIBLE).expandtabs(4).rstrip()


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text, other languages readable, with what a terminal would obey escaped.

    >>> to_json({"a": "é\\x9b\\u202e"})
    '{"a": "é\\\\u009b\\\\u202e"}'
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _NOT_PLAIN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def short_id(value: Any) -> str:
    """The end of an id: its beginning is the time it was made at, and so the same in all the lanes of a plan.

    >>> short_id("01a20d4a-14d6-7c76-a740-51170ff431a4")
    '0ff431a4'
    """
    return one_line(value)[-8:]


# --- times --------------------------------------------------------------------------------------------------------

_SPANS: Final = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span(seconds: float) -> str:
    """A span of time in its largest unit.

    >>> span(7), span(200), span(90_000)
    ('7 s', '3 min', '1 d')
    """
    for length, name in _SPANS:
        if seconds >= length:
            return f"{int(seconds // length)} {name}"
    return "0 s"


def parse_time(value: Any) -> datetime | None:
    """A time as the API sends it; None for anything else."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else None


def ago(value: Any, now: datetime | None = None) -> str:
    """How long ago, or how long until; "" for no time.

    >>> ago("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 9, 5, tzinfo=UTC))
    '5 min ago'
    """
    moment = parse_time(value)
    if moment is None:
        return "" if value is None else one_line(value)
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def since(field: str) -> Callable[[Row], str]:
    """What makes a column's cell of a field that holds a time."""
    return lambda row: ago(row.get(field))


# --- printing -----------------------------------------------------------------------------------------------------


def is_live(stream: TextIO) -> bool:
    """Whether somebody sits before it, at a terminal that can do more than print."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def console(stream: TextIO | None = None) -> Console:
    """A console that takes all text as it is. In a pipe it is as wide as what is printed, so that nothing is cut."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else UNBOUNDED
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def show_list(
    key: str,
    rows: Iterable[Row],
    columns: Sequence[Column],
    how: Format,
    *,
    empty: str,
    next_cursor: Callable[[], str | None] = lambda: None,
    beside: Callable[[], Row] = dict,
) -> None:
    """Print a list: as a table, as `{key: [...], "next_cursor": …}` like the API, or a line of JSON for each row.

    empty           what is said on stderr in place of a table without rows
    next_cursor     asked once all rows are taken: where the next page begins, None after the last
    beside          asked then, too: what the API says besides
    """
    if how is Format.JSONL:
        for row in rows:
            print(to_json(row), flush=True)
        return
    taken = list(rows)
    cursor = next_cursor()
    if how is Format.JSON:
        print(to_json({key: taken, "next_cursor": cursor, **beside()}, indent=2))
        return
    if taken:
        print_rows(taken, columns)
    else:
        print(empty, file=sys.stderr)
    if cursor is not None:
        note(f"{len(taken)} shown, and there are more: --limit N or --all shows them.")


def show_one(key: str, answer: Row, lines: Sequence[Column], how: Format) -> None:
    """Print one thing: a line for each field that has a value; or the API's answer; or, as JSONL, the thing alone.

    answer      as the API gives it: the thing under `key`, and whatever comes beside it
    """
    if how is Format.JSON:
        print(to_json(answer, indent=2))
    elif how is Format.JSONL:
        print(to_json(answer[key]))
    else:
        print_lines(answer[key], lines)


def show_change(key: str, answer: Row, said: str, how: Format) -> None:
    """Say on stderr what was changed; or print the changed thing, as `show_one` does."""
    if how is Format.TABLE:
        note(said)
    else:
        show_one(key, answer, (), how)


def print_rows(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Print a table."""
    from rich.table import Table

    out = console()
    bounded = out.width < UNBOUNDED
    columns = [column for column in columns if out.width >= column.least]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.expand = bounded and any(column.wide for column in columns)
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            overflow="ellipsis",
            no_wrap=True,
            ratio=1 if column.wide and bounded else None,
            max_width=column.most if bounded else None,
        )
    for row in rows:
        table.add_row(*[cell(row, column) for column in columns])
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def print_lines(thing: Row, lines: Sequence[Column]) -> None:
    """Print one thing, a line for each field that has a value."""
    from rich.text import Text

    out = console()
    shown = [(line.heading, cell(thing, line)) for line in lines]
    shown = [(heading, text) for heading, text in shown if text.plain]
    width = max((len(heading) for heading, _ in shown), default=0) + 2
    for heading, text in shown:
        out.print(Text.assemble((f"{heading}:".ljust(width), "dim"), text), soft_wrap=True)


def cell(row: Row, column: Column) -> Text:
    """One cell, harmless, in its style."""
    from rich.text import Text

    value = row.get(column.value) if isinstance(column.value, str) else column.value(row)
    text = "" if value is None else "yes" if value is True else "no" if value is False else one_line(value)
    style = column.style if isinstance(column.style, str) else column.style.get(text, "")
    return Text(text, style)


def note(text: str) -> None:
    """Say something beside what was asked for, on stderr, and after what was printed before."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal before something that can't be taken back. Raises CommandError unless it is to be done.

    question    says what will happen, and ends with a question mark
    yes         `--yes`: it was said already
    """
    from heartlane.cli.errors import CODE_OF, CommandError

    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError("this asks first, and there is nobody to ask here: add --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was done", CODE_OF["declined"])


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
