"""The same done to several things: each has a result of its own, and the exit code says how they went together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import typer

from heartlane.cli.errors import CODE_OF, CommandError, error_object, explain
from heartlane.cli.output import Format, one_line, to_json
from heartlane.client.errors import HeartlaneError

Json = dict[str, Any]


class Result(NamedTuple):
    """What came of one of them: `thing`, as it is now, or `error`. `asked` is what was typed."""

    asked: str
    thing: Json | None = None
    error: CommandError | HeartlaneError | None = None


def tried(asked: str, do: Callable[[], Json]) -> Result:
    """The result of one."""
    try:
        return Result(asked, do())
    except (CommandError, HeartlaneError) as error:
        return Result(asked, error=error)


def show_results(results: Iterator[Result], key: str, line: Callable[[Json], str], how: Format) -> None:
    """Print each result as it comes, those that failed on stderr. Raises typer.Exit, unless all went well.

    key     what a thing is called in JSON: `{"results": [{"asked": …, "ok": true, KEY: {…}}, {…, "error": {…}}]}`
    line    what is said of a thing that went well
    """
    objects, codes = [], []
    for result in results:
        code = 0
        shown: Json = {"asked": result.asked, "ok": result.error is None}
        if result.error is not None:
            message, code = explain(result.error) or (str(result.error), CODE_OF["unusable"])
            shown["error"] = error_object(result.error, message, code)
            if how is Format.TABLE:
                print(f"heartlane: {one_line(result.asked)}: {message}", file=sys.stderr, flush=True)
        elif result.thing is not None:
            shown[key] = result.thing
            if how is Format.TABLE:
                print(line(result.thing), flush=True)
        if how is Format.JSONL:
            print(to_json(shown), flush=True)
        objects.append(shown)
        codes.append(code)
    if how is Format.JSON:
        print(to_json({"results": objects}, indent=2))
    if any(codes):
        raise typer.Exit(together(codes))


def together(codes: Sequence[int]) -> int:
    """The exit code of several that went differently.

    >>> together([0, 0]), together([17, 17]), together([0, 17])
    (0, 17, 19)
    """
    return codes[0] if len(set(codes)) == 1 else CODE_OF["partly_done"]
