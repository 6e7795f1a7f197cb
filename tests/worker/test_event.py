"""Events as bytes: whatever an agent printed, the server's own parser and models take it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.wire.parse import parse_json
from heartlane.wire.requests import ReportBody
from heartlane.worker.event import EVENT_BYTES_MAX, encode, stamp


def accepted(event: dict[str, Any]) -> dict[str, Any]:
    """The event as the server reads it from a report that holds it alone."""
    data = encode(event)
    assert len(data) <= EVENT_BYTES_MAX
    assert b"\n" not in data
    body = ReportBody.model_validate(parse_json(b'{"worker_id":"w","events":[' + data + b"]}"))
    assert len(body.events) == 1
    return dict(body.events[0])


def nested(depth: int, bottom: Any = "x") -> Any:
    for _ in range(depth):
        bottom = {"a": [bottom]}
    return bottom


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=[]), max_size=50)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=[]), max_size=9), ANYTHING, max_size=9))
def test_any_payload_is_taken(payload: dict[str, Any]) -> None:
    event = accepted({"type": "action", "payload": payload, "at": stamp(1.5)})
    assert event["type"] == "action"
    assert event["at"] == "1970-01-01T00:00:01.500Z"


def test_what_the_wire_can_hold_arrives_as_it_is() -> None:
    payload = {"line": 'grün \u2028 \x00 "q" \\', "n": [1, 2.5, True, None, -(2**70)], "deep": nested(40)}
    assert accepted({"type": "log_line", "payload": payload})["payload"] == payload
    assert accepted({"type": "heartbeat"}) == {"type": "heartbeat"}


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(float("nan"), id="not a number"),
        pytest.param(float("-inf"), id="infinite"),
        pytest.param("\ud800 half a pair", id="half a surrogate pair"),
        pytest.param(10**5000, id="too many digits"),
        pytest.param(nested(150), id="deep"),
        pytest.param(nested(20_000), id="deeper than Python goes"),
        pytest.param(object(), id="no JSON"),
        pytest.param({1: "x"}, id="a number as a name"),
        pytest.param({"\udfff": 1}, id="half a surrogate pair as a name"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param({1, 2}, id="a set"),
    ],
)
def test_what_it_cant_hold_is_told_as_text(odd: Any) -> None:
    payload = accepted({"type": "action", "payload": {"tool": "edit", "odd": odd}})["payload"]
    assert payload["tool"] == "edit"
    assert "odd" in payload


def test_an_event_that_is_too_large_loses_the_ends_of_its_longest_strings() -> None:
    payload = {"tool": "bash", "output": "o" * 10_000_000, "command": "make test", "ok": False}
    small = accepted({"type": "action", "payload": payload})["payload"]
    assert (small["tool"], small["command"], small["ok"]) == ("bash", "make test", False)
    assert small["output"].startswith("o" * 8_000)
    assert small["output"].endswith("9,992,000 characters left out")
    many = accepted({"type": "action", "payload": {"files": [f"src/{n}.py" for n in range(100_000)]}})["payload"]
    assert many["files"][:2] == ["src/0.py", "src/1.py"]
    assert many["files"][-1] == "… 99,900 more left out"
    wide = accepted({"type": "action", "payload": {f"key-{n}": n for n in range(100_000)}})["payload"]
    assert wide["left_out"] == 99_900


def test_the_result_keeps_what_the_run_needs_of_it() -> None:
    payload = {
        "pr_url": "https://x/1",
        "commit": "c" * 40,
        "summary": "s" * 100_000,
        "fatal": False,
        "usage": {f"k{n}": ["u" * 90] * 90 for n in range(90)},
    }
    kept = accepted({"type": "ship_complete", "payload": payload})["payload"]
    assert (kept["pr_url"], kept["commit"], kept["fatal"]) == ("https://x/1", "c" * 40, False)
    assert kept["summary"].startswith("s" * 10_000)
    assert kept["left_out"] == "this event was too large"


@pytest.mark.parametrize("event", [{}, {"type": 5}, {"type": "action", "payload": []}, {"payload": {}}])
def test_what_is_no_event_is_an_error_of_the_callers(event: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="not an event"):
        encode(event)


def test_the_same_event_is_the_same_bytes() -> None:
    event = {"type": "log_line", "payload": {"line": "x", "b": 1, "a": 2}, "at": stamp(0)}
    assert encode(event) == encode(json.loads(encode(event)))
