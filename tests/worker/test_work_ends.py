"""How a lane ends where the agent's words, its exit and its worker's own doings have to be weighed."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from heartlane.cli.errors import CODE_OF
from tests.worker.programs import write_program
from tests.worker.test_work import RESULT
from tests.worker.work_process import Lanes, Worker, python, wait_for

HEARTLANE = f"{shlex.quote(sys.executable)} -m heartlane"


def test_an_agent_that_breaks_down_right_after_its_result_has_failed(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("breaks", labels={"for": "breaks"})
    script = f"import sys, time\nprint({json.dumps(RESULT)!r}, flush=True)\ntime.sleep(2)\nsys.exit(1)"
    arguments = ("--once", "--label", "for=breaks", "--agent", "claude", "--", *python(script))
    assert worker.start(*arguments).wait() == CODE_OF["lane_failed"], worker.said()
    assert lanes.run(run_id)["failures"] == 1


@pytest.mark.parametrize("agent", ["claude", "plain"])
def test_an_agent_that_lingers_after_it_shipped_by_word_has_shipped(lanes: Lanes, worker: Worker, agent: str) -> None:
    (run_id,) = lanes.add("word", labels={"for": f"word-{agent}"})
    command = ("sh", "-c", f"{HEARTLANE} ship --summary 'All of it.'; exec sleep 600")
    arguments = ("--once", "--label", f"for=word-{agent}", "--agent", agent, "--linger", "1s", "--", *command)
    assert worker.start(*arguments, env={"PYTHONPATH": str(Path.cwd())}).wait() == 0, worker.said()
    assert (lanes.run(run_id)["state"], lanes.run(run_id)["summary"]) == ("shipped", "All of it.")


RESUMES = """
import json, sys
resumed = "--resume" in sys.argv
session = sys.argv[sys.argv.index("--resume") + 1] if resumed else "new-1"
print(json.dumps({"type": "system", "subtype": "init", "session_id": session, "model": "m", "tools": []}))
text = "went on with " + session if resumed else "API Error: it broke"
result = {"type": "result", "subtype": "success", "is_error": not resumed, "result": text}
print(json.dumps({**result, "session_id": session, "total_cost_usd": 0.25}))
"""


@pytest.mark.parametrize("said", ["", f"{HEARTLANE} fail 'can not'; "])
def test_the_next_attempt_resumes_the_session_of_one_that_failed(
    lanes: Lanes, worker: Worker, tmp_path: Path, said: str
) -> None:
    label = f"for=resume{len(said)}"
    (run_id,) = lanes.add("resume", labels=dict([label.split("=")]))
    write_program(tmp_path / "claude", RESUMES)
    env = {"PYTHONPATH": str(Path.cwd()), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    agent = ("claude", "-p", "{prompt}", "--output-format", "stream-json")
    first = ("sh", "-c", f'{said}exec claude -p "$1"', "sh", "{prompt}") if said else agent
    worker.start("--once", "--label", label, "--agent", "claude", "--", *first, env=env)
    assert worker.wait() == CODE_OF["lane_failed"], worker.said()
    (error,) = lanes.events(run_id, "error")
    assert (error["payload"]["agent"], error["payload"]["session_id"]) == ("claude", "new-1")
    assert error["payload"]["cost_usd"] == 0.25

    assert worker.start("--once", "--label", label, "--resume", "--", *agent, env=env).wait() == 0, worker.said()
    assert lanes.run(run_id)["summary"] == "went on with new-1"


def test_lanes_that_wait_for_their_agents_turn_are_kept(lanes: Lanes, worker: Worker) -> None:
    # All eight are claimed at once, and their agents started one after the other, over more than one lease.
    run_ids = lanes.add(*[f"turn-{number}" for number in range(8)], labels={"for": "turn"})
    worker.start("--label", "for=turn", "--parallel", "8", "--lease", "5", "--", *python("print('on')"))
    runs = [lanes.wait(run_id, lambda run: run["state"] == "shipped") for run_id in run_ids]
    assert [run["attempt"] for run in runs] == [1] * 8


def test_a_lane_that_is_cancelled_while_its_success_command_runs_is_lost(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("check-lost", labels={"for": "check-lost"})
    arguments = ("--once", "--label", "for=check-lost", "--success", "echo looking; sleep 60", "--", "true")
    worker.start(*arguments)
    wait_for(lambda: "looking" in lanes.lines(run_id), "the success command")
    lanes.steer(run_id, "cancel")
    assert worker.wait() == CODE_OF["lane_lost"], worker.said()
