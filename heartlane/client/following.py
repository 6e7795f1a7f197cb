"""Follows streams over whatever breaks them: what comes next is asked for by the `id` that came last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from heartlane.client.call import Id
from heartlane.client.calls import stream_path
from heartlane.client.errors import BadAnswer, HeartlaneError
from heartlane.client.retry import RetryPolicy, is_passing, next_wait
from heartlane.client.sse import Block, Parser, TooLarge
from heartlane.wire.answers import EventObject, Leases, PlanObject, Reset, RunObject, WorkEvent
from heartlane.wire.names import TAKE_UNKNOWN_NAMES

T = TypeVar("T", bound=BaseModel)
Told = Reset | RunObject | PlanObject | WorkEvent | Leases
"""What a stream of all work tells."""
WORK_PATH: Final = "/api/agents/stream"
AGAIN_SECONDS: Final = (0.2, 5.0)
"""Shortest and longest wait before a stream is opened again."""


class Opener(Protocol):
    """What following needs of a client."""

    clock: Callable[[], float]
    chance: Callable[[], float]
    retry: RetryPolicy

    def open_stream(
        self, path: str, query: tuple[tuple[str, str], ...], headers: dict[str, str]
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """An event stream's bytes. Raises HeartlaneError, also while they are read."""


class Mark:
    """What a stream is resumed by: the `id` that came last, None before any."""

    def __init__(self, last: str | None) -> None:
        self.last = last


async def follow(
    opener: Opener, run_id: Id, *, after: int, heartbeats: bool, give_up_seconds: float | None
) -> AsyncGenerator[RunObject | EventObject, None]:
    """The run as it is now and after each change, and each event of its log behind `after`, once and in order.

    give_up_seconds     how long to try in vain to open it again before the reason is raised; None: without end. The
                        first time it is tried as any call is.

    Raises HeartlaneError: what isn't passing (a run that isn't there, a token that is revoked) at once.
    """
    mark = Mark(str(after))
    query = (("heartbeats", "true"),) if heartbeats else ()
    async with aclosing(_blocks(opener, stream_path(run_id), query, mark, give_up_seconds)) as blocks:
        async for block in blocks:
            if block.event == "run" and block.id is None:
                yield _read_as(RunObject, block)
            elif block.id is not None and block.data:
                told = _read_as(EventObject, block)
                if told.seq > after:
                    after = told.seq
                    mark.last = str(after)
                    yield told


async def follow_work(
    opener: Opener, query: tuple[tuple[str, str], ...], *, cursor: str | None, give_up_seconds: float | None
) -> AsyncGenerator[Told, None]:
    """What a project's or an account's stream tells, from the cursor on; it is resumed where it broke off.

    Raises HeartlaneError, as `follow` does.
    """
    mark = Mark(cursor)
    async with aclosing(_blocks(opener, WORK_PATH, query, mark, give_up_seconds)) as blocks:
        async for block in blocks:
            mark.last = block.id or mark.last
            match block.event:
                case "event":
                    event = _read_as(WorkEvent, block)
                    event.cursor = block.id or ""
                    yield event
                case "run":
                    yield _read_as(RunObject, block)
                case "plan":
                    yield _read_as(PlanObject, block)
                case "leases":
                    yield _read_as(Leases, block)
                case "reset":
                    yield _read_as(Reset, block)


async def _blocks(
    opener: Opener, path: str, query: tuple[tuple[str, str], ...], mark: Mark, give_up_seconds: float | None
) -> AsyncGenerator[Block, None]:
    """The blocks of a stream, which is opened again behind `mark` whenever it breaks or ends."""
    began = opener.clock()
    tries, opened = 0, False
    while True:
        try:
            headers = {} if mark.last is None else {"last-event-id": mark.last}
            async with opener.open_stream(path, query, headers) as data, aclosing(_read(data)) as blocks:
                async for block in blocks:
                    tries, opened = 0, True
                    began = opener.clock()
                    if block.event == "end":
                        break
                    yield block
        except HeartlaneError as error:
            if not is_passing(error):
                raise
            tries += 1
            spent = opener.clock() - began
            if opened:
                if give_up_seconds is not None and spent >= give_up_seconds:
                    raise
            elif next_wait(opener.retry, error, repeatable=True, tries=tries, spent=spent, chance=1.0) is None:
                raise
        shortest, longest = AGAIN_SECONDS
        wait = min(longest, shortest * 2.0 ** min(tries, 30))
        await asyncio.sleep(shortest + (wait - shortest) * opener.chance())


async def _read(data: AsyncIterator[bytes]) -> AsyncGenerator[Block, None]:
    parser = Parser()
    try:
        async for piece in data:
            for block in parser.feed(piece):
                yield block
    except TooLarge:
        raise BadAnswer("The stream has an event without an end.", status=200) from None


def _read_as(model: type[T], block: Block) -> T:
    try:
        return model.model_validate_json(block.data, context={TAKE_UNKNOWN_NAMES: True})
    except ValidationError:
        raise BadAnswer(f"The stream has an event that can't be read: {block.data[:120]!r}.", status=200) from None
