"""Each promise names tests, and those tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs.generate.pages import ROOT

PAGES = (ROOT / "docs" / "guarantees.md", ROOT / "docs" / "security.md")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
ROW = re.compile(r"^\| (?P<promise>[^|]+) \| (?P<shown>[^|]+) \|$", re.MULTILINE)
SHOWN = re.compile(r"\[[^\]]+\]\((?P<file>[^)]+)\)(?P<tests>(?:,? `test_\w+`)*)")


def rows_of(page: str) -> list[tuple[str, str]]:
    """Each promise and what shows it."""
    rows = [(row["promise"], row["shown"]) for row in ROW.finditer(COMMENT.sub("", page))]
    return [row for row in rows if row[0] not in ("promise", "what meets it")]


def named_in(shown: str) -> list[tuple[str, list[str]]]:
    """The files that a cell names, each with the tests in it that it names."""
    return [(found["file"], re.findall(r"test_\w+", found["tests"])) for found in SHOWN.finditer(shown)]


def names_of_tests(path: Path) -> set[str]:
    """The tests of a file, without importing it."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def missing(shown: str) -> list[str]:
    """What a cell names and isn't there. A page counts as shown when its commands are run."""
    wrong = []
    for file, tests in named_in(shown):
        path = (ROOT / "docs" / file).resolve()
        if not path.is_file():
            wrong.append(f"{file} is not there")
        elif path.suffix == ".md":
            wrong += [f"{file} has no commands"] * ("```sh\n" not in path.read_text("utf-8"))
        else:
            there = names_of_tests(path)
            wrong += [f"{file} has no {name}" for name in tests if name not in there]
            wrong += [f"{file} has no tests"] * (not there)
    return wrong


@pytest.mark.parametrize(("promise", "shown"), [row for page in PAGES for row in rows_of(page.read_text("utf-8"))])
def test_every_promise_names_tests_that_are_there(promise: str, shown: str) -> None:
    assert named_in(shown), promise
    assert len(re.findall(r"`test_\w+`", shown)) == sum(len(tests) for _, tests in named_in(shown))
    assert missing(shown) == [], promise


@pytest.mark.parametrize(
    "shown",
    [
        "[x](../tests/docs/test_nowhere.py)",
        "[x](../tests/docs/test_guarantees.py) `test_that_isnt_there`",
        "[x](../tests/docs/transcripts.py)",
        "[x](decisions/README.md)",
    ],
)
def test_a_test_that_is_not_there_is_seen(shown: str) -> None:
    assert len(missing(shown)) == 1
