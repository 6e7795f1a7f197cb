"""`heartlane work`: nothing is begun for a lane that may not go on, and nothing beside what can't be ended."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from pathlib import Path

import psutil

from heartlane.cli.errors import CODE_OF
from heartlane.lanes.bounds import RETRY_AFTER_SECONDS_MAX
from heartlane.worker.attempt import Ended
from heartlane.worker.child_errors import TooLate
from heartlane.worker.clock import boottime
from heartlane.worker.fleet import AUTH_REST_SECONDS_MAX, Rest
from heartlane.worker.keeper import Keeper
from heartlane.worker.leave import Leave
from heartlane.worker.status import LaneStatus
from heartlane.worker.verdict import Verdict
from tests.e2e.server_process import ServerProcess
from tests.e2e.server_process import closing as closing_servers
from tests.worker import witness
from tests.worker.proxy import FINE, Fate, Fault, FaultyProxy
from tests.worker.test_keeper import CONTINUE, PAUSE, keeper
from tests.worker.test_work import RESULT, claude
from tests.worker.test_work_faults import broken
from tests.worker.work_process import Lanes, Worker, closing, prints, python, wait_for

__all__ = ["keeper"]

# --- claims -------------------------------------------------------------------------------------------------------


def test_a_claim_that_arrives_twice_takes_one_lane(lanes: Lanes, worker: Worker) -> None:
    first, second = lanes.add("a", "b", labels={"for": "doubled"})
    twice: list[str] = []

    def fate(method: str, path: str) -> Fate:
        if path.endswith("/runs/claim"):
            twice.append(path)
            return Fate(Fault.TWICE)
        return FINE

    with contextlib.closing(FaultyProxy(lanes.server.port)) as proxy:
        proxy.fate = fate
        worker.start("--once", "--label", "for=doubled", "--", *prints("done"), url=proxy.url)
        assert worker.wait() == 0, worker.said()
    assert twice
    assert (lanes.run(first)["state"], lanes.run(first)["attempt"]) == ("shipped", 1)
    assert (lanes.run(second)["state"], lanes.run(second)["attempt"]) == ("queued", 0)


def test_a_batch_that_arrived_unheard_is_not_sent_in_halves(lanes: Lanes, worker: Worker, tmp_path: Path) -> None:
    (run_id,) = lanes.add("halves", labels={"for": "halves"})
    begun = tmp_path / "begun"
    script = (
        "import pathlib, time\nprint('ready', flush=True)\ntime.sleep(1.5)\n"
        f"pathlib.Path({str(begun)!r}).touch()\n"
        "print(*[f'mark {n}' for n in range(10)], sep='\\n', flush=True)\ntime.sleep(1.5)\n"
    )
    fates = [Fate(Fault.LOST), Fate(Fault.PAGE, 0.0, 413)]

    def fate(method: str, path: str) -> Fate:
        return fates.pop(0) if path.endswith("/events") and method == "POST" and fates and begun.exists() else FINE

    with contextlib.closing(FaultyProxy(lanes.server.port)) as proxy:
        proxy.fate = fate
        worker.start("--once", "--label", "for=halves", "--", *python(script), url=proxy.url)
        assert worker.wait() == 0, worker.said()
    assert not fates
    assert lanes.lines(run_id) == ["ready", *[f"mark {number}" for number in range(10)]]


def test_a_worker_that_is_drained_while_it_connects_ends_soon(lanes: Lanes, worker: Worker) -> None:
    # A server whose queue of connections is full: the worker's claim has no connection that could be cut yet.
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        worker.start("--", "true", url=f"http://127.0.0.1:{port}")
        assert worker.process is not None
        process = psutil.Process(worker.process.pid)
        wait_for(lambda: any(found.status == psutil.CONN_SYN_SENT for found in process.net_connections()), "its claim")
        worker.signal(signal.SIGUSR1)
        accepted = [stack.enter_context(server.accept()[0])]
        server.settimeout(20)
        with contextlib.suppress(TimeoutError):
            while len(accepted) < 3:
                accepted.append(stack.enter_context(server.accept()[0]))
        began = time.monotonic()
        assert worker.wait() == 0, worker.said()
        assert time.monotonic() - began < 8, "it waited for an answer that nobody gives"


def test_rests_after_limits_grow_and_end() -> None:
    rest = Rest(60.0)
    ended = Ended("released", "not logged in", reason="auth")

    def in_doubt() -> bool:
        return rest.login_in_doubt

    assert [rest.after(ended) for _ in range(6)] == [60, 120, 240, 480, AUTH_REST_SECONDS_MAX, AUTH_REST_SECONDS_MAX]
    assert in_doubt()
    assert rest.left > 800
    assert rest.after(Ended("failed", "broke", reason="crashed")) is None
    assert rest.after(Ended("shipped", "done")) is None
    assert not in_doubt()
    assert rest.after(ended) == 60


def test_a_limit_that_ends_in_a_year_holds_its_lane_for_a_week(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("year", labels={"for": "year"})
    info = {"status": "rejected", "resetsAt": time.time() + 31_536_000}
    limited: dict[str, object] = {"type": "rate_limit_event", "rate_limit_info": info}
    said: dict[str, object] = {**RESULT, "is_error": True, "result": "You've hit your limit"}
    worker.start("--once", "--label", "for=year", "--agent", "claude", "--", *claude(limited, said))
    assert worker.wait() == CODE_OF["lane_failed"], worker.said()
    run = lanes.run(run_id)
    assert (run["state"], run["failures"]) == ("released", 0)
    (released,) = lanes.events(run_id, "released")
    assert released["payload"]["retry_after"] == RETRY_AFTER_SECONDS_MAX


def test_an_attempt_that_ended_in_an_outage_is_given_back_and_not_begun_again(tmp_path: Path) -> None:
    # A server of its own: the time in which it doesn't run gives every holder of a lane some grace.
    server = ServerProcess(f"sqlite:///{tmp_path / 'heartlane.sqlite3'}", tmp_path)
    with closing_servers(server):
        server.start()
        with contextlib.closing(Lanes(server)) as lanes:
            (run_id,) = lanes.add("outage")
            evidence = tmp_path / "evidence"
            worker = Worker(lanes, tmp_path)
            with closing(worker):
                worker.start("--lease", "2", "--outage", "1s", "--grace", "1s", "--", *witness.agent(evidence, 1000))
                lanes.wait(run_id, lambda run: run["log_line"] is not None)
                server.kill()
                wait_for(lambda: "abandoned" in worker.said(), "an agent that was ended")
                server.start()
                lanes.wait(run_id, lambda run: run["attempt"] == 2)
            assert "given back, after" in worker.said()
            witness.check_never_two(witness.read(evidence))
            assert lanes.run(run_id)["failures"] == 0
            marks = [event["payload"]["line"] for event in lanes.events(run_id, "log_line") if event["attempt"] == 1]
            marks = [line for line in marks if line.startswith("mark")]
            printed = sum(line.what == "tick" and line.attempt == 1 for line in witness.read(evidence))
            assert marks == [f"mark {number}" for number in range(-(-printed // witness.MARK_TICKS))]


def test_two_workers_share_one_state_folder(lanes: Lanes, worker: Worker, tmp_path: Path) -> None:
    run_ids = lanes.add(*[f"shared-{number}" for number in range(4)], labels={"for": "shared"})
    evidence = tmp_path / "evidence"
    other = Worker(lanes, tmp_path, "other")  # the same folder, hence the same state
    arguments = ("--label", "for=shared", "--", *witness.agent(evidence, 6))
    with closing(other):
        worker.start(*arguments)
        lanes.wait(run_ids[0], lambda run: run["log_line"] is not None)
        other.start(*arguments)  # finds the spool and the files of the first, which is at work
        runs = [lanes.wait(run_id, lambda run: run["state"] == "shipped") for run_id in run_ids]
    assert [(run["attempt"], run["failures"]) for run in runs] == [(1, 0)] * 4
    assert len({run["worker_id"] for run in runs}) == 2
    witness.check_never_two(witness.read(evidence))
    for run_id in run_ids:
        assert [line for line in lanes.lines(run_id) if line.startswith("mark")] == [f"mark {n}" for n in range(6)]


# --- leave --------------------------------------------------------------------------------------------------------


class Permitted:
    """A lane's leave, on a keeper of its own."""

    def __init__(self, keeper: Keeper) -> None:
        self.stopping = threading.Event()
        self.leave = Leave(
            keeper,
            LaneStatus("lane", 1, ""),
            wake=threading.Event(),
            stopping=self.stopping,
            check=lambda: None,
        )


def test_what_came_too_late_is_begun_again_once_the_lease_holds(keeper: Keeper) -> None:
    permitted = Permitted(keeper)
    begun: list[float] = []

    def start() -> str:
        begun.append(boottime())
        if len(begun) < 3:
            raise TooLate("its deadline had passed")
        return "started"

    keeper.heard(CONTINUE, boottime())
    assert permitted.leave.begin(start) == "started"
    assert len(begun) == 3


def test_nothing_is_begun_for_a_lane_that_is_paused_or_unconfirmed_or_lost(keeper: Keeper) -> None:
    permitted = Permitted(keeper)
    begun: list[Verdict | str] = []
    waiting = threading.Thread(target=lambda: begun.append(permitted.leave.begin(lambda: "started")), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive(), "the lease was never confirmed"
    keeper.heard(PAUSE, boottime())
    waiting.join(0.3)
    assert waiting.is_alive(), "it is paused"
    keeper.heard(CONTINUE, boottime())
    waiting.join(10)
    assert begun == ["started"]

    permitted.stopping.set()
    told = permitted.leave.begin(lambda: "started")
    assert isinstance(told, Verdict)
    assert told.kind == "released"


# --- the success command ------------------------------------------------------------------------------------------


def test_a_pause_holds_the_success_command_still(lanes: Lanes, worker: Worker, tmp_path: Path) -> None:
    (run_id,) = lanes.add("pause", labels={"for": "pause-check"})
    ticks, done = tmp_path / "ticks", tmp_path / "done"
    check = f"while [ ! -e {done} ]; do echo tick >> {ticks}; sleep 0.05; done"
    worker.start("--once", "--label", "for=pause-check", "--success", check, "--success-time", "60s", "--", "true")
    wait_for(ticks.exists, "the success command")
    lanes.steer(run_id, "pause")

    def stands() -> bool:
        size = ticks.stat().st_size
        time.sleep(0.4)
        return ticks.stat().st_size == size

    wait_for(stands, "a success command that stands still")
    done.touch()
    time.sleep(0.5)
    assert lanes.run(run_id)["state"] == "paused"
    lanes.steer(run_id, "resume")
    assert worker.wait() == 0, worker.said()
    assert lanes.run(run_id)["state"] == "shipped"


# --- what can't be ended ------------------------------------------------------------------------------------------

STUCK = """
import os
from heartlane.worker.child import Child

# A process that no signal ends takes another user's rights or a broken device. What the worker sees of it is this.
end = Child.wait_empty
is_empty = Child.empty.fget
Child.wait_empty = lambda self, timeout: not os.path.exists(PATH) and end(self, timeout)
Child.empty = property(lambda self: not os.path.exists(PATH) and is_empty(self))
"""


def test_what_cant_be_ended_keeps_its_lane_and_its_slot(lanes: Lanes, worker: Worker, tmp_path: Path) -> None:
    stuck = tmp_path / "stuck"
    stuck.touch()
    first, second = lanes.add("first", "second", labels={"for": "stuck"})
    body = STUCK.replace("PATH", repr(str(stuck)))
    arguments = ("--label", "for=stuck", "--lease", "2", "--agent", "broken", "--allow-empty")
    worker.start(*arguments, "--", *prints("done"), env=broken(tmp_path, body))
    wait_for(lambda: any("can't be ended" in line for line in lanes.lines(first)), "a word on what can't be ended")
    assert "can't be ended" in worker.said()
    time.sleep(2.5)  # longer than the lease
    assert (lanes.run(first)["state"], lanes.run(first)["attempt"]) == ("running", 1)
    assert lanes.run(second)["attempt"] == 0, "its slot took another lane"
    lanes.steer(first, "cancel")
    time.sleep(1.0)
    assert lanes.run(second)["attempt"] == 0, "a lane that is lost frees no slot"
    stuck.unlink()
    lanes.wait(second, lambda run: run["attempt"] == 1)
    assert "is gone now" in worker.said()


def test_an_agent_that_shipped_by_word_has_time_for_its_own_result(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("owed", labels={"for": "owed"})
    # It goes on for longer than it may linger after a result.
    script = (
        "import subprocess, sys, time\n"
        "subprocess.run([sys.executable, '-m', 'heartlane', 'ship', '--summary', 'By word.'], check=True)\n"
        "time.sleep(1.6)\n"
        f"print({json.dumps(RESULT)!r}, flush=True)\n"
    )
    arguments = ("--once", "--label", "for=owed", "--agent", "claude", "--linger", "1s", "--")
    worker.start(*arguments, *python(script), env={"PYTHONPATH": str(Path.cwd())})
    assert worker.wait() == 0, worker.said()
    (shipped,) = lanes.events(run_id, "ship_complete")
    assert shipped["payload"]["summary"] == "By word."
    assert shipped["payload"]["cost_usd"] == RESULT["total_cost_usd"]
