"""When an agent says that it can be tried again, that time is found: in prose, in numbers, in any zone."""

from __future__ import annotations

import doctest
import struct
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.worker import retry_times
from heartlane.worker.retry_times import find_time, from_epoch, stamp

BERLIN = timezone(timedelta(hours=2))
AT = datetime(2026, 8, 30, 14, 0, tzinfo=BERLIN)  # a Sunday, noon in UTC


@pytest.mark.parametrize(
    ("words", "time"),
    [
        # Times of day: the next one of this machine's zone, unless a zone stands there
        ("try again at 3:45 PM.", "2026-08-30T13:45:00"),
        ("You've hit your limit · resets 9am", "2026-08-31T07:00:00"),
        ("resets 13:58", "2026-08-30T11:58:00"),  # just passed
        ("resets 12:00", "2026-08-31T10:00:00"),
        ("resets at 12am (UTC)", "2026-08-31T00:00:00"),
        ("resets 3:30pm (PST)", "2026-08-30T23:30:00"),
        ("resets 3pm UTC+2", "2026-08-30T13:00:00"),
        ("try again tomorrow at 10:00", "2026-08-31T08:00:00"),
        ("resets Mon 9:00 AM", "2026-08-31T07:00:00"),
        ("resets Sun 9:00 AM", "2026-09-06T07:00:00"),
        # Dates
        ("or try again at Aug 31st, 2026 7:08 AM.", "2026-08-31T05:08:00"),
        ("resets Oct 9 at 5pm (UTC)", "2026-10-09T17:00:00"),
        ("resets Jan 2, 10am", "2027-01-02T08:00:00"),
        ("available again on 31 August 2026 07:08", "2026-08-31T05:08:00"),
        ("limit resets at 2026-09-01T00:00:00Z", "2026-09-01T00:00:00"),
        ("limit resets at 2026-09-01T00:00:00+02:00", "2026-08-31T22:00:00"),
        ("limit resets on 2026-09-01 08:00", "2026-09-01T06:00:00"),
        # So long from now
        ("Your quota will reset after 2h30m10s.", "2026-08-30T14:30:10"),
        ("Please retry in 35.5s.", "2026-08-30T12:00:35.500000"),
        ("Try again in 3 days 4 hours 9 minutes.", "2026-09-02T16:09:00"),
        ("resets in 3h 20m", "2026-08-30T15:20:00"),
        ("Please try again in 1 hour and 5 minutes", "2026-08-30T13:05:00"),
        ("please wait 45 seconds", "2026-08-30T12:00:45"),
        ("try again in 850ms", "2026-08-30T12:00:00.850000"),
        ('"retryDelay": "36s"', "2026-08-30T12:00:36"),
        ("Retry-After: 30", "2026-08-30T12:00:30"),
        ('{"resets_in_seconds":5400}', "2026-08-30T13:30:00"),
        # Epochs
        ("Claude AI usage limit reached|1788180000", "2026-08-31T12:40:00"),
        ('{"resets_at":1788180000}', "2026-08-31T12:40:00"),
        ('{"resetsAt": 1788180000000}', "2026-08-31T12:40:00"),
    ],
)
def test_a_time_is_found(words: str, time: str) -> None:
    found = find_time(words, AT)
    assert found is not None
    assert found.tzinfo is UTC
    assert found.replace(tzinfo=None).isoformat() == time


@pytest.mark.parametrize(
    "words",
    [
        "",
        "Try again later.",
        "resets at 31 Sep 2026 10:00",
        "resets 25:00",
        "resets 13pm",
        "resets in 9999 days",
        "try again at Aug 31st, 2036 7:08 AM",
        "2026-08-30T11:59:58Z ERROR usage limit",  # a log's own stamp
        "12 tests in 3.4s",
    ],
)
def test_no_time_is_made_up(words: str) -> None:
    assert find_time(words, AT) is None


def test_a_zone_is_looked_up_by_its_name(tmp_path: Path) -> None:
    """With a zone of this test's own making, six hours behind UTC, since machines differ in what zones they have."""
    header = struct.pack(">4s c 15x 6l", b"TZif", b"\0", 0, 0, 0, 0, 1, 4)
    (tmp_path / "Test").mkdir()
    (tmp_path / "Test" / "Six").write_bytes(header + struct.pack(">l b b", -6 * 3600, 0, 0) + b"SIX\0")
    try:
        zoneinfo.reset_tzpath([str(tmp_path)])
        found = find_time("resets 9am (Test/Six)", AT)
    finally:
        zoneinfo.reset_tzpath()
    assert found == datetime(2026, 8, 30, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Nowhere/Atall", "../etc/passwd", "Europe/"])
def test_a_zone_that_is_not_known_here_is_taken_for_this_machines(zone: str) -> None:
    assert find_time(f"resets 9am ({zone})", AT) == datetime(2026, 8, 31, 7, 0, tzinfo=UTC)


def test_numbers_that_are_no_instants_are_refused() -> None:
    assert from_epoch(1788180000) == from_epoch(1788180000.0) == from_epoch(1788180000000)
    assert from_epoch("2026-08-31T14:40:00+02:00") == from_epoch(1788180000)
    values: list[object] = [
        None,
        True,
        0,
        -1,
        10**20,
        float("nan"),
        float("inf"),
        "soon",
        "2026-08-31T14:40:00",
        [],
        {},
    ]
    for value in values:
        assert from_epoch(value) is None


def test_a_time_is_written_as_the_wire_has_it() -> None:
    assert stamp(AT) == "2026-08-30T12:00:00.000Z"


@given(st.text(max_size=200), st.sampled_from(["resets ", "try again at ", "retry in ", "|", "resets_at:"]))
def test_any_words_come_to_a_time_ahead_or_none(words: str, before: str) -> None:
    found = find_time(before + words, AT)
    assert found is None or AT - timedelta(days=1) < found < AT + timedelta(days=370)


@given(
    st.from_regex(r"(?i)resets (at |in |on )?(mon |aug )?\d{0,4}[ :]?\d{0,4} ?(am|pm|h|m|s|d)? ?\(?[a-z/+0-9]{0,12}\)?")
)
def test_what_looks_like_a_time_breaks_nothing(words: str) -> None:
    found = find_time(words, AT)
    assert found is None or found.tzinfo is UTC


def test_the_examples_in_the_module_are_true() -> None:
    assert doctest.testmod(retry_times).failed == 0
