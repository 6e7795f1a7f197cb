"""The load generator: a closed loop over keep-alive connections, in a process of its own.

`python -m bench.load` reads one job as JSON from standard input, holds the load, and prints one result as JSON. Each
connection sends its next report the moment the answer to the last one is there; with a `rate`, as the clock says, and
latencies then count from the moment at which a report was due, so that a server that falls behind can't hide it.
Requests are made beforehand but for their `seq`; every answer's status is checked, and one in `check_every` is parsed
and checked whole. The first answer that isn't as it should be ends the process with exit code 1 and a line on standard
error.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from array import array
from functools import partial
from typing import Any, Final, NotRequired, TypedDict, cast

import uvloop

SETTLE_SECONDS: Final = 10.0
"""How long the answers that are still under way at the end may take."""


class LaneJob(TypedDict):
    """One lane to report on: its run's id, the report cut where its `seq` goes, and the next `seq` to send.

    What isn't a report to Heartlane says its own `request` (`PUT /path`) and, where the lanes don't share one, its own
    `authorization` (`Bearer …`).
    """

    run_id: str
    body: list[str]
    seq: int
    request: NotRequired[str]
    authorization: NotRequired[str]


class Job(TypedDict):
    """What to send where. `lanes[n]` is reported on by connection `n % connections`, in turns.

    Every answer must have the `status` (200); `check_every` 0 leaves the answers' bodies alone.
    """

    host: str
    port: int
    token: str
    connections: int
    warmup_seconds: float
    seconds: float
    check_every: int
    lanes: list[LaneJob]
    status: NotRequired[int]
    rate: NotRequired[float]
    """Reports a second over all connections; left out: as many as are answered."""


class Result(TypedDict):
    """What was measured. Latencies in milliseconds; `cpu` is the share of one core that the generator itself took."""

    requests: int
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    checked: int
    cpu: float
    seqs: list[int]
    problem: NotRequired[str]


class Lane:
    """One lane's request, made but for the `seq`, whose width never changes while a job runs."""

    __slots__ = ("pieces", "run_id", "seq")

    def __init__(self, job: Job, lane: LaneJob) -> None:
        self.run_id = lane["run_id"]
        self.seq = lane["seq"]
        length = len(str(self.seq).join(lane["body"]).encode())
        request = lane.get("request", f"POST /api/agents/runs/{self.run_id}/events")
        head = (
            f"{request} HTTP/1.1\r\n"
            f"Host: {job['host']}:{job['port']}\r\n"
            f"Authorization: {lane.get('authorization', 'Bearer ' + job['token'])}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        first, *others = lane["body"]
        self.pieces = [(head + first).encode(), *(piece.encode() for piece in others)]


class Load:
    """One job under way: what its connections share."""

    def __init__(self, job: Job) -> None:
        self.status = str(job.get("status", 200)).encode()
        self.check_every = job["check_every"]
        self.lanes = [Lane(job, lane) for lane in job["lanes"]]
        rate = job.get("rate")
        self.interval = None if rate is None else job["connections"] / rate
        self.latencies: array[float] = array("d")
        self.answers = 0
        self.checked = 0
        self.stopping = False
        self.under_way = 0
        self.problem: str | None = None
        self.ended = asyncio.Event()

    def fail(self, problem: str) -> None:
        """Note the first problem and end the job."""
        self.problem = self.problem or problem
        self.stopping = True
        self.ended.set()


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at a time."""

    __slots__ = ("buffer", "due", "lane", "lanes", "load", "sent", "transport", "turn")

    def __init__(self, load: Load, lanes: list[Lane]) -> None:
        self.load = load
        self.lanes = lanes
        self.turn = 0
        self.lane = lanes[0]
        self.buffer = b""
        self.sent = 0.0
        self.due = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class stands under no asyncio one

    def send(self) -> None:
        self.lane = lane = self.lanes[self.turn]
        self.turn = (self.turn + 1) % len(self.lanes)
        seq = lane.seq
        lane.seq = seq + 1
        self.load.under_way += 1
        self.sent = time.perf_counter() if self.load.interval is None else self.due
        self.transport.write((b"%d" % seq).join(lane.pieces))

    def go_on(self) -> None:
        """Send the next report, now or when it is due."""
        interval = self.load.interval
        if interval is None:
            self.send()
            return
        self.due += interval
        wait = self.due - time.perf_counter()
        if wait <= 0:
            self.send()
        else:
            asyncio.get_running_loop().call_later(wait, self.send_unless_stopped)

    def send_unless_stopped(self) -> None:
        if not self.load.stopping:
            self.send()

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = data
            return
        length = content_length(data, end)
        if length is None:
            self.load.fail(f"an answer without Content-Length: {data[:200]!r}")
            return
        if len(data) < end + 4 + length:
            self.buffer = data
            return
        self.buffer = b""
        load = self.load
        load.latencies.append(time.perf_counter() - self.sent)
        load.under_way -= 1
        load.answers += 1
        if data[9:12] != load.status:
            load.fail(f"status {data[9:12].decode()} to a report on {self.lane.run_id}: {data[end + 4 :][:500]!r}")
        elif load.check_every and load.answers % load.check_every == 0:
            self.check(data[end + 4 :])
        if not load.stopping:
            self.go_on()
        elif load.under_way == 0:
            load.ended.set()

    def check(self, body: bytes) -> None:
        """Parse one whole answer: `ok`, no replay, and this connection's run (the floor answers no run's id)."""
        try:
            answer: Any = json.loads(body)
            right = answer["ok"] is True and answer.get("duplicate", False) is False
            right = right and answer["run"]["id"] in (self.lane.run_id, FLOOR_RUN_ID)
        except (ValueError, KeyError, TypeError):
            right = False
        if right:
            self.load.checked += 1
        else:
            self.load.fail(f"a wrong answer to a report on {self.lane.run_id}: {body[:500]!r}")

    def connection_lost(self, error: Exception | None) -> None:
        if not self.load.ended.is_set():
            self.load.fail(f"the server closed a connection: {error or 'end of file'}")


FLOOR_RUN_ID: Final = "00000000-0000-7000-8000-000000000000"
"""The id of the run in the floor's constant answer."""


def content_length(data: bytes, end: int) -> int | None:
    """The answer's Content-Length, or None; header names come in one spelling from one server. A 204 has no body."""
    start = data.find(b"content-length:", 0, end)
    if start < 0:
        start = data[:end].lower().find(b"content-length:")
        if start < 0:
            return 0 if data[9:12] == b"204" else None
    stop = data.find(b"\r", start)
    return int(data[start + 15 : stop])


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` (0–1) of the sorted values lie; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def hold(job: Job) -> Result:
    """Hold the load for the job's time and return what was measured after the warm-up."""
    load = Load(job)
    loop = asyncio.get_running_loop()
    connections: list[Connection] = []
    for place in range(job["connections"]):
        connection = Connection(load, load.lanes[place :: job["connections"]])
        await loop.create_connection(partial(_itself, connection), job["host"], job["port"])
        connections.append(connection)
    started = time.perf_counter()
    for place, connection in enumerate(connections):
        if load.interval is None:
            connection.send()
        else:
            connection.due = started + load.interval * (place / len(connections) - 1)
            connection.go_on()
    await _sleep_or_end(load, job["warmup_seconds"])
    load.latencies = array("d")
    started, cpu = time.perf_counter(), time.process_time()
    await _sleep_or_end(load, job["seconds"])
    latencies, elapsed, cpu = load.latencies, time.perf_counter() - started, time.process_time() - cpu
    load.latencies = array("d")
    load.stopping = True
    if load.under_way == 0:
        load.ended.set()
    try:
        await asyncio.wait_for(load.ended.wait(), SETTLE_SECONDS)
    except TimeoutError:
        load.fail(f"{load.under_way} reports had no answer {SETTLE_SECONDS:.0f} s after the end")
    for connection in connections:
        connection.transport.close()
    ordered = sorted(value * 1000 for value in latencies)
    result = Result(
        requests=len(ordered),
        seconds=elapsed,
        rate=len(ordered) / elapsed,
        p50_ms=percentile(ordered, 0.50),
        p99_ms=percentile(ordered, 0.99),
        max_ms=ordered[-1] if ordered else 0.0,
        checked=load.checked,
        cpu=cpu / elapsed,
        seqs=[lane.seq for lane in load.lanes],
    )
    if load.problem is not None:
        result["problem"] = load.problem
    return result


def _itself(connection: Connection) -> Connection:
    return connection


async def _sleep_or_end(load: Load, seconds: float) -> None:
    try:
        await asyncio.wait_for(load.ended.wait(), seconds)
    except TimeoutError:
        return


def _say(text: bytes) -> None:
    """Write the result whole: a pipe may take a part of it at a time, where the event loop left it without waiting."""
    os.set_blocking(sys.stdout.fileno(), True)
    while text:
        text = text[os.write(sys.stdout.fileno(), text) :]


def main() -> int:
    job: Job = json.load(sys.stdin)
    gc.disable()  # a collection pause of the generator would be counted as the server's latency
    result = uvloop.run(hold(job))
    _say(json.dumps(result).encode())
    if "problem" in result:
        print(result["problem"], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
