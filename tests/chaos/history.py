"""What clients asked and heard, and what was done to the system meanwhile: one line of JSON for each moment.

    {"op": 7, "at": 12.5, "process": "light-3", "does": "report", "asks": {…}}
    {"op": 7, "at": 12.6, "outcome": "ok", "heard": {…}}
    {"fault": "server killed", "number": 2, "at": 13.0}
    {"fault": "server killed", "number": 2, "at": 15.1, "over": true}

`at` is the machine's wall clock, in seconds since 1970, which PostgreSQL on the same machine uses too. An operation is
`ok`; or `fail`, which certainly did nothing; or `unknown`, which may have been done, now or later. One without an
outcome is unknown as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self, TextIO

Outcome = Literal["ok", "fail", "unknown"]
FOREVER: Final = float("inf")


@dataclass(slots=True)
class Op:
    """One call: by whom, what (`claim`, `report`, `release`), with what, when, and what came of it."""

    number: int
    process: str
    does: str
    asks: dict[str, Any]
    began: float
    ended: float = FOREVER
    outcome: Outcome = "unknown"
    heard: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class FaultSpan:
    """One thing that was done to the system, from its begin to when it was put right."""

    kind: str
    began: float
    ended: float = FOREVER


class History:
    """Written while it happens, and kept in memory too. For one event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ops: list[Op] = []
        self.faults: list[FaultSpan] = []
        self._file: TextIO = path.open("w", encoding="utf-8", buffering=1 << 16)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def invoke(self, process: str, does: str, asks: dict[str, Any]) -> Op:
        """A call is about to be made."""
        op = Op(len(self.ops), process, does, asks, time.time())
        self.ops.append(op)
        self._write({"op": op.number, "at": op.began, "process": process, "does": does, "asks": asks})
        return op

    def complete(self, op: Op, outcome: Outcome, **heard: Any) -> None:
        """What came of it."""
        op.ended, op.outcome, op.heard = time.time(), outcome, heard
        self._write({"op": op.number, "at": op.ended, "outcome": outcome, "heard": heard})

    @contextmanager
    def fault(self, kind: str) -> Iterator[None]:
        """Something is done to the system within the block."""
        number, span = len(self.faults), FaultSpan(kind, time.time())
        self.faults.append(span)
        self._write({"fault": kind, "number": number, "at": span.began})
        try:
            yield
        finally:
            span.ended = time.time()
            self._write({"fault": kind, "number": number, "at": span.ended, "over": True})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


def read(path: Path) -> tuple[list[Op], list[FaultSpan]]:
    """A history that was written."""
    ops: dict[int, Op] = {}
    faults: dict[int, FaultSpan] = {}
    with path.open(encoding="utf-8") as file:
        for line in map(json.loads, file):
            if "fault" in line and line.get("over"):
                faults[line["number"]].ended = line["at"]
            elif "fault" in line:
                faults[line["number"]] = FaultSpan(line["fault"], line["at"])
            elif "does" in line:
                ops[line["op"]] = Op(line["op"], line["process"], line["does"], line["asks"], line["at"])
            else:
                op = ops[line["op"]]
                op.ended, op.outcome, op.heard = line["at"], line["outcome"], line["heard"]
    return list(ops.values()), list(faults.values())
