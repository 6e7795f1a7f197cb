"""`heartlane spool`: what workers have written down and could not send yet."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from heartlane.cli.errors import CODE_OF, CommandError
from heartlane.cli.tables import print_table

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="See and send what workers could not send yet.",
)

State = Annotated[
    Path | None,
    typer.Option("--state", metavar="FOLDER", help="Where the worker keeps its files.", show_default=False),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `heartlane spool list` shows it; its beginning will do.")]
Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The server. Default: HEARTLANE_URL.", show_default=False)
]


def _spools(state: Path | None) -> list[Any]:
    from heartlane.worker.places import places
    from heartlane.worker.spools import list_spools

    return list_spools(places(state).spool)


def _find(name: str, state: Path | None) -> Any:
    found = [info for info in _spools(state) if info.folder.name.startswith(name)]
    if len(found) != 1:
        raise CommandError(f"{len(found)} spools are called {name!r}; `heartlane spool list` shows all")
    return found[0]


@app.command("list")
def list_(*, state: State = None, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show every spool: whose events it holds, and how many were not sent."""
    rows = []
    for info in _spools(state):
        header = info.header
        rows.append(
            {
                "name": info.folder.name,
                "run_id": header and header.run,
                "attempt": header and header.attempt,
                "worker_id": header and header.worker,
                "server": header and header.server,
                "waiting": info.waiting,
                "bytes": info.size,
                "in_use": info.busy,
                "problem": info.problem,
            }
        )
    if as_json:
        print(json.dumps({"spools": rows}, indent=2))
    elif rows:
        print_table(rows, ("name", "worker_id", "waiting", "bytes", "in_use", "problem"))
    else:
        print("There is no spool: everything was sent.", file=sys.stderr)


@app.command()
def show(name: Name, *, state: State = None) -> None:
    """Print a spool's events, a line of JSON each: its number, whether it was sent, and the event."""
    from heartlane.worker.spool_files import SpoolVersion
    from heartlane.worker.spools import show as events

    try:
        for shown in events(_find(name, state).folder):
            print(json.dumps(shown._asdict(), ensure_ascii=False))
    except SpoolVersion as error:
        raise CommandError(str(error), CODE_OF["spool_version"]) from None


@app.command()
def flush(*, state: State = None, url: Url = None) -> None:
    """Send what can still be sent, and give those lanes back. What the server takes no more stays."""
    from heartlane.client.errors import NotConfigured
    from heartlane.client.settings import server_token, server_url
    from heartlane.worker.exchange import Exchange
    from heartlane.worker.leftovers import flush as send
    from heartlane.worker.places import places
    from heartlane.worker.spool_files import SpoolError

    try:
        server = server_url(url)
        token = server_token(None, server)
    except NotConfigured as error:
        raise CommandError(str(error)) from None
    left = 0
    unreadable: list[str] = []
    with Exchange(server, token) as exchange:
        for info in _spools(state):
            if info.problem is not None:
                print(f"{info.folder.name}: {info.problem}", file=sys.stderr)
                unreadable.append(info.folder.name)
                continue
            if info.busy or info.header is None or info.header.server != server or not info.waiting:
                continue
            try:
                sent = send(exchange, info.header, places(state))
            except SpoolError as error:
                print(f"{info.folder.name}: {error}", file=sys.stderr)
                sent = None
            left += sent is None
            print(f"{info.folder.name}: " + ("the server takes it no more (now)" if sent is None else f"{sent} sent"))
    if unreadable:
        raise CommandError(
            f"{len(unreadable)} spools are of another version of Heartlane: send them with that one",
            CODE_OF["spool_version"],
        )
    if left:
        raise CommandError(f"{left} spools could not be sent", CODE_OF["unusable"])


@app.command()
def discard(name: Name, *, state: State = None) -> None:
    """Remove a spool with all that is in it."""
    from heartlane.worker.spool_files import SpoolError
    from heartlane.worker.spools import discard as remove

    try:
        remove(_find(name, state).folder)
    except SpoolError as error:
        raise CommandError(str(error), CODE_OF["unusable"]) from None
