"""`heartlane plan`: plans from files, looked at, approved and rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from heartlane.cli.api import LIMIT, All, Api, Json, Limit, ProjectOption, connected
from heartlane.cli.errors import CODE_OF, UNUSABLE, CommandError
from heartlane.cli.fields import LANE_COLUMNS, PLAN_COLUMNS, PLAN_LINES, PLANNED_COLUMNS
from heartlane.cli.output import (
    AsJson,
    Format,
    Output,
    chosen,
    note,
    one_line,
    print_rows,
    short_id,
    show_list,
    show_one,
    to_json,
)
from heartlane.cli.results import show_results, tried
from heartlane.client import calls, project_calls

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make plans from files, and approve or reject them.",
)

ONE: Final = "A plan's title, its id, or the beginning or end of its id."
Plan = Annotated[str, typer.Argument(metavar="PLAN", help=ONE)]
Plans = Annotated[list[str], typer.Argument(metavar="PLAN...", help=ONE)]
STATUSES: Final = ("pending", "approved", "rejected")


@app.command()
def create(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - reads standard input.")],
    *,
    approve: Annotated[bool, typer.Option("--approve", help="Approve it at once: its lanes are queued.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is wrong with it; the server is asked if it answers.")
    ] = False,
    project: Annotated[
        str | None,
        typer.Option("--project", "-p", metavar="NAME_OR_ID", help="The project, in place of what the file says."),
    ] = None,
    create_project: Annotated[
        bool, typer.Option("--create-project", help="Make the project if there is none of that name.")
    ] = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Make a plan from a file. It is pending until somebody approves it. `heartlane plan init` writes an example."""
    from heartlane.cli import plan_file
    from heartlane.client.errors import InvalidRequest

    how = chosen(output, as_json)
    plan = plan_file.read(file)
    named = project or plan.plan.project
    if dry_run:
        _dry_run(plan, named, how, may_create=create_project)
        return
    with connected() as api:
        project_id = _project(api, named, may_create=create_project)
        milestone = plan.plan.milestone
        milestone_id = None if milestone is None else api.milestone_id(project_id, milestone)
        call = calls.create_plan(project_id, plan.plan.title, plan.lanes, milestone_id=milestone_id)
        try:
            answer = api.ask(call)
        except InvalidRequest as error:
            raise plan.refused(error.issues) from None
        if approve:
            answer = api.ask(calls.approve_plan(answer["plan"]["id"]))
    _show(answer, how)
    if how is Format.TABLE and not approve:
        note(f"\nheartlane plan approve {short_id(answer['plan']['id'])} lets workers begin.")


def _project(api: Api, named: str | None, *, may_create: bool) -> str:
    try:
        return api.only_project_id(named)
    except CommandError as error:
        if error.exit_code != CODE_OF["not_found"]:
            raise
        if not may_create or named is None:
            raise CommandError(f"{error}; --create-project makes it", error.exit_code) from None
    return str(api.ask(project_calls.create_project(named))["project"]["id"])


def _dry_run(plan: Any, named: str | None, how: Format, *, may_create: bool) -> None:
    """Ask the server for what it alone knows, if it answers, and say how the plan stands."""
    from heartlane.client.errors import NotConfigured, Unreachable

    unasked: str | None = None
    try:
        with connected() as api:
            _check_with_server(api, plan, named, may_create=may_create)
    except (NotConfigured, Unreachable) as error:
        unasked = str(error)
    if how is Format.TABLE:
        count = len(plan.lanes)
        print(f"{plan.name}: {count} {'lane' if count == 1 else 'lanes'}, nothing is wrong. Nothing was sent.")
        if unasked is not None:
            note(f"The server wasn't asked about the project, the milestone and tickets: {one_line(unasked)}")
    else:
        body = {"title": plan.plan.title, "lanes": plan.lanes}
        told = {"ok": True, "server_asked": unasked is None, "plan": body}
        print(to_json(told, indent=2 if how is Format.JSON else None))


def _check_with_server(api: Api, plan: Any, named: str | None, *, may_create: bool) -> None:
    try:
        project_id = api.only_project_id(named)
    except CommandError as error:
        if may_create and named is not None and error.exit_code == CODE_OF["not_found"]:
            return
        raise
    if plan.plan.milestone is not None:
        api.milestone_id(project_id, plan.plan.milestone)
    wanted = {ticket for lane in plan.lanes for ticket in lane.get("ticketIds", ())}
    if wanted:
        there = {ticket["id"] for ticket in api.rows(project_calls.tickets(project_id))}
        missing = [
            (f"lanes.{number}.ticketIds.{index}", "is not a ticket of the project")
            for number, lane in enumerate(plan.lanes)
            for index, ticket in enumerate(lane.get("ticketIds", ()))
            if ticket not in there
        ]
        if missing:
            raise plan.refused(missing)


@app.command("from-tickets")
def from_tickets(
    milestone: Annotated[str, typer.Argument(metavar="MILESTONE", help="A milestone's name or id.")],
    tickets: Annotated[
        list[str] | None, typer.Argument(metavar="[TICKET...]", help="Its tickets. Default: all open ones of it.")
    ] = None,
    *,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Default: the milestone's name.")] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Approve it at once: its lanes are queued.")] = False,
    project: ProjectOption = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Make a plan from tickets: a lane for each role that any of them still asks for."""
    with connected() as api:
        project_id = api.only_project_id(project)
        milestone_id = api.milestone_id(project_id, milestone)
        if tickets:
            ids = [api.ticket_id(project_id, ticket) for ticket in tickets]
        else:
            found = project_calls.tickets(project_id, status="open", milestone_id=milestone_id)
            ids = [ticket["id"] for ticket in api.rows(found)]
            if not ids:
                raise CommandError(f"the milestone {one_line(milestone)!r} has no open ticket")
        answer = api.ask(calls.plan_tickets(milestone_id, ids, title=title))
        if approve:
            answer = api.ask(calls.approve_plan(answer["plan"]["id"]))
    _show(answer, chosen(output, as_json))


@app.command("list")
def list_(
    *,
    project: ProjectOption = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help=f"Only {', '.join(STATUSES)} ones.")
    ] = None,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List plans, newest first."""
    if status is not None and status not in STATUSES:
        raise CommandError(f"--status must be one of {', '.join(STATUSES)}, not {status!r}")
    with connected() as api:
        project_id = None if project is None else api.project_id(project)
        call = calls.plans(project_id=project_id, status=status)  # type: ignore[arg-type]  # checked above
        rows = api.rows(call, None if everything else limit)
        show_list(
            "plans",
            rows,
            PLAN_COLUMNS,
            chosen(output, as_json),
            empty="There is no plan yet: heartlane plan init writes an example of one.",
            next_cursor=lambda: rows.next_cursor,
        )


@app.command()
def show(plan: Plan, *, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Show a plan with its lanes, and how far each of them is."""
    with connected() as api:
        answer = api.ask(calls.read_plan(api.plan_id(plan)))
    _show(answer, chosen(output, as_json))


@app.command()
def approve(plans: Plans, *, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Approve plans: their lanes are queued, and workers begin. Approving again changes nothing."""
    with connected() as api:

        def approved(plan: str) -> Json:
            return dict(api.ask(calls.approve_plan(api.plan_id(plan)))["plan"])

        show_results(
            (tried(plan, lambda: approved(plan)) for plan in plans),  # noqa: B023 - called at once
            "plan",
            lambda plan: f"{_named(plan)}: approved, {len(plan['lanes'])} lanes are queued",
            chosen(output, as_json),
        )


@app.command()
def reject(
    plans: Plans,
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever made it.")],
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Reject plans. A plan that is approved can't be rejected any more."""
    with connected() as api:

        def rejected(plan: str) -> Json:
            return dict(api.ask(calls.reject_plan(api.plan_id(plan), reason))["plan"])

        show_results(
            (tried(plan, lambda: rejected(plan)) for plan in plans),  # noqa: B023 - called at once
            "plan",
            lambda plan: f"{_named(plan)}: rejected",
            chosen(output, as_json),
        )


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; - prints it.")] = Path("plan.yaml"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write an example of a plan, with a comment for each thing that it may say."""
    from heartlane.cli.plan_example import EXAMPLE
    from heartlane.client.errors import NotConfigured
    from heartlane.client.settings import server_url
    from heartlane.wire.plan_file import SCHEMA_PATH

    try:
        server = server_url(None)
    except NotConfigured:
        server = "http://127.0.0.1:8484"
    text = EXAMPLE.format(schema=server + SCHEMA_PATH)
    if str(file) == "-":
        print(text, end="")
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise CommandError(f"{file} is there already; --force writes over it") from None
    except OSError as error:
        raise CommandError(f"can't write {file}: {error.strerror}", UNUSABLE) from None
    note(f"Written: {file}. Change it, then: heartlane plan create {file}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of plan files, which a server has at /schemas/plan.json."""
    from heartlane.wire import plan_file

    print(to_json(plan_file.schema(), indent=2))


def _named(plan: Json) -> str:
    return f"{one_line(plan['title'], 80)} ({short_id(plan['id'])})"


def _show(answer: Json, how: Format) -> None:
    show_one("plan", answer, PLAN_LINES, how)
    if how is Format.TABLE:
        print()
        runs = answer.get("runs")
        if runs:
            print_rows(runs, LANE_COLUMNS)
        else:
            print_rows(answer["plan"]["lanes"], PLANNED_COLUMNS)
