"""What the verbs for agents share: a parser of their few arguments, and the way to the worker and back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from heartlane.cli.errors import CODE_OF, WRONG_INPUT
from heartlane.worker.ask import ask
from heartlane.worker.errors import WorkerError


class Parser(argparse.ArgumentParser):
    """argparse, but that wrong arguments are one line, as everywhere in `heartlane`."""

    def error(self, message: str) -> NoReturn:
        raise WorkerError(message, "wrong_input")


def parser(name: str, about: str, more: str = "", arguments: str = "") -> Parser:
    """The parser of `heartlane NAME`."""
    return Parser(
        prog=f"heartlane {name}",
        usage=f"heartlane {name} [OPTIONS]{arguments}",
        description=about,
        epilog=more or None,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def speak(
    arguments: list[str],
    options: Parser,
    message: Callable[[argparse.Namespace], Mapping[str, Any]],
    show: Callable[[argparse.Namespace, dict[str, Any]], None] = lambda options, answer: None,
) -> int:
    """Parse, send what `message` makes of it, `show` the answer; the exit code. What goes wrong is one line."""
    try:
        given = options.parse_args([_readable(argument) for argument in arguments])
        show(given, ask(message(given)))
    except WorkerError as error:
        print(f"heartlane: {' '.join(str(error).split())}", file=sys.stderr)
        return CODE_OF[error.kind]
    except SystemExit as ended:  # --help
        return ended.code if isinstance(ended.code, int) else WRONG_INPUT
    return 0


def _readable(argument: str) -> str:
    """The argument with bytes that are no UTF-8 made visible: a file's name may hold such, JSON can't."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
