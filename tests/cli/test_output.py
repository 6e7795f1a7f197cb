"""What verbs print: harmless in tables, whole in JSON, in colour only where it is wanted."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from heartlane.cli.errors import CommandError, Problem, report_lines, wants_json
from heartlane.cli.output import Column, Format, ago, many_lines, one_line, show_list, show_one, span, to_json

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;owned\x07title",
    "\x9b2J",
    "a\rb",
    "a\nb\u2028c",
    "\u202egpj.exe",
    "\u2066x\u2069",
    "zero\u200bwidth\ufeff",
    "\x00\x08\x7f",
    "lone \ud800 surrogate",
    "[bold]no markup[/bold] :warning:",
    "x" * 100_000,
]
DANGEROUS = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
ROWS = [{"name": text, "state": "running"} for text in HOSTILE]
COLUMNS = (Column("name", "name", wide=True), Column("state", "state", style={"running": "green"}))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_made_harmless(text: str) -> None:
    assert not DANGEROUS.search(one_line(text))
    assert len(one_line(text)) <= 500
    assert not DANGEROUS.search(many_lines(text).replace("\n", ""))


@pytest.mark.parametrize("text", HOSTILE)
def test_json_keeps_hostile_text_and_a_terminal_obeys_none_of_it(text: str) -> None:
    printed = to_json({"text": text})
    assert json.loads(printed) == {"text": text}
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]", printed)


def test_a_table_of_hostile_text_has_a_line_for_each_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_list("rows", ROWS, COLUMNS, Format.TABLE, empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ROWS) + 1
    assert all(len(line) <= 80 and not DANGEROUS.search(line) for line in lines)
    assert "[bold]no markup[/bold] :warning:" in "\n".join(lines)


def test_in_a_pipe_nothing_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    show_list("rows", [{"name": "n" * 400, "state": "queued"}], COLUMNS, Format.TABLE, empty="none")
    assert "n" * 400 in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1"}, False),
    ],
)
def test_colours_come_where_they_are_wanted(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    coloured: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    show_list("rows", [{"name": "a", "state": "running"}], COLUMNS, Format.TABLE, empty="none")
    assert ("\x1b[32m" in capsys.readouterr().out) == coloured


def test_each_format_of_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a"}, {"name": "b"}]
    show_list("things", iter(rows), COLUMNS[:1], Format.JSON, empty="none", next_cursor=lambda: "next")
    assert json.loads(capsys.readouterr().out) == {"things": rows, "next_cursor": "next"}
    show_list("things", iter(rows), COLUMNS[:1], Format.JSONL, empty="none")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    show_list("things", iter(rows), COLUMNS[:1], Format.TABLE, empty="none", next_cursor=lambda: "next")
    printed = capsys.readouterr()
    assert printed.out == "name\na\nb\n"
    assert "2 shown, and there are more" in printed.err
    show_list("things", [], COLUMNS[:1], Format.TABLE, empty="There is none.")
    assert capsys.readouterr() == ("", "There is none.\n")


def test_each_format_of_one_thing(capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"thing": {"name": "a", "state": None, "on": False}, "beside": 1}
    lines = (Column("name", "name"), Column("state", "state"), Column("is on", "on"))
    show_one("thing", answer, lines, Format.JSON)
    assert json.loads(capsys.readouterr().out) == answer
    show_one("thing", answer, lines, Format.JSONL)
    assert json.loads(capsys.readouterr().out) == answer["thing"]
    show_one("thing", answer, lines, Format.TABLE)
    assert capsys.readouterr().out == "name:  a\nis on: no\n"


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-01-02T03:04:05Z", "now"),
        ("2026-01-02T03:03:05.123Z", "59 s ago"),
        ("2026-01-02T01:04:05Z", "2 h ago"),
        ("2026-01-02T03:14:05Z", "in 10 min"),
        ("2024-01-01T00:00:00Z", "2 y ago"),
        (None, ""),
        ("soon", "soon"),
    ],
)
def test_times_are_told_as_people_do(time: str | None, shown: str) -> None:
    assert ago(time, NOW) == shown


def test_spans_have_their_largest_unit() -> None:
    assert [span(seconds) for seconds in (0, 59.9, 60, 3_600, 86_400)] == ["0 s", "59 s", "1 min", "1 h", "1 d"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["lanes", "--json"], True),
        (["lanes", "-o", "json"], True),
        (["lanes", "--output=jsonl"], True),
        (["lanes", "-o", "table"], False),
        (["lanes", "--search", "json"], False),
        (["work", "--", "agent", "--json"], False),
    ],
)
def test_whether_a_command_line_wants_json(arguments: list[str], wanted: bool) -> None:
    assert wants_json(arguments) is wanted


def test_several_problems_are_a_line_each() -> None:
    error = CommandError(
        "p.yaml has 2 problems",
        issues=[Problem("a.b", "must be x\x1b[2J", "p.yaml", 3), Problem("", "is odd", "p.yaml")],
    )
    assert report_lines(error, as_json=False) == (
        ["p.yaml:3: a.b: must be x", "p.yaml: is odd", "heartlane: p.yaml has 2 problems"],
        2,
    )
    reported = report_lines(error, as_json=True)
    assert reported is not None
    assert json.loads(reported[0][0]) == {
        "error": "p.yaml has 2 problems",
        "code": "WRONG_INPUT",
        "exit_code": 2,
        "issues": [
            {"path": "a.b", "message": "must be x", "file": "p.yaml", "line": 3},
            {"path": "", "message": "is odd", "file": "p.yaml"},
        ],
    }
