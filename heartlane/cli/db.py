"""`heartlane db`: the database's schema. `serve` brings it up to date by itself; these are for doing it apart."""

from __future__ import annotations

from typing import Annotated

import typer

from heartlane.cli.errors import UNUSABLE

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Bring the database up to date, and see how it stands.",
)

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="sqlite:///path or postgresql://…. Default: HEARTLANE_DATABASE, else a file in the user's data folder.",
        show_default=False,
    ),
]


@app.command()
def upgrade(database: Database = None) -> None:
    """Run the migrations that are pending. Safe beside running servers, and to repeat."""
    from heartlane.server.settings import load_database
    from heartlane.store import upgrade as schema

    url = load_database(database)
    url.prepare_folder()
    before = schema.upgrade(url.reveal())
    if before.pending:
        print(f"Upgraded {url} from schema {before.current or 'none'} to {before.head}.")
    else:
        print(f"{url} has schema {before.head} already.")


@app.command()
def status(database: Database = None) -> None:
    """Say which schema the database has, and what is pending. Changes nothing."""
    from heartlane.server.settings import load_database
    from heartlane.store import upgrade as schema

    url = load_database(database)
    found = schema.status(url.reveal())
    print(f"database: {url}")
    print(f"schema:   {found.current or 'none'}")
    print(f"newest:   {found.head}")
    print(f"pending:  {', '.join(found.pending) or 'nothing'}")


@app.command()
def check(database: Database = None) -> None:
    """Look for anything wrong with the schema: a line each and exit 1; nothing wrong: exit 0."""
    from heartlane.server.settings import load_database
    from heartlane.store import upgrade as schema

    url = load_database(database)
    problems = schema.check(url.reveal())
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(UNUSABLE)
    print("No problem found.")
