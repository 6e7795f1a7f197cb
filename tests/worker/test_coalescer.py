"""Bursts of log lines: so many a second, the rest counted, nothing else ever held back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.worker.coalescer import Coalescer

Events = list[dict[str, Any]]


def line(number: int) -> dict[str, Any]:
    return {"type": "log_line", "payload": {"line": f"line {number}"}, "at": f"2026-01-02T03:04:05.{number % 1000:03}Z"}


def texts(events: Events) -> list[str]:
    return [str(event["payload"].get("line", event["type"])) for event in events]


def test_a_burst_is_counted_and_its_last_line_is_shown() -> None:
    coalescer = Coalescer(5)
    out: Events = []
    for number in range(48_215):
        out += coalescer.add(line(number), now=100.0)
    assert texts(out) == ["line 0", "line 1", "line 2"]
    assert coalescer.flush(100.9) == []
    said = coalescer.flush(101.0)
    assert texts(said) == ["… 48,211 lines left out", "line 48214"]
    assert said[0]["payload"]["left_out"] == 48_211
    assert said[0]["at"] == said[1]["at"]
    assert coalescer.left_out == 48_211
    assert coalescer.flush(102.0) == coalescer.end() == []


def test_lines_within_the_rate_pass_one_by_one() -> None:
    coalescer = Coalescer(5)
    for number in range(30):
        assert coalescer.add(line(number), now=number / 3) == [line(number)]
    assert coalescer.end() == []
    assert coalescer.left_out == 0


def test_one_line_too_many_is_shown_rather_than_spoken_of() -> None:
    coalescer = Coalescer(3)
    assert coalescer.add(line(0), 0.0) == [line(0)]
    assert coalescer.add(line(1), 0.0) == []
    assert coalescer.add(line(2), 1.0) == [line(1), line(2)]
    assert coalescer.add(line(3), 1.5) == []
    assert coalescer.add(line(4), 1.6) == []
    assert texts(coalescer.end()) == ["… 1 line left out", "line 4"]


@pytest.mark.parametrize("kind", ["action", "phase_change", "heartbeat", "error", "ship_complete"])
def test_nothing_but_log_lines_is_ever_left_out(kind: str) -> None:
    coalescer = Coalescer(3)
    event = {"type": kind, "payload": {}}
    passed: Events = []
    for number in range(1_000):
        coalescer.add(line(number), 0.0)
        passed += [e for e in coalescer.add(event, 0.0) if e["type"] == kind]
    assert passed == [event] * 1_000


@pytest.mark.parametrize("kind", ["error", "ship_complete"])
def test_what_may_be_a_runs_last_event_comes_after_what_was_left_out_before(kind: str) -> None:
    coalescer = Coalescer(3)
    for number in range(10):
        coalescer.add(line(number), 0.0)
    end = {"type": kind, "payload": {}}
    assert texts(coalescer.add(end, 0.0)) == ["… 8 lines left out", "line 9", kind]


def test_a_rate_that_leaves_no_room_to_speak_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        Coalescer(2)


@given(st.lists(st.tuples(st.floats(0, 0.7), st.booleans()), max_size=200), st.integers(3, 8))
def test_every_line_is_shown_or_counted_in_order_and_none_too_many_a_second(
    steps: list[tuple[float, bool]], rate: int
) -> None:
    coalescer = Coalescer(rate)
    now, sent = 0.0, 0
    out: list[tuple[float, dict[str, Any]]] = []
    for gap, flushed in steps:
        now += gap
        if flushed:
            out += [(now, event) for event in coalescer.flush(now)]
        out += [(now, event) for event in coalescer.add(line(sent), now)]
        sent += 1
    out += [(now + 1, event) for event in coalescer.end()]
    shown = [int(event["payload"]["line"].split()[1]) for _, event in out if "left_out" not in event["payload"]]
    counted = sum(event["payload"].get("left_out", 0) for _, event in out)
    assert shown == sorted(set(shown))
    assert len(shown) + counted == sent
    assert counted == coalescer.left_out
    if sent:
        assert shown[-1] == sent - 1
    for at, _ in out:
        # Any window of a second touches at most two of the coalescer's.
        assert sum(at <= other < at + 0.999 for other, _ in out) <= 2 * rate
