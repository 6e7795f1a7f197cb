"""Where the live board gets its lanes from: all of them once, then each change as the server tells it.

A server tells changes by a stream of a project's or an account's work. One that is older has none: then what may change
is asked for every few seconds, and everything now and then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Protocol

from heartlane.cli.api import Json, raw, rows_of
from heartlane.client import calls
from heartlane.client.aio import AsyncClient
from heartlane.client.errors import BadAnswer, HeartlaneError, MethodNotAllowed, NotFound
from heartlane.client.retry import is_passing
from heartlane.client.sse import Block, Parser
from heartlane.lanes.bounds import PAGE_SIZE_MAX
from heartlane.lanes.run import HELD_STATES

STREAM: Final = "/api/agents/stream"
AGAIN_SECONDS: Final = (0.5, 5.0)
"""Shortest and longest wait before a stream that broke is opened again."""
POLL_SECONDS: Final = 2.0
POLLS_A_ROUND: Final = 15
"""So many looks at what is held, then one at everything."""
VANISHED_MAX: Final = 20
"""Lanes that are read one by one when they are held no longer; when it is more, everything is read."""


class Board(Protocol):
    """Who hears what is new."""

    def all_runs(self, runs: list[Json]) -> None:
        """These are all lanes; others are gone."""

    def run_changed(self, run: Json) -> None:
        """A lane as it is now."""

    def lease_renewed(self, run_id: str, lease_expires_at: str | None, last_heartbeat: str | None) -> None:
        """A lane's lease, and nothing else of it."""

    def link(self, text: str, *, good: bool) -> None:
        """How the connection is, in words."""


class Feed:
    """Tells a board what is new, until it is cancelled.

    project_id, plan_id     only these lanes; None: all that the token sees
    """

    def __init__(self, client: AsyncClient, board: Board, *, project_id: str | None, plan_id: str | None) -> None:
        self._client = client
        self._board = board
        self._project_id = project_id
        self._plan_id = plan_id

    async def run(self) -> None:
        """Follow the stream; where there is none, look every few seconds. Raises HeartlaneError that doesn't pass."""
        await self._load()
        tries, last_id = 0, None
        while True:
            try:
                async with aclosing(self._stream(last_id)) as blocks:
                    async for block in blocks:
                        tries = 0
                        last_id = block.id or last_id
                        if block.event == "end":
                            break
                        await self._take(block)
                self._board.link("connecting again", good=False)
            except (NotFound, MethodNotAllowed):
                # A project that isn't there was told by the first load: this server has no such stream.
                await self._poll()
            except HeartlaneError as error:
                if not is_passing(error):
                    raise
                self._board.link(f"connecting again: {error}", good=False)
            tries += 1
            shortest, longest = AGAIN_SECONDS
            await asyncio.sleep(min(longest, shortest * 2.0 ** min(tries - 1, 10)))

    async def _stream(self, last_id: str | None) -> AsyncGenerator[Block, None]:
        query = [("message", "run"), ("leases", "true")]
        if self._project_id is not None:
            query.append(("project_id", self._project_id))
        headers = {} if last_id is None else {"last-event-id": last_id}
        parser = Parser()
        async with self._client.open_stream(STREAM, tuple(query), headers) as data:
            if last_id is not None:
                self._board.link("live", good=True)
            async for piece in data:
                for block in parser.feed(piece):
                    yield block

    async def _take(self, block: Block) -> None:
        if block.event == "reset":
            await self._load()
            self._board.link("live", good=True)
            return
        try:
            told: Any = json.loads(block.data)
        except ValueError:
            raise BadAnswer("The stream has a message that is no JSON.", status=200) from None
        if block.event == "run" and (self._plan_id is None or told["plan_id"] == self._plan_id):
            self._board.run_changed(told)
        elif block.event == "leases":
            for run_id, until, heard in told:
                self._board.lease_renewed(run_id, until, heard)

    async def _load(self) -> None:
        self._board.all_runs([run async for run in self._runs()])

    async def _runs(self, states: tuple[str, ...] = ()) -> AsyncIterator[Json]:
        call = calls.runs(
            project_id=self._project_id,
            plan_id=self._plan_id,
            state=states,  # type: ignore[arg-type]  # names of states
            limit=PAGE_SIZE_MAX,
        )
        while True:
            answer = await self._client.send(raw(call))
            for run in rows_of(answer):
                yield run
            if answer.get("next_cursor") is None:
                return
            call = call.at(answer["next_cursor"])

    async def _poll(self) -> None:
        """Look at what is held every few seconds, and at everything now and then, without end."""
        held: set[str] = set()
        count = 0
        while True:
            try:
                if count % POLLS_A_ROUND == 0:
                    await self._load()
                now = {run["id"]: run async for run in self._runs(tuple(sorted(HELD_STATES)))}
                vanished = held - set(now)
                if len(vanished) > VANISHED_MAX:
                    await self._load()
                else:
                    for run_id in vanished:
                        call = replace(calls.read_run(run_id), pick=lambda answer: answer)
                        self._board.run_changed((await self._client.send(raw(call)))["run"])
                for run in now.values():
                    self._board.run_changed(run)
                held = set(now)
                self._board.link(f"asked every {POLL_SECONDS:g} s", good=True)
            except HeartlaneError as error:
                if not is_passing(error):
                    raise
                self._board.link(f"no answer: {error}", good=False)
            count += 1
            await asyncio.sleep(POLL_SECONDS)
