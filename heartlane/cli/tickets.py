"""`heartlane tickets`: what is wanted, and from where it comes."""

from __future__ import annotations

import typer

from heartlane.cli.tickets_import import app as import_app

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Bring tickets from where they are.",
)
app.add_typer(import_app, name="import")
