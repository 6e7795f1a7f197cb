"""`heartlane projects`: what everything else belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from heartlane.cli.api import LIMIT, All, Json, Limit, connected
from heartlane.cli.complete import project_names
from heartlane.cli.errors import CommandError
from heartlane.cli.fields import PROJECT_COLUMNS
from heartlane.cli.output import AsJson, Column, Format, Output, Row, chosen, show_list, show_one, since
from heartlane.client import project_calls
from heartlane.client.call import patch
from heartlane.wire.answers import ProjectAnswer

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Make, list and set up projects."
)

Project = Annotated[
    str, typer.Argument(metavar="NAME_OR_ID", help="The project's name, or its id.", autocompletion=project_names)
]
TEXTS: Final = ("name", "repo_url", "default_branch")
"""Settings that are text, whatever they look like."""
FIXED: Final = frozenset({"id", "billing_account_id", "created_at", "updated_at"})


def _lines(project: Json) -> list[Column]:
    """A line for each thing that the server says of a project, also for those that came later than this."""
    known = [Column("project", "name", style="bold"), Column("id", "id")]
    settings = [Column(name, _value_of(name)) for name in project if name not in {*FIXED, "name"}]
    return [*known, *settings, Column("made", since("created_at")), Column("changed", since("updated_at"))]


def _value_of(name: str) -> Callable[[Row], Any]:
    def value_of(project: Row) -> Any:
        value = project[name]
        return value if value is None or isinstance(value, str | bool) else json.dumps(value)

    return value_of


@app.command("list")
def list_(
    *, limit: Limit = LIMIT, everything: All = False, output: Output = Format.TABLE, as_json: AsJson = False
) -> None:
    """List the projects that the token can see, newest first."""
    with connected() as api:
        rows = api.rows(project_calls.projects(), None if everything else limit)
        show_list(
            "projects",
            rows,
            PROJECT_COLUMNS,
            chosen(output, as_json),
            empty="There is no project yet: heartlane projects create NAME makes one.",
            next_cursor=lambda: rows.next_cursor,
        )


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    *,
    repo_url: Annotated[str | None, typer.Option("--repo-url", metavar="URL", help="Where its repository is.")] = None,
    default_branch: Annotated[str | None, typer.Option("--default-branch", metavar="NAME", help="Say main.")] = None,
    max_failures: Annotated[
        int | None, typer.Option("--max-failures", metavar="N", help="After so many failures a lane ends as failed.")
    ] = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Make a project. Takes a token of scope admin."""
    call = project_calls.create_project(
        name, repo_url=repo_url, default_branch=default_branch, max_failures=max_failures
    )
    with connected() as api:
        answer = api.ask(call)
    show_one("project", answer, _lines(answer["project"]), chosen(output, as_json))


@app.command()
def show(project: Project, *, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Show a project and its settings."""
    with connected() as api:
        answer = api.ask(project_calls.read_project(api.project_id(project)))
    show_one("project", answer, _lines(answer["project"]), chosen(output, as_json))


@app.command("set")
def set_(
    project: Project,
    settings: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE...", help="As `show` names them; VALUE as JSON or text, null clears."),
    ],
    *,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Change settings of a project: max_failures=3 default_branch=main repo_url=null. Takes a token of scope admin."""
    with connected() as api:
        project_id = api.project_id(project)
        now = api.ask(project_calls.read_project(project_id))["project"]
        body = dict(_setting(text, now) for text in settings)
        # The client's own call knows the settings of its version; the server may know more.
        call = patch(f"/api/projects/{project_id}", ProjectAnswer, lambda answer: answer.project, body)
        answer = api.ask(call)
    show_one("project", answer, _lines(answer["project"]), chosen(output, as_json))


def _setting(text: str, project: Json) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    known = [field for field in project if field not in FIXED]
    if not equals or name not in known:
        # The server would pass over a name that it doesn't know.
        raise CommandError(f"a setting is NAME=VALUE with one of {', '.join(known)}, not {text!r}")
    if value == "null":
        return name, None
    if name in TEXTS:
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
