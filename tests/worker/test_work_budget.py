"""What an agent uses is told while it works, and its project's budget reaches it by that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.worker.work_process import Lanes, Worker, python, wait_for

SAYS: Final = """
import json, os, sys, time

def say(**line):
    print(json.dumps(line), flush=True)

def used(number, written):
    content = [{"type": "text", "text": str(os.getpid())}]
    usage = {"input_tokens": 100, "output_tokens": written}
    say(type="assistant", message={"id": f"m{number}", "role": "assistant", "content": content, "usage": usage})

say(type="system", subtype="init", session_id="s", model="m-1")
used(1, 50)
deadline = time.monotonic() + 60
while not os.path.exists(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(0.05)
say(type="result", subtype="success", is_error=False, result="Done.", session_id="s", num_turns=1, total_cost_usd=0.5,
    usage={"input_tokens": 100, "output_tokens": 90})
"""


def state_of(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_budget_reaches_an_agent_that_is_at_work(lanes: Lanes, worker: Worker, tmp_path: Path) -> None:
    (run_id,) = lanes.add("dear", labels={"for": "dear"})
    path = f"/api/projects/{lanes.project}/budget"
    lanes.http.put(path, json={"tokens_total": 150}).raise_for_status()
    go = tmp_path / "go"
    try:
        worker.start("--once", "--label", "for=dear", "--agent", "claude", "--", *python(SAYS, str(go)))
        (pid,) = wait_for(lambda: lanes.lines(run_id), "the agent's first line")[-1:]
        # Told without waiting for the end: the project's budget is used up, and the agent stands still.
        run = lanes.wait(run_id, lambda run: run["needs_attention"] == "budget")
        assert (run["input_tokens"], run["output_tokens"], run["agent"], run["model"]) == (100, 50, "claude", "m-1")
        wait_for(lambda: state_of(pid) == "T", "a frozen agent", 5.0)
        lanes.http.put(path, json={"tokens_total": 10_000}).raise_for_status()
        wait_for(lambda: state_of(pid) != "T", "a thawed agent", 5.0)
        go.touch()
        assert worker.wait() == 0, worker.said()
        run = lanes.run(run_id)
        assert (run["state"], run["output_tokens"], run["cost_usd"]) == ("shipped", 90, 0.5)
        assert counted(lanes) == (100, 90)
    finally:
        lanes.http.put(path, json={}).raise_for_status()


def test_a_budget_that_stops_ends_the_agent_and_the_lane_is_given_back(
    lanes: Lanes, worker: Worker, tmp_path: Path
) -> None:
    (run_id,) = lanes.add("dearer", labels={"for": "dearer"})
    path = f"/api/projects/{lanes.project}/budget"
    spent = lanes.http.get(path).json()["budget"]["spent"]["tokens_total"]
    lanes.http.put(path, json={"tokens_total": spent + 150, "on_exceeded": "stop"}).raise_for_status()
    try:
        worker.start(
            "--once", "--label", "for=dearer", "--agent", "claude", "--", *python(SAYS, str(tmp_path / "never"))
        )
        run = lanes.wait(run_id, lambda run: run["state"] == "released")
        # It has stopped before it let go, has told what it used, and nothing is counted against the lane.
        (pid,) = lanes.lines(run_id)[-1:]
        assert not Path(f"/proc/{pid}").exists()
        assert (run["failures"], run["output_tokens"], run["needs_attention"]) == (0, 50, "budget")
        (released,) = lanes.events(run_id, "released")
        assert released["payload"]["reason"] == "the worker was told to stop"
        assert lanes.events(run_id, "lease_expired") == []
        worker.wait()
    finally:
        lanes.http.put(path, json={}).raise_for_status()


def counted(lanes: Lanes) -> tuple[int, int]:
    """What the overview has of the project."""
    answer: dict[str, Any] = lanes.http.get("/api/agents/overview", params={"project_id": lanes.project}).json()
    rows = [row for row in answer["overview"]["agents"] if row["model"] == "m-1"]
    assert len(rows) == 1, json.dumps(rows)
    return rows[0]["input_tokens"], rows[0]["output_tokens"]
