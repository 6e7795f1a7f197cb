"""How soon a line that an agent prints is the board's to show, with a fleet of real workers on one server.

Each worker is a `heartlane work` of its own, over an agent that prints about a line a second with the time in it, on a
clock that all processes of the machine share. One process observes, over HTTP alone, in the three ways in which a line
can be seen:

    list        every run's latest line, in the list of runs
    events      every line of some runs, in their logs
    stream      every line of some runs, as their streams bring it

Between two looks at the list or a log some tenths of a second pass, which are in the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from bench import processes
from bench.client import Client
from bench.databases import Engine
from bench.figures import Report
from bench.fleet import make_lanes, make_project
from bench.load import percentile
from bench.processes import HOST, MIB, Server, ServerFailed, cpu_seconds
from bench.rounds import Progress
from bench.seeding import Size, prepare

SECONDS_MAX: Final = 1.5
OBSERVED: Final = 20
"""Runs whose log and stream are followed."""
STARTING_MAX: Final = 4
"""Workers that start at the same time: more of them would only wait for each other's processor."""
START_SECONDS_MAX: Final = 120.0
STOP_SECONDS_MAX: Final = 60.0
SETTLE_SECONDS: Final = 5.0
LIST_SECONDS: Final = 0.2
EVENTS_SECONDS: Final = 0.25
FLUSH_SECONDS: Final = 0.1
PAGE: Final = 200
WORKER_MIB: Final = 70
"""What a worker, its guard and its agent may take, to see beforehand whether there is room for all of them."""

AGENT: Final = """
import os, time
seconds = 0.9 + 0.2 * (os.getpid() % 97) / 97
while True:
    print("printed at %.6f" % time.monotonic(), flush=True)
    time.sleep(seconds)
"""
"""Prints about once a second, out of step with its neighbours."""


class Sightings:
    """Lines that were seen in one way: how long after each was printed.

    Those count that were printed between `begin` and `end`, whenever they are seen: an observer has to catch up first
    with what was printed before it came.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._latest: dict[str, float] = {}
        self._since = self._until = float("inf")

    def begin(self) -> None:
        """Count from now on."""
        self._since = time.monotonic()

    def end(self) -> None:
        """Count no line that is printed from now on."""
        self._until = time.monotonic()

    def see(self, run_id: str, line: str | None) -> None:
        """A line of a run; one that was seen before counts no more, nor does one of before the counting."""
        now = time.monotonic()
        if line is None or not line.startswith("printed at "):
            return
        printed_at = float(line.rpartition(" ")[2])
        if printed_at <= self._latest.get(run_id, 0.0):
            return
        self._latest[run_id] = printed_at
        if self._since <= printed_at <= self._until:
            self._seconds.append(now - printed_at)

    def add_to(self, report: Report, engine: str, name: str, what: str) -> float:
        """Report the seconds at the 99th percentile, and return them. Raises ServerFailed where no line was seen."""
        if not self._seconds:
            raise ServerFailed(f"no line was seen in {what}")
        ordered = sorted(self._seconds)
        p99 = percentile(ordered, 0.99)
        note = f"{len(ordered):,} lines, {what}; p50 {percentile(ordered, 0.5):.2f} s, slowest {ordered[-1]:.2f} s"
        report.add(engine, name, p99, "s", most=SECONDS_MAX, note=note)
        return p99


class Workers:
    """Worker processes, started in modest steps, and stopped whatever happens."""

    def __init__(self, server: Server, token: str, folder: Path) -> None:
        self.started: list[asyncio.subprocess.Process] = []
        self._log = folder / "workers.log"
        self._variables = {
            **{name: value for name, value in os.environ.items() if not name.upper().startswith("HEARTLANE_")},
            "HEARTLANE_URL": f"http://{HOST}:{server.port}",
            "HEARTLANE_TOKEN": token,
            "HEARTLANE_STATE": str(folder / "state"),
        }

    async def start(self) -> None:
        """One more."""
        agent = [sys.executable, "-I", "-S", "-c", AGENT]
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "heartlane", "work", "--plain", "--name", f"w{len(self.started)}"),
                *("--once", "--", *agent),
                env=self._variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.started.append(process)

    def check(self) -> None:
        """Raise ServerFailed where one has ended."""
        ended = [process.returncode for process in self.started if process.returncode is not None]
        if ended:
            last = "\n".join(self._log.read_text(errors="replace").splitlines()[-processes.LOG_TAIL_LINES :])
            raise ServerFailed(f"{len(ended)} workers ended, with code {ended[0]}.\n{last}")

    def processes(self) -> list[psutil.Process]:
        """All of them with their guards and agents, from one look at every process there is."""
        children: dict[int, list[psutil.Process]] = defaultdict(list)
        by_pid: dict[int, psutil.Process] = {}
        for process in psutil.process_iter(["ppid"]):
            by_pid[process.pid] = process
            children[process.info["ppid"]].append(process)
        found = [by_pid[process.pid] for process in self.started if process.pid in by_pid]
        for process in found:  # grows while it is gone through
            found.extend(children[process.pid])
        return found

    async def stop(self) -> None:
        """SIGTERM to all, and SIGKILL to those that take too long; their guards see to their agents."""
        for process in self.started:
            if process.returncode is None:
                process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await asyncio.gather(*(process.wait() for process in self.started))
        for process in self.started:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def measure(
    engine: Engine, folder: Path, count: int, seconds: float, *, report: Report, progress: Progress
) -> None:
    """`count` workers for `seconds`. Raises ServerFailed, also where the machine has no room for them."""
    room = psutil.virtual_memory().available / MIB
    if room < count * WORKER_MIB:
        raise ServerFailed(f"{count} workers take {count * WORKER_MIB:,} MiB; there are {room:,.0f}: see --workers")
    url = await engine.create()
    token = await prepare(url, folder, Size(), progress)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(processes.heartlane(url, folder))
        client = await stack.enter_async_context(Client(HOST, server.port, token))
        runs = [run["id"] for run in await make_lanes(client, await make_project(client, "Lines"), count)]
        workers = Workers(server, token, folder)
        stack.push_async_callback(workers.stop)
        took = await _start_all(workers, client, count, progress)
        report.add(engine.title, f"{count} workers at work", took, "s", note=f"at most {STARTING_MAX} start at a time")
        ways = {"list": Sightings(), "events": Sightings(), "stream": Sightings()}
        ours = workers.processes()  # now: whatever holds this process up later is in the figures
        async with _observing(server, token, runs, ways):
            await asyncio.sleep(SETTLE_SECONDS)
            for sightings in ways.values():
                sightings.begin()
            (of_workers, of_server), flushes = await asyncio.gather(
                _watch(ours, server, seconds), asyncio.to_thread(_flush, folder, seconds)
            )
            for sightings in ways.values():
                sightings.end()
            await asyncio.sleep(SETTLE_SECONDS)
            workers.check()
        observed = min(OBSERVED, len(runs))
        worst = max(
            ways["list"].add_to(report, engine.title, "line to the list of runs, p99", f"{len(runs)} runs"),
            ways["events"].add_to(report, engine.title, "line to the run's log, p99", f"{observed} runs"),
            ways["stream"].add_to(report, engine.title, "line to the run's stream, p99", f"{observed} runs"),
        )
        report.add(engine.title, "all workers", of_workers, "% of a core", note="with their guards and agents")
        report.add(engine.title, "the server meanwhile", of_server, "% of a core", note="the observer's calls included")
        note = f"beside all that; slowest {flushes[-1]:.2f} s: whatever is durable waits for the disk"
        report.add(engine.title, "a flush of the disk, p99", percentile(flushes, 0.99), "s", note=note)
        _weigh(engine, workers, server, report)
        progress(f"{engine.title}: {count} workers, a line is there within {worst:.2f} s (p99)")


async def _start_all(workers: Workers, client: Client, count: int, progress: Progress) -> float:
    """Start them step by step; seconds until the last one's agent was at work."""
    began = time.monotonic()
    at_work = 0
    moved_at = began
    while at_work < count:
        while len(workers.started) < min(count, at_work + STARTING_MAX):
            await workers.start()
        await asyncio.sleep(LIST_SECONDS)
        workers.check()
        before, at_work = at_work, len([run async for run in _listed(client) if run["log_line"] is not None])
        if at_work > before:
            moved_at = time.monotonic()
        if time.monotonic() > moved_at + START_SECONDS_MAX:
            raise ServerFailed(
                f"{at_work} of {count} workers are at work, and no more came in {START_SECONDS_MAX:.0f} s"
            )
        if at_work // 25 > before // 25:
            progress(f"{at_work} workers at work")
    return time.monotonic() - began


async def _listed(client: Client) -> AsyncIterator[dict[str, Any]]:
    """Every run, as the list has it."""
    cursor: str | None = ""
    while cursor is not None:
        page = await client.get(f"/api/agents/runs?limit={PAGE}" + (f"&cursor={cursor}" if cursor else ""))
        for run in page["runs"]:
            yield run
        cursor = page["next_cursor"]


@asynccontextmanager
async def _observing(server: Server, token: str, runs: list[str], ways: dict[str, Sightings]) -> AsyncIterator[None]:
    """Look at the lines in all ways until the block ends; what goes wrong with a look is raised."""
    observed = runs[:: max(1, len(runs) // OBSERVED)][:OBSERVED]
    looks: list[Coroutine[Any, Any, None]] = [
        _repeat(server, token, LIST_SECONDS, lambda client: _look_at_list(client, ways["list"])),
        *(_follow(server, token, run_id, ways["stream"]) for run_id in observed),
    ]
    positions: dict[str, int] = defaultdict(int)
    for run_id in observed:

        def look(client: Client, run_id: str = run_id) -> Coroutine[Any, Any, None]:
            return _look_at_events(client, run_id, positions, ways["events"])

        looks.append(_repeat(server, token, EVENTS_SECONDS, look))
    tasks = [asyncio.create_task(look) for look in looks]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _repeat(
    server: Server, token: str, seconds: float, look: Callable[[Client], Coroutine[Any, Any, None]]
) -> None:
    """Look again and again on one connection, from the begin of one look to that of the next `seconds`."""
    async with Client(HOST, server.port, token) as client:
        while True:
            next_at = time.monotonic() + seconds
            await look(client)
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))


async def _look_at_list(client: Client, sightings: Sightings) -> None:
    async for run in _listed(client):
        sightings.see(run["id"], run["log_line"])


async def _look_at_events(client: Client, run_id: str, positions: dict[str, int], sightings: Sightings) -> None:
    page = await client.get(f"/api/agents/runs/{run_id}/events?type=log_line&limit={PAGE}&after={positions[run_id]}")
    for event in page["events"]:
        positions[run_id] = event["seq"]
        sightings.see(run_id, event["payload"].get("line"))


async def _follow(server: Server, token: str, run_id: str, sightings: Sightings) -> None:
    """Read the run's stream until it is cancelled."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(base_url=f"http://{HOST}:{server.port}", headers=headers, timeout=None) as client,  # noqa: S113
        client.stream("GET", f"/api/agents/runs/{run_id}/stream") as answer,
    ):
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                if event.get("type") == "log_line":
                    sightings.see(run_id, event["payload"].get("line"))
    raise ServerFailed("a stream ended")


async def _watch(ours: list[psutil.Process], server: Server, seconds: float) -> tuple[float, float]:
    """Let it go on for so long; what the workers and the server took meanwhile, in percent of a core."""
    before, server_before = await asyncio.to_thread(cpu_seconds, ours), server.cpu_seconds()
    began = time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - began
    return (
        (await asyncio.to_thread(cpu_seconds, ours) - before) / elapsed * 100,
        (server.cpu_seconds() - server_before) / elapsed * 100,
    )


def _flush(folder: Path, seconds: float) -> list[float]:
    """Have the disk keep a page again and again for so long; how long it took each time, sorted."""
    taken = []
    ends_at = time.monotonic() + seconds
    with (folder / "flushed").open("wb", buffering=0) as file:
        while (began := time.monotonic()) < ends_at:
            file.write(bytes(4096))
            os.fsync(file.fileno())
            taken.append(time.monotonic() - began)
            time.sleep(FLUSH_SECONDS)
    return sorted(taken)


def _weigh(engine: Engine, workers: Workers, server: Server, report: Report) -> None:
    """Memory of all workers and of the server."""
    resident, shared = 0.0, 0.0
    for process in workers.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            found = process.memory_full_info()
            resident += found.rss / MIB
            shared += getattr(found, "pss", found.rss) / MIB
    note = f"resident {resident:,.0f}, with what they share counted in each"
    report.add(engine.title, "all workers", shared, "MiB", note=note)
    report.add(engine.title, "the server with its streams", server.rss_mib(), "MiB")
