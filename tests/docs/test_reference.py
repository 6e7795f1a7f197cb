"""The reference is whole and true: whatever the code has stands there, and what stands there the code has."""

from __future__ import annotations

import ast
import os
import re
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from docs.generate import events, rules, settings
from docs.generate.cli import help_of, verbs
from docs.generate.pages import BLOCKS, ROOT, blocks_in, pages, written_anew
from heartlane.cli.main import COMMANDS
from heartlane.lanes.commands import Report
from heartlane.lanes.effects import EFFECTS, SHIP_FIELDS
from heartlane.lanes.rules import TABLE, decide
from heartlane.lanes.run import HELD_STATES, WORKER_EVENT_TYPES, Event, EventType, State
from heartlane.server.app import api_routes
from heartlane.server.metrics import Metrics
from heartlane.server.openapi import build_document
from heartlane.server.settings import PREFIX, Settings, load_settings
from heartlane.wire.errors import CODES
from heartlane.wire.names import AttentionName, DirectiveName

DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
CONCEPTS = (DOCS / "concepts.md").read_text("utf-8")
MISSPELT = "HEARTLANE_PROT"
"""One page shows what a misspelt variable leads to."""
EACH_PAGE = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in pages()]
)


def headings_of(path: Path) -> set[str]:
    """The headings of a page."""
    return set(re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE))


def first_cells_of(text: str) -> set[str]:
    """What stands as code in the first column of the tables of a text."""
    return {name for cell in re.findall(r"^\|([^|]*)\|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)}


# --- generated blocks ---------------------------------------------------------------------------------------------


@EACH_PAGE
def test_generated_blocks_say_what_the_code_says_now(path: Path) -> None:
    page = path.read_text("utf-8")
    assert page == written_anew(page), "out of date: run `make docs`"


def test_every_block_stands_in_a_page_and_every_mark_is_that_of_a_block() -> None:
    placed = []
    for path in pages():
        page = path.read_text("utf-8")
        names = blocks_in(page)
        assert page.count("<!-- begin ") == page.count("<!-- end ") == len(names), path
        placed += names
    assert sorted(placed) == sorted(BLOCKS)


def test_writing_a_page_changes_its_blocks_and_nothing_else() -> None:
    page = "# Mine\n\n<!-- begin metrics: written by `make docs` -->\nold\n<!-- end metrics -->\n\nMine too.\n"
    new = written_anew(page)
    assert new.startswith("# Mine\n\n<!-- begin metrics")
    assert new.endswith("<!-- end metrics -->\n\nMine too.\n")
    assert "heartlane_reports_total" in new
    assert "\nold\n" not in new
    assert written_anew(new) == new


# --- nothing is forgotten -----------------------------------------------------------------------------------------


def test_every_setting_has_a_heading() -> None:
    assert set(Settings.model_fields) <= headings_of(REFERENCE / "settings.md")


def test_every_error_code_has_a_heading() -> None:
    assert set(CODES) <= headings_of(REFERENCE / "errors.md")


def test_every_event_type_has_a_heading() -> None:
    assert {str(kind) for kind in EventType} <= headings_of(REFERENCE / "events.md")


def test_every_metric_has_a_row() -> None:
    rows = first_cells_of((REFERENCE / "metrics.md").read_text("utf-8"))
    names = {family.name + ("_total" if family.type == "counter" else "") for family in Metrics().registry.collect()}
    assert rows == names


def test_every_verb_has_a_heading_and_its_help() -> None:
    found = [" ".join(["heartlane", *verb]) for verb in verbs()]
    assert set(found) <= headings_of(REFERENCE / "cli.md")
    assert {verb.split()[1] for verb in found} == set(COMMANDS)
    for verb in verbs():
        assert f"usage: {' '.join(['heartlane', *verb])}" in help_of(verb).lower()


def test_every_route_has_a_row() -> None:
    document = build_document(api_routes())
    routes = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    rows = first_cells_of((REFERENCE / "api.md").read_text("utf-8"))
    assert rows == routes


def logged(folder: Path) -> set[str]:
    """The messages that the modules of a folder log."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                owner, first = getattr(node.func.value, "id", ""), node.args[0]
                if owner in ("log", "_access") and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    found.add(first.value)
    return found


def test_every_message_of_the_log_has_a_row() -> None:
    section = (DOCS / "operating.md").read_text("utf-8").partition("\n## Logs\n")[2].partition("\n## ")[0]
    messages = logged(ROOT / "heartlane" / "server") | logged(ROOT / "heartlane" / "store")
    assert "lease_expired" in messages
    assert first_cells_of(section) == messages


# --- what is said is so -------------------------------------------------------------------------------------------


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("bare_environment")
@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_example_of_a_setting_sets_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = getattr(load_settings(), name)
    monkeypatch.setenv(PREFIX + name.upper(), settings.EXAMPLES[name])
    assert getattr(load_settings(), name) != before
    assert getattr(load_settings({name: settings.EXAMPLES[name]}), name) != before


@EACH_PAGE
@pytest.mark.usefixtures("bare_environment")
def test_the_variables_that_a_page_names_are_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", path.read_text("utf-8")))
    settings_of_the_server = {PREFIX + name.upper() for name in Settings.model_fields}
    for variable in named - settings_of_the_server - {MISSPELT}:
        monkeypatch.setenv(variable, "x")
    load_settings()  # refuses a variable that neither a server nor a client has


@EACH_PAGE
def test_the_metrics_that_a_page_names_are_there(path: Path) -> None:
    names = {family.name for family in Metrics().registry.collect()}
    for name in re.findall(r"\bheartlane_[a-z_]+\b", path.read_text("utf-8")):
        assert re.sub(r"_(total|bucket|sum|count)$", "", name) in names, name


def test_workers_send_these_types_and_the_server_writes_the_others() -> None:
    assert tuple(events.OF_WORKERS) == WORKER_EVENT_TYPES
    assert set(events.OF_WORKERS) | set(events.OF_THE_SERVER) == {str(kind) for kind in EventType}
    assert not set(events.OF_WORKERS) & set(events.OF_THE_SERVER)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        pytest.param(kind, field, id=f"{kind}-{field.name}-{field.column}")
        for kind, of in events.OF_WORKERS.items()
        for field in of.fields
    ],
)
def test_a_payload_field_does_to_the_run_what_the_page_says(kind: str, field: events.Field) -> None:
    run = rules.lane_in("running")

    def column_after(payload: dict[str, object]) -> object:
        report = Report(rules.HOLDER, events=[Event(kind, payload)])
        return getattr(run._replace(**rules.allowed(run, report, rules.BEGIN).changes), field.column)

    sample = dict(field.sample)
    without = {name: value for name, value in sample.items() if name != field.name}
    assert column_after(sample) != column_after(without)
    # Of another type it is stored, and has no effect.
    assert column_after({**sample, field.name: ["x"]}) == column_after(without)


def test_only_events_with_an_effect_are_said_to_have_one() -> None:
    assert {kind for kind, of in events.OF_WORKERS.items() if of.fields} == set(EFFECTS) - {"action"}
    assert {field.name for field in events.OF_WORKERS["ship_complete"].fields} == set(SHIP_FIELDS)


@pytest.mark.parametrize("kind", events.OF_THE_SERVER)
def test_the_fields_of_a_payload_are_those_that_the_rules_write(kind: str) -> None:
    event = events.OF_THE_SERVER[kind]
    assert set(event.fields) == set(events.payload_of(event))
    assert events.written_by(event).type == kind


@pytest.mark.parametrize(("heading", "names"), [("Directive", DirectiveName), ("needs_attention", AttentionName)])
def test_the_concepts_name_every_value(heading: str, names: object) -> None:
    section = CONCEPTS.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert first_cells_of(section) == set(get_args(names))


# --- the states ---------------------------------------------------------------------------------------------------


def test_lanes_are_played_to_every_state_and_meet_every_command() -> None:
    assert {state: rules.lane_in(state).state for state in rules.STATES} == {str(state): str(state) for state in State}
    assert {type(command) for command in rules.COMMANDS.values()} == set(TABLE)
    for state, command in product(rules.STATES, rules.COMMANDS.values()):
        decide(rules.lane_in(state), command, rules.LATE)


def test_the_drawing_of_the_states_has_every_way_and_no_other() -> None:
    (drawing,) = re.findall(r"^```mermaid\n(.*?)^```\n", CONCEPTS, re.MULTILINE | re.DOTALL)
    drawn = set()
    for source, target in re.findall(r"^\s*([\w*\[\]]+) --> ([\w*\[\]]+)", drawing, re.MULTILINE):
        if "[*]" not in (source, target):
            drawn |= {(each, target) for each in (HELD_STATES if source == "held" else {source})}
    assert drawn == set(rules.transitions())
    assert re.findall(r"\[\*\] --> (\w+)", drawing) == ["queued"]
