"""The campaign on PostgreSQL from begin to end: work, faults, peace, and what the checker finds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import httpx

from tests.chaos.checker import Found, Run, check
from tests.chaos.faults import DATABASE, Faults
from tests.chaos.history import FaultSpan, History, Op
from tests.chaos.sidecars import Sidecars
from tests.chaos.system import System
from tests.chaos.workers import Crew
from tests.e2e.fleet import client_of, get, make_project, post, read_events

Answered = TypeVar("Answered")

LEASE_SECONDS: Final = 5
PEACE_SECONDS: Final = 300.0
RECOVERY_SECONDS: Final = 10.0
"""How long after PostgreSQL is back servers may take until everything is as always, besides one lease of grace."""
READERS: Final = 6


class Plan(NamedTuple):
    """How large a campaign is."""

    seconds: float
    workers: int
    sidecars: int
    seed: int


class Outcome(NamedTuple):
    """What a campaign did and found.

    longest_seconds     the longest time without any granted change, and what was going on then
    undisturbed_seconds the longest such time while PostgreSQL was well
    """

    found: Found
    operations: Mapping[str, int]
    faults: Mapping[str, int]
    lanes: Mapping[str, int]
    events: int
    longest_seconds: float
    longest_during: str
    undisturbed_seconds: float
    says: list[str]


Say = Callable[[str], None]


async def run(plan: Plan, folder: Path, say: Say) -> Outcome:
    """All of it. What was found wrong is in the outcome; what fails by itself is raised."""
    chance = random.Random(plan.seed)
    system = System(folder)
    try:
        await system.start()
        say("three servers run on a PostgreSQL with a standby")
        with History(folder / "history.jsonl") as history:
            return await _on(system, history, plan, folder=folder, chance=chance, say=say)
    finally:
        await system.stop()


async def _on(
    system: System, history: History, plan: Plan, *, folder: Path, chance: random.Random, say: Say
) -> Outcome:
    admin = await asyncio.to_thread(system.servers[1].make_token)
    token = await asyncio.to_thread(system.servers[1].make_token, "worker", "worker")
    async with contextlib.AsyncExitStack() as stack:
        operator = await stack.enter_async_context(client_of(system.urls[-1], admin, timeout=20.0))
        projects = [await make_project(operator) for _ in range(2)]
        for project in projects:
            (await operator.patch(f"/api/projects/{project}", json={"max_failures": 100})).raise_for_status()
        crew = Crew(history, system.urls, token, projects[0], lease_seconds=LEASE_SECONDS, chance=chance)
        sidecars = Sidecars(
            system.urls[-1], token, projects[1], folder, plan.sidecars, lease_seconds=LEASE_SECONDS, chance=chance
        )
        stack.callback(sidecars.close)
        faults = Faults(system, crew, history, lease_seconds=LEASE_SECONDS, chance=chance)
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(feed(operator, {projects[0]: plan.workers, projects[1]: 2 * plan.sidecars + 1}))
            for number in range(plan.workers):
                group.create_task(crew.work(number))
            await sidecars.start()
            say(f"{plan.workers} light workers and {plan.sidecars} of `heartlane work` begin")
            telling = group.create_task(_tell(history, plan.seconds, say))
            await _until_at_work(history, plan)
            disturbing = group.create_task(sidecars.disturb(plan.seconds))
            began = time.time()
            await faults.go_on(plan.seconds)
            ended = time.time()
            for task in (telling, feeding):
                task.cancel()
            await disturbing
            say("peace: what is under way is finished")
            crew.stopping.set()
            await sidecars.finish()
        await crew.end()
        for server in system.servers:
            await asyncio.to_thread(server.wait_ready)
        await until_settled(operator, projects)
        # Whatever still runs out now is taken back within the promised time.
        await asyncio.sleep(LEASE_SECONDS + 3)
        read_at = time.time()
        runs = await read_all(operator, projects)
        troubled = [
            FaultSpan(span.kind, span.began, span.ended + RECOVERY_SECONDS + LEASE_SECONDS)
            for span in history.faults
            if span.kind in DATABASE
        ]
        write_down(runs, folder / "runs.jsonl")
        found = check(history.ops, runs, _with_servers_away(history.faults, troubled), read_at=read_at)
        latest = check(history.ops, runs, troubled, read_at=read_at).latest_seconds
        sidecars.check(runs)
        longest, during, undisturbed = availability(history.ops, history.faults, troubled, began, ended)
        return Outcome(
            found,
            Counter(f"{op.does} {op.outcome}" for op in history.ops),
            faults.did + Counter(span.kind for span in history.faults if span.kind == "worker stopped") + sidecars.did,
            Counter(run.row["state"] for run in runs.values()) + Counter(crew.did),
            sum(len(run.events) for run in runs.values()),
            longest,
            during,
            undisturbed,
            [f"… taken back, with faults of single servers counted, after at most {latest:.1f} s"],
        )


async def _until_at_work(history: History, plan: Plan) -> None:
    """Wait until most workers have reported: what fails has to fail somebody."""
    deadline = time.monotonic() + PEACE_SECONDS
    while len({op.process for op in history.ops if op.does == "report" and op.outcome == "ok"}) < plan.workers * 0.8:
        assert time.monotonic() < deadline, "the workers don't get to work"
        await asyncio.sleep(0.2)


async def feed(operator: httpx.AsyncClient, wanted: Mapping[str, int]) -> None:
    """Keep at least so many lanes in the queue of each project, whatever becomes of a call."""
    while True:
        for project, least in wanted.items():
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                page = await get(operator, "/api/agents/runs", project_id=project, state="queued", limit=200)
                if len(page["runs"]) < least:
                    lanes = [
                        {"laneKey": f"lane-{n}", "title": f"Lane {n}", "role": "backend"} for n in range(min(50, least))
                    ]
                    made = await post(operator, "/api/agents/plan", 201, projectId=project, title="Plan", lanes=lanes)
                    await post(operator, f"/api/agents/plans/{made['plan']['id']}/approve")
        await asyncio.sleep(0.5)


async def _tell(history: History, seconds: float, say: Say) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(min(30.0, seconds / 4))
        granted = sum(op.outcome == "ok" for op in history.ops)
        say(f"{time.monotonic() - began:4.0f} s: {granted:,} of {len(history.ops):,} calls granted")


def write_down(runs: Mapping[str, Run], path: Path) -> None:
    """Keep them beside the history."""
    with path.open("w", encoding="utf-8") as file:
        for run in runs.values():
            file.write(json.dumps({"row": run.row, "events": run.events}) + "\n")


async def until_settled(operator: httpx.AsyncClient, projects: Iterable[str]) -> None:
    """Wait until nobody holds a lane."""
    deadline = time.monotonic() + PEACE_SECONDS
    for project in projects:
        while True:
            states = ["claimed", "running", "paused", "shipping"]
            page = await _patiently(
                lambda: get(operator, "/api/agents/runs", project_id=project, state=states, limit=200)  # noqa: B023
            )
            if not page["runs"]:
                break
            assert time.monotonic() < deadline, f"lanes are still held: {page['runs'][:3]}"
            await asyncio.sleep(0.5)


async def _patiently(ask: Callable[[], Awaitable[Answered]]) -> Answered:
    """The answer, asked for again for as long as a machine that is still busy may need."""
    deadline = time.monotonic() + PEACE_SECONDS
    while True:
        try:
            return await ask()
        except (httpx.HTTPError, AssertionError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.5)


async def read_all(operator: httpx.AsyncClient, projects: Iterable[str]) -> dict[str, Run]:
    """Every run with its log, as the API has them."""
    rows: list[dict[str, Any]] = []
    for project in projects:
        cursor: str | None = None
        while True:
            query = {"project_id": project, "limit": 200} | ({"cursor": cursor} if cursor else {})
            page = await _patiently(lambda: get(operator, "/api/agents/runs", **query))  # noqa: B023
            rows += page["runs"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    claimed = [row for row in rows if row["attempt"]]
    places = asyncio.Semaphore(READERS)

    async def read(row: dict[str, Any]) -> tuple[str, Run]:
        async with places:
            return row["id"], Run(row, await _patiently(lambda: read_events(operator, row["id"])))

    return dict(await asyncio.gather(*map(read, claimed)))


def _with_servers_away(faults: Iterable[FaultSpan], troubled: list[FaultSpan]) -> list[FaultSpan]:
    """The troubles, and the times in which a server was away and the others kept from their database with it.

    A server that is gone or stands still may hold locks until PostgreSQL or the kernel finds out: some seconds.
    """
    away = [
        FaultSpan(span.kind, span.began, span.ended + RECOVERY_SECONDS)
        for span in faults
        if span.kind in ("server killed", "server stopped", "database cut off", "database slow")
    ]
    return sorted([*troubled, *away], key=lambda span: span.began)


def availability(
    ops: Iterable[Op], faults: list[FaultSpan], troubled: Iterable[FaultSpan], began: float, ended: float
) -> tuple[float, str, float]:
    """The longest time between two granted calls, what went on then, and the longest without trouble of PostgreSQL."""
    moments = sorted([began, ended, *(op.ended for op in ops if op.outcome == "ok" and began <= op.ended <= ended)])
    gaps = [(end - begin, begin, end) for begin, end in pairwise(moments)]
    longest, begin, end = max(gaps)
    during = sorted({span.kind for span in faults if span.began < end and span.ended > begin} - {"worker stopped"})
    bad = list(troubled)
    well = [gap for gap, start, stop in gaps if not any(span.began < stop and span.ended > start for span in bad)]
    return longest, ", ".join(during) or "nothing", max(well, default=0.0)
