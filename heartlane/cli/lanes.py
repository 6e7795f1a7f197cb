"""`heartlane lanes`: the lanes that are on their way, narrowed as one likes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer

from heartlane.cli.api import LIMIT, All, Api, Limit, ProjectOption, Rows, connected
from heartlane.cli.complete import roles, states
from heartlane.cli.errors import CommandError
from heartlane.cli.fields import LANE_COLUMNS
from heartlane.cli.output import AsJson, Format, Output, chosen, show_list
from heartlane.client import calls
from heartlane.lanes.run import Role, State

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

MAY_NEED_A_HAND: Final = ("claimed", "running", "paused", "shipping", "failed")
"""Only lanes in these states can have `needs_attention`."""
SEARCHED: Final = ("lane_key", "title", "phase", "worker_id", "log_line", "error", "branch", "pr_url", "summary", "id")


def checked(flag: str, values: list[str], known: Iterable[str]) -> list[Any]:
    """The values of a flag that takes names. Raises CommandError, with the names that there are."""
    names = [str(name) for name in known]
    for value in values:
        if value not in names:
            raise CommandError(f"{flag} must be one of {', '.join(names)}, not {value!r}")
    return values


def matches(run: dict[str, Any], search: str) -> bool:
    """Whether a lane has all of the words somewhere in what people read of it; case doesn't count."""
    text = "\n".join(str(run.get(field) or "") for field in SEARCHED).casefold()
    return all(word in text for word in search.casefold().split())


@app.command()
def lanes(
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
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing them as they change.")] = False,
    limit: Limit = LIMIT,
    everything: All = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List lanes, newest first."""
    wanted = checked("--state", state or [], State)
    if role is not None:
        checked("--role", [role], Role)
    how = chosen(output, as_json)
    if watch:
        from heartlane.cli.board import Narrowing
        from heartlane.cli.watching import Watched, watch_lanes

        narrowing = Narrowing(frozenset(wanted), role, worker, needs_attention, search or "")
        raise typer.Exit(watch_lanes(Watched(narrowing, project, plan), how))

    def rows(api: Api) -> Rows:
        narrowed = calls.runs(
            project_id=None if project is None else api.project_id(project),
            plan_id=None if plan is None else api.plan_id(plan),
            state=wanted or (MAY_NEED_A_HAND if needs_attention else ()),
            role=role,  # type: ignore[arg-type]  # checked above
            worker_id=worker,
        )

        def keep(run: dict[str, Any]) -> bool:
            return not (needs_attention and run["needs_attention"] is None) and (not search or matches(run, search))

        return api.rows(narrowed, None if everything else limit, keep=keep if needs_attention or search else None)

    with connected() as api:
        found = rows(api)
        show_list(
            "runs",
            found,
            LANE_COLUMNS,
            how,
            empty="There are no such lanes." if wanted or role or search else "There are no lanes.",
            next_cursor=lambda: found.next_cursor,
        )
