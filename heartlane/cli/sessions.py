"""`heartlane sessions`: browsers that are logged in."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from heartlane.cli.api import LIMIT, All, Api, Limit, connected, is_part_of_id
from heartlane.cli.errors import CODE_OF, CommandError
from heartlane.cli.output import (
    AsJson,
    Column,
    Format,
    Output,
    Row,
    chosen,
    one_line,
    short_id,
    show_change,
    show_list,
    since,
)
from heartlane.client import people_calls

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="See which browsers are logged in, and log them out.",
)


def _state(session: Row) -> str:
    return "active" if session["ended_at"] is None else str(session["end_reason"])


COLUMNS: Final = (
    Column("id", lambda session: short_id(session["id"])),
    Column("token", "token_name"),
    Column("scope", "scope"),
    Column("by", "method"),
    Column("from", "address"),
    Column("logged in", since("created_at")),
    Column("used", since("last_used_at")),
    Column("ends", since("expires_at")),
    Column("state", _state, style={"active": "green"}),
    Column("browser", "user_agent", wide=True),
)


@app.command("list")
def list_(
    *,
    over: Annotated[bool, typer.Option("--over", help="Those that are over, too.")] = False,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List browsers that are logged in: those of this token, or for an admin all within its reach."""
    with connected() as api:
        rows = api.rows(people_calls.sessions(all=over or None), None if everything else limit)
        show_list(
            "sessions",
            rows,
            COLUMNS,
            chosen(output, as_json),
            empty="No browser is logged in.",
            next_cursor=lambda: rows.next_cursor,
        )


@app.command()
def revoke(
    session: Annotated[str, typer.Argument(metavar="ID", help="The session's id, or the beginning or end of it.")],
    *,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Log a browser out, on every server within 2 seconds."""
    with connected() as api:
        answer = api.ask(people_calls.end_session(_session_id(api, session)))
    ended = answer["session"]
    said = f"Session {ended['id']} of {one_line(ended['token_name'])!r} is over ({_state(ended)})."
    show_change("session", answer, said, chosen(output, as_json))


def _session_id(api: Api, text: str) -> str:
    wanted = text.strip().lower()
    found = [row["id"] for row in api.rows(people_calls.sessions(all=True)) if is_part_of_id(wanted, row["id"])]
    if len(found) != 1:
        which = "there is no session" if not found else f"{len(found)} sessions have an id with"
        raise CommandError(f"{which} {one_line(text, 100)!r}", CODE_OF["not_found" if not found else "wrong_input"])
    return str(found[0])
