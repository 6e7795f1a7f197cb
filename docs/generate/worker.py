"""What surrounds an agent in its lane: placeholders, variables, and the exit codes of every verb."""

from __future__ import annotations

from docs.generate.markdown import code, table
from heartlane.cli.errors import EXIT_CODES
from heartlane.wire.variables import LANE_VARIABLES
from heartlane.worker.command_line import PLACEHOLDERS


def placeholders() -> str:
    """A row for each placeholder of a command."""
    return table(
        ("in the command", "is replaced by"), [(code(f"{{{name}}}"), said) for name, said in PLACEHOLDERS.items()]
    )


def lane_variables() -> str:
    """A row for each variable that an agent finds."""
    return table(("variable", "says"), [(code(name), said) for name, said in LANE_VARIABLES.items()])


def exit_codes() -> str:
    """A row for each exit code."""
    rows = [(code(row.code), code(row.name), row.meaning, row.cure, "yes" if row.again else "no") for row in EXIT_CODES]
    return table(("code", "name", "what happened", "what to do", "again"), rows)
