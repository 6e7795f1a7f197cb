"""`docs/who-did-what.md` has a row for every action that the code writes down, and for no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from heartlane.store.run_audit import ACTIONS
from heartlane.store.ticket_audit import CHANGED, CREATED

ROOT = Path(__file__).resolve().parents[2]
WRITERS = {"record", "_record", "_change", "make_entry"}
"""Functions that take an action's name."""
ACTION = re.compile(r"[a-z_]+\.[a-z_]+")


def written_down() -> set[str]:
    """Every action that the store and the server name where they write an entry."""
    found = {*ACTIONS.values(), *CREATED.values(), *CHANGED.values()}
    for folder in ("store", "server"):
        for path in (ROOT / "heartlane" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    values = [each.value for each in node.args if isinstance(each, ast.Constant)]
                    if name in WRITERS:
                        found |= {value for value in values if isinstance(value, str) and ACTION.fullmatch(value)}
    return found


def test_every_action_has_a_row() -> None:
    page = (ROOT / "docs" / "who-did-what.md").read_text("utf-8")
    section = page.partition("\n## What is there\n")[2].partition("\n## ")[0]
    rows = {name for cell in re.findall(r"^\| (`[^|]*)\|", section, re.MULTILINE) for name in cell.split("`")[1::2]}
    assert rows == written_down()
    assert {"budget.changed", "token.created", "run.paused", "session.started", "github.linked"} <= rows
