"""The arithmetic of holding a lease: when to renew, until when it certainly holds, and what each answer means.

Pure: no clock, no chance, no input or output of its own. All times are seconds of one clock that goes on while the
machine sleeps (`heartlane.client.clock`), all durations seconds.

A lease counts from the moment at which the confirmed request was *sent*: the server took it later than that, so that
its own deadline lies later too. A margin is taken off for clocks that run at different speeds, and for the time that a
body takes to stop. What is not confirmed by then:

    sent_at                        renew_at       ends_at   the server's deadline      gone_at
       │◄──────── HELD ───────────────┼──────────────►│◄────────┼── UNCONFIRMED ──────────►│ GONE
       └── the last confirmed report  └── a third      └── sent_at + length − margin        └── ends_at + outage

HELD: work. UNCONFIRMED: stand still and ask, since the claim may or may not hold still. GONE: stop for good.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

MARGIN_PART: Final = 0.1
MARGIN_SECONDS_MAX: Final = 5.0
RENEWAL_JITTER: Final = 0.2
"""A renewal comes up to this part of its third earlier, so that a fleet doesn't renew in step."""
RETRY_SECONDS_FIRST: Final = 0.2
RETRY_SECONDS_MAX: Final = 5.0
RETRY_PART_MAX: Final = 0.05
"""A retry waits at most this part of the lease: many fit between the first third and the end."""

CLAIM_CODES: Final = frozenset({"CLAIM_HELD_BY_OTHER", "CLAIM_LOST", "NOT_CLAIMED", "STALE_ATTEMPT", "RUN_FINISHED"})
"""What a 409 says when the claim isn't ours. Nothing else ever ends a lane: no 404, 429, 5xx, page of a proxy."""
REFUSED_STATUSES: Final = frozenset({400, 413, 415})
OTHERS_EVENTS: Final = frozenset(
    {
        "paused",
        "resumed",
        "budget_held",
        "budget_lifted",
        "cancelled",
        "released",
        "lease_expired",
        "retried",
        "claimed",
    }
)
"""Types of events in a run's log that somebody else than its holder writes, and after which a report may be answered
otherwise than the one before."""


class Standing(StrEnum):
    """How a lease stands at a moment."""

    HELD = "held"
    UNCONFIRMED = "unconfirmed"
    GONE = "gone"


class Meaning(StrEnum):
    """What an answer to a report, or the lack of one, means for the lane.

    KEEP, PAUSE     the lease is renewed: work, or stand still
    STOP, LOST      stop for good: the run has ended, or the claim isn't ours
    REFUSED         the report itself is at fault: it says nothing about the claim, and fails again as it is
    RETRY           it says nothing: ask again
    """

    KEEP = "keep"
    PAUSE = "pause"
    STOP = "stop"
    LOST = "lost"
    REFUSED = "refused"
    RETRY = "retry"


class Lease(NamedTuple):
    """What a worker knows of its lease.

    length      seconds that were asked for in the confirmed request
    sent_at     when that request was sent
    outage      how long past the end to wait for the server, standing still, before it counts as gone
    """

    length: float
    sent_at: float
    outage: float = 0.0

    @property
    def ends_at(self) -> float:
        """Until when the claim holds for certain."""
        return self.sent_at + self.length - margin(self.length)

    @property
    def gone_at(self) -> float:
        """When to give it up if nothing has confirmed it by then."""
        return self.ends_at + self.outage

    def standing(self, now: float) -> Standing:
        """How it stands now.

        >>> lease = Lease(length=60, sent_at=1000, outage=30)
        >>> [str(lease.standing(now)) for now in (1000, 1054.9, 1055, 1084.9, 1085)]
        ['held', 'held', 'unconfirmed', 'unconfirmed', 'gone']
        """
        if now < self.ends_at:
            return Standing.HELD
        return Standing.UNCONFIRMED if now < self.gone_at else Standing.GONE

    def confirmed(self, sent_at: float, length: float) -> Lease:
        """After a request of that moment was answered: an answer that comes late never takes time away."""
        return self._replace(sent_at=sent_at, length=length) if sent_at >= self.sent_at else self

    def renew_at(self, chance: float) -> float:
        """When to renew: a third into the lease, or a little earlier. `chance` is drawn from 0 to 1.

        >>> lease = Lease(length=300, sent_at=0)
        >>> lease.renew_at(0.0), lease.renew_at(1.0)
        (100.0, 80.0)
        """
        return self.sent_at + self.length / 3 * (1 - RENEWAL_JITTER * chance)

    def retry_delay(self, tries: int, now: float, chance: float, retry_after: float | None = None) -> float:
        """Seconds until the next try, after `tries` failed ones (1 or more): exponential, with full jitter.

        What the server asks for (`retry_after`) is honoured as far as it leaves half of the time that is left.

        >>> lease = Lease(length=300, sent_at=0)
        >>> [lease.retry_delay(tries, 100, 1.0) for tries in (1, 2, 3, 9)]
        [0.2, 0.4, 0.8, 5.0]
        >>> lease.retry_delay(1, 100, 0.0, retry_after=60), lease.retry_delay(1, 255, 0.0, retry_after=60)
        (60, 20.0)
        """
        longest = min(RETRY_SECONDS_MAX, self.length * RETRY_PART_MAX)
        delay = min(longest, RETRY_SECONDS_FIRST * 2.0 ** min(tries - 1, 30)) * chance
        if retry_after is None:
            return delay
        deadline = self.ends_at if now < self.ends_at else self.gone_at
        return max(delay, min(retry_after, max(longest, (deadline - now) / 2)))


def margin(length: float) -> float:
    """Seconds taken off a lease: a tenth of it, five seconds at most.

    >>> margin(1), margin(30), margin(300)
    (0.1, 3.0, 5.0)
    """
    return min(length * MARGIN_PART, MARGIN_SECONDS_MAX)


def meaning(*, directive: str | None = None, status: int | None = None, code: str | None = None) -> Meaning:
    """What came of a report: of its answer's `directive`, or of an error's status and code (None: there was none).

    >>> str(meaning(directive="pause")), str(meaning(status=409, code="CLAIM_LOST"))
    ('pause', 'lost')
    >>> str(meaning(status=404, code="NOT_FOUND")), str(meaning(status=409)), str(meaning())
    ('retry', 'retry', 'retry')
    """
    if directive is not None:
        return {"pause": Meaning.PAUSE, "stop": Meaning.STOP}.get(directive, Meaning.KEEP)
    if status == 409 and code in CLAIM_CODES:
        return Meaning.LOST
    if status == 413 or (status in REFUSED_STATUSES and code is not None):
        return Meaning.REFUSED
    return Meaning.RETRY
