"""`heartlane token`: the tokens that callers send.

A new secret is printed once, alone on stdout, so that it can go straight into a variable or a file; the rest is stderr.
As JSON it is the field `secret` of its token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from heartlane.cli.db_options import Database
from heartlane.cli.durations import parse_duration
from heartlane.cli.errors import UNUSABLE, CommandError
from heartlane.cli.output import (
    AsJson,
    Column,
    Format,
    Output,
    chosen,
    note,
    one_line,
    show_change,
    show_list,
    show_one,
    since,
)

if TYPE_CHECKING:
    from heartlane.store.store import Store
    from heartlane.store.tokens import Token

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make, list, revoke and rotate the tokens that callers send.",
)
T = TypeVar("T")

COLUMNS: Final = (
    Column("id", "id"),
    Column("name", "name", wide=True),
    Column("scope", "scope"),
    Column("account", "account", least=90),
    Column("project", "project_id", least=90),
    Column("state", "state", style={"active": "green", "revoked": "dim", "expired": "yellow"}),
    Column("expires", since("expires_at")),
    Column("used", since("last_used_at")),
    Column("hint", "hint", least=110),
)

Name = Annotated[str, typer.Argument(metavar="NAME_OR_ID", help="The token's name, or its id.")]
Account = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="Only the tokens of this account.", show_default=False)
]
Expires = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="How long it lasts, such as 12h, 90d, 4w.", show_default=False),
]


def parse_lifetime(text: str | None) -> timedelta | None:
    """How long a token lasts: `90d`, `12h`, `4w`, …, or None for `never` and where nothing is given.

    >>> parse_lifetime("90d")
    datetime.timedelta(days=90)
    """
    if text is None or text.strip().lower() == "never":
        return None
    return parse_duration("--expires", text)


@app.command()
def create(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Tells tokens apart in lists and logs.")],
    scope: Annotated[
        str, typer.Option("--scope", metavar="SCOPE", help="viewer, worker, operator or admin; each may all before it.")
    ],
    project: Annotated[
        str | None,
        typer.Option("--project", metavar="ID", help="The one project it sees. Default: all of its account."),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option("--account", metavar="NAME", help="Its account, made if new. Default: the project's, or default."),
    ] = None,
    expires: Expires = None,
    worker_prefix: Annotated[
        str | None,
        typer.Option(
            "--worker-prefix",
            metavar="TEXT",
            help="With scope worker: how the ids of the workers begin that it may speak as. Default: any.",
        ),
    ] = None,
    from_network: Annotated[
        list[str] | None,
        typer.Option(
            "--from-network",
            metavar="CIDR",
            help="From where alone it may be used, such as 10.0.0.0/8; may be repeated. Default: from anywhere.",
        ),
    ] = None,
    database: Database = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Make a token. It is printed this once; only its hash is kept."""
    from heartlane.store import tokens

    lifetime = parse_lifetime(expires)

    async def work(store: Store) -> tuple[Token, str]:
        # Any text as scope: what is no scope is refused there, before anything is written.
        return await tokens.create(
            store,
            name,
            scope,  # type: ignore[arg-type]
            account=account,
            project_id=project,
            lifetime=lifetime,
            worker_prefix=worker_prefix,
            networks=from_network or (),
        )

    made = _with_store(database, _and_now(work), may_create=True)
    _show_secret(*made, "made", chosen(output, as_json))


@app.command("list")
def list_(
    *,
    account: Account = None,
    everything: Annotated[bool, typer.Option("--all", help="Revoked ones too.")] = False,
    database: Database = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List the tokens, without their secrets."""
    from heartlane.store import tokens

    async def work(store: Store) -> list[Token]:
        return await tokens.list_tokens(store, account=account)

    found, now = _with_store(database, _and_now(work))
    rows = [_row(token, now) for token in found if everything or token.revoked_at is None]
    show_list("tokens", rows, COLUMNS, chosen(output, as_json), empty="There are no tokens.")


@app.command()
def revoke(
    name: Name,
    *,
    account: Account = None,
    database: Database = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Let a token open nothing any more. Servers refuse it within 2 seconds."""
    from heartlane.store import tokens

    async def work(store: Store) -> Token:
        token = await tokens.find(store, name, account=account)
        if not await tokens.revoke(store, token.id):
            raise tokens.TokenError(f"the token {name!r} is revoked already")
        return await tokens.find(store, token.id, account=account)

    token, now = _with_store(database, _and_now(work))
    said = f"Token {one_line(token.name)!r} ({token.id}) is revoked."
    show_change("token", {"token": _row(token, now)}, said, chosen(output, as_json))


@app.command()
def rotate(
    name: Name,
    *,
    account: Account = None,
    expires: Expires = None,
    database: Database = None,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Make a new secret for a token and revoke the old one, in one step. Lasts as long again, unless --expires says."""
    from heartlane.store import tokens

    lifetime = parse_lifetime(expires)

    async def work(store: Store) -> tuple[Token, str]:
        token = await tokens.find(store, name, account=account)
        return await tokens.rotate(store, token.id, lifetime=lifetime)

    made = _with_store(database, _and_now(work))
    _show_secret(*made, "made in place of the old one, which is revoked", chosen(output, as_json))


def _with_store(database: str | None, work: Callable[[Store], Awaitable[T]], *, may_create: bool = False) -> T:
    """Do some work on the open database, whose schema has to be up to date; an empty one is set up if it may be."""
    from heartlane.server.settings import load_database
    from heartlane.store import upgrade as schema
    from heartlane.store.store import Store

    url = load_database(database)
    if may_create:
        url.prepare_folder()
    found = schema.status(url.reveal())
    if found.current is None and may_create:
        schema.upgrade(url.reveal())
    elif found.current is None:
        raise CommandError(f"there is nothing in {url} yet: no token was ever made there", UNUSABLE)
    elif found.pending:
        raise CommandError(f"{url} has schema {found.current}, not {found.head}: run heartlane db upgrade", UNUSABLE)

    async def with_store() -> T:
        store = await Store.open(url.reveal(), pool_size=1)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(with_store())


def _and_now(work: Callable[[Store], Awaitable[T]]) -> Callable[[Store], Awaitable[tuple[T, datetime]]]:
    """The same work, with the time of the database, which decides whether a token has expired."""

    async def both(store: Store) -> tuple[T, datetime]:
        return await work(store), await store.now()

    return both


def _show_secret(made: tuple[Token, str], now: datetime, what: str, how: Format) -> None:
    token, secret = made
    if how is not Format.TABLE:
        show_one("token", {"token": {**_row(token, now), "secret": secret}}, (), how)
        return
    reach = f"project {token.project_id}" if token.project_id else f"account {token.account!r}"
    until = f"until {_time(token.expires_at)}" if token.expires_at else "until it is revoked"
    only = "" if token.worker_prefix is None else f", as workers named {one_line(token.worker_prefix)}…"
    only += "" if token.networks is None else f", from {token.networks.replace(',', ', ')}"
    note(f"Token {one_line(token.name)!r} {what}: scope {token.scope}, {reach}{only}, {until}.")
    note("This is the only time it is shown. Send it as: Authorization: Bearer <token>")
    print(secret, flush=True)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _row(token: Token, now: datetime) -> dict[str, Any]:
    row = token._asdict()
    for name in ("created_at", "expires_at", "revoked_at", "last_used_at"):
        row[name] = _time(row[name])
    row["networks"] = [] if token.networks is None else token.networks.split(",")
    return {**row, "state": token.state(now)}
