"""No text makes a regular expression of the package take for ever: each is found, and tried with what they choke on.

A pattern that can read one text in many ways takes time that doubles with each character (or grows with its cube),
which shows in short texts already. So the texts grow step by step, and the first that takes long ends the trial.
"""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path
from re import _constants, _parser
from typing import Any, Final

import pytest

PACKAGE: Final = Path(__file__).resolve().parent.parent / "heartlane"
CALLS: Final = frozenset({"compile", "match", "fullmatch", "search", "sub", "split", "findall", "finditer"})
LENGTHS: Final = (16, 20, 22, 24, 26, 100, 200, 400, 1_500)
SECONDS_MAX: Final = 0.3
"""Of processor time for one text; a good pattern takes some milliseconds for the longest."""
UNITS: Final = (*'aA0 -./:_=\t\n"\\ü', "a.", "a/", "a ", "0.", "a=", "a,")
ENDS: Final = ("", "\0", "!")


def patterns() -> list[tuple[str, str, int]]:
    """Every pattern that stands in the package as a text: where, the pattern, its flags."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.args:
                text = _text(node.args[0])
                if text is not None:
                    place = f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
                    found.append((place, text, re.VERBOSE if "VERBOSE" in ast.dump(node) else 0))
    return found


def _text(node: ast.expr) -> str | None:
    """A pattern's text; a part of it that is only known when it runs counts as any letters."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "[a-z]+" for part in node.values)
    return None


def slowest(pattern: str, flags: int = 0) -> tuple[float, str]:
    """The longest that a text took, and that text."""
    compiled = re.compile(pattern, flags)
    begin = _begin(pattern, flags)
    own = {character for character in pattern if not character.isalnum()} - {"\\", "[", "]", "^", "$", "?", "*", "+"}
    worst = (0.0, "")
    for unit in (*UNITS, *sorted(own - set(UNITS))[:8]):
        for end in ENDS:
            for length in LENGTHS:
                text = begin + unit * (length // len(unit)) + end
                began = time.process_time()
                compiled.search(text)
                worst = max(worst, (time.process_time() - began, text))
                if worst[0] > SECONDS_MAX:
                    return worst
    return worst


def _begin(pattern: str, flags: int) -> str:
    """The letters with which whatever matches begins."""
    begin = ""
    for kind, value in _parser.parse(pattern, flags):
        if kind is _constants.LITERAL:
            begin += chr(value)
        elif kind is not _constants.AT:
            break
    return begin


FOUND: Final = patterns()


def test_every_pattern_is_found() -> None:
    assert len(FOUND) > 60
    folders = {place.rpartition("/")[0] for place, *_ in FOUND}
    assert {"heartlane/server", "heartlane/worker", "heartlane/store", "heartlane/client"} <= folders


def test_no_text_makes_a_pattern_slow() -> None:
    wrong: list[Any] = []
    for place, pattern, flags in FOUND:
        seconds, text = slowest(pattern, flags)
        if seconds > SECONDS_MAX:
            wrong.append(f"{place}: {pattern!r} took {seconds:.2f} s for {text[:40]!r}… ({len(text)} characters)")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("pattern", [r"(a+)+\Z", r"(?:\w+\s?)*:"])
def test_a_slow_pattern_is_seen(pattern: str) -> None:
    assert slowest(pattern)[0] > SECONDS_MAX
