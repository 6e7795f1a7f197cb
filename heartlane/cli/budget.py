"""`heartlane budget`: what a project may cost, what it has cost, and a person's word to go on."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from heartlane.cli.api import Json, connected
from heartlane.cli.complete import project_names
from heartlane.cli.errors import CommandError
from heartlane.cli.output import AsJson, Column, Format, Output, Row, chosen, show_one, since
from heartlane.client import budget_calls

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Bound what a project may cost, see what it has cost, and let it go on.",
)

Project = Annotated[
    str, typer.Argument(metavar="NAME_OR_ID", help="The project's name, or its id.", autocompletion=project_names)
]
NONE: Final = "none"
CEILINGS: Final = {
    "usd_per_day": "--usd-per-day",
    "usd_total": "--usd-total",
    "tokens_per_day": "--tokens-per-day",
    "tokens_total": "--tokens-total",
}
STYLES: Final = {"ok": "green", "warned": "bold yellow", "exceeded": "bold red", "waived": "yellow"}


def _spent(ceiling: str, spent: str) -> Any:
    def told(budget: Row) -> str:
        amount, most = budget["spent"][spent], budget[ceiling]
        written = f"{amount:,.2f} USD" if ceiling.startswith("usd") else f"{amount:,} tokens"
        if most is None:
            return written
        return f"{written} of {most:,.2f}" if ceiling.startswith("usd") else f"{written} of {most:,}"

    return told


LINES: Final = (
    Column("state", "state", style=STYLES),
    Column("which means", "words", style="bold"),
    Column("today", _spent("usd_per_day", "usd_today")),
    Column("in all", _spent("usd_total", "usd_total")),
    Column("tokens today", _spent("tokens_per_day", "tokens_today")),
    Column("tokens in all", _spent("tokens_total", "tokens_total")),
    Column("when used up", lambda budget: None if budget["state"] == "none" else budget["on_exceeded"]),
    Column("changes", since("changes_at")),
    Column("goes on until", "waived_until"),
)


@app.command()
def show(project: Project, *, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Show what a project may cost, what it has cost, and where it stands."""
    with connected() as api:
        answer = api.ask(budget_calls.read_budget(api.project_id(project)))
    show_one("budget", answer, LINES, chosen(output, as_json))


@app.command("set")
def set_(
    project: Project,
    *,
    usd_per_day: Annotated[
        str | None, typer.Option("--usd-per-day", metavar="USD", help="Dollars a day of UTC; none: any.")
    ] = None,
    usd_total: Annotated[str | None, typer.Option("--usd-total", metavar="USD", help="Dollars in all.")] = None,
    tokens_per_day: Annotated[
        str | None, typer.Option("--tokens-per-day", metavar="N", help="Input and output tokens a day of UTC.")
    ] = None,
    tokens_total: Annotated[str | None, typer.Option("--tokens-total", metavar="N", help="Tokens in all.")] = None,
    on_exceeded: Annotated[
        str | None,
        typer.Option("--on-exceeded", metavar="pause|stop", help="Have workers stand still, or give their lanes back."),
    ] = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Set ceilings of a project; what isn't named stays. Takes a token of scope admin."""
    given = dict(zip(CEILINGS, (usd_per_day, usd_total, tokens_per_day, tokens_total), strict=True))
    if on_exceeded is None and not any(given.values()):
        raise CommandError(f"say what to set: {', '.join(CEILINGS.values())} or --on-exceeded")
    if on_exceeded not in (None, "pause", "stop"):
        raise CommandError(f"--on-exceeded must be pause or stop, not {on_exceeded!r}")
    changed = {name: _amount(name, text) for name, text in given.items() if text is not None}
    with connected() as api:
        project_id = api.project_id(project)
        now: Json = api.ask(budget_calls.read_budget(project_id))["budget"]
        wanted: dict[str, Any] = {name: now[name] for name in (*CEILINGS, "on_exceeded")} | changed
        if on_exceeded is not None:
            wanted["on_exceeded"] = on_exceeded
        answer = api.ask(budget_calls.set_budget(project_id, **wanted))
    show_one("budget", answer, LINES, chosen(output, as_json))


def _amount(name: str, text: str) -> float | int | None:
    """A ceiling as it is written: dollars with a point, tokens with commas or underscores if one likes."""
    if text == NONE:
        return None
    plain = text.replace(",", "").replace("_", "")
    try:
        return float(plain) if name.startswith("usd") else int(plain)
    except ValueError:
        what = "an amount of dollars" if name.startswith("usd") else "a number of tokens"
        raise CommandError(f"{CEILINGS[name]} must be {what} or none, not {text!r}") from None


@app.command("go-on")
def go_on(
    project: Project,
    *,
    hours: Annotated[
        float | None, typer.Option("--hours", metavar="N", help="For so long; else until the day of UTC ends.")
    ] = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Let a project go on though its budget is used up. Takes a token of scope operator."""
    with connected() as api:
        answer = api.ask(budget_calls.let_go_on(api.project_id(project), hours=hours))
    show_one("budget", answer, LINES, chosen(output, as_json))
