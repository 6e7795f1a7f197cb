"""Follows a run's stream over whatever breaks it: what comes next is asked for by the `seq` that came last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final, Protocol

from pydantic import ValidationError

from heartlane.client.call import Id
from heartlane.client.calls import stream_path
from heartlane.client.errors import BadAnswer, HeartlaneError
from heartlane.client.retry import RetryPolicy, is_passing, next_wait
from heartlane.client.sse import Block, Parser, TooLarge
from heartlane.wire.answers import EventObject, RunObject
from heartlane.wire.names import TAKE_UNKNOWN_NAMES

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


async def follow(
    opener: Opener, run_id: Id, *, after: int, heartbeats: bool, give_up_seconds: float | None
) -> AsyncGenerator[RunObject | EventObject, None]:
    """The run as it is now and after each change, and each event of its log behind `after`, once and in order.

    give_up_seconds     how long to try in vain to open it again before the reason is raised; None: without end. The
                        first time it is tried as any call is.

    Raises HeartlaneError: what isn't passing (a run that isn't there, a token that is revoked) at once.
    """
    began = opener.clock()
    tries, opened = 0, False
    query = (("heartbeats", "true"),) if heartbeats else ()
    while True:
        try:
            headers = {"last-event-id": str(after)}
            async with (
                opener.open_stream(stream_path(run_id), query, headers) as data,
                aclosing(_read(data)) as blocks,
            ):
                async for block in blocks:
                    tries, opened = 0, True
                    began = opener.clock()
                    if block.event == "end":
                        break
                    told = _value(block)
                    if isinstance(told, EventObject):
                        if told.seq <= after:
                            continue
                        after = told.seq
                    if told is not None:
                        yield told
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


def _value(block: Block) -> RunObject | EventObject | None:
    """What a block tells; None for one of a kind that came later than this client."""
    model = RunObject if block.event == "run" and block.id is None else EventObject if block.id is not None else None
    if model is None:
        return None
    try:
        return model.model_validate_json(block.data, context={TAKE_UNKNOWN_NAMES: True})
    except ValidationError:
        raise BadAnswer(f"The stream has an event that can't be read: {block.data[:120]!r}.", status=200) from None
