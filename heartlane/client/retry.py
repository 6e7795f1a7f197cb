"""Which failed calls are made again, and when. Pure: time and chance are arguments.

A call is made again when it certainly wasn't done (no connection came about, 429), or when doing it twice is the same
as once (`Call.repeatable`). Everything else is the caller's to decide.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from heartlane.client.errors import ApiError, BadAnswer, HeartlaneError, Unreachable

NOT_DONE: Final = frozenset({429})
PASSING: Final = frozenset({429, 502, 503, 504})
"""Statuses that say nothing against the request itself."""


class RetryPolicy(NamedTuple):
    """How long to go on. `tries` counts the first one too; `RetryPolicy(tries=1)` never makes a call again.

    seconds             from the first try to the last, waits included
    first_seconds       longest wait before the second try; it doubles with each further one
    longest_seconds     and ends here
    """

    tries: int = 8
    seconds: float = 30.0
    first_seconds: float = 0.2
    longest_seconds: float = 5.0


def may_be_done(error: HeartlaneError) -> bool:
    """Whether the server may have done what was asked, although the call failed.

    >>> may_be_done(Unreachable("refused", sent=False)), may_be_done(Unreachable("cut off", sent=True))
    (False, True)
    """
    if isinstance(error, Unreachable):
        return error.sent
    if isinstance(error, ApiError):
        # A 503 can also mean that the database didn't say whether it had committed.
        return error.status in PASSING - NOT_DONE
    return isinstance(error, BadAnswer)


def is_passing(error: HeartlaneError) -> bool:
    """Whether the same call may well succeed a little later: no network, a proxy's page, a server that restarts."""
    if isinstance(error, ApiError):
        return error.status in PASSING
    return isinstance(error, Unreachable | BadAnswer)


def next_wait(
    policy: RetryPolicy, error: HeartlaneError, *, repeatable: bool, tries: int, spent: float, chance: float
) -> float | None:
    """Seconds to wait before the next try, or None to give up.

    repeatable      whether doing the call twice is the same as once
    tries           how many there were, the failed one included
    spent           seconds since the first
    chance          drawn from 0 to 1
    """
    if not is_passing(error) or (may_be_done(error) and not repeatable) or tries >= policy.tries:
        return None
    wait = min(policy.longest_seconds, policy.first_seconds * 2.0 ** min(tries - 1, 30)) * chance
    if error.retry_after is not None:
        wait += error.retry_after  # not below what the server asks for, and not all at the same moment
    return None if spent + wait > policy.seconds else wait
