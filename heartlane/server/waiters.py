"""Claims that wait for a lane: long polls, without a database connection while they wait.

An opening wakes as many waiting claims as there are lanes, those that fit and have waited longest, and no more: a
thousand idle workers don't rush one lane. A claim that was woken and leaves empty-handed for its own reasons passes
the word on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from heartlane.store.batch import ANY_ROLE, Announcement, ClaimNext, Opening


class Waiter:
    """One waiting claim. `opening` is what it was woken for; None for a wake-up without a certain lane."""

    __slots__ = ("claim", "opening", "woken")

    def __init__(self, claim: ClaimNext) -> None:
        self.claim = claim
        self.woken = asyncio.Event()
        self.opening: Opening | None = None

    def fits(self, opening: Opening) -> bool:
        """Whether this claim could take a lane of that kind."""
        claim = self.claim
        return (
            claim.account_id == opening.account_id
            and (claim.project_id is None or claim.project_id == opening.project_id)
            and (not claim.roles or opening.role in claim.roles or opening.role == ANY_ROLE)
            and claim.fits_labels(opening.label_key)
        )

    def rearm(self) -> None:
        """Forget the wake-up: a try at what it was for follows at once."""
        self.woken.clear()
        self.opening = None


class Waiters:
    """The waiting claims of this server, in the order of their arrival."""

    def __init__(self) -> None:
        self._waiting: dict[Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def waiting(self, claim: ClaimNext) -> Iterator[Waiter]:
        """A waiter for this claim, woken by every opening from now on until the block ends."""
        waiter = Waiter(claim)
        self._waiting[waiter] = None
        try:
            yield waiter
        finally:
            del self._waiting[waiter]
            if waiter.woken.is_set() and waiter.opening is not None:
                self.wake(waiter.opening)

    def hear(self, announcement: Announcement) -> None:
        """Wake whom an announcement concerns; EVERYTHING wakes all."""
        if not announcement.names_something:
            for waiter in self._waiting:
                waiter.woken.set()
            return
        for opening in announcement.openings:
            self.wake(opening)

    def wake(self, opening: Opening) -> None:
        """Wake up to `opening.lanes` fitting claims that have not been woken yet."""
        left = opening.lanes
        for waiter in self._waiting:
            if left == 0:
                return
            if not waiter.woken.is_set() and waiter.fits(opening):
                waiter.opening = opening._replace(lanes=1)
                waiter.woken.set()
                left -= 1
