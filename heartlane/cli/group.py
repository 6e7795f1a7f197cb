"""The commands that typer parses. A family of verbs is imported when it is called, so that `--help` is quick."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from heartlane import __version__
from heartlane.cli.errors import WRONG_INPUT
from heartlane.cli.main import COMMANDS, GROUPS


class LazyGroup(TyperGroup):
    """Lists the commands from the table, and loads the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        grouped = [name for names in GROUPS.values() for name in names]
        return [name for name in COMMANDS if name not in grouped] + [name for name in grouped if name in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What the list of commands shows; never called itself."""
        if cmd_name not in COMMANDS:
            return None
        group = next((heading for heading, names in GROUPS.items() if cmd_name in names), None)
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name], rich_help_panel=group)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS:
            return super().resolve_command(ctx, args)
        parsed = getattr(import_module(f"heartlane.cli.{name}"), "app", None)
        if parsed is None:  # it parses its own arguments, and is asked for here by the shell's completion alone
            return name, self.get_command(ctx, name), args[1:]
        command = get_command(parsed)
        command.name = name
        return name, command, args[1:]


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Heartlane: who holds each lane, is that worker alive, what is it doing, and who takes over.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"heartlane {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    pass


def run_typed(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. Raises what the command or the parser raises."""
    try:
        code = get_command(app).main(args=arguments, prog_name="heartlane", standalone_mode=False)
    except typer.Abort:
        return WRONG_INPUT
    return code if isinstance(code, int) else 0
