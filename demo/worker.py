"""A worker in about two hundred lines: claim a lane, keep its lease alive, report, ship. Read it to write your own.

`python -m demo.worker NAME --project ID` works until it is told to stop (SIGTERM). It finds the server and its token in
HEARTLANE_URL and HEARTLANE_TOKEN. Only `work` is make-believe: there a real worker would run its agent or command. All
else is what keeps many workers from ever working one lane at once:

- The worker's id is unique per process: a restarted worker is another worker.
- The lease is renewed by a thread of its own at a third of its length, however long a step of the work takes.
- Every report carries the claim's `attempt`, so that a worker that was given up for dead can't touch the lane again,
  and a growing `seq`, so that a report whose answer got lost can simply be sent again.
- When the server says that the lane is lost, or the lease may have run out, the work stops at once.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final, Self

import httpx

LEASE_SECONDS: Final = 3
"""Short, so that a killed worker is missed soon. Real workers take a minute or more."""
WAIT_SECONDS: Final = 10
"""How long one claim waits at the server for a lane."""
RETRY_SECONDS: Final = 0.3
TRY_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that say nothing about the claim: ask again."""


class LaneLost(Exception):
    """The lane isn't ours any more; nothing that we do to it counts."""


class Stopped(Exception):
    """Somebody told this worker to stop."""


class Lane:
    """A claimed lane: reports on it, and a thread that renews its lease. Leave the block, and the renewals end."""

    def __init__(self, server: httpx.Client, worker_id: str, claim: dict[str, Any], claimed_at: float) -> None:
        self.run: dict[str, Any] = claim["run"]
        self.path = f"/api/agents/runs/{self.run['id']}"
        self.identity = {"worker_id": worker_id, "attempt": self.run["attempt"]}
        self.server = server
        self._seq: int = claim["last_seq"]
        # Counted from before the request was sent, so that our own idea of the lease never outlasts the server's.
        self._lease_ends = claimed_at + LEASE_SECONDS
        self._one_report = threading.Lock()
        self._closed = threading.Event()
        self._lost: str | None = None
        self._directive = "continue"
        self._renewals = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        self._renewals.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def report(self, **fields: Any) -> None:
        """Tell the server what happened; this renews the lease too. Raises LaneLost."""
        with self._one_report:
            self._seq += 1
            body = {**self.identity, "lease_seconds": LEASE_SECONDS, "seq": self._seq, **fields}
            while True:
                if self._lost is not None or time.monotonic() >= self._lease_ends:
                    raise LaneLost(self._lost or "the lease has run out")
                sent_at = time.monotonic()
                answer = self._try(body)
                if answer is None:
                    self._closed.wait(RETRY_SECONDS)
                elif answer.status_code == 200:
                    self._lease_ends = sent_at + LEASE_SECONDS
                    self._directive = answer.json()["directive"]
                    return
                else:
                    self._lost = answer.json()["error"]

    def _try(self, body: dict[str, Any]) -> httpx.Response | None:
        """The server's answer, or None where there was none that says anything: then the same report goes again."""
        try:
            answer = self.server.post(f"{self.path}/events", json=body)
        except httpx.TransportError:
            return None
        return None if answer.status_code in TRY_AGAIN else answer

    def _renew(self) -> None:
        while not self._closed.wait(LEASE_SECONDS / 3):
            try:
                self.report()
            except LaneLost as lost:
                self._lost = str(lost)
                return

    def sleep(self, seconds: float) -> None:
        """Take that long over a step, and hold still while an operator has the lane paused. Raises LaneLost."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends or self._directive == "pause":
            if self._lost is not None or self._directive == "stop":
                raise LaneLost(self._lost or "an operator has ended it")
            time.sleep(0.05)


def work(run: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
    """The make-believe: what each step reports, and how many seconds the step then takes."""
    titles = [ticket["title"] for ticket in run.get("tickets", [])] or [run["title"]]
    file = f"{run['role']}/{titles[0].lower().replace(' ', '_')[:24]}.py"
    yield 0.4, {"phase": "reading", "log_line": "Asked for: " + "; ".join(titles)}
    yield 0.5, {"phase": "editing", "events": [{"type": "action", "payload": {"tool": "edit", "target": file}}]}
    yield 0.4, {"events": [{"type": "log_line", "payload": {"line": f"{file}: 3 functions changed, 1 added"}}]}
    yield 0.5, {"phase": "testing", "events": [{"type": "action", "payload": {"tool": "shell", "target": "make test"}}]}
    yield 0.4, {"events": [{"type": "log_line", "payload": {"line": "all tests pass"}}]}
    yield 0.3, {"phase": "shipping", "log_line": f"pushing the branch {branch_of(run)}"}


def branch_of(run: dict[str, Any]) -> str:
    """The branch that the work would be on: the attempt is in it, so that two attempts never share one."""
    return f"lane/{run['lane_key']}-{run['attempt']}"


def ship(lane: Lane) -> None:
    """Do the work and end the lane as shipped; give the lane back when told to stop. Raises LaneLost, Stopped."""
    try:
        for seconds, report in work(lane.run):
            lane.report(**report)
            lane.sleep(seconds)
        result = {"branch": branch_of(lane.run), "summary": f"Did {lane.run['title']!r}."}
        lane.report(events=[{"type": "ship_complete", "payload": result}])
    except Stopped:
        release(lane)
        raise


def release(lane: Lane) -> None:
    """Hand the lane back, so that another worker needn't wait for the lease to run out."""
    try:
        lane.server.post(f"{lane.path}/release", json={**lane.identity, "reason": "the worker was told to stop"})
    except httpx.TransportError:
        return  # the lease will run out instead


def claim(server: httpx.Client, worker_id: str, project_id: str) -> Lane | None:
    """Wait for a lane and claim it; None when there was none for a while, or no answer."""
    body = {
        "worker_id": worker_id,
        "project_id": project_id,
        "lease_seconds": LEASE_SECONDS,
        "wait_seconds": WAIT_SECONDS,
    }
    asked_at = time.monotonic()
    try:
        answer = server.post("/api/agents/runs/claim", json=body)
    except httpx.TransportError:
        time.sleep(RETRY_SECONDS)
        return None
    if answer.status_code in TRY_AGAIN:
        time.sleep(RETRY_SECONDS)
        return None
    answer.raise_for_status()
    received = answer.json()
    if received["run"] is None:
        return None
    # A long poll may have waited before it claimed: the lease began at most this long before the answer.
    waited = max(0.0, time.monotonic() - asked_at - LEASE_SECONDS / 3)
    return Lane(server, worker_id, received, claimed_at=asked_at + waited)


def stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM becomes an exception at whatever the worker is doing."""
    raise Stopped


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.worker", description="A worker that claims and ships lanes.")
    parser.add_argument("name", help="what to call it; the process id and a random part make the worker's id unique")
    parser.add_argument("--project", required=True, metavar="ID", help="only lanes of this project")
    options = parser.parse_args()
    worker_id = f"{options.name}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
    signal.signal(signal.SIGTERM, stop)
    headers = {"Authorization": f"Bearer {os.environ['HEARTLANE_TOKEN']}"}
    try:
        with httpx.Client(base_url=os.environ["HEARTLANE_URL"], headers=headers, timeout=WAIT_SECONDS + 5) as server:
            while True:
                lane = claim(server, worker_id, options.project)
                if lane is None:
                    continue
                try:
                    with lane:
                        ship(lane)
                except LaneLost as lost:
                    print(f"{worker_id} lost {lane.run['lane_key']}: {lost}", file=sys.stderr)
    except Stopped:
        return 0


if __name__ == "__main__":
    sys.exit(main())
