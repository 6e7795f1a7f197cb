"""What a lane has to tell: every event once and in order, whatever becomes of the reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.client.outbox import REPORT_BYTES_MAX, WAITING_EVENTS_MAX, Outbox, Report
from heartlane.lanes.bounds import EVENTS_PER_REPORT_MAX

AT = "2026-01-02T03:04:05Z"


def outbox(last_seq: int = 0) -> Outbox:
    return Outbox("w1", 3, 60, last_seq)


def body(report: Report) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(report.body)
    return value


def test_a_bare_renewal_has_no_number() -> None:
    assert body(outbox().next()) == {"worker_id": "w1", "attempt": 3, "lease_seconds": 60}


def test_numbers_go_on_from_the_last_that_was_applied() -> None:
    box = outbox(last_seq=7)
    box.tell("log_line", {"line": "x"}, 0.0, AT)
    report = box.next()
    assert body(report) == {
        "worker_id": "w1",
        "attempt": 3,
        "lease_seconds": 60,
        "seq": 8,
        "events": [{"type": "log_line", "payload": {"line": "x"}, "at": AT}],
    }
    # Until it is answered it stays as it is, whatever else is told.
    box.tell("log_line", {"line": "y"}, 0.0, AT)
    assert box.next() is report
    box.settle()
    assert (box.confirmed, len(box)) == (1, 1)
    assert body(box.next())["seq"] == 9


def test_when_it_is_due() -> None:
    box = outbox()
    assert box.due_at() == float("inf")
    for number in range(EVENTS_PER_REPORT_MAX):
        assert box.due_at() == (float("inf") if number == 0 else 11.0)
        box.tell("log_line", {"line": "x"}, 10.0 + number, AT)
    assert box.due_at() == float("-inf")


@given(st.lists(st.integers(0, 400)), st.lists(st.sampled_from(["settle", "again", "refuse"]), min_size=1))
def test_every_event_once_and_in_order(bursts: list[int], fates: list[str]) -> None:
    box, applied, told, last_seq = outbox(), [], 0, 0
    for round, count in enumerate([*bursts, 0]):
        for _ in range(count):
            told += 1
            assert box.tell("action", {"n": told}, 0.0, AT) == told
        for fate in fates if round < len(bursts) else ["settle"] * 2000:
            report = box.next()
            assert report.events <= EVENTS_PER_REPORT_MAX
            if report.seq is None:
                assert len(box) == 0
                break
            if fate == "settle":
                assert report.seq > last_seq
                last_seq = report.seq
                applied += body(report)["events"]
                box.settle()
            elif fate == "refuse":
                box.shrink()
            else:
                assert box.next() is report
    numbers = [event["payload"].get("n") for event in applied]
    whole = [number for number in numbers if number is not None]
    assert whole == sorted(set(whole))
    # What is missing, or goes without its number, was refused on its own before.
    assert len(applied) + len(box.refused) == told
    assert box.confirmed == told
    if "refuse" not in fates:
        assert whole == list(range(1, told + 1))


def test_a_report_is_bounded_in_bytes() -> None:
    box = outbox()
    for _ in range(10):
        box.tell("action", {"big": "x" * 100_000}, 0.0, AT)
    box.tell("action", {"big": "x" * 1_000_000}, 0.0, AT)
    sizes = []
    while (report := box.next()).seq is not None:
        sizes.append(len(report.body))
        box.settle()
    assert max(sizes[:-1]) <= REPORT_BYTES_MAX + 200
    assert (len(sizes), sizes[-1] > 1_000_000) == (6, True)


def test_what_the_server_refuses_gets_smaller_until_it_goes() -> None:
    box = outbox()
    for number in range(4):
        box.tell("error", {"message": f"m{number}", "big": "x" * 5000}, 0.0, AT)
    assert box.next().events == 4
    box.shrink()
    assert box.next().events == 2
    box.shrink()
    assert box.next().events == 1
    box.shrink()
    report = body(box.next())
    assert report["events"][0]["payload"]["message"] == "m0"
    assert "big" not in report["events"][0]["payload"]
    assert "5" in report["events"][0]["payload"]["left_out"]
    box.shrink()
    assert box.refused == {1}
    assert body(box.next())["events"][0]["payload"]["message"] == "m1"
    box.settle()
    assert box.next().events == 2


def test_it_says_when_it_is_full() -> None:
    box = outbox()
    for _ in range(WAITING_EVENTS_MAX):
        assert not box.full
        box.tell("log_line", {"line": ""}, 0.0, AT)
    assert box.full
    box.next()
    box.settle()
    assert not box.full


@pytest.mark.parametrize("payload", [{"x": object()}, {"x": float("nan")}, {"x": float("inf")}, {"x": {1, 2}}])
def test_what_is_no_json_is_refused_where_it_is_told(payload: dict[str, Any]) -> None:
    box = outbox()
    with pytest.raises((ValueError, TypeError)):
        box.tell("action", payload, 0.0, AT)
    assert (len(box), box.told) == (0, 0)
