"""A lane that we hold, as the body of the work sees it.

    async with client.claim(role="backend", wait_seconds=60) as lane:
        await lane.phase("tests")
        await lane.action("shell", command="make test")
        await lane.ship(pr_url="https://…")

The lease is kept whatever the body does (`heartlane.client.keeping`). How the block ends is how the lane ends:

    after `ship`, `fail` or `release`   as they said
    without any of them                 released, with a reason, no failure counted
    by an exception                     an `error` is told; then released as a failure, or failed (`on_error`)
    by Ctrl-C, exit or cancellation     released, no failure counted
    after the lane was lost             nothing is done to it: it isn't ours
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Concatenate, Final, Generic, Literal, NamedTuple, ParamSpec, Self

from heartlane.client import calls
from heartlane.client.claiming import Claimed, send_until
from heartlane.client.errors import ClaimRefused, HeartlaneError, LaneLost, NoLane
from heartlane.client.keeping import Ended, Keeper, Sender
from heartlane.client.lease import Standing
from heartlane.lanes.bounds import ERROR_MAX, RELEASE_REASON_MAX
from heartlane.wire.answers import RunDetail, TicketObject

P = ParamSpec("P")
OnError = Literal["release", "fail"]

LEAVE_SECONDS: Final = 10.0
"""How long leaving a lane waits for a server that doesn't answer; then the lease runs out by itself."""
LAST_TRY_SECONDS: Final = 2.0

log = logging.getLogger("heartlane.client")


class Keeping(NamedTuple):
    """How a lane is kept; see `AsyncClient.claim`."""

    on_error: OnError = "release"
    outage_seconds: float = 0.0
    follow: bool = True


class LaneView:
    """What there is to do, and how the lane stands: the part of a lane that only reads."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def __repr__(self) -> str:
        state = self.outcome or self.run.state
        return f"<{type(self).__name__} {self.run.lane_key!r} of run {self.run.id}, attempt {self.attempt}, {state}>"

    @property
    def run(self) -> RunDetail:
        """The run as the server's last answer had it."""
        return self._keeper.run

    @property
    def prompt(self) -> str | None:
        """What is to be done."""
        return self._keeper.run.prompt

    @property
    def tickets(self) -> list[TicketObject]:
        """The tickets that the lane is for."""
        return self._keeper.run.tickets

    @property
    def worker_id(self) -> str:
        """Who holds it."""
        return self._keeper.worker_id

    @property
    def attempt(self) -> int:
        """The claim's fencing number."""
        return self._keeper.attempt

    @property
    def lost(self) -> bool:
        """Whether the lane isn't ours any more, by the clock of this very moment."""
        return self._keeper.loss is not None

    @property
    def lost_reason(self) -> LaneLost | None:
        """Why it was lost."""
        return self._keeper.loss

    @property
    def should_stop(self) -> bool:
        """Whether the body should end now: the lane was lost, cancelled or taken back, or has ended."""
        return self.outcome is not None

    @property
    def paused(self) -> bool:
        """Whether the body should stand still: an operator says so, or the lease isn't confirmed now."""
        return not self.should_stop and (self._keeper.paused or self._keeper.standing is not Standing.HELD)

    @property
    def outcome(self) -> Ended | Literal["lost"] | None:
        """What became of the lane; None while we hold it."""
        return self._keeper.ended or ("lost" if self.lost else None)


class AsyncLane(LaneView):
    """One claimed lane. All its methods raise LaneLost once it isn't ours, or has ended.

    lost_event, stop_event, pause_event     asyncio Events beside `lost`, `should_stop` and `paused`
    """

    def __init__(
        self,
        sender: Sender,
        claimed: Claimed,
        keeping: Keeping,
        lease_seconds: int,
        forget: Callable[[AsyncLane], None],
    ) -> None:
        super().__init__(
            Keeper(
                sender,
                claimed.run,
                last_seq=claimed.last_seq,
                lease_seconds=lease_seconds,
                sent_at=claimed.sent_at,
                outage_seconds=keeping.outage_seconds,
                follow=keeping.follow,
            )
        )
        self.lost_event = asyncio.Event()
        self.stop_event = asyncio.Event()
        self.pause_event = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        self._sender = sender
        self._on_error = keeping.on_error
        self._forget = forget
        self._left: asyncio.Task[None] | None = None
        self._keeper.on_change = self._changed

    def begin(self) -> None:
        """Keep it from now on."""
        self._keeper.start()

    async def checkpoint(self) -> None:
        """A good place to stop: waits while the lane is paused. Raises LaneLost when the work should end."""
        self._keeper.look()
        await self._keeper.until(lambda: not self.paused)
        self._keeper.look()

    # --- what is told ---

    async def phase(self, /, name: str, *, waits_for: str | None = None, **details: Any) -> None:
        """What the work is at now. `phase("waiting", waits_for="permission")`: it waits for a person."""
        waiting = {} if waits_for is None else {"for": waits_for}
        await self._keeper.tell("phase_change", {"phase": name, **waiting, **details})

    async def log(self, /, line: str, **details: Any) -> None:
        """A line of the work's output."""
        await self._keeper.tell("log_line", {"line": line, **details})

    async def action(self, /, tool: str, **details: Any) -> None:
        """Something that the work did: `action("edit", file="x.py")`, `action("shell", command="make", ok=True)`."""
        await self._keeper.tell("action", {"tool": tool, **details})

    async def error(self, /, message: str, **details: Any) -> None:
        """Something that went wrong, from which the work goes on."""
        await self._keeper.tell("error", {"message": message, **details, "fatal": False})

    async def flush(self) -> None:
        """Return once the server has everything that was told."""
        self._keeper.look()
        await self._keeper.confirmed(self._keeper.outbox.told)

    # --- how it ends ---

    async def ship(
        self,
        /,
        *,
        pr_url: str | None = None,
        branch: str | None = None,
        commit: str | None = None,
        summary: str | None = None,
        **details: Any,
    ) -> RunDetail:
        """The work is done; returns the run once the server knows."""
        result = {"pr_url": pr_url, "branch": branch, "commit": commit, "summary": summary}
        given = {name: value for name, value in result.items() if value is not None}
        return await self._end("ship_complete", {**given, **details})

    async def fail(self, /, message: str, **details: Any) -> RunDetail:
        """The lane can't be done, by anybody; returns the run once the server knows. (Else: `release(failed=True)`.)"""
        return await self._end("error", {"message": message, **details, "fatal": True})

    async def release(
        self, reason: str | None = None, *, retry_after: float | None = None, failed: bool = False
    ) -> RunDetail:
        """Give the lane back, claimable at once or after `retry_after` seconds; `failed` counts a failure."""
        self._keeper.look()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self.flush()
        if len(self._keeper.outbox):
            log.warning("run %s is released with %d events untold", self.run.id, len(self._keeper.outbox))
        # Nothing of ours may come after the release.
        await self._keeper.stop()
        call = calls.release_run(
            self.run.id,
            worker_id=self.worker_id,
            attempt=self.attempt,
            reason=None if reason is None else reason[:RELEASE_REASON_MAX],
            retry_after=retry_after,
            failed=failed,
        )
        try:
            run = await send_until(self._sender, call, self._sender.clock() + LEAVE_SECONDS)
        except ClaimRefused as error:
            lost = LaneLost(error.error, code=error.code)
            self._keeper.lose(lost)
            raise lost from error
        self._keeper.know(run)
        self._keeper.end("released")
        return self.run

    async def _end(self, type: str, payload: dict[str, Any]) -> RunDetail:
        number = await self._keeper.tell(type, payload, ending=True)
        await self._keeper.confirmed(number)
        if number in self._keeper.outbox.refused:
            raise self._keeper.refusal or HeartlaneError("The server refused the last report.")
        return self.run

    # --- the block ---

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self.leave(error=error)

    async def leave(self, reason: str | None = None, *, error: BaseException | None = None) -> None:
        """Let go of the lane, as the end of the block does; more than once is the same as once."""
        if self._left is None:
            self._left = asyncio.get_running_loop().create_task(self._leave(reason, error))
        # A second cancellation ends the waiting, not the leaving: the client waits for that when it is closed.
        await asyncio.shield(self._left)

    async def _leave(self, reason: str | None, error: BaseException | None) -> None:
        try:
            if not self.should_stop:
                await self._give_up(reason, error)
            elif self.lost_reason is not None and self.lost_reason.code is None:
                # We only believe that it is lost, or were told to stop. If it is ours, it is free again at once;
                # `attempt` fences this.
                call = calls.release_run(
                    self.run.id, worker_id=self.worker_id, attempt=self.attempt, reason=str(self.lost_reason)
                )
                await self._sender.send_once(call, seconds=LAST_TRY_SECONDS)
        except (HeartlaneError, TimeoutError) as failure:
            log.warning("left run %s without the server's word: %s", self.run.id, failure)
        finally:
            await self._keeper.stop()
            self._forget(self)

    async def _give_up(self, reason: str | None, error: BaseException | None) -> None:
        if error is None or isinstance(error, LaneLost):
            await self.release(reason or "the worker left the lane without shipping it")
            return
        if not isinstance(error, Exception):
            await self.release(reason or f"the worker was interrupted ({type(error).__name__})")
            return
        message = f"{type(error).__name__}: {error}"[:ERROR_MAX]
        async with asyncio.timeout(LEAVE_SECONDS):
            if self._on_error == "fail":
                await self.fail(message, reason="crashed")
            else:
                await self.error(message, reason="crashed")
        if self._on_error == "release":
            await self.release(message, failed=True)

    def _changed(self) -> None:
        for event, holds in (
            (self.lost_event, self.lost),
            (self.stop_event, self.should_stop),
            (self.pause_event, self.paused),
        ):
            if holds:
                event.set()
            else:
                event.clear()
        self.on_change()


class PendingLane(Awaitable[AsyncLane]):
    """A lane that is about to be claimed: enter it, or await it."""

    def __init__(self, claim: Callable[[], Awaitable[AsyncLane]]) -> None:
        self._claim = claim
        self._lane: AsyncLane | None = None

    def __await__(self) -> Generator[Any, Any, AsyncLane]:
        return self._claim().__await__()

    async def __aenter__(self) -> AsyncLane:
        self._lane = await self
        return self._lane

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._lane is not None:
            await self._lane.leave(error=error)


class Claims(Generic[P]):
    """`AsyncClient.claims`: takes what `AsyncClient.claim` takes."""

    def __init__(self, claim: Callable[Concatenate[Any, P], PendingLane]) -> None:
        self._claim = claim

    def __get__(self, client: Any, owner: type) -> Callable[P, AsyncGenerator[AsyncLane, None]]:
        claim = self._claim

        async def claims(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[AsyncLane, None]:
            """One lane after another, for a worker's loop: `async for lane in client.claims(role="backend"): …`.

            Takes what `claim` takes; left out, `wait_seconds` is None, and it goes on for ever. Otherwise it ends when
            there was no lane for so long. Enter each lane (`async with lane:`): then an exception of the work is told
            as such. A lane that is still held when the next is asked for is released.
            """
            kwargs.setdefault("wait_seconds", None)
            while True:
                try:
                    lane = await claim(client, *args, **kwargs)
                except NoLane:
                    return
                try:
                    yield lane
                finally:
                    await lane.leave()

        return claims
