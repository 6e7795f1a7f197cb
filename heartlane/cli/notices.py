"""`heartlane notices`: what a person should know."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from heartlane.cli.api import LIMIT, All, Limit, ProjectOption, connected
from heartlane.cli.output import AsJson, Column, Format, Output, Row, chosen, short_id, show_list, since
from heartlane.cli.results import show_results, tried
from heartlane.client import news_calls
from heartlane.wire.news import NoticeKindName

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="What needs a person: lanes that failed, stalled or wait, silent workers, plans to approve.",
)


def _standing(row: Row) -> str:
    return "open" if row["closed_at"] is None else str(row["closed_by"])


COLUMNS: Final = (
    Column("ID", lambda row: short_id(row["id"])),
    Column("KIND", "kind"),
    Column("RAISED", since("raised_at")),
    Column("STANDING", _standing, style={"open": "bold yellow", "progress": "dim", "dismissed": "dim"}),
    Column("WHAT", "text", wide=True),
)


@app.command("list")
def list_notices(
    *,
    project: ProjectOption = None,
    closed: Annotated[bool, typer.Option("--closed", help="Those that are closed, too.")] = False,
    kind: Annotated[
        NoticeKindName | None, typer.Option("--kind", metavar="KIND", help="Only of this kind.", show_default=False)
    ] = None,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """The notices that still hold, newest first."""
    with connected() as api:
        call = news_calls.notices(
            project_id=None if project is None else api.project_id(project),
            open=None if closed else True,
            kind=kind,
        )
        rows = api.rows(call, None if everything else limit)
        show_list(
            "notices",
            rows,
            COLUMNS,
            chosen(output, as_json),
            empty="Nothing needs a person.",
            next_cursor=lambda: rows.next_cursor,
        )


@app.command()
def dismiss(
    notices: Annotated[list[str], typer.Argument(metavar="NOTICE…", help="Their ids, or parts of them.")],
    *,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Close notices by hand: they are not told again."""
    with connected() as api:

        def close(notice: str) -> dict[str, Any]:
            return dict(api.ask(news_calls.dismiss_notice(api.notice_id(notice)))["notice"])

        show_results(
            (tried(notice, lambda: close(notice)) for notice in notices),  # noqa: B023 - called at once
            "notice",
            lambda notice: f"{short_id(notice['id'])} ({notice['kind']}): {_standing(notice)}",
            chosen(output, as_json),
        )
