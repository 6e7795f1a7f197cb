"""Garbage, cuts, merged lines, lines of many megabytes: no adapter breaks, and nothing that was printed is lost."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartlane.worker.agents import Adapter, AgentEvent, names, open_adapter
from heartlane.worker.ending import Exit, conclude
from tests.worker.agents.cases import START, Case, begun, cases

ADAPTERS = sorted(names())
STREAMS = [name for name in ADAPTERS if name != "plain"]
CASES = [case for case in cases() if case.agent != "plain"]
LINES = {name: [line for case in CASES if case.agent == name for line in case.lines] for name in STREAMS}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def check(events: list[AgentEvent]) -> None:
    """Every event can be sent."""
    for event in events:
        assert event.type in {"action", "log_line", "error"}
        json.dumps(event.payload, allow_nan=False, ensure_ascii=False).encode()
        assert len(event.payload.get("line", "")) <= 2_000


def told(events: list[AgentEvent]) -> list[AgentEvent]:
    """Without the times that calls took."""
    return [AgentEvent(kind, {key: value for key, value in payload.items() if key != "ms"}) for kind, payload in events]


def is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def finished(adapter: Adapter) -> None:
    """The end of such a run can be decided and sent, however it went."""
    check(list(adapter.finish()))
    for how in (Exit(code=0), Exit(code=1), Exit(signal=9)):
        json.dumps(conclude(adapter, how, START).event.payload, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", ADAPTERS)
@given(lines=st.lists(st.text(max_size=200), max_size=5))
def test_text_of_any_kind_is_shown(name: str, lines: list[str]) -> None:
    adapter = begun(name)
    for line in lines:
        events = list(adapter.read(line, 1.0))
        check(events)
        if line.strip() and not line.strip().startswith(("{", "[", "\ufeff")) and line.isprintable():
            assert events == [AgentEvent("log_line", {"line": line.rstrip()})]
    finished(adapter)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Lines of an agent, some of their values replaced by anything at all."""
    name = draw(st.sampled_from(STREAMS))
    lines = draw(st.lists(st.sampled_from(LINES[name]), min_size=1, max_size=6))

    def damage(value: Any) -> Any:
        if draw(st.integers(0, 5)) == 0:
            return draw(VALUES)
        if isinstance(value, dict):
            return {key: damage(inner) for key, inner in value.items()}
        return [damage(inner) for inner in value] if isinstance(value, list) else value

    return name, [json.dumps(damage(json.loads(line))) if is_record(line) else line for line in lines]


@settings(max_examples=300)
@given(damaged())
def test_values_of_any_kind_break_nothing(stream: tuple[str, list[str]]) -> None:
    name, lines = stream
    adapter = begun(name)
    for second, line in enumerate(lines):
        check(list(adapter.read(line, float(second))))
    finished(adapter)


@given(st.sampled_from(STREAMS), st.data())
def test_lines_that_were_merged_are_read_as_if_each_stood_alone(name: str, data: st.DataObject) -> None:
    lines = data.draw(
        st.lists(st.sampled_from([line for line in LINES[name] if is_record(line)]), min_size=2, max_size=5)
    )
    alone, merged = begun(name), begun(name)
    apart = [event for line in lines for event in alone.read(line + "\n", 1.0)] + list(alone.finish())
    together = list(merged.read("".join(lines) + "\n", 1.0)) + list(merged.finish())
    assert told(together) == told(apart)
    assert merged.result == alone.result


@pytest.mark.parametrize("case", CASES, ids=[f"{case.agent}: {case.title}" for case in CASES])
def test_a_line_that_was_cut_anywhere_is_shown_and_read_once_its_rest_is_there(case: Case) -> None:
    for line in case.lines:
        if not is_record(line):
            continue
        whole = list(begun(case.agent).read(line, 1.0))
        for place in {1, 2, 9, len(line) // 3, len(line) // 2, len(line) - 2, len(line) - 1}:
            adapter = begun(case.agent)
            first = list(adapter.read(line[:place] + "\n", 1.0))
            assert [event.type for event in first] == ["log_line"]
            assert told(list(adapter.read(line[place:] + "\n", 1.0))) == told(whole)


@given(st.sampled_from(STREAMS), st.data())
def test_a_line_within_another_is_read_and_so_is_the_one_around_it(name: str, data: st.DataObject) -> None:
    """As Claude Code 2.1.74 did it: the inner line's own end cuts the outer one, whose rest is the next line."""
    records = [line for line in LINES[name] if is_record(line) and "brand_new" not in line]
    outer, inner = data.draw(st.sampled_from(records)), data.draw(st.sampled_from(records))
    place = data.draw(st.sampled_from([at + 1 for at, character in enumerate(outer[:-1]) if character.isalpha()]))
    adapter = begun(name)
    events = list(adapter.read(outer[:place] + inner + "\n", 1.0))
    events += adapter.read(outer[place:] + "\n", 2.0)
    events += adapter.finish()
    check(events)
    plain = begun(name)
    expected = [*plain.read(inner, 1.0), *plain.read(outer, 2.0), *plain.finish()]
    for event in told(expected):
        assert event in told(events)


BIG = 10_000_000


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize(
    "line",
    [
        "x" * BIG,
        "{" * BIG,
        "[" * BIG,
        '{"a":' * (BIG // 5),
        '{"type":"assistant","message":{"content":[{"type":"text","text":"' + "a\\n" * (BIG // 3),
        "\x1b[31m" * (BIG // 5),
        "12%\r" * (BIG // 4),
        "\x00" * BIG,
        "\ufffd" * BIG,
    ],
    ids=["letters", "braces", "brackets", "deep", "cut", "colours", "progress", "nul", "replaced"],
)
def test_a_line_of_ten_megabytes_is_shown_in_part_and_in_little_time(name: str, line: str) -> None:
    adapter = open_adapter(name)
    started = time.process_time()
    events = list(adapter.read(line + "\n", 1.0))
    assert time.process_time() - started < 10
    check(events)
    assert len(events) <= 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("claude", {"type": "assistant", "message": {"id": "m", "content": [{"type": "text", "text": "x" * BIG}]}}),
        ("codex", {"type": "item.completed", "item": {"id": "i", "type": "agent_message", "text": "x" * BIG}}),
        ("gemini", {"type": "message", "role": "assistant", "content": "x" * BIG}),
        ("opencode", {"type": "text", "sessionID": "s", "part": {"type": "text", "text": "x" * BIG}}),
        ("copilot", {"type": "assistant.message", "data": {"content": "x" * BIG}}),
        (
            "goose",
            {"type": "message", "message": {"role": "assistant", "content": [{"type": "text", "text": "x" * BIG}]}},
        ),
    ],
)
def test_a_text_of_ten_megabytes_is_cut_where_it_is_sent(name: str, line: dict[str, Any]) -> None:
    adapter = open_adapter(name)
    events = [*adapter.read(json.dumps(line), 1.0), *adapter.finish()]
    (event,) = events
    assert event.type == "log_line"
    assert len(event.payload["line"]) <= 2_000
    assert event.payload["line"].endswith("characters left out]")
    assert len(str(adapter.last_text)) <= 10_000


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize(
    "line",
    [
        '{"type":"result","total_cost_usd":NaN,"num_turns":Infinity,"subtype":"success"}',
        '{"type":"result","num_turns":' + "9" * 10_000 + "}",
        '{"type":"assistant","message":{"content":[{"type":"text","text":"\\ud800 half"}]}}',
        '{"type":"assistant","message":' + '{"a":' * 900 + "1" + "}" * 901,
        '{"type":["assistant"],"message":{}}',
        '{"type":{"a":1}}',
        '{"type":"result","exitCode":-1,"status":"error","error":{"error":{"error":"x"}}}',
        "null",
        "[]",
        "{}",
        '"text"',
        "\ufeff",
    ],
)
def test_odd_json_breaks_nothing(name: str, line: str) -> None:
    adapter = begun(name)
    check(list(adapter.read(line, 1.0)))
    finished(adapter)


def test_a_stream_of_pieces_without_an_end_is_said_in_parts() -> None:
    adapter = open_adapter("gemini")
    piece = json.dumps({"type": "message", "role": "assistant", "content": "x" * 1_000, "delta": True})
    events = [event for _ in range(200) for event in adapter.read(piece, 1.0)]
    assert len(events) == 3


def test_tool_calls_that_never_end_are_forgotten_at_last() -> None:
    adapter = open_adapter("gemini")
    for number in range(1_500):
        adapter.read(json.dumps({"type": "tool_use", "tool_name": "t", "tool_id": str(number)}), float(number))
    (early,) = adapter.read(json.dumps({"type": "tool_result", "tool_id": "0", "status": "success"}), 2_000.0)
    (late,) = adapter.read(json.dumps({"type": "tool_result", "tool_id": "1499", "status": "success"}), 2_000.0)
    assert "ms" not in early.payload
    assert late.payload["ms"] == 501_000


def test_new_types_of_lines_are_told_once_each_and_not_without_end() -> None:
    adapter = open_adapter("claude")
    events = [
        event for number in range(1_000) for event in adapter.read(json.dumps({"type": f"new {number % 500}"}), 1.0)
    ]
    assert len(events) == 64
