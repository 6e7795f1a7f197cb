"""The lease of one lane, kept by a thread of its own: renewed at a third of its length, whatever the agent does.

    renew ──► KEEP, PAUSE    the lease holds from the moment the renewal was *sent*; the guard gets the new deadline
          ──► STOP, LOST     the claim is over: whoever watches is told once, and nothing more is sent
          ──► RETRY          no answer, 404, 429, 5xx, a proxy's page: ask again, with jitter, for as long as it takes

The thread never waits longer than a second at a time, on a clock that goes on while the machine sleeps: after a sleep
the first thing it does is to ask. What else reports on the lane (`heartlane.worker.sender`) tells the keeper of its
answers, so that a lane that talks all the time costs no renewals beside.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from heartlane.client.lease import Lease, Meaning, Standing
from heartlane.worker.clock import boottime
from heartlane.worker.exchange import Exchange, Reply

SLICE_SECONDS: Final = 1.0
ANSWER_SECONDS_MIN: Final = 1.0
ANSWER_SECONDS_MAX: Final = 10.0


class Loss(NamedTuple):
    """How the claim ended, other than by us: the error's code, and a sentence."""

    code: str | None
    message: str


class Holding(NamedTuple):
    """Whose lane it is: what every report says of itself."""

    run_id: str
    worker_id: str
    attempt: int
    lease_seconds: int

    @property
    def path(self) -> str:
        """The run's own path."""
        return f"/api/agents/runs/{self.run_id}"

    def body(self) -> dict[str, str | int]:
        """The fields that every report carries."""
        return {"worker_id": self.worker_id, "attempt": self.attempt, "lease_seconds": self.lease_seconds}


class Keeper:
    """Renews the lease from `start` until `stop`. For several threads.

    on_change   called, on whatever thread noticed, when the lease was confirmed, the directive changed, or the claim
                was lost: keep it short
    """

    def __init__(self, exchange: Exchange, holding: Holding, lease: Lease, on_change: Callable[[], None]) -> None:
        self.holding = holding
        self.confirmations = 0
        self.trouble = ""
        """What was wrong with the last renewal; "" when it went well."""
        self.fault: Exception | None = None
        """What nobody foresaw, which ended its thread: the lease is renewed no more."""
        self._exchange = exchange
        self._lease = lease
        self._on_change = on_change
        self._paused = False
        self._told_to_stop = False
        self._directive_sent_at = 0.0
        self._directive_heard_at = 0.0
        self._loss: Loss | None = None
        self._changed = threading.Condition()
        self._asked = False
        self._closing = False
        self._tries = 0
        self._next_at = lease.renew_at(random.random())  # noqa: S311 - jitter, not a secret
        self._thread = threading.Thread(target=self._run, name="heartlane-keeper", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stand_down(self) -> None:
        """Renew no more; one that is under way is not waited for."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Renew no more; returns once nothing is under way, or after the longest answer."""
        self.stand_down()
        if self._thread.ident is not None:
            self._thread.join(ANSWER_SECONDS_MAX + 1)

    @property
    def lease(self) -> Lease:
        """What is known of the lease."""
        with self._changed:
            return self._lease

    @property
    def paused(self) -> bool:
        """Whether the operator wants the agent to stand still."""
        return self._paused

    @property
    def told_to_stop(self) -> bool:
        """Whether a directive said so: the lane is ours until we have given it back."""
        return self._told_to_stop

    @property
    def loss(self) -> Loss | None:
        """How the claim was lost; None while it isn't."""
        return self._loss

    def standing(self) -> Standing:
        """How the lease stands now."""
        return self.lease.standing(boottime())

    def ask_now(self) -> None:
        """Renew at once: somebody said that there is news."""
        with self._changed:
            self._asked = True
            self._changed.notify_all()

    def heard(self, reply: Reply, sent_at: float) -> Meaning:
        """Take in the answer to any report on this lane that was sent at `sent_at`; what it means."""
        means = reply.meaning
        changed = False
        with self._changed:
            if means in (Meaning.KEEP, Meaning.PAUSE, Meaning.STOP):
                self.confirmations += 1
                self._lease = self._lease.confirmed(sent_at, self.holding.lease_seconds)
                self._next_at = self._lease.renew_at(random.random())  # noqa: S311 - jitter
                self._tries = 0
                self.trouble = ""
                self._take_directive(means is Meaning.PAUSE, sent_at)
                self._told_to_stop |= means is Meaning.STOP
                changed = True
            if means is Meaning.LOST and self._loss is None:
                self._loss = Loss(reply.code, reply.problem)
                changed = True
            if means in (Meaning.RETRY, Meaning.REFUSED):
                self.trouble = reply.problem
            self._changed.notify_all()
        if changed:
            self._on_change()
        return means

    def _take_directive(self, paused: bool, sent_at: float) -> None:
        """Of two reports that were under way at once, nobody knows which the server answered first."""
        if paused != self._paused and sent_at < self._directive_heard_at:
            self._asked = True  # what is asked from now on is newer than both
        if sent_at >= self._directive_sent_at:
            self._paused, self._directive_sent_at = paused, sent_at
        self._directive_heard_at = boottime()

    def retry_delay(self, tries: int, reply: Reply) -> float:
        """Seconds until the next try of whatever got that answer."""
        return self.lease.retry_delay(tries, boottime(), random.random(), reply.retry_after)  # noqa: S311 - jitter

    def _run(self) -> None:
        try:
            self._renew()
        except Exception as error:  # noqa: BLE001 - raised again by whoever works the lane
            self.fault = error
            self._on_change()

    def _renew(self) -> None:
        while self._wait():
            sent_at = boottime()
            left = self.lease.ends_at - sent_at
            seconds = min(ANSWER_SECONDS_MAX, max(ANSWER_SECONDS_MIN, left / 3))
            reply = self._exchange.post(f"{self.holding.path}/events", self.holding.body(), seconds)
            means = self.heard(reply, sent_at)
            if means in (Meaning.RETRY, Meaning.REFUSED):
                with self._changed:
                    self._tries += 1
                    self._next_at = boottime() + self.retry_delay(self._tries, reply)

    def _wait(self) -> bool:
        """Wait until a renewal is due; False when there will be none."""
        with self._changed:
            while not self._closing and self._loss is None:
                left = self._next_at - boottime()
                if self._asked or left <= 0:
                    self._asked = False
                    return True
                self._changed.wait(min(left, SLICE_SECONDS))
        return False
