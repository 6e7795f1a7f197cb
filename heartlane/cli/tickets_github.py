"""`heartlane tickets github`: a project's link with GitHub, and imports by the server itself."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from heartlane.cli.api import Json, ProjectOption, connected
from heartlane.cli.errors import CommandError
from heartlane.cli.output import AsJson, Column, Format, Output, Row, chosen, show_change, show_one, since
from heartlane.client import github_calls

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Link a project with its repository at GitHub, and have the server import from there.",
)


def _import(name: str) -> Any:
    def value(link: Row) -> Any:
        return (link["last_import"] or {}).get(name)

    return value


LINES: Final = (
    Column("repository", "repository", style="bold"),
    Column("label", lambda link: link["label"] or "(every issue)"),
    Column("roles", lambda link: json.dumps(link["roles"]) if link["roles"] else "by labels of their names"),
    Column("milestone", "milestone_id"),
    Column("webhooks", lambda link: "taken" if link["hears"] else "not taken: the server has no secret for them"),
    Column("import", _import("state")),
    Column("read", _import("read")),
    Column("made", _import("created")),
    Column("changed", _import("updated")),
    Column("problem", _import("error")),
    Column("linked", since("created_at")),
)


@app.command()
def link(
    *,
    project: ProjectOption = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="NAME", help="Issues with it become tickets. Default: every open one."),
    ] = None,
    role_label: Annotated[
        list[str] | None,
        typer.Option(
            "--role-label", metavar="ROLE=LABEL", help="A label that asks for a role, * for anything; repeatable."
        ),
    ] = None,
    to_milestone: Annotated[
        str | None, typer.Option("--to-milestone", metavar="NAME_OR_ID", help="The milestone that new tickets get.")
    ] = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Link a project with the repository at its repo_url, or change how it is linked."""
    from heartlane.sources.roles import BadRule, RoleRules, parse_rule

    try:
        rules: Any = RoleRules(tuple(parse_rule(text) for text in role_label or ())).as_object()
    except BadRule as error:
        raise CommandError(f"--role-label {error}") from None
    with connected() as api:
        project_id = api.only_project_id(project)
        milestone_id = None if to_milestone is None else api.milestone_id(project_id, to_milestone)
        call = github_calls.put_github_link(project_id, label=label, roles=rules, milestone_id=milestone_id)
        show_one("github", api.ask(call), LINES, chosen(output, as_json))


@app.command()
def show(*, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Show how a project is linked, and how its last import stands."""
    with connected() as api:
        answer = api.ask(github_calls.read_github_link(api.only_project_id(project)))
        show_one("github", answer, LINES, chosen(output, as_json))


@app.command()
def unlink(*, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """End a project's link. Its tickets stay."""
    with connected() as api:
        answer: Json = api.ask(github_calls.delete_github_link(api.only_project_id(project)))
        said = f"The project is no longer linked with {answer['github']['repository']}."
        show_change("github", answer, said, chosen(output, as_json))


@app.command("import")
def import_(*, project: ProjectOption = None, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Have the server import the project's issues, with its own token; it goes on in the background."""
    with connected() as api:
        answer = api.ask(github_calls.import_github(api.only_project_id(project)))
        show_one("github", answer, LINES, chosen(output, as_json))
