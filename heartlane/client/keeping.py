"""Keeps a claimed lane: renews its lease, sends what is to be told, hears what is wanted of the worker.

Three tasks, whatever the body of the work does:

    _keep       one report under way at a time: what is to be told, else a bare renewal at a third of the lease; what
                gets no answer is sent again, the very same, until there is one
    _watch      looks at the clock, and says when the lease that was last confirmed runs out
    _follow     reads the run's stream, so that a pause or a cancel is heard at once and not with the next report

The stream never decides anything: it has the next report sent now, and that report's answer decides. Only an answer
that says so, or a lease that ran out, ends a lane (`heartlane.client.lease`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, TypeVar, cast

from heartlane.client.call import Call
from heartlane.client.calls import raw_report
from heartlane.client.errors import ApiError, HeartlaneError, LaneLost
from heartlane.client.lease import OTHERS_EVENTS, Lease, Meaning, Standing, meaning
from heartlane.client.outbox import Outbox, Report
from heartlane.client.retry import may_be_done
from heartlane.lanes.run import FINISHED_STATES, HELD_STATES
from heartlane.wire.answers import EventObject, ReportAnswer, RunDetail, RunObject

T = TypeVar("T")
Ended = Literal["shipped", "failed", "released"]

LOOK_SECONDS: Final = 1.0
"""Longest nap: a clock that jumped, as after sleep, is seen this soon."""
REPORT_SECONDS_MAX: Final = 15.0
TOO_LARGE_TIMES: Final = 4
"""So often in a row a proxy has to find a report too large that may have got through before."""
FOLLOW_AGAIN_SECONDS: Final = 5.0

log = logging.getLogger("heartlane.client")


class Sender(Protocol):
    """What keeping needs of a client."""

    clock: Callable[[], float]
    chance: Callable[[], float]

    async def send_once(self, call: Call[T], *, seconds: float | None = None) -> T:
        """The answer to one call, tried once. Raises HeartlaneError."""

    def stream(self, run_id: Any, *, after: int = 0) -> AsyncGenerator[RunObject | EventObject, None]:
        """What happens to a run, from now on."""


class Keeper:
    """One lane that we hold. For one event loop; what only reads may be read from any thread.

    run             the run as the last answer had it
    paused          an operator wants the worker to stand still
    lost            why the lane isn't ours any more, or None
    ended           how we ended it (`shipped`, `failed`, `released`), or None
    on_change       called after each change of these
    """

    def __init__(
        self,
        sender: Sender,
        run: RunDetail,
        *,
        last_seq: int,
        lease_seconds: int,
        sent_at: float,
        outage_seconds: float,
        follow: bool,
    ) -> None:
        self.run = run
        self.paused = run.state == "paused"
        self.lost: LaneLost | None = None
        self.ended: Ended | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.worker_id = run.worker_id or ""
        self.attempt = run.attempt
        self.lease_seconds = lease_seconds
        self.outbox = Outbox(self.worker_id, run.attempt, lease_seconds, last_seq)
        self.last_error: HeartlaneError | None = None
        self.refusal: HeartlaneError | None = None
        self._sender = sender
        self._lease = Lease(lease_seconds, sent_at, outage_seconds)
        self._renew_at = sent_at
        self._tries = 0
        self._doubtful = False  # whether the report under way may have been applied
        self._too_large = 0
        self._try_at = 0.0
        self._hurry = False
        self._ending: int | None = None
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._follows = follow
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def over(self) -> bool:
        """Whether there is nothing to keep any more."""
        return self.lost is not None or self.ended is not None

    @property
    def standing(self) -> Standing:
        """How the lease stands at this very moment."""
        return self._lease.standing(self._sender.clock())

    @property
    def loss(self) -> LaneLost | None:
        """Why the lane isn't ours at this very moment, be it that nobody has told us yet; None while it is, or was."""
        if self.over or self.standing is not Standing.GONE:
            return self.lost
        why = f" The last that was heard: {self.last_error}" if self.last_error is not None else ""
        return LaneLost(f"The lease of {self.lease_seconds} s ran out before the server confirmed it.{why}")

    def start(self) -> None:
        """Keep the lane from now on."""
        work = [self._keep(), self._watch(), *([self._follow()] if self._follows else [])]
        for each in work:
            task = asyncio.get_running_loop().create_task(each)
            task.add_done_callback(self._failed)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Keep it no longer; nothing is said to the server."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _failed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("keeping run %s failed", self.run.id, exc_info=error)
            self.lose(LaneLost(f"The lane isn't kept any more: {type(error).__name__}."))

    # --- what the body asks for ---

    def look(self) -> None:
        """Raises LaneLost when the lane isn't ours, or has ended."""
        loss = self.loss
        if loss is not None:
            raise LaneLost(str(loss), code=loss.code)
        if self.ended is not None:
            raise LaneLost(f"The lane has ended already: it is {self.ended}.")

    async def tell(self, type: str, payload: Mapping[str, Any], *, ending: bool = False) -> int:
        """Have an event sent; its number. Waits while there is too much to send. Raises LaneLost."""
        self.look()
        while self.outbox.full or self.standing is not Standing.HELD:
            await self._changed.wait()
            self.look()
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        number = self.outbox.tell(type, payload, self._sender.clock(), at)
        if ending:
            self._ending = number
        self._wake.set()
        return number

    async def confirmed(self, number: int) -> None:
        """Return once the server has everything up to the event of that number. Raises LaneLost."""
        while self.outbox.confirmed < number:
            if self.lost is not None:
                raise LaneLost(str(self.lost), code=self.lost.code)
            self.hurry()
            await self._changed.wait()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once the condition holds, looked at with every change."""
        while not holds():
            await self._changed.wait()

    def hurry(self) -> None:
        """Have the next report sent now."""
        self._hurry = True
        self._wake.set()

    def lose(self, why: LaneLost) -> None:
        """The lane isn't ours."""
        if not self.over:
            self.lost = why
            log.warning("lost run %s, attempt %d: %s", self.run.id, self.attempt, why)
            self._notify()

    def end(self, how: Ended) -> None:
        """We have ended it."""
        if not self.over:
            self.ended = how
            self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self.on_change()

    # --- reports ---

    async def _keep(self) -> None:
        while not self.over:
            now = self._sender.clock()
            wait = self._due_at(now) - now
            if wait > 0:
                self._wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), min(wait, LOOK_SECONDS))
                continue
            self._hurry = False
            report = self.outbox.next()
            sent_at = self._sender.clock()
            seconds = max(1.0, min(REPORT_SECONDS_MAX, self.lease_seconds / 3))
            try:
                answer = await self._sender.send_once(
                    raw_report(self.run.id, report.body, repeatable=True), seconds=seconds
                )
            except HeartlaneError as error:
                self._unanswered(report, error)
            else:
                self._answered(report, answer, sent_at)

    def _due_at(self, now: float) -> float:
        if self._tries:
            return self._try_at
        return now if self._hurry else min(self._renew_at, self.outbox.due_at())

    def _answered(self, report: Report, answer: ReportAnswer, sent_at: float) -> None:
        self._tries = 0
        self._doubtful, self._too_large = False, 0
        self.last_error = None
        self._lease = self._lease.confirmed(sent_at, self.lease_seconds)
        self._renew_at = self._lease.renew_at(self._sender.chance())
        if report.seq is not None:
            self.outbox.settle()
        self.know(answer.run)
        ours = self._ending is not None and self.outbox.confirmed >= self._ending
        if answer.run.state in FINISHED_STATES:
            if ours:
                self.ended = cast("Ended", answer.run.state)
            else:
                self.lose(LaneLost(f"The run has ended: it is {answer.run.state}.", code="RUN_FINISHED"))
        elif meaning(directive=answer.directive) is Meaning.STOP:
            self.lose(LaneLost("The worker is told to stop."))
        self.paused = meaning(directive=answer.directive) is Meaning.PAUSE
        self._notify()

    def _unanswered(self, report: Report, error: HeartlaneError) -> None:
        self.last_error = error
        status, code = getattr(error, "status", None), getattr(error, "code", None)
        what = meaning(status=status, code=code)
        if what is Meaning.LOST and isinstance(error, ApiError):
            if error.run is not None:
                self.know(error.run)
            self.lose(LaneLost(error.error, code=error.code))
            return
        if what is Meaning.REFUSED and report.seq is not None and self._certainly_refused(error):
            log.warning("the server refused a report on run %s: %s", self.run.id, error)
            self.refusal = error
            self.outbox.shrink()
            self._notify()
            return
        self._doubtful |= report.seq is not None and may_be_done(error) and not 400 <= (status or 0) < 500
        if not self._tries:
            level = logging.WARNING if status in (401, 403, 404) else logging.INFO
            log.log(level, "no answer to a report on run %s, asking again: %s", self.run.id, error)
        self._tries += 1
        now = self._sender.clock()
        self._try_at = now + self._lease.retry_delay(self._tries, now, self._sender.chance(), error.retry_after)

    def _certainly_refused(self, error: HeartlaneError) -> bool:
        """Whether the report was not applied, so that its events may go by another number.

        A proxy's word doesn't say so of one that may have arrived before, unless it proves too large.
        """
        if not isinstance(error, ApiError):
            self._too_large += 1
            if self._doubtful and self._too_large < TOO_LARGE_TIMES:
                return False
        self._doubtful, self._too_large = False, 0
        return True

    def know(self, run: RunObject) -> None:
        """The run as an answer had it."""
        self.run = self.run.model_copy(update={name: getattr(run, name) for name in RunObject.model_fields})

    # --- time ---

    async def _watch(self) -> None:
        held = True
        while not self.over:
            now = self._sender.clock()
            standing = self._lease.standing(now)
            if standing is Standing.GONE and (loss := self.loss) is not None:
                self.lose(loss)
                return
            if held != (standing is Standing.HELD):
                held = standing is Standing.HELD
                if not held:
                    # On waking from sleep the server is asked before anything else is done.
                    self._try_at = now
                    self.hurry()
                self._notify()
            next_at = self._lease.ends_at if held else self._lease.gone_at
            await asyncio.sleep(min(LOOK_SECONDS, max(0.01, next_at - now)))

    # --- the stream ---

    async def _follow(self) -> None:
        while not self.over:
            try:
                async with aclosing(self._sender.stream(self.run.id, after=self.run.event_count)) as told:
                    async for each in told:
                        if self._is_news(each):
                            self.hurry()
            except HeartlaneError as error:
                log.info("run %s can't be followed now, reports go on: %s", self.run.id, error)
            await asyncio.sleep(FOLLOW_AGAIN_SECONDS * (0.5 + self._sender.chance() / 2))

    def _is_news(self, told: RunObject | EventObject) -> bool:
        """Whether the next report may be answered otherwise than the last one was.

        A run that its project's budget holds still looks like any other: of that only the log tells.
        """
        if not isinstance(told, RunObject):
            return told.type in OTHERS_EVENTS
        ours = told.attempt == self.attempt and told.worker_id == self.worker_id and told.state in HELD_STATES
        return not ours or (told.state == "paused" and not self.paused)
