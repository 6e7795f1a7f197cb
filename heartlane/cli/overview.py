"""`heartlane overview`: how the work goes, of one project or of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from heartlane.cli.api import Json, ProjectOption, connected
from heartlane.cli.fields import count, dollars
from heartlane.cli.output import AsJson, Column, Format, Output, Row, chosen, one_line, print_rows, show_one, span
from heartlane.client import overview_calls

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

LANES: Final = ("queued", "claimed", "running", "paused", "shipping", "released", "shipped", "failed")


def _named(*fields: str) -> Any:
    return lambda row: " ".join(str(row[field]) for field in fields if row[field]) or "unknown"


def _used(heading: str, value: Any) -> Sequence[Column]:
    return (
        Column(heading, value, most=40),
        Column("attempts", "attempts", right=True),
        Column("shipped", "shipped", right=True),
        Column("failed", "failed", right=True),
        Column("tokens in", lambda row: count(row["input_tokens"]), right=True),
        Column("tokens out", lambda row: count(row["output_tokens"]), right=True),
        Column("USD", lambda row: dollars(row["cost_usd"]), right=True),
    )


def _seconds(field: str) -> Any:
    return lambda row: span(row[field])


TABLES: Final[Sequence[tuple[str, Sequence[Column]]]] = (
    ("days", _used("day", "day")),
    ("projects", _used("project", "name")),
    ("roles", _used("role", "role")),
    ("agents", _used("agent", _named("agent", "model"))),
    (
        "phases",
        (
            Column("phase", "phase", most=40),
            Column("times", "count", right=True),
            Column("median", _seconds("median_seconds"), right=True),
            Column("9 of 10 within", _seconds("p90_seconds"), right=True),
        ),
    ),
    ("failures", (Column("failed because of", "reason", most=60), Column("times", "count", right=True))),
)
"""The answer's lists, as they are shown one below the other."""


@app.command()
def overview(
    *,
    project: ProjectOption = None,
    days: Annotated[int, typer.Option("--days", metavar="N", help="So many days of UTC, today the last.")] = 14,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """How the work goes: lanes by state, throughput, time in each phase, failures, tokens and cost."""
    how = chosen(output, as_json)
    with connected() as api:
        project_id = None if project is None else api.project_id(project)
        answer = api.ask(overview_calls.read_overview(project_id=project_id, days=days))
    if how is not Format.TABLE:
        show_one("overview", answer, (), how)
        return
    found: Json = answer["overview"]
    lanes = [f"{found['lanes'][state]:,} {state}" for state in LANES if found["lanes"].get(state)]
    print(f"lanes:  {', '.join(lanes) or 'none'}")
    print(f"shipped a day:  {_rate(found['shipped_per_day'])}")
    print(f"since {one_line(found['since'])}:  {_whole(found['total'])}")
    for name, columns in TABLES:
        rows = [row for row in found[name] if name != "days" or row["attempts"] or row["cost_usd"]]
        if rows:
            print()
            print_rows(rows, columns)


def _rate(a_day: float) -> str:
    """A mean that is small is no zero.

    >>> _rate(0), _rate(1 / 70), _rate(2.5), _rate(1234.0)
    ('0', '0.014', '2.5', '1,234')
    """
    return f"{a_day:.2g}" if a_day < 10 else f"{a_day:,.0f}"


def _whole(total: Row) -> str:
    return (
        f"{total['attempts']:,} attempts, {total['shipped']:,} shipped, {total['failed']:,} failed; "
        f"{total['input_tokens'] + total['output_tokens']:,} tokens, {dollars(total['cost_usd'])} USD"
    )
