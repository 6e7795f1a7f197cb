"""`heartlane workers`: who is here, what each of them holds, and who waits for a lane."""

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
    """List the workers: which lanes they hold, who waits for one, who is silent, who was here in the last day."""
    with connected() as api:
        project_id = None if project is None else api.project_id(project)
        rows = api.rows(calls.workers(project_id=project_id), None if everything else limit)
        show_list(
            "workers",
            rows,
            WORKER_COLUMNS,
            chosen(output, as_json),
            empty="No worker is here, and none was in the last day.",
            next_cursor=lambda: rows.next_cursor,
        )
