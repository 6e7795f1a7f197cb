"""How a command ends when it can't do what it was asked: one line on stderr, and a code.

    0    done
    1    the database or the network could not be used, or a check found something; asking again may help
    2    what was typed or set is wrong; asking again won't help
    130  interrupted

Anything else that is raised is a fault of Heartlane's and shows its traceback.
"""

from __future__ import annotations

from typing import Final

UNUSABLE: Final = 1
WRONG_INPUT: Final = 2
INTERRUPTED: Final = 130


class CommandError(Exception):
    """A command can't go on. The text is one line; `exit_code` one of the table above."""

    def __init__(self, message: str, exit_code: int = WRONG_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def explain(error: Exception) -> tuple[str, int] | None:
    """The line and the exit code of an expected error, without any secret; None for one that nobody foresaw."""
    expected = _expected(error)
    if expected is None:
        return None
    message, code = expected
    return " ".join(_without_secrets(message).split()), code


def _expected(error: Exception) -> tuple[str, int] | None:
    if isinstance(error, CommandError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # what the parser of the command line raises, whichever it is built on
        return str(error.format_message()), WRONG_INPUT
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("heartlane"):
        return f"this needs the server's libraries ({error.name} is missing): install heartlane[server]", WRONG_INPUT
    try:
        from sqlalchemy.exc import DBAPIError

        from heartlane.server.settings import SettingsError
        from heartlane.store.errors import StoreError
        from heartlane.store.tokens import TokenError
    except ModuleNotFoundError:
        return None
    if isinstance(error, SettingsError | TokenError):
        return str(error), WRONG_INPUT
    if isinstance(error, StoreError):
        return str(error), UNUSABLE
    if isinstance(error, DBAPIError):
        return f"the database can't be used: {error.orig}", UNUSABLE
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), UNUSABLE
    return None


def _without_secrets(message: str) -> str:
    try:
        from heartlane.server.logs import Redactor
    except ModuleNotFoundError:
        return message
    return Redactor().text(message)
