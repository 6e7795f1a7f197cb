"""What the scripted agents' evidence proves: that the check of it can fail."""

from __future__ import annotations

import pytest

from tests.worker.witness import Line, check_never_two


def line(at: float, attempt: int, what: str = "tick", run_id: str = "a") -> Line:
    return Line(at, run_id, attempt, 100 + attempt, what)


def test_attempts_one_after_the_other_are_fine() -> None:
    check_never_two([line(1, 1, "start"), line(2, 1), line(1.5, 1, run_id="b"), line(3, 2), line(4, 2, "end")])


@pytest.mark.parametrize(
    "lines",
    [
        [line(1, 1), line(2, 2), line(3, 1)],
        [line(1, 1), line(3, 1, "end"), line(2, 2)],
        [line(1, 1), line(2, 1, "end"), line(3, 1)],
        [line(1, 1), Line(2, "a", 1, 999, "tick")],
    ],
    ids=["interleaved", "overlapping stamps", "a tick after the end", "two agents of one attempt"],
)
def test_two_at_once_are_seen(lines: list[Line]) -> None:
    with pytest.raises(AssertionError):
        check_never_two(lines)
