"""Tickets from CSV, JSON and JSON Lines: read whole, checked whole, and imported once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heartlane.sources.errors import BadFile
from heartlane.sources.files import File
from heartlane.sources.importing import Wanted
from tests.sources.desk import Desk, Stop

CSV = """\
Title,Description,Roles,Priority,URL,Status,Blocking
Sums are wrong,"The sum of ""two"" lines
is off by one.","backend, qa",High,https://tracker.example.com/1,open,yes

Old browsers,They see a page without styles.,,low,https://tracker.example.com/2,Done,
Plain wish,,,,,,
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


async def test_a_csv_file_becomes_tickets_once(desk: Desk, tmp_path: Path) -> None:
    path = written(tmp_path, "tickets.csv", CSV)
    first = await desk.bring(File(path), Wanted(state="all"))
    assert first.outcomes["created"] == 3
    tickets = await desk.tickets()
    sums = tickets["Sums are wrong"]
    assert sums["description"] == 'The sum of "two" lines\nis off by one.'
    assert sums["roles"] == {"backend": "pending", "qa": "pending", "merged": "pending"}
    assert (sums["priority"], sums["blocking"], sums["external_url"]) == ("high", True, "https://tracker.example.com/1")
    assert (tickets["Old browsers"]["status"], tickets["Old browsers"]["stage"]) == ("closed", "live")
    wish = tickets["Plain wish"]
    assert (wish["external_url"], wish["external_key"]) == (None, "Plain wish")
    assert wish["description"] == "No description\n\n(From line 6)"
    assert first.notes == ["line 6: has no description"]
    again = await desk.bring(File(path), Wanted(state="all"))
    assert (again.outcomes["unchanged"], again.notes) == (3, [])
    assert await desk.tickets() == tickets


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tickets.json", '[{"title": "From JSON", "roles": ["qa"]}]'),
        ("tickets.json", '{"tickets": [{"title": "From JSON", "roles": "qa"}]}'),
        ("tickets.jsonl", '{"title": "From JSON", "role": "QA"}\n\n'),
        ("tickets.csv", "\ufefftitle;roles\r\nFrom JSON;qa\r\n"),
        ("tickets.csv", "summary\troles\nFrom JSON\tqa\n"),
    ],
)
async def test_every_kind_of_file(desk: Desk, tmp_path: Path, name: str, text: str) -> None:
    await desk.bring(File(written(tmp_path, name, text)), Wanted(state="all"))
    assert (await desk.tickets())["From JSON"]["roles"] == {"qa": "pending", "merged": "pending"}


async def test_a_large_file_goes_in_parts_and_twice_is_once(desk: Desk, tmp_path: Path) -> None:
    rows = [{"title": f"Ticket {number}", "key": f"T-{number}"} for number in range(450)]
    path = written(tmp_path, "tickets.json", json.dumps(rows))
    with pytest.raises(Stop):
        await desk.bring(File(path), stop_after=2)
    assert len(await desk.tickets()) == 400
    progress = await desk.bring(File(path))
    assert (progress.outcomes["created"], progress.outcomes["unchanged"]) == (50, 400)
    assert len(await desk.tickets()) == 450


def problems_of(path: Path) -> list[str]:
    with pytest.raises(BadFile) as bad:
        File(path)
    return [f"{place}: {what}" for place, what in bad.value.problems]


def test_all_problems_of_a_csv_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """\
title,description,roles,external_url,blocking
"Two
lines",Fine,,https://tracker.example.com/1,
,No title,,,
Same address,Fine,,https://tracker.example.com/1,
Bad role,Fine,"backend,chef",,perhaps
Bad address,Fine,,javascript:alert(1),
Too many,Fine,,,,,more
"""
    assert problems_of(written(tmp_path, "bad.csv", text)) == [
        "line 4: title is required",
        "line 5: external_url is that of line 2 already",
        "line 6: blocking must be true or false",
        "line 6: roles must be of frontend, backend, test, design, devops, qa, other, not 'chef'",
        "line 7: external_url must be an address that begins with http:// or https://",
        "line 8: has 7 cells under 5 headings",
    ]


def test_all_problems_of_json_at_once_with_their_lines(tmp_path: Path) -> None:
    text = '[\n  {"title": "Fine"},\n  {"title": 7, "description": ["x"]}, "no object",\n  {"title": "Fine"}\n]'
    assert problems_of(written(tmp_path, "bad.json", text)) == [
        "line 3: description must be a text",
        "line 3: must be an object",
        "line 4: title is that of line 2 already",
    ]
    text = '{"title": "Fine"}\n{"title": }\n[]\n{"labels": [1], "title": "x"}\n'
    assert problems_of(written(tmp_path, "bad.jsonl", text)) == [
        "line 2: must be a JSON object",
        "line 3: must be a JSON object",
        "line 4: labels must be an array of texts",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"", "must be a .csv, .json or .jsonl file"),
        ("a.csv", b"name of it\nx\n", "must begin with a line of headings, `title` among them"),
        ("a.csv", b'title\n"never closed\n', "is no CSV at line 2"),
        ("a.csv", b"title\n\xff\n", "is not UTF-8 (at byte 6)"),
        ("a.csv", b"", "must begin with a line of headings"),
        ("a.csv", b"title\n", "has no ticket in it"),
        ("a.json", b"[{]", "is no JSON"),
        ("a.json", b"[" * 100_000, "is no JSON"),
        ("a.json", b'{"rows": []}', "must be an array of tickets"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadFile) as bad:
        File(path)
    assert said in str(bad.value)
    with pytest.raises(BadFile, match="can't be read: No such file"):
        File(tmp_path / "nothing.csv")
