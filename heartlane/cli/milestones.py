"""`heartlane milestones`: where a project is going."""

from __future__ import annotations

from typing import Annotated

import typer

from heartlane.cli.api import LIMIT, All, Limit, ProjectOption, connected
from heartlane.cli.fields import MILESTONE_COLUMNS, MILESTONE_LINES
from heartlane.cli.output import AsJson, Format, Output, chosen, many_lines, show_list, show_one
from heartlane.client import project_calls

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Make, list and close milestones."
)

Milestone = Annotated[str, typer.Argument(metavar="NAME_OR_ID", help="The milestone's name, or its id.")]


@app.command("list")
def list_(
    *,
    project: ProjectOption = None,
    closed: Annotated[bool, typer.Option("--closed", help="The closed ones instead.")] = False,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List the open milestones of a project, newest first. Without --project: of the only one that there is."""
    with connected() as api:
        call = project_calls.milestones(api.only_project_id(project), status="closed" if closed else "open")
        rows = api.rows(call, None if everything else limit)
        show_list(
            "milestones",
            rows,
            MILESTONE_COLUMNS,
            chosen(output, as_json),
            empty="There is no such milestone.",
            next_cursor=lambda: rows.next_cursor,
        )


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    *,
    project: ProjectOption = None,
    description: Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is about.")] = None,
    due: Annotated[
        str | None, typer.Option("--due", metavar="TIME", help="When it is due, say 2026-12-24T12:00:00Z.")
    ] = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Make a milestone. Takes a token of scope admin."""
    with connected() as api:
        project_id = api.only_project_id(project)
        answer = api.ask(project_calls.create_milestone(project_id, name, description=description, due_at=due))
    show_one("milestone", answer, MILESTONE_LINES, chosen(output, as_json))


@app.command()
def show(
    milestone: Milestone, *, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False
) -> None:
    """Show a milestone."""
    how = chosen(output, as_json)
    with connected() as api:
        project_id = api.only_project_id(project)
        answer = api.ask(project_calls.read_milestone(project_id, api.milestone_id(project_id, milestone)))
    show_one("milestone", answer, MILESTONE_LINES, how)
    if how is Format.TABLE and answer["milestone"]["description"]:
        print(f"\n{many_lines(answer['milestone']['description'])}")


@app.command()
def close(
    milestone: Milestone, *, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False
) -> None:
    """Close a milestone. Takes a token of scope admin."""
    with connected() as api:
        project_id = api.only_project_id(project)
        milestone_id = api.milestone_id(project_id, milestone)
        answer = api.ask(project_calls.patch_milestone(project_id, milestone_id, status="closed"))
    show_one("milestone", answer, MILESTONE_LINES, chosen(output, as_json))
