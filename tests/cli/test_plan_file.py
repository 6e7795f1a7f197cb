"""Plans from files: what is wrong with one is found at once, line by line; the published schema says the same."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft202012Validator

from heartlane.cli.errors import CommandError
from heartlane.cli.plan_example import EXAMPLE
from heartlane.cli.plan_file import read
from heartlane.wire.plan_file import schema
from tests.cli.command import here

HEAD = "title: Totals\nlanes:\n"
LANE = "  - {laneKey: a, title: A, role: backend}\n"


def problems_of(path: Path) -> list[tuple[str, str, int | None]]:
    """What is wrong with a file: where, what, in which line."""
    with pytest.raises(CommandError) as caught:
        read(str(path))
    assert caught.value.exit_code == 2
    return [(problem.path, problem.message, problem.line) for problem in caught.value.issues]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("", "is empty: a plan has a title and lanes", None)]),
        ("just words", [("", "must be an object", 1)]),
        ("title: [", [("", "is not valid YAML: did not find expected node content", 2)]),
        ("title: a\ntitle: b\n", [("", "has the key 'title' twice", 2)]),
        ("1: x\n", [("", "has a key that is no text: put it in quotes", 1)]),
        ("a: &x [*x]\n", [("", "refers to itself", 1)]),
        ("title: a\x07b\n", [("", "has a character that YAML doesn't allow (number 9)", 1)]),
        ('{"title": "a",\n "lanes": [}', [("", "is not valid JSON: Expecting value", 2)]),
        ('{"title": "a", "title": "b"}', [("", "has the key 'title' twice", None)]),
        (HEAD + LANE + "extra: 1\n", [("extra", "is not known here", 4)]),
        (
            HEAD.replace("Totals", "12")
            + "  - laneKey: a\n    title: yes\n    role: chef\n    priority: high\n    labels: {gpu: 1}\n",
            [
                ("title", "must be a string: put it in quotes", 1),
                ("lanes.0.title", "must be a string: put it in quotes", 4),
                ("lanes.0.role", "must be one of frontend, backend, test, design, devops, qa or other", 5),
                ("lanes.0.priority", "must be an integer", 6),
                ("lanes.0.labels.gpu", "must be a string: put it in quotes", 7),
            ],
        ),
        (
            HEAD + "  - {title: A, role: backend}\n\n  - laneKey: b\n    role: backend\n",
            [("lanes.0.laneKey", "is required", 3), ("lanes.1.title", "is required", 5)],
        ),
        (
            HEAD + "  - laneKey: a\n    title: A\n    role: qa\n    after: [b]\n" + LANE,
            [
                ("lanes.0.after.0", "must name a lane of this plan: there is no 'b'", 6),
                ("lanes.1.laneKey", "must be unique: lane 0 has the same", 7),
            ],
        ),
        (
            HEAD
            + "  - {laneKey: a, title: A, role: qa, after: [b]}\n  - {laneKey: b, title: B, role: qa, after: [a]}\n",
            [("lanes.0.after", "must not make a lane wait for itself: a → b → a", 3)],
        ),
        (
            HEAD + "  - {laneKey: a, title: A, role: qa, prompt: x, promptFile: y}\n",
            [("lanes.0", "must have a prompt or a promptFile, not both", 3)],
        ),
        (
            HEAD + "  - laneKey: a\n    title: A\n    role: qa\n    promptFile: none.md\n",
            [("lanes.0.promptFile", "can't be used: No such file or directory", 6)],
        ),
        ("title: a\nlanes: []\n", [("lanes", "must have at least 1 item", 2)]),
    ],
)
def test_all_that_is_wrong_is_told_with_its_line(
    tmp_path: Path, text: str, expected: list[tuple[str, str, int | None]]
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text, "utf-8")
    assert problems_of(path) == expected


def test_a_file_that_is_no_text_or_not_there_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(b"title: ok\nlanes: \xff\n")
    assert problems_of(path) == [("", "is not UTF-8 (at byte 17)", 2)]
    ended = here("plan", "create", str(tmp_path / "none.yaml"))
    assert (ended.code, ended.err) == (
        1,
        f"heartlane: can't read {tmp_path / 'none.yaml'}: No such file or directory\n",
    )


def test_a_small_text_that_stands_for_a_huge_one_is_refused(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for depth in range(1, 8):
        bomb += f"a{depth}: &a{depth} [{', '.join([f'*a{depth - 1}'] * 10)}]\n"
    path = tmp_path / "plan.yaml"
    path.write_text(bomb, "utf-8")
    assert problems_of(path)[0][1] == "has more than 100,000 values"
    path.write_text("[" * 5_000, "utf-8")
    assert "nested" in problems_of(path)[0][1] or "not valid" in problems_of(path)[0][1]


def test_a_plan_is_read_with_its_prompts(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "a.md").write_text("Do it.\n", "utf-8")
    text = (
        HEAD
        + "  - {laneKey: a, title: 'A: 2026-01-02', role: qa, promptFile: prompts/a.md, labels: {day: 2026-01-02}}\n"
    )
    path = tmp_path / "plan.yaml"
    path.write_text(text, "utf-8-sig")
    plan = read(str(path))
    assert plan.lanes == [
        {"laneKey": "a", "title": "A: 2026-01-02", "role": "qa", "labels": {"day": "2026-01-02"}, "prompt": "Do it.\n"}
    ]


def test_json_with_tabs_and_escapes_is_a_plan_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = '{"laneKey": "a", "title": "A\\/B", "role": "chef"}'
    text = '{\n\t"title": "\\ud83d\\ude00",\n\t"lanes": [\n\t\t' + lane + "\n\t]\n}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    with pytest.raises(CommandError) as caught:
        read("-")
    assert [(problem.path, problem.line) for problem in caught.value.issues] == [("lanes.0.role", 4)]
    assert str(caught.value).startswith("standard input:4: lanes.0.role: must be one of")


def test_problems_are_lines_on_stderr_and_json_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("title: ''\nlanes: none\n", "utf-8")
    ended = here("plan", "create", str(path))
    assert ended.code == 2
    assert ended.err.splitlines() == [
        f"{path}:1: title: must not be empty",
        f"{path}:2: lanes: must be an array",
        f"heartlane: {path} has 2 problems; nothing was sent",
    ]
    told = json.loads(here("plan", "create", str(path), "--dry-run", "--json").err)
    assert [issue["line"] for issue in told["issues"]] == [1, 2]


# --- the schema ---------------------------------------------------------------------------------------------------


def test_the_schema_is_one_that_editors_understand() -> None:
    found = schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert found["$id"]
    Draft202012Validator(found, validate_formats=True)
    lane = found["$defs"]["LaneOfFile"]["properties"]
    assert all("description" in field for field in lane.values())
    assert "null" not in json.dumps(found)


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"title": ""}, False),
        ({"titel": "x"}, False),
        ({"lanes": []}, False),
        ({"lanes": [{"laneKey": "a", "title": "A", "role": "chef"}]}, False),
        ({"lanes": [{"laneKey": "a", "title": "A", "role": "qa", "prompt": "x", "promptFile": "y"}]}, False),
        ({"lanes": [{"laneKey": "a", "title": "A", "role": "qa", "labels": {"gpu": 1}}]}, False),
        ({"lanes": [{"laneKey": "a", "title": "A", "role": "qa", "priority": 2, "after": []}]}, True),
    ],
)
def test_the_schema_says_what_the_reader_says(tmp_path: Path, change: dict[str, Any], valid: bool) -> None:
    plan = yaml.safe_load(EXAMPLE.replace("{schema}", "x")) | change
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan), "utf-8")
    assert Draft202012Validator(schema()).is_valid(plan) is valid
    if valid:
        assert read(str(path)).plan.title == plan["title"]
    else:
        assert problems_of(path)


def test_the_example_is_written_once_and_is_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    assert here("plan", "init", str(path), HEARTLANE_URL="http://lanes.example:8484/").code == 0
    assert "$schema=http://lanes.example:8484/schemas/plan.json" in path.read_text("utf-8").splitlines()[0]
    assert [lane["laneKey"] for lane in read(str(path)).lanes] == ["api", "page", "model"]
    again = here("plan", "init", str(path))
    assert (again.code, again.err) == (2, f"heartlane: {path} is there already; --force writes over it\n")
