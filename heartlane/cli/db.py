"""`heartlane db`: what is done with a database itself, beside its servers or without them.

`serve` brings the schema up to date by itself. What each verb does stands in `heartlane.store`; here is what it says.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from heartlane.cli.db_backup import backup, restore
from heartlane.cli.db_export import export
from heartlane.cli.db_move import move
from heartlane.cli.db_options import Database
from heartlane.cli.db_prune import prune
from heartlane.cli.errors import CODE_OF, UNUSABLE
from heartlane.cli.output import AsJson

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Bring the database up to date, check, back up, restore, prune, export and move it.",
)


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
    elif before.newer:
        print(f"{url} has schema {before.current} of a newer version, which this one can work with.")
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
def check(
    database: Database = None,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what takes long: every run against its log, indexes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look for anything wrong: the schema, damaged pages, what must always hold, and every run against its log.

    Changes nothing, and may run beside a server. Nothing wrong: exit 0. Something is wrong with what is stored: a line
    each and exit 50. The schema is not this version's, or the database can't be reached: exit 1.
    """
    from heartlane.server.settings import load_database
    from heartlane.store.check import check as check_database

    url = load_database(database)
    found = check_database(url.reveal(), quick=quick)
    if as_json:
        problems = [{"kind": each.kind, "run_id": each.run_id, "message": each.message} for each in found.problems]
        checked = {"runs": found.runs, "events": found.events}
        print(
            json.dumps(
                {
                    "database": str(url),
                    "schema": found.schema,
                    "problems": problems,
                    "more_problems": found.more,
                    "checked": checked,
                }
            )
        )
    else:
        for problem in found.problems:
            print(problem)
        if found.more:
            print(f"And {found.more} more.")
        if not found.problems:
            print("No problem found." if quick else f"No problem found in {found.runs} runs and {found.events} events.")
    if found.problems:
        raise typer.Exit(CODE_OF["damaged"] if found.damaged else UNUSABLE)


app.command()(backup)
app.command()(restore)
app.command()(prune)
app.command()(export)
app.command()(move)
