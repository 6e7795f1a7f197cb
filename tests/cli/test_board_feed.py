"""Where the live board gets its lanes from: the stream over a restart of the server, and asking where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from heartlane.cli import board_feed
from heartlane.cli.board import Board, Narrowing
from heartlane.cli.board_feed import Feed
from heartlane.client.aio import AsyncClient
from heartlane.client.errors import NotAuthenticated
from tests.cli.people import People
from tests.e2e.server_process import ServerProcess, closing

SECONDS = 60


class WithoutStream(httpx.AsyncHTTPTransport):
    """The way to a server that is older than the stream of all work."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == board_feed.STREAM:
            return httpx.Response(404, json={"error": "There is nothing at this path.", "code": "NOT_FOUND"})
        return await super().handle_async_request(request)


@asynccontextmanager
async def fed(url: str, token: str, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Board]:
    """A board that a feed tells what is new."""
    board = Board(Narrowing())
    async with AsyncClient(url, token, transport=transport) as client:
        feed = asyncio.create_task(Feed(client, board, project_id=None, plan_id=None).run())
        try:
            yield board
        finally:
            feed.cancel()
            await asyncio.wait([feed])


async def wait_for(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110 - a server's doings set no event here
            await asyncio.sleep(0.02)


def state_of(board: Board, run_id: str) -> str | None:
    return board.runs[run_id]["state"] if run_id in board.runs else None


async def test_without_a_stream_it_asks_for_what_is_held_and_for_what_no_longer_is(
    fleet: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_feed, "POLL_SECONDS", 0.1)
    runs = fleet.lanes(fleet.project("Polled"), "one", "two")
    async with fed(fleet.url, fleet.token, WithoutStream()) as board:
        await wait_for(lambda: state_of(board, runs["one"]) == "queued")
        await asyncio.to_thread(fleet.claim, runs["one"], "polled.1")
        await wait_for(lambda: state_of(board, runs["one"]) == "claimed")
        await wait_for(lambda: board.link_good and board.link_text.startswith("asked every"))
        await asyncio.to_thread(fleet.report, runs["one"], ("ship_complete", {}), worker_id="polled.1")
        await wait_for(lambda: state_of(board, runs["one"]) == "shipped")
        more = await asyncio.to_thread(fleet.lanes, fleet.project("Polled later"), "three")
        await wait_for(lambda: state_of(board, more["three"]) == "queued")


@pytest.mark.slow  # the quick ones: the board on a terminal, and a lane's log over a restart
async def test_the_stream_goes_on_over_a_restart_of_the_server(tmp_path: Path) -> None:
    server = ServerProcess(f"sqlite:///{tmp_path / 'heartlane.sqlite3'}", tmp_path)
    with closing(server):
        await server.start_beside()
        token = await asyncio.to_thread(server.make_token)
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30) as api:
            someone = People(server.url, token, api)
            runs = someone.lanes(someone.project("Restarted"), "one", "two")
            async with fed(server.url, token) as board:
                await wait_for(lambda: board.link_text == "live" and len(board.runs) == 2)
                someone.claim(runs["one"])
                await wait_for(lambda: state_of(board, runs["one"]) == "claimed")
                server.kill()
                await wait_for(lambda: not board.link_good)
                await server.start_beside()
                someone.claim(runs["two"], "w2")
                await wait_for(lambda: state_of(board, runs["two"]) == "claimed" and board.link_good)


async def test_a_token_that_is_refused_ends_it(fleet: People) -> None:
    async with AsyncClient(fleet.url, "hlt_wrong") as client:
        with pytest.raises(NotAuthenticated):
            await Feed(client, Board(Narrowing()), project_id=None, plan_id=None).run()
