"""How a lane ends where the agent's words, its exit and its worker's own doings have to be weighed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from heartlane.cli.errors import CODE_OF
from tests.worker.test_work import EDIT, RESULT, claude
from tests.worker.work_process import Lanes, Worker, python

HEARTLANE = f"{sys.executable} -m heartlane"


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
