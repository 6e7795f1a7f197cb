"""A scripted agent that leaves evidence, and what the evidence proves.

The agent writes lines to a file that all agents share: its start, a tick every TICK_SECONDS, and its end, each by a
single write that the system appends whole. A frozen agent writes nothing, so that two attempts which ran at the same
time show as lines in the wrong order. To its worker it prints numbered marks.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

TICK_SECONDS: Final = 0.02
MARK_TICKS: Final = 5
"""One mark every so many ticks: slow enough that no line is ever left out."""

_AGENT: Final = f"""
import os, sys, time
path, run_id, attempt, marks = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
def witness(what):
    now = time.clock_gettime(clock)
    os.write(descriptor, f"{{now:.6f}} {{run_id}} {{attempt}} {{os.getpid()}} {{what}}\\n".encode())
witness("start")
for tick in range(marks * {MARK_TICKS}):
    witness("tick")
    if tick % {MARK_TICKS} == 0:
        print("mark", tick // {MARK_TICKS}, flush=True)
    time.sleep({TICK_SECONDS})
witness("end")
"""


class Line(NamedTuple):
    """One line of evidence. `at` is in seconds of a clock that all processes of the machine share."""

    at: float
    run_id: str
    attempt: int
    pid: int
    what: str


def agent(evidence: Path, marks: int) -> list[str]:
    """The agent's command line for `heartlane work`; it runs for `marks` times TICK_SECONDS times MARK_TICKS."""
    evidence.touch()
    return [sys.executable, "-I", "-S", "-c", _AGENT, str(evidence), "{run_id}", "{attempt}", str(marks)]


def read(evidence: Path) -> list[Line]:
    """All lines, in the order in which they were written."""
    lines = []
    for text in evidence.read_text("utf-8").splitlines():
        at, run_id, attempt, pid, what = text.split(" ")
        lines.append(Line(float(at), run_id, int(attempt), int(pid), what))
    return lines


def check_never_two(lines: list[Line]) -> None:
    """Raise AssertionError where two attempts at one lane ran at the same time, or one attempt had two agents."""
    last: dict[str, Line] = {}
    pids: dict[tuple[str, int], set[int]] = defaultdict(set)
    for line in lines:
        before = last.get(line.run_id)
        assert before is None or before.attempt <= line.attempt, f"{line} after {before}: two agents at one lane"
        assert before is None or before.what != "end" or before.attempt < line.attempt, f"{line} after {before}"
        last[line.run_id] = line
        pids[line.run_id, line.attempt].add(line.pid)
    spans: dict[tuple[str, int], tuple[float, float]] = {}
    for line in lines:
        key = (line.run_id, line.attempt)
        first, _ = spans.get(key, (line.at, line.at))
        spans[key] = (first, line.at)
    for (run_id, attempt), (first, _) in spans.items():
        for earlier in range(1, attempt):
            _, ended = spans.get((run_id, earlier), (0.0, 0.0))
            assert ended <= first, f"attempt {earlier} of {run_id} ticked at {ended}, {attempt} began at {first}"
    doubled = {key: found for key, found in pids.items() if len(found) > 1}
    assert not doubled, f"attempts with several agents: {doubled}"
