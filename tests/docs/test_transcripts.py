"""Every command that a page shows prints what the page says; and the runner that finds this out sees differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from docs.generate.pages import ROOT, pages
from tests.docs.transcripts import (
    ON_POSTGRESQL,
    Ran,
    differences,
    missing_tools,
    programs_of_postgresql,
    run_page,
    steps_of,
)

PAGES = [path for path in pages() if steps_of(path.read_text("utf-8"))]


@pytest.mark.parametrize("path", [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in PAGES])
def test_a_page_shows_what_its_commands_print(path: Path, request: pytest.FixtureRequest) -> None:
    page = path.read_text("utf-8")
    programs = programs_of_postgresql() if path.name == ON_POSTGRESQL else None
    lacking = missing_tools(page, programs)
    if lacking:
        pytest.skip(f"{path.name} can't be run here: install {', '.join(lacking)}")
    database = request.getfixturevalue("postgres_database_url") if path.name == ON_POSTGRESQL else None
    found = differences(page, run_page(page, database=database, path=programs))
    assert not found, "\n\n".join(found)


def test_the_pages_with_commands_are_found() -> None:
    assert {"tutorial.md", "operating.md", ON_POSTGRESQL} <= {path.name for path in PAGES}


# --- the runner ---------------------------------------------------------------------------------------------------

ID = "01a20c36-92f8-7b70-a65a-868b38c7364b"
OTHER_ID = "01a20c36-92f8-7b70-a65a-868b38c7364c"


def page_of(*blocks: tuple[str, str]) -> str:
    """A page of commands and what they printed."""
    return "\n".join(f"```sh\n{commands}```\n\n```text\n{printed}```\n" for commands, printed in blocks)


def differ(shown: Sequence[str], printed: Sequence[str], code: int = 0) -> list[str]:
    """The differences of a page that shows these outputs, and whose commands print those."""
    return differences(page_of(*[("true\n", text) for text in shown]), [Ran(code, text) for text in printed])


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["one\n"], ["one\n"]),
        ([f"{ID}\n", f"{ID}\n"], [f"{OTHER_ID}\n", f"{OTHER_ID}\n"]),
        (["at 2026-01-02T03:04:05.678901Z\n"], ["at 2027-11-12T13:14:15.1Z\n"]),
        (["first\n…\nlast\n"], ["first\nsecond\nthird\nlast\n"]),
        (["hlt_abcdefghijk\n"], ["hlt_0123456789_-\n"]),
    ],
)
def test_what_only_differs_from_run_to_run_agrees(shown: list[str], printed: list[str]) -> None:
    assert differ(shown, printed) == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["one\n"], ["two\n"]),
        (["one\n"], ["one\ntwo\n"]),
        (["one\n"], [""]),
        ([f"{ID}\n", f"{ID}\n"], [f"{ID}\n", f"{OTHER_ID}\n"]),
        (["first\n…\nlast\n"], ["first\nlast\n"]),
        (["first\n…\nlast\n"], ["first\nsecond\n"]),
    ],
)
def test_any_other_difference_is_seen(shown: list[str], printed: list[str]) -> None:
    assert len(differ(shown, printed)) == 1


def test_a_command_that_fails_is_seen_whatever_it_printed() -> None:
    assert "exit code 3" in differ(["one\n"], ["one\n"], code=3)[0]


def test_a_page_runs_in_one_shell_with_its_files_beside_it() -> None:
    page = (
        "```python hello.py\nprint('hello')\n```\n"
        "```sh\nNAME=you\n```\n\nwords\n\n```console\n$ exit 1\n```\n"
        "```sh\n.venv/bin/python hello.py; echo $NAME; curl -s http://127.0.0.1:8484/nothing | cut -c 1-8\n```\n"
    )
    lacking = missing_tools(page)
    if lacking:
        pytest.skip(f"pages can't be run here: install {', '.join(lacking)}")
    assert run_page(page) == [Ran(0, ""), Ran(0, 'hello\nyou\n{"error"\n')]


def test_a_page_needs_only_the_programs_that_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert missing_tools(page_of(("curl x | jq .\n", "1\n"))) == ["bash", "curl", "jq"]
    assert missing_tools(page_of(("echo pg_dump\n", "1\n")) + "sqlite3") == ["bash", "pg_dump"]
