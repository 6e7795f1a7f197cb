"""What nobody foresaw, in a running worker: it never hangs or goes on in silence, and the lane isn't kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker.work_process import Lanes, Worker, prints

ADAPTER = """
from heartlane.worker.agents.run_state import RunState

class Broken(RunState):
    name = "broken"
"""


def broken(folder: Path, body: str) -> dict[str, str]:
    """An agent `broken` from a package of somebody else's; the environment in which it is found."""
    (folder / "broken_adapter.py").write_text(ADAPTER + body, "utf-8")
    information = folder / "broken_adapter-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-adapter\nVersion: 1\n", "utf-8")
    (information / "entry_points.txt").write_text("[heartlane.agents]\nbroken = broken_adapter:Broken\n", "utf-8")
    return {"PYTHONPATH": f"{folder}:{Path.cwd()}"}


@pytest.mark.parametrize(
    "body",
    [
        "    def finish(self): return 1 / 0\n",
        (
            "    seen = False\n"
            "    def read(self, line, now): self.seen = True; return super().read(line, now)\n"
            "    @property\n"
            "    def usage(self): return 1 / 0 if self.seen else super().usage\n"
        ),
    ],
)
def test_a_fault_of_the_workers_own_gives_the_lane_back_and_ends_with_a_traceback(
    lanes: Lanes, worker: Worker, tmp_path: Path, body: str
) -> None:
    (run_id,) = lanes.add("fault", labels={"for": f"fault {len(body)}"})
    arguments = ("--label", f"for=fault {len(body)}", "--agent", "broken", "--", *prints("heard"))
    assert worker.start(*arguments, env=broken(tmp_path, body)).wait() == 1
    assert "Traceback" in worker.said()
    run = lanes.run(run_id)
    assert (run["state"], run["failures"]) == ("released", 1)
    (released,) = lanes.events(run_id, "released")
    assert "the worker broke down: ZeroDivisionError" in released["payload"]["reason"]
    assert lanes.lines(run_id) == ["heard"]
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_a_line_that_an_adapter_breaks_on_is_kept(lanes: Lanes, worker: Worker, tmp_path: Path) -> None:
    (run_id,) = lanes.add("stumble", labels={"for": "stumble"})
    body = "    def read(self, line, now): raise RuntimeError('what a line')\n"
    arguments = ("--once", "--label", "for=stumble", "--agent", "broken", "--allow-empty", "--", *prints("one", "two"))
    worker.start(*arguments, env=broken(tmp_path, body)).wait()
    assert lanes.lines(run_id) == [
        "one",
        "The adapter broken can't read this line (RuntimeError: what a line).",
        "two",
    ]


def test_a_fault_ends_the_workers_other_lanes_in_good_order_and_says_so(
    lanes: Lanes, worker: Worker, tmp_path: Path
) -> None:
    fault, other = lanes.add("fault", "other", labels={"for": "two"})
    body = "    def finish(self): return 1 / 0\n"
    begun = tmp_path / "begun"
    script = f'if [ $HEARTLANE_LANE_KEY = fault ]; then until [ -e "{begun}" ]; do sleep 0.1; done; exit; fi; '
    # The other one takes its whole grace, so that there is time to say what is waited for.
    command = ("sh", "-c", f'{script}trap "" TERM; touch "{begun}"; exec sleep 600')
    arguments = ("--label", "for=two", "--parallel", "2", "--grace", "1s", "--agent", "broken", "--", *command)
    assert worker.start(*arguments, env=broken(tmp_path, body)).wait() == 1
    assert "stopping: the other agents are ended, their lanes given back" in worker.said()
    assert "Ctrl-C" not in worker.said()
    assert [lanes.run(run_id)["state"] for run_id in (fault, other)] == ["released", "released"]
