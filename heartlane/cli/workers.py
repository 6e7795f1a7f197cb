"""`heartlane workers`: who is here, and what each of them holds."""

from __future__ import annotations

import typer

from heartlane.cli.api import LIMIT, All, Limit, ProjectOption, connected
from heartlane.cli.fields import WORKER_COLUMNS
from heartlane.cli.output import AsJson, Format, Output, chosen, show_list
from heartlane.client import calls

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def workers(
    *,
    project: ProjectOption = None,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List the workers that hold lanes: which lanes, since when, and when each was last heard."""
    with connected() as api:
        project_id = None if project is None else api.project_id(project)
        rows = api.rows(calls.workers(project_id=project_id), None if everything else limit)
        show_list(
            "workers",
            rows,
            WORKER_COLUMNS,
            chosen(output, as_json),
            empty="No worker holds a lane.",
            next_cursor=lambda: rows.next_cursor,
        )
