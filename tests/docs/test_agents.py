"""The pages on agents say what the code does: the recipes, the reasons, and an adapter of another package's."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from heartlane.worker.agents import agent, open_adapter
from heartlane.worker.agents.registry import BUILT_IN
from heartlane.worker.ending import Exit, conclude
from heartlane.worker.reasons import MEANINGS
from tests.worker.agents.cases import START, read_all

DOCS = Path(__file__).resolve().parents[2] / "docs"
AGENTS = (DOCS / "agents.md").read_text("utf-8")
ADAPTER = (DOCS / "write-an-adapter.md").read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The contents of a page's blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def section_of(name: str) -> str:
    """What the page says of one agent, in one line."""
    (found,) = (part for part in AGENTS.split("\n### ") if f"\n`--agent {name}`\n" in part)
    return found


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "plain"])
def test_the_page_has_each_agents_recipe_and_the_cure_for_no_login(name: str) -> None:
    found, section = agent(name), section_of(name)
    assert found.command is not None
    assert " ".join(found.command) in blocks(section, "console")[0]
    words = " ".join(section.split()).replace("`", "")
    assert found.login.cure.split(";")[0].rstrip(".").replace("`", "") in words
    if found.login.check:
        assert " ".join(found.login.check) in words
    for variable in found.environment:
        assert variable in section or "AUTOUPDATE" in variable
    for word in found.resume.words if found.resume else ():
        assert word.partition("=")[0] in section or "{" in word


def test_the_page_explains_every_reason() -> None:
    for reason, meaning in MEANINGS.items():
        assert f"| `{reason}` | {meaning} |" in AGENTS


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's adapter, installed as far as Python can tell."""
    (tmp_path / "acme_adapter.py").write_text(blocks(ADAPTER, "python")[0], "utf-8")
    offered = tomllib.loads(blocks(ADAPTER, "toml")[0])["project"]["entry-points"]["heartlane.agents"]
    information = tmp_path / "acme_adapter-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-adapter\nVersion: 1.0\n", "utf-8")
    lines = "".join(f"{name} = {value}\n" for name, value in offered.items())
    (information / "entry_points.txt").write_text(f"[heartlane.agents]\n{lines}", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_adapter", raising=False)


@pytest.mark.usefixtures("installed")
def test_the_adapter_of_the_page_does_what_the_page_says() -> None:
    lines, shipped = blocks(ADAPTER, "json")
    adapter = open_adapter("acme")
    adapter.begin(START, 100.0)
    events = read_all(adapter, lines.splitlines())
    assert [f"{event.type} {json.dumps(event.payload)}" for event in events] == blocks(ADAPTER, "text")[0].splitlines()
    conclusion = conclude(adapter, Exit(code=0), START)
    assert conclusion.event.type == "ship_complete"
    assert conclusion.event.payload == json.loads(shipped)
    assert agent("acme").argv("Fix it", "a-17") == ["acme", "--session", "a-17", "--json", "Fix it"]


def test_the_adapter_of_the_page_is_thirty_lines_from_its_first_import_to_its_last_bracket() -> None:
    assert len([line for line in blocks(ADAPTER, "python")[0].splitlines() if line.strip()]) == 30
