"""`heartlane db prune`."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Annotated, Final

import typer

from heartlane.cli.db_options import Database
from heartlane.cli.durations import parse_duration
from heartlane.cli.errors import UNUSABLE, CommandError
from heartlane.cli.output import AsJson

AGE_MIN: Final = timedelta(hours=1)
"""Younger events are what streams and people are about to read."""


def prune(
    events_older_than: Annotated[
        str, typer.Option("--events-older-than", metavar="AGE", help="How old: 30d, 12w.", show_default=False)
    ],
    database: Database = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take old events of lanes that have ended out of the log, beside running servers, in small steps.

    Lanes that have not ended keep their whole log. Lanes themselves, their plans and tickets stay. SQLite: the room is
    used again, and the file doesn't shrink. PostgreSQL: whole weeks go, by dropping their partitions.
    """
    from heartlane.server.settings import load_database
    from heartlane.store.prune import prune_events
    from heartlane.store.upgrade import status

    age = parse_duration("--events-older-than", events_older_than)
    if age < AGE_MIN:
        raise CommandError("--events-older-than must be at least 1h")
    url = load_database(database)
    pending = status(url.reveal()).pending
    if pending:
        raise CommandError(
            f"The schema is not up to date (pending: {', '.join(pending)}). Run: heartlane db upgrade", UNUSABLE
        )
    pruned = prune_events(url.reveal(), age, dry_run=dry_run)
    before = pruned.before.isoformat(timespec="seconds").replace("+00:00", "Z")
    if as_json:
        said = {"before": before, "rows": pruned.rows, "events": pruned.events, "partitions": list(pruned.partitions)}
        longest = round(pruned.longest * 1000, 1)
        print(json.dumps({**said, "waiting": list(pruned.waiting), "longest_step_ms": longest, "dry_run": dry_run}))
    else:
        verb = "Would take out" if dry_run else "Took out"
        weeks = f", {len(pruned.partitions)} whole weeks dropped" if pruned.partitions and not dry_run else ""
        print(f"{verb} {pruned.events} events in {pruned.rows} rows from before {before}{weeks}.")
    if pruned.waiting:
        names = ", ".join(pruned.waiting)
        print(f"heartlane: somebody reads the log all the time; still there: {names}", file=sys.stderr)
        raise typer.Exit(UNUSABLE)
