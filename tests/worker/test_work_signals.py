"""Signals to a running worker, and a server that is gone meanwhile."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from heartlane.cli.errors import CODE_OF
from tests.e2e.server_process import ServerProcess
from tests.e2e.server_process import closing as closing_servers
from tests.worker.test_work import TICKS, started
from tests.worker.work_process import Lanes, Worker, alive, closing, prints, python, wait_for


@pytest.mark.slow
def test_a_worker_is_stopped_though_its_server_is_gone_and_the_next_sends_the_rest(tmp_path: Path) -> None:
    server = ServerProcess(f"sqlite:///{tmp_path / 'heartlane.sqlite3'}", tmp_path)
    with closing_servers(server):
        server.start()
        with contextlib.closing(Lanes(server)) as lanes:
            worker = Worker(lanes, tmp_path)
            (run_id,) = lanes.add("gone")
            with closing(worker):
                worker.start("--", *python(TICKS))
                pid = started(lanes, run_id)
                server.kill()
                worker.signal(signal.SIGTERM)
                assert worker.wait(30) == CODE_OF["terminated"]
                assert not alive(pid)
                server.start()
                assert worker.start("--once", "--", *prints("second")).wait() == 0, worker.said()
            assert lanes.run(run_id)["attempt"] == 2
            ticks = [line for line in lanes.lines(run_id) if line.startswith("tick")]
            assert ticks == [f"tick {n}" for n in range(len(ticks))]


def test_a_terminal_that_is_closed_ends_its_worker_in_good_order(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("hangup", labels={"for": "hangup"})
    worker.start("--label", "for=hangup", "--", *python(TICKS))
    pid = started(lanes, run_id)
    worker.signal(signal.SIGHUP)
    assert worker.wait() == CODE_OF["hung_up"]
    assert not alive(pid)
    assert lanes.run(run_id)["state"] == "released"


def test_a_second_interrupt_ends_at_once(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("twice", labels={"for": "twice"})
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + TICKS
    worker.start("--label", "for=twice", "--grace", "60s", "--", *python(stubborn))
    pid = started(lanes, run_id)
    worker.signal(signal.SIGINT)
    wait_for(lambda: "again" in worker.said(), "a word on what happens")
    worker.signal(signal.SIGINT)
    assert worker.wait(5) == CODE_OF["interrupted"]
    wait_for(lambda: not alive(pid), "an agent that went with its worker")


WAITS_FOR_A_PAUSE = """
import json, os, time
print("on", flush=True)
for wanted in (True, False):
    while json.load(open(os.environ["HEARTLANE_LANE_FILE"])).get("paused", False) is not wanted:
        time.sleep(0.05)
    print("paused" if wanted else "resumed", flush=True)
"""


def test_an_agent_can_be_told_of_a_pause_instead_of_being_held_still(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("told", labels={"for": "told"})
    worker.start("--once", "--label", "for=told", "--on-pause", "tell", "--", *python(WAITS_FOR_A_PAUSE))
    wait_for(lambda: "on" in lanes.lines(run_id), "the agent")
    lanes.steer(run_id, "pause")
    wait_for(lambda: "paused" in lanes.lines(run_id), "its word that it was told")
    lanes.steer(run_id, "resume")
    assert worker.wait() == 0, worker.said()
    assert lanes.lines(run_id) == ["on", "paused", "resumed"]
