"""`heartlane watch`: the fleet, live: a whole screen on a terminal, a line for each change anywhere else."""

from __future__ import annotations

from typing import Annotated

import typer

from heartlane.cli.api import ProjectOption
from heartlane.cli.complete import roles, states
from heartlane.cli.lanes import checked
from heartlane.cli.output import AsJson, Format, Output, chosen
from heartlane.lanes.run import Role, State

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def watch(
    *,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", metavar="STATE", help="In this state; may be repeated.", autocompletion=states),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option("--role", "-r", metavar="ROLE", help="Of this role.", autocompletion=roles, show_default=False),
    ] = None,
    project: ProjectOption = None,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="TITLE_OR_ID", help="Of this plan.", show_default=False)
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option("--worker", metavar="NAME", help="That this worker holds, or held.", show_default=False),
    ] = None,
    needs_attention: Annotated[
        bool, typer.Option("--needs-attention", "-a", help="That need a hand: waiting, stalled, failed, …")
    ] = False,
    search: Annotated[
        str | None,
        typer.Option("--search", metavar="WORDS", help="With these words in key, title, last line, …"),
    ] = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Watch the lanes as they change, what needs a hand first; ? shows the keys.

    Into a pipe it prints a line for each change; with --output jsonl the lane as it is then.
    """
    from heartlane.cli.board import Narrowing
    from heartlane.cli.watching import Watched, watch_lanes

    narrowing = Narrowing(
        states=frozenset(checked("--state", state or [], State)),
        role=None if role is None else checked("--role", [role], Role)[0],
        worker_id=worker,
        attention=needs_attention,
        search=search or "",
    )
    code = watch_lanes(Watched(narrowing, project, plan), chosen(output, as_json))
    if code:
        raise typer.Exit(code)
