"""Which calls are made again, how often, and after how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.client.errors import BadAnswer, HeartlaneError, Unreachable, api_error
from heartlane.client.retry import RetryPolicy, is_passing, may_be_done, next_wait
from heartlane.wire.answers import ErrorAnswer
from heartlane.wire.errors import CODES


def answered(code: str, retry_after: float | None = None) -> HeartlaneError:
    return api_error(CODES[code].status, ErrorAnswer(error="x", code=code, retryAfter=retry_after))


POLICY = RetryPolicy()
NEVER_SENT = Unreachable("refused", sent=False)
CUT_OFF = Unreachable("cut off", sent=True)
PAGE = BadAnswer("a page", status=502)


def wait(error: HeartlaneError, *, repeatable: bool, policy: RetryPolicy = POLICY, tries: int = 1) -> float | None:
    return next_wait(policy, error, repeatable=repeatable, tries=tries, spent=0, chance=0.5)


@pytest.mark.parametrize(
    ("error", "repeatable", "again"),
    [
        (NEVER_SENT, False, True),
        (NEVER_SENT, True, True),
        (CUT_OFF, False, False),
        (CUT_OFF, True, True),
        (PAGE, False, False),
        (PAGE, True, True),
        (answered("RATE_LIMITED", 1), False, True),
        (answered("UNAVAILABLE", 1), False, False),
        (answered("UNAVAILABLE", 1), True, True),
        *((answered(code), True, False) for code in CODES if code not in ("RATE_LIMITED", "UNAVAILABLE")),
    ],
)
def test_what_is_made_again(error: HeartlaneError, repeatable: bool, again: bool) -> None:
    assert (wait(error, repeatable=repeatable) is not None) is again


def test_what_was_never_sent_was_never_done() -> None:
    assert [may_be_done(each) for each in (NEVER_SENT, CUT_OFF, PAGE, answered("RATE_LIMITED"))] == [
        False,
        True,
        True,
        False,
    ]
    assert may_be_done(answered("UNAVAILABLE"))
    assert not is_passing(answered("CLAIM_LOST"))


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 30), st.none() | st.floats(0, 60))
def test_waits_are_bounded_and_heed_the_server(
    tries: int, chance: float, spent: float, retry_after: float | None
) -> None:
    policy = RetryPolicy(tries=50)
    error = answered("UNAVAILABLE", retry_after)
    found = next_wait(policy, error, repeatable=True, tries=tries, spent=spent, chance=chance)
    if found is None:
        assert tries >= policy.tries or spent + (retry_after or 0) + policy.longest_seconds > policy.seconds
        return
    assert (retry_after or 0) <= found <= (retry_after or 0) + policy.longest_seconds
    assert spent + found <= policy.seconds


def test_waits_grow_and_are_spread() -> None:
    full = [next_wait(POLICY, CUT_OFF, repeatable=True, tries=n, spent=0, chance=1.0) for n in (1, 2, 3, 4, 7)]
    assert full == [0.2, 0.4, 0.8, 1.6, 5.0]
    assert next_wait(POLICY, CUT_OFF, repeatable=True, tries=3, spent=0, chance=0.0) == 0
    assert wait(NEVER_SENT, repeatable=True, policy=RetryPolicy(tries=1)) is None
