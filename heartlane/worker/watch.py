"""Watches over an agent while it runs: whether it may, must stand still, or has to end.

the lease is confirmed      its guard gets the new deadline
… is not, in time           the guard freezes the tree by itself; it goes on when the claim turns out to hold
… is not, for the outage    ended: nobody knows any more whose lane it is
the claim is lost           ended
the operator pauses         frozen, or told so, by choice
the worker is told to stop  ended, and the lane given back
a limit is passed           told of, or ended
it has given its result     ended if it lingers
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from heartlane.client.lease import Standing
from heartlane.worker.agents import Adapter
from heartlane.worker.agents.base import PLAIN
from heartlane.worker.child import HUNG_GUARD_SECONDS, Child, Exit
from heartlane.worker.keeper import Keeper
from heartlane.worker.limits import Breach, RunningTime, breach, spoken
from heartlane.worker.limits import Standing as AgentStanding
from heartlane.worker.options import WorkOptions
from heartlane.worker.reader import Reader
from heartlane.worker.status import LaneStatus
from heartlane.worker.telling import Output, Teller, Voice

LOOK_SECONDS: Final = 0.5
LOST_GRACE_SECONDS: Final = 3.0
"""From SIGTERM to SIGKILL where somebody else may have the lane already."""
LEFT_BEHIND_GRACE_SECONDS: Final = 2.0
END_SECONDS_MAX: Final = 30.0
"""How long the tree of an ended agent may take to be gone, its grace left out."""
OUTPUT_END_SECONDS: Final = 5.0
OWED_LINGERS: Final = 3
"""How many times as long as after its result an agent may be silent that said `heartlane ship` and owes its result …"""
OWED_LINGERS_MAX: Final = 15
"""… and go on in all."""

Cause = Literal["lost", "told", "outage", "limit"]


class Watched(NamedTuple):
    """How an agent's run went.

    exit        how its process ended; None where it could not be ended
    cause       why the worker ended it; None where it ended by itself
    breach      the limit it passed
    lingered    whether it had to be ended after its result
    gone        whether nothing of its tree is left
    stderr_tail the end of what it wrote to stderr
    """

    exit: Exit | None
    cause: Cause | None
    breach: Breach | None
    lingered: bool
    gone: bool
    stderr_tail: str = ""


class Watch:
    """Watches one agent from its start to its end, on the thread that calls `run`.

    wake        set by whoever has news: the keeper, the child, the worker
    stopping    set when the worker is told to stop
    say         tells people at the worker's terminal
    check       raises what went wrong on another thread of the lane
    """

    def __init__(
        self,
        *,
        child: Child,
        output: Output,
        voice: Voice,
        teller: Teller,
        keeper: Keeper,
        options: WorkOptions,
        status: LaneStatus,
        wake: threading.Event,
        stopping: threading.Event,
        say: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._child = child
        self._output = output
        self._voice = voice
        self._teller = teller
        self._keeper = keeper
        self._options = options
        self._status = status
        self._wake = wake
        self._stopping = stopping
        self._say = say
        self._check = check
        self._began = time.monotonic()
        self._running = RunningTime(self._began)
        self._silent = RunningTime(self._began)
        self._printed_at: float | None = None
        self._cause: Cause | None = None
        self._breach: Breach | None = None
        self._told: set[str] = set()
        self._ending_at: float | None = None
        self._said_ended_at: float | None = None
        self._paused = False
        self._overdue_since: float | None = None

    def run(self, reader: Reader) -> Watched:
        """Watch until the agent has ended and nothing of it is left. Raises what `check` or the reader's thread met."""
        while self._child.exit is None and not self._child.empty:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            self._check_threads(reader)
            self._look(time.monotonic())
        ended_at = time.monotonic()
        self._status.state = "ending"
        if not self._child.empty:
            self._child.stop(LEFT_BEHIND_GRACE_SECONDS)
        gone = self._child.wait_empty(END_SECONDS_MAX + LEFT_BEHIND_GRACE_SECONDS)
        if not gone and not self._child.kill(HUNG_GUARD_SECONDS):
            gone = self._child.close()  # a guard that is alive is left at it: it alone sees what belongs to others
        if not reader.join(OUTPUT_END_SECONDS):
            reader.close()
        self._check_threads(reader)
        self._output.finish()
        # One that ended by itself before its time was up has an exit code that counts.
        lingered = (
            self._ending_at is not None
            and self._cause is None
            and ended_at - self._ending_at >= self._options.after_result_seconds
            and self._child.exit != Exit(0, None)
        )
        return Watched(self._child.exit, self._cause, self._breach, lingered, gone, reader.stderr_tail())

    @property
    def running_seconds(self) -> float:
        """How long it ran, frozen time left out."""
        return self._running.seconds(time.monotonic())

    def _check_threads(self, reader: Reader) -> None:
        """An output that nobody reads any more, a lease that nobody renews: the agent can't go on like that."""
        if reader.fault is not None:
            raise reader.fault
        self._check()

    def _look(self, now: float) -> None:
        if self._cause is None:
            self._end_if_due()
        self._pause()
        self._count(now)
        self._note_outage(now)
        self._teller.flush()
        if self._cause is None:
            self._output.tell_usage(now)
            self._hold_to_limits()
            self._end_after_result(self._output.adapter)
        self._status.lease_until = self._keeper.lease.ends_at
        self._status.state = self._state()

    def _end_if_due(self) -> None:
        if self._keeper.loss is not None:
            self._end("lost", min(LOST_GRACE_SECONDS, self._options.grace_seconds))
        elif self._stopping.is_set() or self._keeper.told_to_stop:
            self._end("told", self._options.grace_seconds)
        elif self._keeper.standing() is Standing.GONE:
            self._end("outage", 0.0)

    def _end(self, cause: Cause, grace: float) -> None:
        self._cause = cause
        self._child.stop(grace)

    def _pause(self) -> None:
        paused = self._keeper.paused and self._cause is None
        if paused == self._paused:
            return
        self._paused = paused
        if self._options.on_pause == "freeze":
            # The guard goes on trying where this comes back early, so that the lease is never kept waiting for it.
            (self._child.freeze if paused else self._child.thaw)(1.0)
        elif self._cause is None:
            self._voice.tell_pause(paused)
            self._say(
                "an operator paused it: it was told so" if paused else "an operator lets it go on: it was told so"
            )

    def _count(self, now: float) -> None:
        """Keep the agent's own time: what it stood still is not held against it."""
        printed_at = self._output.printed_at
        if printed_at != self._printed_at:
            self._printed_at = printed_at
            self._silent = RunningTime(now if printed_at is None else printed_at)
            self._told -= {"first_output", "stall"}
        for clock in (self._running, self._silent):
            (clock.hold if self._child.frozen else clock.go_on)(now)

    def _note_outage(self, now: float) -> None:
        """Say when the agent stands still because nobody confirms its lease, and when it goes on."""
        if self._child.overdue and self._overdue_since is None:
            self._overdue_since = now
            trouble = self._keeper.trouble or "no answer yet"
            self._say(f"its lease could not be renewed in time, so it stands still until the server answers: {trouble}")
        elif self._overdue_since is not None and not self._child.overdue:
            stood = f"its lease is confirmed again; it stood still for {spoken(now - self._overdue_since)}"
            self._overdue_since = None
            if self._cause is None:
                self._say(stood)
                self._teller.tell("log_line", line=f"The server could not be reached: {stood}.")

    def _hold_to_limits(self) -> None:
        now = time.monotonic()
        usage = self._output.adapter.usage
        standing = AgentStanding(
            self._running.seconds(now),
            self._silent.seconds(now),
            self._printed_at is not None,
            usage.cost_usd,
            usage.total_tokens,
        )
        found = breach(self._options.limits, standing)
        if found is None or found.kind in self._told:
            return
        self._told.add(found.kind)
        if found.ends:
            self._breach = found
            self._end("limit", self._options.grace_seconds)
        else:
            self._teller.tell("error", message=found.message, reason=found.reason, fatal=False)

    def _end_after_result(self, adapter: Adapter) -> None:
        """End it when it lingers after its result.

        An agent that said `heartlane ship` (or `fail`) still owes its own result, with what was spent: the model may
        think about it for a while. It has more time, and more again with everything it prints.
        """
        if self._ending_at is not None or not (adapter.ended or self._voice.has_ended):
            return
        now = time.monotonic()
        linger = self._options.after_result_seconds
        if not adapter.ended and adapter.name != PLAIN:
            self._said_ended_at = said_at = self._said_ended_at or now
            silent_since = max(said_at, self._output.printed_at or said_at)
            if now < min(silent_since + linger * (OWED_LINGERS - 1), said_at + linger * (OWED_LINGERS_MAX - 1)):
                return
        self._ending_at = now
        self._child.end_after(linger, self._options.grace_seconds)

    def _state(self) -> str:
        if self._cause is not None:
            return "ending"
        if self._paused:
            return "paused"
        return "frozen" if self._child.frozen else "running"
