"""Watching lanes: the feed, the board, and either a screen with keys or a line for each change."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from heartlane.cli.api import Json, connected, raw
from heartlane.cli.board import Board, Narrowing
from heartlane.cli.board_feed import Feed
from heartlane.cli.board_screen import View, lines_of
from heartlane.cli.fields import attention, last_line, payload
from heartlane.cli.output import Format, is_live, note, one_line, short_id, to_json
from heartlane.client import calls
from heartlane.client.aio import AsyncClient
from heartlane.client.call import Call
from heartlane.client.errors import HeartlaneError
from heartlane.lanes.run import HELD_STATES

LOOK_SECONDS: Final = 0.25
"""How often the screen is brought up to date, while something on it changes."""
LOG_LINES: Final = 200
TOLD: Final = ("state", "phase", "worker_id", "log_line", "needs_attention", "attempt", "error", "pr_url")
"""A change of any of these is a line where there is no screen."""


class Watched(NamedTuple):
    """Which lanes are watched."""

    narrowing: Narrowing
    project: str | None = None
    plan: str | None = None


def watch_lanes(watched: Watched, how: Format) -> int:
    """Watch until somebody ends it; the exit code. Raises HeartlaneError that doesn't pass, and CommandError."""
    with connected() as api:
        project_id = None if watched.project is None else api.project_id(watched.project)
        plan_id = None if watched.plan is None else api.plan_id(watched.plan)
    on_screen = how is Format.TABLE and is_live(sys.stdout) and sys.stdin.isatty()

    async def watching() -> int:
        async with AsyncClient() as client:
            if on_screen:
                return await Watcher(client, watched.narrowing, project_id, plan_id).run()
            lines = Lines(watched.narrowing, as_json=how is not Format.TABLE)
            await Feed(client, lines, project_id=project_id, plan_id=plan_id).run()
            return 0

    return asyncio.run(watching())


class Lines(Board):
    """A line for each change of a lane."""

    def __init__(self, narrowing: Narrowing, *, as_json: bool) -> None:
        super().__init__(narrowing, self._changed)
        self._as_json = as_json

    def link(self, text: str, *, good: bool) -> None:
        """How the connection is, in words: said when it is another."""
        if good and not self.link_good:
            note(f"watching {len(self.shown)} lanes")
        elif not good and self.link_good:
            note(one_line(text))
        super().link(text, good=good)

    def _changed(self, before: Json | None, run: Json) -> None:
        fits = self.narrowing.fits
        if not fits(run) and not (before and fits(before)):
            return
        if before is not None and all(before.get(field) == run.get(field) for field in TOLD):
            return
        print(to_json(run) if self._as_json else self._line(run), flush=True)

    def _line(self, run: Json) -> str:
        parts = [
            time.strftime("%H:%M:%S"),
            one_line(run["lane_key"], 40),
            short_id(run["id"]),
            one_line(run["state"], 20),
            f"({attention(run)})" if attention(run) not in ("", run["state"]) else "",
            f"by {one_line(run['worker_id'], 60)}" if run["state"] in HELD_STATES else "",
            one_line(run["phase"] or "", 60),
            last_line(run),
        ]
        return "  ".join(filter(None, parts))


class Watcher:
    """The board on a screen, with its keys."""

    def __init__(self, client: AsyncClient, narrowing: Narrowing, project_id: str | None, plan_id: str | None) -> None:
        self._client = client
        self._asked_for = narrowing
        self._board = Board(narrowing)
        self._feed = Feed(client, self._board, project_id=project_id, plan_id=plan_id)
        self._view = View()
        self._ended = asyncio.Event()
        self._wake = asyncio.Event()
        self._chores: set[asyncio.Task[None]] = set()
        self._yes: Callable[[], None] | None = None
        self._log_of: tuple[str, int] | None = None

    async def run(self) -> int:
        """Until `q`, a signal or an error; the exit code."""
        from heartlane.cli.full_screen import Screen

        feed = asyncio.create_task(self._feed.run())
        try:
            with Screen(self._key, self._wake.set) as screen:
                while not (self._ended.is_set() or screen.ended_by.done() or feed.done()):
                    self._refresh_details()
                    lines, top = lines_of(self._board, self._view, screen.size, self._client.url, datetime.now(UTC))
                    self._view = self._view._replace(top=top)
                    screen.draw(lines)
                    await self._pause(screen.ended_by, feed)
                number = screen.ended_by.result() if screen.ended_by.done() else 0
        finally:
            feed.cancel()
            for chore in self._chores:
                chore.cancel()
            await asyncio.gather(*self._chores, return_exceptions=True)
        if feed.done() and not feed.cancelled():
            feed.result()
        return 128 + number if number else 0

    async def _pause(self, *ends: asyncio.Future[Any]) -> None:
        """Until a key comes, or it is time to look again."""
        self._wake.clear()
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait((woken, *ends), timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()

    # --- keys -----------------------------------------------------------------------------------------------------

    def _key(self, key: str) -> None:
        self._wake.set()
        view = self._view
        if view.typing is not None:
            self._type(view.typing, key)
        elif view.asking is not None:
            self._view = view._replace(asking=None, said="" if key == "y" else "Nothing was done.")
            yes, self._yes = self._yes, None
            if key == "y" and yes is not None:
                yes()
        elif key == "q":
            self._ended.set()
        elif key == "?":
            self._view = view._replace(helping=not view.helping, said="")
        elif key == "escape":
            self._escape()
        else:
            self._view = view._replace(said="", helping=False)
            self._steer(key)

    def _type(self, typed: str, key: str) -> None:
        if key == "enter":
            self._view = self._view._replace(typing=None)
        elif key == "escape":
            self._view = self._view._replace(typing=None)
            self._board.narrow(search=self._asked_for.search)
        else:
            typed = typed[:-1] if key == "rub out" else typed + key if len(key) == 1 and key.isprintable() else typed
            self._view = self._view._replace(typing=typed[:100])
            self._board.narrow(search=typed)

    def _escape(self) -> None:
        view = self._view
        if view.helping or view.details is not None:
            self._view = view._replace(helping=False, details=None, said="")
            self._log_of = None
        else:
            self._board.narrow(**self._asked_for._asdict())
            self._view = view._replace(said="")

    def _steer(self, key: str) -> None:
        board = self._board
        far = len(board.shown)
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -20, "page down": 20, "home": -far, "g": -far}
        moves |= {"end": far, "G": far}
        if key in moves:
            board.move(moves[key])
        elif key == "/":
            self._view = self._view._replace(typing="", details=None)
        elif key == "a":
            board.narrow(attention=not board.narrowing.attention)
        elif key == "e":
            board.narrow(ended=not board.narrowing.ended)
        elif key == "enter" and board.run_chosen() is not None:
            self._view = self._view._replace(details=())
        run = board.run_chosen()
        if run is None:
            return
        name = f"{one_line(run['lane_key'], 60)} ({short_id(run['id'])})"
        if key == "p":
            self._do(name, "paused", calls.pause_run(run["id"]))
        elif key == "r":
            self._do(name, "goes on", calls.resume_run(run["id"]))
        elif key == "t":
            self._do(name, "queued again", calls.retry_run(run["id"]))
        elif key == "c":
            call = calls.cancel_run(run["id"])
            self._yes = lambda: self._do(name, "cancelled", call)
            asked = f"Cancel {name}? It fails, and its worker is told to stop. y: yes, any other key: no."
            self._view = self._view._replace(asking=asked)

    def _do(self, name: str, done: str, call: Call[Any]) -> None:
        async def doing() -> None:
            try:
                answer = await self._client.send(raw(call))
            except HeartlaneError as error:
                said = f"{name}: {getattr(error, 'error', error)}"
            else:
                said = f"{name}: {done}"
                self._board.run_changed(answer["run"])
            self._view = self._view._replace(said=said)
            self._wake.set()

        self._view = self._view._replace(said=f"{name} …")
        self._later(doing())

    def _refresh_details(self) -> None:
        """Read the end of the chosen lane's log, where it is shown and has grown."""
        run = self._board.run_chosen()
        if self._view.details is None or run is None or self._log_of == (run["id"], run["event_count"]):
            return
        self._log_of = (run["id"], run["event_count"])
        after = max(0, run["event_count"] - LOG_LINES)
        call = calls.events(run["id"], after=after, limit=LOG_LINES)

        async def reading() -> None:
            try:
                answer = await self._client.send(raw(call))
            except HeartlaneError as error:
                lines: tuple[str, ...] = (one_line(str(error)),)
            else:
                lines = tuple(
                    f"{event['recorded_at'][11:19]}  {event['type']:<14} {payload(event)}"
                    for event in answer["events"]
                    if event["type"] != "heartbeat"
                )
            if self._view.details is not None and self._log_of is not None and self._log_of[0] == run["id"]:
                self._view = self._view._replace(details=lines)
                self._wake.set()

        self._later(reading())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
