"""What a whole `heartlane work` costs beside a silent agent, and how soon it claims. Its server is a stub."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import psutil

from bench.figures import Report
from bench.processes import MIB
from bench.rounds import Progress

ENGINE: Final = "worker"
RESIDENT_MIB_MAX: Final = 60.0
CPU_PERCENT_MAX: Final = 1.0
CLAIM_MS_MAX: Final = 300.0
HELP_MS_MAX: Final = 250.0
STARTS: Final = 7
SETTLE_SECONDS: Final = 3.0
WATCHED_SECONDS: Final = 10.0
RUN: Final[dict[str, Any]] = {
    "id": "01a00000-0000-7000-8000-000000000001",
    "attempt": 1,
    "lane_key": "bench",
    "title": "Bench",
    "prompt": "Wait.",
    "role": "backend",
    "event_count": 0,
}


class _Server(ThreadingHTTPServer):
    """Grants its lane once, and takes every report."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A worker that is ended in the midst of an answer is nothing to speak of."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.claimed = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer(404, {"error": "There is none.", "code": "NOT_FOUND"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/runs/claim"):
            first = not self.server.claimed.is_set()
            self.server.claimed.set()
            self._answer(200, {"run": RUN, "last_seq": 0} if first else {"run": None})
        else:
            self._answer(200, {"directive": "continue"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def measure(folder: Path, report: Report, progress: Progress) -> None:
    """All of it."""
    python = _seconds([sys.executable, "-c", "pass"])
    shown = _seconds([sys.executable, "-m", "heartlane", "--help"]) * 1000
    report.add(ENGINE, "heartlane --help", shown, "ms", most=HELP_MS_MAX, note=f"median of {STARTS}")
    claims = [_start_to_claim(folder) - python for _ in range(STARTS)]
    note = f"beyond Python's own {python * 1000:.0f} ms, median of {STARTS}; slowest {max(claims) * 1000:.0f}"
    report.add(ENGINE, "from start to claim", statistics.median(claims) * 1000, "ms", most=CLAIM_MS_MAX, note=note)
    progress(f"sidecar: claims after {statistics.median(claims) * 1000:.0f} ms")
    _silent(folder, report)


def _seconds(command: Sequence[str]) -> float:
    """How long a command takes, the median of some tries."""
    taken = []
    for _ in range(STARTS):
        started = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _start(server: _Server, folder: Path) -> subprocess.Popen[bytes]:
    variables = {
        **os.environ,
        "HEARTLANE_URL": f"http://127.0.0.1:{server.server_port}",
        "HEARTLANE_TOKEN": "hlt_" + "b" * 43,
        "HEARTLANE_STATE": str(folder / "state"),
    }
    # The agent sleeps without an interpreter of its own: what is measured is the worker.
    command = [sys.executable, "-m", "heartlane", "work", "--", "sleep", "600"]
    return subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL)


def _start_to_claim(folder: Path) -> float:
    with _Server() as server:
        started = time.perf_counter()
        process = _start(server, folder)
        try:
            assert server.claimed.wait(30)
            return time.perf_counter() - started
        finally:
            process.terminate()
            process.wait(30)
            server.shutdown()


def _silent(folder: Path, report: Report) -> None:
    with _Server() as server:
        process = _start(server, folder)
        try:
            assert server.claimed.wait(30)
            time.sleep(SETTLE_SECONDS)
            worker = psutil.Process(process.pid)
            ours = [worker, *worker.children()]  # the guard; the agent is the guard's child
            resident = [one.memory_info().rss / MIB for one in ours]
            before = sum(sum(one.cpu_times()[:2]) for one in ours)
            time.sleep(WATCHED_SECONDS)
            spent = sum(sum(one.cpu_times()[:2]) for one in ours) - before
        finally:
            process.terminate()
            process.wait(30)
            server.shutdown()
    note = " + ".join(f"{size:.1f}" for size in resident) + ", the worker and its guard"
    report.add(ENGINE, "worker beside a silent agent", sum(resident), "MiB", most=RESIDENT_MIB_MAX, note=note)
    share = spent / WATCHED_SECONDS * 100
    note = f"over {WATCHED_SECONDS:.0f} s, the worker and its guard"
    report.add(ENGINE, "worker beside a silent agent", share, "% of a core", most=CPU_PERCENT_MAX, note=note)
