"""Each kind of line that each agent's documentation has, read: what is told, and what is known after it."""

from __future__ import annotations

import json

import pytest

from heartlane.worker.agents import names
from tests.worker.agents.cases import Case, begun, cases, known, read_all

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=[f"{case.agent}: {case.title}" for case in CASES])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""], ids=["lf", "crlf", "no end"])
def test_a_line_is_read(case: Case, end: str) -> None:
    adapter = begun(case.agent)
    events = read_all(adapter, case.lines, end)
    assert [(event.type, event.payload) for event in events] == case.events
    assert {path: known(adapter, path) for path in case.known} == case.known


def test_every_agent_has_its_cases_and_no_two_of_them_the_same_title() -> None:
    titles = [(case.agent, case.title) for case in CASES]
    assert {agent for agent, _ in titles} == set(names())
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("case", CASES, ids=[f"{case.agent}: {case.title}" for case in CASES])
def test_what_is_told_keeps_to_the_contract(case: Case) -> None:
    for event in read_all(begun(case.agent), case.lines):
        assert event.type in {"action", "log_line", "error"}
        json.dumps(event.payload, allow_nan=False, ensure_ascii=False).encode()
        if event.type == "log_line":
            assert 0 < len(event.payload["line"]) <= 2_000
        if event.type == "error":
            assert event.payload["fatal"] is False
            assert event.payload["message"]
            assert event.payload["reason"]
