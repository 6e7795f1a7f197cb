"""The lower half of the sidecar: what a guard costs, how fast output is read, how fast events are kept and sent."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Final

import psutil

from bench import sidecar
from bench.figures import Report
from bench.processes import MIB
from bench.rounds import Progress
from heartlane.worker.child import Child
from heartlane.worker.clock import boottime
from heartlane.worker.reader import Reader
from heartlane.worker.redact import Redactor
from heartlane.worker.spool import Spool
from heartlane.worker.spool_files import Header

ENGINE: Final = "worker"
START_MS_MAX: Final = 60.0
GUARD_MIB_MAX: Final = 12.0
CPU_PERCENT_MAX: Final = 1.0
MB_PER_SECOND_MIN: Final = 100.0
LINES_PER_SECOND_MIN: Final = 50_000.0

STARTS: Final = 20
WATCHED_SECONDS: Final = 3.0
WAIT_SECONDS: Final = 120.0
MEGABYTES: Final = 300
EVENTS: Final = 50_000

WAITS: Final = "import time; time.sleep(600)"
PRINTS: Final = (
    "import sys\n"
    "line = bytes(sys.argv[1], 'ascii') + b'\\n'\n"
    "block = line * (1_000_000 // len(line))\n"
    "for _ in range(int(sys.argv[2])): sys.stdout.buffer.write(block)\n"
)
LINE: Final = json.dumps(
    {
        "type": "assistant",
        "message": {
            "id": "msg_01",
            "content": [{"type": "text", "text": "The tests pass; I go on to the docs. " * 50}],
        },
    }
)
"""A line of stream-json as agents print it, of some 2 kB."""


def measure(folder: Path, rounds: int, report: Report, progress: Progress) -> None:
    """All of it, one after the other, on one core and what the children take."""
    sidecar.measure(folder, report, progress)
    _guard(report, progress)
    _reading(rounds, report, progress)
    _spool(folder, rounds, report, progress)
    _redaction(rounds, report)


def _start(program: str, *arguments: str) -> Child:
    return Child.start([sys.executable, "-I", "-S", "-c", program, *arguments], env=dict(os.environ), cwd="/")


def _guard(report: Report, progress: Progress) -> None:
    starts, freezes, ends, sizes = [], [], [], []
    for _ in range(STARTS):
        started = time.perf_counter()
        with _start(WAITS) as child:
            starts.append((time.perf_counter() - started) * 1000)
            started = time.perf_counter()
            assert child.freeze()
            freezes.append((time.perf_counter() - started) * 1000)
            sizes.append(psutil.Process(child.guard_pid).memory_info().rss / MIB)
            started = time.perf_counter()
        ends.append((time.perf_counter() - started) * 1000)
    note = f"median of {STARTS}; slowest {max(starts):.0f}"
    report.add(
        ENGINE, "start of a command under its guard", statistics.median(starts), "ms", most=START_MS_MAX, note=note
    )
    report.add(ENGINE, "guard, resident", max(sizes), "MiB", most=GUARD_MIB_MAX, note=f"largest of {STARTS}")
    report.add(ENGINE, "until a tree stands still", statistics.median(freezes), "ms")
    report.add(ENGINE, "until a killed tree is gone", statistics.median(ends), "ms")
    progress(f"guard: started in {statistics.median(starts):.1f} ms")
    with _start(WAITS) as child:
        child.set_deadline(boottime() + 3600)
        reader = Reader(child.stdout, child.stderr, lambda stream, lines: None).start()
        watched = (psutil.Process(), psutil.Process(child.guard_pid))
        before = sum(sum(process.cpu_times()[:2]) for process in watched)
        time.sleep(WATCHED_SECONDS)
        spent = sum(sum(process.cpu_times()[:2]) for process in watched) - before
        child.kill()
        reader.join(WAIT_SECONDS)
    share = spent / WATCHED_SECONDS * 100
    note = f"over {WATCHED_SECONDS:.0f} s, the reader's and the guard's"
    report.add(ENGINE, "a silent command", share, "% of a core", most=CPU_PERCENT_MAX, note=note)


def _reading(rounds: int, report: Report, progress: Progress) -> None:
    for name, line in (("stream-json", LINE), ("lines of 80 bytes", "x" * 79)):
        speeds, rates = [], []
        for _ in range(rounds):
            started = time.perf_counter()
            with _start(PRINTS, line, str(MEGABYTES)) as child:
                reader = Reader(child.stdout, child.stderr, lambda stream, lines: None).start()
                assert reader.join(WAIT_SECONDS)
                seconds = time.perf_counter() - started
            assert reader.lines == MEGABYTES * (1_000_000 // (len(line) + 1)), "lines were lost"
            speeds.append(reader.bytes_read / 1e6 / seconds)
            rates.append(reader.lines / seconds)
        speed, rate = statistics.median(speeds), statistics.median(rates)
        note = f"{MEGABYTES} MB, median of {rounds}, the command's start included"
        report.add(ENGINE, f"reading {name}", speed, "MB/s", least=MB_PER_SECOND_MIN, note=note)
        report.add(ENGINE, f"reading {name}", rate, "lines/s", least=LINES_PER_SECOND_MIN)
        progress(f"reading {name}: {speed:,.0f} MB/s")


def _spool(folder: Path, rounds: int, report: Report, progress: Progress) -> None:
    appends, sends, opens = [], [], []
    event = {"type": "action", "payload": {"tool": "edit", "file": "src/app.py", "ok": True, "ms": 12}}
    for number in range(rounds):
        header = Header("http://bench", f"run-{number}", 1, "worker")
        with Spool.open(header, root=folder / "spool") as spool:
            started = time.perf_counter()
            for _ in range(EVENTS):
                spool.append(event)
            appends.append(EVENTS / (time.perf_counter() - started))
        started = time.perf_counter()
        with Spool.open(header, root=folder / "spool") as spool:
            opens.append((time.perf_counter() - started) * 1000)
            started = time.perf_counter()
            while (batch := spool.next_batch()) is not None:
                spool.acknowledge(batch.seq)
            sends.append(EVENTS / (time.perf_counter() - started))
            spool.remove()
    report.add(ENGINE, "spooling events", statistics.median(appends), "/s", note=f"{EVENTS:,}, median of {rounds}")
    report.add(ENGINE, "taking events out, synced", statistics.median(sends), "/s", note="in batches of 100")
    report.add(ENGINE, "opening a spool", statistics.median(opens), "ms", note=f"with {EVENTS:,} events in it")
    progress(f"spool: {statistics.median(appends):,.0f} events/s")


def _redaction(rounds: int, report: Report) -> None:
    redactor = Redactor(values=["hlt_bench-token-of-the-sidecar"], env=dict(os.environ))
    text = LINE * 500
    speeds = []
    for _ in range(rounds):
        started = time.perf_counter()
        redactor.text(text)
        speeds.append(len(text) / 1e6 / (time.perf_counter() - started))
    report.add(ENGINE, "masking secrets", statistics.median(speeds), "MB/s")
