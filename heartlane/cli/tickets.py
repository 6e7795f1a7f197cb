"""`heartlane tickets`: what is wanted, of which roles, and from where it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer

from heartlane.cli.api import LIMIT, All, Limit, ProjectOption, connected
from heartlane.cli.complete import roles as role_names
from heartlane.cli.errors import CommandError
from heartlane.cli.fields import TICKET_COLUMNS, TICKET_LINES
from heartlane.cli.lanes import checked
from heartlane.cli.output import AsJson, Format, Output, chosen, many_lines, one_line, short_id, show_list, show_one
from heartlane.cli.results import show_results, tried
from heartlane.cli.tickets_github import app as github_app
from heartlane.cli.tickets_import import app as import_app
from heartlane.client import project_calls
from heartlane.client.call import Call
from heartlane.lanes.run import Role
from heartlane.wire.names import ResolutionName, StageName

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make, list, move, close and import tickets.",
)

app.add_typer(import_app, name="import")
app.add_typer(github_app, name="github")

Ticket = Annotated[str, typer.Argument(metavar="TICKET", help="Its title, its id, or the beginning or end of its id.")]
Tickets = Annotated[list[str], typer.Argument(metavar="TICKET...", help="Titles, ids, or the ends of ids.")]
STAGES = get_args(StageName)
RESOLUTIONS = get_args(ResolutionName)


def _one_of(flag: str, value: str | None, names: tuple[str, ...]) -> Any:
    if value is not None and value not in names:
        raise CommandError(f"{flag} must be one of {', '.join(names)}, not {value!r}")
    return value


@app.command("list")
def list_(
    *,
    project: ProjectOption = None,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="STAGE", help=f"Only of this stage: {', '.join(STAGES)}.")
    ] = None,
    milestone: Annotated[
        str | None, typer.Option("--milestone", metavar="NAME_OR_ID", help="Only of this milestone.")
    ] = None,
    closed: Annotated[bool, typer.Option("--closed", help="The closed ones instead.")] = False,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List the open tickets of a project, newest first. Without --project: of the only one that there is."""
    _one_of("--stage", stage, STAGES)
    with connected() as api:
        project_id = api.only_project_id(project)
        call = project_calls.tickets(
            project_id,
            status="closed" if closed or stage == "live" else "open",
            stage=stage,  # type: ignore[arg-type]  # checked above
            milestone_id=None if milestone is None else api.milestone_id(project_id, milestone),
        )
        rows = api.rows(call, None if everything else limit)
        show_list(
            "tickets",
            rows,
            TICKET_COLUMNS,
            chosen(output, as_json),
            empty="There is no such ticket.",
            next_cursor=lambda: rows.next_cursor,
        )


@app.command()
def show(
    ticket: Ticket, *, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False
) -> None:
    """Show a ticket."""
    how = chosen(output, as_json)
    with connected() as api:
        project_id = api.only_project_id(project)
        answer = api.ask(project_calls.read_ticket(project_id, api.ticket_id(project_id, ticket)))
    show_one("ticket", answer, TICKET_LINES, how)
    if how is Format.TABLE:
        print(f"\n{many_lines(answer['ticket']['description'])}")


@app.command()
def create(
    title: Annotated[str, typer.Argument(metavar="TITLE", help="5 to 140 characters.")],
    *,
    description: Annotated[str, typer.Option("--description", "-d", metavar="TEXT", help="10 to 5000 characters.")],
    project: ProjectOption = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role", "-r", metavar="ROLE", help="Who works on it; may be repeated.", autocompletion=role_names
        ),
    ] = None,
    kind: Annotated[str, typer.Option("--type", metavar="WORD", help="What it is: feature, bug, …")] = "feature",
    priority: Annotated[
        str, typer.Option("--priority", metavar="WORD", help="critical, high, normal, low.")
    ] = "normal",
    blocking: Annotated[bool, typer.Option("--blocking", help="Somebody can't go on without it.")] = False,
    milestone: Annotated[
        str | None, typer.Option("--milestone", metavar="NAME_OR_ID", help="The milestone it belongs to.")
    ] = None,
    external_url: Annotated[
        str | None, typer.Option("--external-url", metavar="URL", help="The same ticket elsewhere.")
    ] = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Make a ticket."""
    roles = checked("--role", role or [], Role)
    with connected() as api:
        project_id = api.only_project_id(project)
        call = project_calls.create_ticket(
            project_id,
            title=title,
            description=description,
            request_type=kind,
            priority=priority,
            blocking=blocking,
            roles=roles,
            milestone_id=None if milestone is None else api.milestone_id(project_id, milestone),
            external_url=external_url,
        )
        answer = api.ask(call)
    show_one("ticket", answer, TICKET_LINES, chosen(output, as_json))


@app.command()
def move(
    tickets: Tickets,
    *,
    stage: Annotated[str, typer.Option("--to", metavar="STAGE", help=f"Where to: {', '.join(STAGES)}.")],
    project: ProjectOption = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Move tickets to a stage; live closes them."""
    _one_of("--to", stage, STAGES)
    _change(tickets, project, chosen(output, as_json), lambda *ids: project_calls.patch_ticket(*ids, stage=stage))  # type: ignore[arg-type]


@app.command()
def close(
    tickets: Tickets,
    *,
    resolution: Annotated[
        str, typer.Option("--as", metavar="RESOLUTION", help=f"How they ended: {', '.join(RESOLUTIONS)}.")
    ] = "completed",
    project: ProjectOption = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Close tickets. One whose roles are not all done is refused."""
    name = _one_of("--as", resolution, RESOLUTIONS)
    _change(
        tickets,
        project,
        chosen(output, as_json),
        lambda *ids: project_calls.patch_ticket(*ids, status="closed", resolution_type=name),
    )


@app.command("open")
def open_(
    tickets: Tickets, *, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False
) -> None:
    """Open closed tickets again."""
    _change(tickets, project, chosen(output, as_json), lambda *ids: project_calls.patch_ticket(*ids, status="open"))


def _change(tickets: list[str], project: str | None, how: Format, build: Callable[[str, str], Call[Any]]) -> None:
    with connected() as api:
        project_id = api.only_project_id(project)

        def change(ticket: str) -> dict[str, Any]:
            return dict(api.ask(build(project_id, api.ticket_id(project_id, ticket)))["ticket"])

        show_results(
            (tried(ticket, lambda: change(ticket)) for ticket in tickets),  # noqa: B023 - called at once
            "ticket",
            lambda ticket: f"{one_line(ticket['title'])} ({short_id(ticket['id'])}): {ticket['stage']}",
            how,
        )
