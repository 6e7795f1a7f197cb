"""How fast agents' output is read: lines and bytes a second through each adapter, parsing included, on one core.

The lines are of the size and mix that a busy agent prints: texts, tool calls with small inputs, results with some
output, pieces of a stream. Each adapter reads the same lines over and over, as one run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.figures import Report
from bench.rounds import Progress
from heartlane.worker.agents import open_adapter

LINES_PER_SECOND_MIN: Final = 50_000
SECONDS: Final = 0.4
ROUNDS: Final = 3
BATCH: Final = 200
MIB: Final = 1024 * 1024

_CODE: Final = "\n".join(f"    {number}\tdef test_case_{number}(client: Client) -> None:" for number in range(12))


def _claude() -> Sequence[Mapping[str, Any]]:
    usage = {
        "input_tokens": 4,
        "cache_creation_input_tokens": 812,
        "cache_read_input_tokens": 14741,
        "output_tokens": 210,
    }
    session = {"parent_tool_use_id": None, "session_id": "4e4fa00e-5e28-405f-a0bd-5f1f7d57511c"}

    def assistant(number: int, block: Mapping[str, Any]) -> Mapping[str, Any]:
        message = {
            "id": f"msg_{number:08}",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet",
            "content": [block],
            "stop_reason": None,
            "usage": usage,
        }
        return {"type": "assistant", "message": message, **session}

    edit = {"file_path": "/src/app/tests/test_cases.py", "old_string": "case_1", "new_string": "case_2"}
    result = {"tool_use_id": "toolu_01", "type": "tool_result", "content": _CODE}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " the next case"}}
    return [
        assistant(1, {"type": "text", "text": "I'll look at the failing test first, and then at what it calls."}),
        assistant(1, {"type": "tool_use", "id": "toolu_01", "name": "Edit", "input": edit}),
        {"type": "user", "message": {"role": "user", "content": [result]}, **session},
        {"type": "stream_event", "event": delta, "uuid": "6eaca670-2292-4a5f-9011-f70cb61f3734", **session},
    ]


def _codex() -> Sequence[Mapping[str, Any]]:
    command = {"id": "item_1", "type": "command_execution", "command": "bash -lc 'pytest -q tests/test_cases.py'"}
    return [
        {"type": "item.completed", "item": {"id": "item_0", "type": "reasoning", "text": "**Looking at the test**"}},
        {"type": "item.started", "item": {**command, "aggregated_output": "", "status": "in_progress"}},
        {
            "type": "item.completed",
            "item": {**command, "aggregated_output": _CODE, "exit_code": 0, "status": "completed"},
        },
        {"type": "item.completed", "item": {"id": "item_2", "type": "agent_message", "text": "The test passes now."}},
    ]


def _gemini() -> Sequence[Mapping[str, Any]]:
    at = {"timestamp": "2026-04-24T21:41:35.918Z"}
    return [
        {"type": "message", **at, "role": "assistant", "content": "The next case is ", "delta": True},
        {"type": "message", **at, "role": "assistant", "content": "the one that fails.", "delta": True},
        {"type": "tool_use", **at, "tool_name": "read_file", "tool_id": "read_1", "parameters": {"path": "tests/a.py"}},
        {"type": "tool_result", **at, "tool_id": "read_1", "status": "success", "output": _CODE},
    ]


LINES: Final[Mapping[str, Sequence[str]]] = {
    "claude": [json.dumps(line) for line in _claude()],
    "codex": [json.dumps(line) for line in _codex()],
    "gemini": [json.dumps(line) for line in _gemini()],
    "plain": [
        "tests/test_cases.py::test_case_1 \x1b[32mPASSED\x1b[0m                     [ 12%]",
        "  Compiling heartlane v0.1.0",
        "12%\r57%\r100%",
        "Downloading packages: 12 of 57, 3.4 MB/s",
    ],
}


def measure(report: Report, progress: Progress) -> None:
    """Every adapter's figure, the best of some rounds: what the machine does beside it only ever takes away."""
    for name, lines in LINES.items():
        batch = [line + "\n" for line in lines] * (BATCH // len(lines))
        size = sum(len(line.encode()) for line in batch) / len(batch)
        best = max(_lines_per_second(name, batch) for _ in range(ROUNDS))
        note = f"{best * size / MIB:.0f} MiB/s, lines of {size:.0f} bytes"
        report.add("adapters", f"{name}: lines read", best, "lines/s", least=LINES_PER_SECOND_MIN, note=note)
        progress(f"{name}: {best:,.0f} lines/s, {note}")


def _lines_per_second(name: str, batch: Sequence[str]) -> float:
    adapter = open_adapter(name)
    read = 0
    started = time.perf_counter()
    while (took := time.perf_counter() - started) < SECONDS:
        for line in batch:
            adapter.read(line, took)
        read += len(batch)
    return read / took
