"""Chaos around a fleet of real workers, by chance from a seed: what is done to them, and what must be true afterwards.

Servers are killed and started again, workers killed, stopped for longer than their lease and continued, and the network
between them drops, delays, doubles and is cut. Afterwards all is well again, and every lane must get shipped.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.e2e.server_process import ServerProcess
from tests.worker import witness
from tests.worker.proxy import FINE, Fate, Fault, FaultyProxy
from tests.worker.work_process import Lanes, Worker, closing

SEED_VARIABLE: Final = "HEARTLANE_CHAOS_SEED"
FAULTY_PART: Final = 0.2
"""Of all requests, while there is chaos."""
STATUSES: Final = (403, 404, 413, 429, 500, 502, 503)


def seed() -> int:
    """The seed of this run: a new one, or that of HEARTLANE_CHAOS_SEED, which brings a run's choices back."""
    return int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(10**9))


class Chaos:
    """A server behind a faulty network, workers in front of it, and what happens to them.

    did     how often each thing was done
    """

    def __init__(self, server: ServerProcess, folder: Path, *, workers: int, lease_seconds: int, chance: int) -> None:
        self.did: Counter[str] = Counter()
        self.lanes = Lanes(server)
        self.proxy = FaultyProxy(server.port)
        self._server = server
        self._evidence = folder / "evidence"
        self._lease = lease_seconds
        self._random = random.Random(chance)
        self._workers = [Worker(self.lanes, folder, f"w{number}") for number in range(workers)]
        self._busy: set[str] = set()
        self._later: list[tuple[float, Callable[[], None]]] = []

    def run(self, *, lanes: int, marks: int, seconds: float, settle_seconds: float) -> None:
        """All of it: lanes, chaos for so many seconds, peace for as long as it takes, the checks."""
        self.lanes.allow_failures()
        run_ids = self.lanes.add(*(f"lane-{number}" for number in range(lanes)))
        self._marks = marks
        with contextlib.closing(self.proxy), contextlib.closing(self.lanes), closing(*self._workers):
            for worker in self._workers:
                self._start(worker)
            self.proxy.fate = self._fate
            self._disturb(seconds)
            self.proxy.fate = lambda method, path: FINE
            self._settle(run_ids, settle_seconds)
            self._check(run_ids)

    # --- what is done ---------------------------------------------------------------------------------------------

    def _start(self, worker: Worker) -> None:
        arguments = ("--plain", "--wait-for-server", "forever", "--lease", str(self._lease), "--grace", "1s", "--")
        worker.start(*arguments, *witness.agent(self._evidence, self._marks), url=self.proxy.url)

    def _fate(self, method: str, path: str) -> Fate:
        chance = self._random
        if chance.random() > FAULTY_PART:
            return FINE
        fault = chance.choice([*Fault])
        self.did[f"request {fault}"] += 1
        return Fate(fault, chance.choice((0.0, 0.0, chance.uniform(0.0, self._lease / 2))), chance.choice(STATUSES))

    def _disturb(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        # Small steps: each may kill, stop or cut, and puts right later what it did.
        while time.monotonic() < ends_at:
            self._put_right(time.monotonic())
            if self._random.random() < 0.1:
                self._random.choices(
                    [self._kill_server, self._kill_worker, self._stop_worker, self._cut], (3, 3, 4, 2)
                )[0]()
            time.sleep(0.05)

    def _soon(self, seconds: float, do: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, do))

    def _put_right(self, now: float) -> None:
        due = [do for at, do in self._later if at <= now]
        self._later = [(at, do) for at, do in self._later if at > now]
        for do in due:
            do()

    def _take(self, name: str) -> bool:
        """Whether nothing is being done to that one yet."""
        if name in self._busy:
            return False
        self._busy.add(name)
        return True

    def _kill_server(self) -> None:
        if self._take("network"):
            self.did["server killed"] += 1
            self._server.kill()
            self._soon(self._random.uniform(0.0, self._lease * 1.2), self._server.spawn)
            self._soon(self._lease * 2, lambda: self._busy.discard("network"))

    def _cut(self) -> None:
        if self._take("network"):
            self.did["network cut"] += 1
            self.proxy.cut()
            self._soon(self._random.uniform(0.2, self._lease * 1.5), self.proxy.mend)
            self._soon(self._lease * 2, lambda: self._busy.discard("network"))

    def _kill_worker(self) -> None:
        worker = self._random.choice(self._workers)
        if self._take(worker.name):
            self.did["worker killed"] += 1
            worker.kill()

            def again() -> None:
                self._start(worker)
                self._busy.discard(worker.name)

            self._soon(self._random.uniform(0.0, 2.0), again)

    def _stop_worker(self) -> None:
        worker = self._random.choice(self._workers)
        if self._take(worker.name):
            self.did["worker stopped"] += 1
            worker.signal(signal.SIGSTOP)

            def go_on() -> None:
                worker.signal(signal.SIGCONT)
                self._busy.discard(worker.name)

            self._soon(self._random.uniform(0.5, self._lease + 4.0), go_on)

    # --- what must be true ----------------------------------------------------------------------------------------

    def _settle(self, run_ids: list[str], seconds: float) -> None:
        while self._later:
            self._put_right(time.monotonic())
            time.sleep(0.05)
        self._server.wait_until(lambda: self._server.status("/readyz") == 200, "ready", 30)
        for worker in self._workers:
            assert worker.process is not None
            assert worker.process.poll() is None, f"{worker.name} ended by itself:\n{worker.said()}"
        for run_id in run_ids:
            self.lanes.wait(run_id, lambda run: run["state"] == "shipped", seconds)

    def _check(self, run_ids: list[str]) -> None:
        lines = witness.read(self._evidence)
        witness.check_never_two(lines)
        printed: Counter[tuple[str, int]] = Counter()
        for line in lines:
            printed[line.run_id, line.attempt] += line.what == "tick"
        for run_id in run_ids:
            run, events = self.lanes.run(run_id), self.lanes.events(run_id)
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            shipped = [event for event in events if event["type"] == "ship_complete"]
            assert [event["attempt"] for event in shipped] == [run["attempt"]], f"{run_id}: {shipped}"
            marks: list[str] = []
            for attempt in range(1, run["attempt"] + 1):
                texts = [
                    event["payload"]["line"]
                    for event in events
                    if event["attempt"] == attempt and event["type"] == "log_line"
                ]
                marks = [text for text in texts if text.startswith("mark")]
                assert marks == [f"mark {number}" for number in range(len(marks))], f"{run_id}, attempt {attempt}"
                assert len(marks) <= -(-printed[run_id, attempt] // witness.MARK_TICKS)
            assert len(marks) == self._marks, f"{run_id} was shipped with {len(marks)} marks"
        self.did["lanes"] = len(run_ids)
        self.did["attempts"] = sum(self.lanes.run(run_id)["attempt"] for run_id in run_ids)
        self.did["requests"] = self.proxy.requests
