"""How the live board looks: its lines for a terminal of any size, from the board's lanes and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from heartlane.cli.board import NEEDS_A_HAND, Board, Heading, Json
from heartlane.cli.fields import LANE_LINES, attention, count, dollars, last_line, lease_left, tokens
from heartlane.cli.full_screen import Line, Span, fitted
from heartlane.cli.output import STATE_STYLES, Column, many_lines, one_line

HELP: Final = (
    ("↑ ↓  j k", "choose a lane; PgUp, PgDn, Home and End go further"),
    ("Enter", "all about the lane; Esc goes back"),
    ("p  r", "pause the lane; let it go on"),
    ("c", "cancel it: it ends as failed"),
    ("t", "try a failed one again"),
    ("/", "show only lanes with these words; Esc shows all again"),
    ("a", "only what needs a hand, or all"),
    ("e", "hide lanes that have ended, or show them"),
    ("?", "this"),
    ("q", "end"),
)
KEYS_LINES: Final = (
    "↑↓ choose  ⏎ details  p pause  r resume  c cancel  t retry  / find  a needs a hand  ? keys  q quit",
    "⏎ details  p pause  r resume  c cancel  t retry  / find  ? keys  q quit",
    "⏎ p r c t / a  ? keys  q quit",
    "? keys  q quit",
)
"""The first that fits stands at the foot."""
TOO_SMALL: Final = (28, 5)
"""Columns and lines below which there is no board."""


class Field(NamedTuple):
    """One column of the board: its width, what is in it, and from which width of the terminal on it is there."""

    heading: str
    width: int
    value: Callable[[Json], str]
    least: int = 0
    style: str | Mapping[str, str] = ""
    right: bool = False


def _where(run: Json) -> str:
    why = attention(run)
    return why or one_line(run["phase"] or "", 40)


FIELDS: Final = (
    Field("lane", 22, lambda run: one_line(run["lane_key"], 60)),
    Field("role", 8, lambda run: one_line(run["role"], 12), least=110),
    Field("state", 8, lambda run: one_line(run["state"], 12), least=40, style=STATE_STYLES),
    Field("phase", 15, _where, least=60),
    Field("holder", 20, lambda run: one_line(run["worker_id"] or "", 60), least=100),
    Field("lease", 6, lease_left, least=80, right=True),
    Field("tokens", 6, lambda run: count(tokens(run)), least=140, right=True),
    Field("USD", 6, lambda run: dollars(run.get("cost_usd")), least=140, right=True),
)
GAP: Final = "  "


class View(NamedTuple):
    """What of the board is on the screen.

    top         the first entry that is shown
    typing      the words being typed to look for, or None
    asking      a question that is waiting for y, or None
    said        what came of the last key
    details     whether the chosen lane is shown alone, with these lines of its log
    helping     whether the keys are shown
    """

    top: int = 0
    typing: str | None = None
    asking: str | None = None
    said: str = ""
    details: tuple[str, ...] | None = None
    helping: bool = False


def lines_of(board: Board, view: View, size: tuple[int, int], url: str, now: datetime) -> tuple[list[Line], int]:
    """The lines of the screen, and the first entry that is shown: the chosen lane is always among them."""
    columns, rows = size
    if columns < TOO_SMALL[0] or rows < TOO_SMALL[1]:
        return [(Span("too small"),)], view.top
    head = [_title(board, url, columns), _totals(board, columns)]
    foot = [_foot(board, view, columns)]
    room = rows - len(head) - len(foot)
    body: list[Line]
    if view.helping:
        body, top = [(Span(f"  {keys:<10}", "bold"), Span(what)) for keys, what in HELP], view.top
    elif view.details is not None:
        body, top = _details(board, view.details, columns, room), view.top
    else:
        body, top = _table(board, view, columns, room, now)
    body = body[:room]
    return [*head, *body, *[(Span(""),)] * (room - len(body)), *foot], top


def _title(board: Board, url: str, columns: int) -> Line:
    link = one_line(board.link_text, 200)
    left = f"Heartlane  {one_line(url, 80)}"
    room = max(0, columns - len(left) - 2)
    style = "green" if board.link_good else "bold yellow"
    return (Span(fitted(left, columns - min(room, len(link))), "bold"), Span(fitted(link, min(room, len(link))), style))


def _totals(board: Board, columns: int) -> Line:
    if not board.loaded:
        return (Span("loading …", "dim"),)
    counts = board.counts
    parts = [(f"{counts[NEEDS_A_HAND]} need a hand", "bold yellow" if counts[NEEDS_A_HAND] else "dim")]
    parts += [
        (f"{counts[state]} {state}", STATE_STYLES.get(state, ""))
        for state in ("running", "shipping", "claimed", "paused", "queued", "released", "shipped", "failed")
        if counts[state]
    ]
    found = board.narrowing
    if len(board.shown) < len(board.runs):
        why = " ".join(filter(None, (found.search and f"/{found.search}", "needs a hand" if found.attention else "")))
        parts.append((f"{len(board.shown)} of {len(board.runs)} shown{' ' + one_line(why, 40) if why else ''}", "bold"))
    spans = []
    for place, (text, style) in enumerate(parts):
        spans += [Span("  ·  " if place else "", "dim"), Span(text, style)]
    return tuple(spans)


def _foot(board: Board, view: View, columns: int) -> Line:
    if view.typing is not None:
        return (Span(f"/{one_line(view.typing, 200)}█", "bold"),)
    if view.asking is not None:
        return (Span(one_line(view.asking), "bold yellow"),)
    if view.said:
        return (Span(one_line(view.said)),)
    if view.helping or view.details is not None:
        return (Span("Esc goes back", "dim"),)
    return (Span(next((line for line in KEYS_LINES if len(line) <= columns), ""), "dim"),)


def _table(board: Board, view: View, columns: int, room: int, now: datetime) -> tuple[list[Line], int]:
    entries = board.entries
    if not entries:
        none = "There are no lanes yet: heartlane plan create makes some." if board.loaded else ""
        return [(Span("No lane fits; Esc shows all." if board.runs else none, "dim"),)], 0
    fields = [field for field in FIELDS if columns >= field.least]
    widths = sum(field.width + len(GAP) for field in fields)
    rest = max(0, columns - widths - 2)
    heads = "".join(fitted(field.heading, field.width, right=field.right) + GAP for field in fields)
    lines: list[Line] = [(Span(f"  {heads}{'last line' if rest > 8 else ''}", "dim"),)]
    room -= 1
    chosen = next(
        (
            place
            for place, entry in enumerate(entries)
            if not isinstance(entry, Heading) and entry["id"] == board.chosen
        ),
        0,
    )
    top = min(view.top, max(0, len(entries) - room))
    if chosen < top or (chosen == 1 and top == 1):
        # With the heading above it where that is what comes before.
        top = chosen - 1 if isinstance(entries[chosen - 1], Heading) else chosen
    elif chosen >= top + room:
        top = chosen - room + 1
    for entry in entries[top : top + room]:
        if isinstance(entry, Heading):
            style = "bold yellow" if entry.text == NEEDS_A_HAND else "bold"
            lines.append((Span(f"{entry.text} ({entry.size})", style),))
        else:
            lines.append(_row(entry, fields, rest, entry["id"] == board.chosen, now))
    return lines, top


def _row(run: Json, fields: list[Field], rest: int, chosen: bool, now: datetime) -> Line:
    spans = [Span("> " if chosen else "  ", "bold")]
    for field in fields:
        text = lease_left(run, now) if field.value is lease_left else field.value(run)
        style = field.style if isinstance(field.style, str) else field.style.get(text, "")
        if field.value is _where and run["needs_attention"] is not None:
            style = "bold yellow"
        spans.append(Span(fitted(text, field.width, right=field.right), style))
        spans.append(Span(GAP))
    spans.append(Span(fitted(last_line(run), rest), "dim" if not chosen else ""))
    return tuple(span._replace(style=f"{span.style} reverse".strip()) for span in spans) if chosen else tuple(spans)


def _details(board: Board, log: tuple[str, ...], columns: int, room: int) -> list[Line]:
    run = board.run_chosen()
    if run is None:
        return [(Span("This lane is gone.", "dim"),)]
    lines: list[Line] = []
    for line in LANE_LINES:
        text, style = _cell(run, line)
        if text:
            lines.append((Span(f"{line.heading:<14}", "dim"), Span(fitted(text, max(0, columns - 14)).rstrip(), style)))
    left = room - len(lines) - 1
    if left > 1 and log:
        lines.append((Span(""),))
        lines += [(Span(fitted(many_lines(text).split("\n")[0], columns).rstrip(), "dim"),) for text in log[-left:]]
    return lines


def _cell(run: Json, line: Column) -> tuple[str, str]:
    value = run.get(line.value) if isinstance(line.value, str) else line.value(run)
    text = "" if value is None else one_line(value)
    return text, line.style if isinstance(line.style, str) else line.style.get(text, "")
