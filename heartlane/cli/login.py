"""`heartlane login`: keeps a token for this machine's user, or logs a browser in with a one-time link."""

from __future__ import annotations

import getpass
import os
import sys
from typing import Annotated

import typer

from heartlane.cli.errors import CommandError
from heartlane.cli.output import AsJson, Format, Output, chosen, note, one_line, show_change, show_one

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

TOKEN_LINE_MAX = 1_000
"""Characters of a line in which a token is looked for."""

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The server. Default: HEARTLANE_URL, else the login before."),
]


@app.command()
def login(
    *,
    url: Url = None,
    browser: Annotated[bool, typer.Option("--browser", help="Log a browser in: make a one-time link, and open it.")] = (
        False
    ),
    print_link: Annotated[
        bool, typer.Option("--print", help="Make the one-time link, and print it alone instead of opening it.")
    ] = False,
    no_keyring: Annotated[
        bool, typer.Option("--no-keyring", help="Keep the token in a file of yours even where there is a keyring.")
    ] = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Keep a token for all that follows: it is asked for, or read from stdin, and checked against the server.

    It goes into the system's keyring where the extra heartlane[keyring] is installed, else into a file that only you
    may read. HEARTLANE_URL and HEARTLANE_TOKEN go before it. With --browser or --print the token that is kept or set
    makes a link that logs one browser in, once, within 5 minutes.
    """
    how = chosen(output, as_json)
    if browser or print_link:
        _make_link(url, how, open_it=not print_link)
    else:
        _keep_token(url, how, use_keyring=not no_keyring)


def _make_link(url: str | None, how: Format, *, open_it: bool) -> None:
    from heartlane.client.sync import Client

    with Client(url) as client:
        link = client.create_login_link()
    opened = False
    if open_it:
        import webbrowser

        opened = webbrowser.open(link.url)
    if how is not Format.TABLE:
        show_one("login_link", {"login_link": link.model_dump(mode="json")}, (), how)
    elif opened:
        note("Opened the board. If no browser came up: heartlane login --print")
    else:
        if open_it:
            note("There is no browser to open here. Open this within 5 minutes; it logs in once:")
        print(link.url, flush=True)


def _keep_token(url: str | None, how: Format, *, use_keyring: bool) -> None:
    from heartlane.client import logins
    from heartlane.client.errors import NotConfigured
    from heartlane.client.settings import TOKEN_VARIABLE, URL_VARIABLE, server_url
    from heartlane.client.sync import Client

    try:
        server = server_url(url)
    except NotConfigured:
        if url is not None or not sys.stdin.isatty():
            raise
        note("Which server? Such as http://127.0.0.1:8484")
        server = server_url(sys.stdin.readline())
    token = _token(server)
    with Client(server, token) as client:
        me = client.me()
    kept = logins.store(server, token, use_keyring=use_keyring)
    where = "the system's keyring" if kept.place == "keyring" else str(logins.logins_file())
    reach = f", project {me.project_id}" if me.project_id else ""
    said = f"Logged in to {server} as {one_line(me.name)!r} (scope {me.scope}{reach}). The token is kept in {where}."
    shown = {"url": server, **me.model_dump(mode="json"), "kept_in": kept.place}
    show_change("login", {"login": shown}, said, how)
    for name in (URL_VARIABLE, TOKEN_VARIABLE):
        if os.environ.get(name):
            note(f"{name} is set, and goes before what is kept.")


def _token(server: str) -> str:
    """The token, from a prompt that doesn't show it or from the first line of stdin; never from the command line."""
    if sys.stdin.isatty():
        token = getpass.getpass(f"Token for {server} (not shown): ")
    else:
        token = sys.stdin.readline(TOKEN_LINE_MAX)
    if not token.strip():
        raise CommandError("there is no token: pipe it in, such as heartlane login < token-file")
    return token.strip()
