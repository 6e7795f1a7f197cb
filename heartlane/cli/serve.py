"""`heartlane serve`: the server. Its flags are the fields of `Settings`, each under its own name."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from heartlane.cli.errors import UNUSABLE, CommandError
from heartlane.server.settings import PREFIX, Settings, load_settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def flag_of(field: str) -> str:
    """The flag that sets a field.

    >>> flag_of("log_level")
    '--log-level'
    """
    return "--" + field.replace("_", "-")


def _help(field: str) -> str:
    info = Settings.model_fields[field]
    default = info.examples[0] if info.examples else info.default
    return f"{info.description} Default: {default}. Also {PREFIX}{field.upper()}."


def _flags() -> inspect.Signature:
    # Every flag is text: settings read flags and variables alike, and refuse both with the same words.
    return inspect.Signature(
        [
            inspect.Parameter(
                field,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    str | None, typer.Option(flag_of(field), help=_help(field), metavar="VALUE", show_default=False)
                ],
            )
            for field in Settings.model_fields
        ]
    )


def serve(**flags: Any) -> None:
    """Start the server. SIGTERM or Ctrl-C ends it once it has answered what it accepted."""
    settings = load_settings(flags)
    settings.certificate()  # half of one is a wrong setting
    settings.database.prepare_folder()
    from heartlane.board.pages import make_router
    from heartlane.server.serve import CannotStart, run

    try:
        run(settings, make_router())
    except CannotStart as error:
        raise CommandError(str(error), UNUSABLE) from error


serve.__signature__ = _flags()  # type: ignore[attr-defined]
serve.__annotations__ = {name: parameter.annotation for name, parameter in _flags().parameters.items()}
app.command(name="serve")(serve)
