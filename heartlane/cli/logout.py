"""`heartlane logout`: forgets the token that `heartlane login` keeps."""

from __future__ import annotations

import typer

from heartlane.cli.errors import CommandError
from heartlane.cli.login import Url
from heartlane.cli.output import AsJson, Format, Output, chosen, show_change

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def logout(*, url: Url = None, output: Output = Format.TABLE, as_json: AsJson = False) -> None:
    """Forget the token that is kept for a server. It stays good: `heartlane token revoke` ends that."""
    from heartlane.client import logins
    from heartlane.client.settings import server_url

    server = server_url(url)
    if not logins.forget(server):
        raise CommandError(f"no token is kept for {server}")
    show_change("login", {"login": {"url": server}}, f"The token for {server} is forgotten.", chosen(output, as_json))
