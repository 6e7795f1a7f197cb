"""A scripted agent: prints what a coding agent would print while it works, and changes a file.

`python -m demo.agent claude PROMPT` prints as Claude Code does with `--output-format stream-json`, `codex` as Codex
does with `exec --json`. The work is make-believe; the lines have the shapes of real ones, and Heartlane's adapters read
them as such.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

STEP_SECONDS: Final = 0.45


def say(**line: Any) -> None:
    """One line of output, and a little time for the next step."""
    print(json.dumps(line), flush=True)
    time.sleep(STEP_SECONDS)


def claude(task: str, file: str) -> None:
    """A run of Claude Code: it looks, edits, tests, and says what it did."""
    session = f"demo-{os.getpid()}"
    say(type="system", subtype="init", session_id=session, model="claude-demo")
    _assistant({"type": "text", "text": f"I'll begin with {file}."})
    _tool("toolu_1", "Edit", {"file_path": file, "old_string": "", "new_string": "def totals(): ..."})
    _tool("toolu_2", "Bash", {"command": "make test"})
    _assistant({"type": "text", "text": "All tests pass."})
    usage = {"input_tokens": 1_840, "output_tokens": 412, "cache_read_input_tokens": 9_200}
    say(
        type="result", subtype="success", is_error=False, result=f"Did: {task}.", session_id=session, num_turns=3,
        duration_ms=2_400, total_cost_usd=0.0312, usage=usage,
        modelUsage={"claude-demo": {"inputTokens": 1_840, "outputTokens": 412, "cacheReadInputTokens": 9_200}},
    )  # fmt: skip


def _assistant(block: dict[str, Any]) -> None:
    say(type="assistant", message={"role": "assistant", "model": "claude-demo", "content": [block]})


def _tool(call: str, name: str, given: dict[str, Any]) -> None:
    _assistant({"type": "tool_use", "id": call, "name": name, "input": given})
    result = {"type": "tool_result", "tool_use_id": call, "content": "done", "is_error": False}
    say(type="user", message={"role": "user", "content": [result]})


def codex(task: str, file: str) -> None:
    """A run of Codex: it looks around, changes a file, runs the tests."""
    say(type="thread.started", thread_id=f"demo-{os.getpid()}")
    say(type="turn.started")
    command = {"id": "item_0", "type": "command_execution", "command": "ls", "aggregated_output": "", "exit_code": None}
    say(type="item.started", item={**command, "status": "in_progress"})
    say(type="item.completed", item={**command, "aggregated_output": file, "exit_code": 0, "status": "completed"})
    change = {"id": "item_1", "type": "file_change", "changes": [{"path": file, "kind": "update"}]}
    say(type="item.completed", item={**change, "status": "completed"})
    say(type="item.completed", item={"id": "item_2", "type": "agent_message", "text": f"Did: {task}."})
    say(type="turn.completed", usage={"input_tokens": 2_310, "cached_input_tokens": 1_100, "output_tokens": 240})


AGENTS: Final[dict[str, Callable[[str, str], None]]] = {"claude": claude, "codex": codex}


def main() -> int:
    agent, prompt = sys.argv[1], sys.argv[2]
    task = prompt.strip().splitlines()[0].lstrip("# ") if prompt.strip() else "nothing"
    AGENTS[agent](task, f"{os.environ.get('HEARTLANE_ROLE', 'src')}/{task.lower().replace(' ', '_')[:24]}.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
