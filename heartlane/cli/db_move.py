"""`heartlane db move`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from heartlane.cli.errors import CommandError
from heartlane.cli.output import AsJson


def move(
    old: Annotated[str, typer.Argument(metavar="FROM", help="sqlite:///path or postgresql://…", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="TO", help="The same; it has to be empty.", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """Move a database to another one, from SQLite to PostgreSQL or back, while no server runs on either.

    All of it or nothing: a move that breaks off has done nothing. At the end both sides are read and compared, table by
    table; what is printed are the rows and the digest that both have. The old database is left as it is.
    """
    from heartlane.server.settings import load_database
    from heartlane.store.move import move as move_database

    source, target = load_database(old), load_database(new)
    if source.reveal() == target.reveal():
        raise CommandError("FROM and TO are the same database.")
    target.prepare_folder()
    moved = move_database(source.reveal(), target.reveal())
    if as_json:
        tables = [{"table": each.table, "rows": each.rows, "digest": each.digest} for each in moved]
        print(json.dumps({"from": str(source), "to": str(target), "tables": tables}))
        return
    for each in moved:
        print(f"{each.table:<20} {each.rows:>10}  {each.digest[:32]}")
    print(f"Moved {sum(each.rows for each in moved)} rows from {source} to {target}; both sides are equal.")
    if source.path is not None and source.path.with_name(f"{source.path.name}.key").exists():
        print(
            f"The key to its sealed secrets is still in {source.path}.key: set it as HEARTLANE_SECRET_KEY on every "
            "server.",
            file=sys.stderr,
        )
