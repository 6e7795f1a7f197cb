"""Heartlane itself, and the floor: what the others are laid beside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench import processes
from bench.bodies import EVENTS_PER_REPORT, Case
from bench.fleet import FIRST_SEQ, Fleet, gather
from bench.load import LaneJob
from bench.peers.peer import Call, Contestant, Written, count
from bench.processes import Server
from bench.seeding import Size, prepare

CHECK_EVERY: Final = 64
REPORT: Final = "POST /api/agents/runs/{id}/events"


class Heartlane(Contestant):
    """`heartlane serve`; each case has a fleet of its own."""

    name = "Heartlane"
    settings = ("`heartlane serve`, its own defaults; rate limits set so high that they count and refuse none",)

    @asynccontextmanager
    async def running(self, database_url: str, folder: Path, connections: int) -> AsyncIterator[Server]:
        self.version = version("heartlane")
        token = await prepare(database_url, folder, Size(), lambda _: None)
        async with processes.heartlane(database_url, folder) as server:
            for case, shown in SHOWN.items():
                fleet = await gather(server, token, connections)
                sql, per_call = count_sql(case, fleet)
                lanes = [authorized(worker.job(case), token) for worker in fleet.workers]
                call = Call(shown, lanes, sql, per_call, check_every=CHECK_EVERY)
                call.before = await count(database_url, sql)
                self.calls[case] = call
            yield server


SHOWN: Final[dict[Case, str]] = {
    "heartbeat": f"`{REPORT}` without events",
    "events": f"`{REPORT}` with {EVENTS_PER_REPORT} events",
}


def authorized(lane: LaneJob, token: str) -> LaneJob:
    """The lane with the token that it reports with."""
    return {**lane, "authorization": f"Bearer {token}"}


def count_sql(case: Case, fleet: Fleet) -> tuple[str, int]:
    """What counts a fleet's reports in the database, and how much each adds to it.

    A report's `seq` is one above that of the last one, and a run keeps the last that was applied.
    """
    runs = f"runs WHERE project_id = '{fleet.project_id}'"
    if case == "heartbeat":
        return f"SELECT sum(greatest(last_seq - {FIRST_SEQ - 1}, 0)) FROM {runs}", 1
    return f"SELECT sum(count) FROM events WHERE run_number IN (SELECT number FROM {runs})", EVENTS_PER_REPORT


class Floor(Contestant):
    """The server program of Heartlane around a constant answer: what HTTP itself costs. Sent Heartlane's requests."""

    name = "the floor"
    settings = ("`python -m bench.floor`: Heartlane's server program around a constant answer",)
    not_comparable = ("nothing is looked up, decided or written",)

    def __init__(self, heartlane: Heartlane) -> None:
        super().__init__()
        self._heartlane = heartlane

    @asynccontextmanager
    async def running(self, database_url: str, folder: Path, connections: int) -> AsyncIterator[Server]:
        async with processes.floor(folder) as server:
            for case, call in self._heartlane.calls.items():
                lanes = [LaneJob(**lane) for lane in call.lanes]
                self.calls[case] = Call(call.shown, lanes, "", 0, check_every=CHECK_EVERY)
            yield server

    async def written(self, database_url: str, case: Case) -> Written:
        return Written(self.calls[case].sent, 0, 0)
