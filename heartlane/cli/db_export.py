"""`heartlane db export`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from heartlane.cli.db_options import Database
from heartlane.cli.errors import CommandError
from heartlane.cli.output import AsJson


class Kind(StrEnum):
    """How tables are written."""

    JSONL = "jsonl"
    PARQUET = "parquet"


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that isn't there.", show_default=False)],
    database: Database = None,
    *,
    kind: Annotated[Kind, typer.Option("--format", help="JSON lines, or Parquet (needs heartlane[parquet]).")] = (
        Kind.JSONL
    ),
    table: Annotated[
        list[str] | None, typer.Option("--table", metavar="NAME", help="Only this table; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write everything that the database holds into files, one a table, as it was at one moment. Never secrets.

    May run beside servers. `events` has one line for each event. `manifest.json` says what each file holds.
    """
    from heartlane.server.settings import load_database
    from heartlane.store.export import ExportRefused
    from heartlane.store.export import export as export_database

    url = load_database(database)
    path = folder.absolute()
    if not path.parent.is_dir():
        raise CommandError(f"There is no folder {path.parent}.")
    try:
        done = export_database(url.reveal(), path, str(kind), tables=table or ())
    except ExportRefused as error:
        raise CommandError(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise CommandError("Parquet needs pyarrow: install heartlane[parquet].") from error
    if as_json:
        print(json.dumps({"folder": str(path), "files": [each._asdict() for each in done]}))
        return
    for each in done:
        print(f"{each.file:<28} {each.rows:>10}")
    print(f"Exported {sum(each.rows for each in done)} rows to {path}.")
