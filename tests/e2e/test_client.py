"""The synchronous client as workers use it: a real server that is killed, real threads, real processes and signals."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from heartlane.client import Client, LaneLost, NoLane
from heartlane.wire.answers import EventObject, RunObject
from tests.e2e.server_process import ServerProcess, closing, environment

SECONDS = 30.0


@pytest.fixture(scope="module")
def server(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all these tests, some of which kill it, on one engine: a client doesn't see which."""
    folder = tmp_path_factory.mktemp("client")
    shutil.copyfile(sqlite_template, folder / "heartlane.db")
    server = ServerProcess(f"sqlite:///{folder / 'heartlane.db'}", folder)
    with closing(server):
        server.start()
        yield server


def client_of(server: ServerProcess, **options: Any) -> Client:
    return Client(server.url, server.make_token(f"token-{time.monotonic_ns()}"), trust_env=False, **options)


def make_runs(client: Client, lanes: int = 1) -> list[str]:
    """The ids of so many queued runs, oldest first; whatever was left in the queue before is cancelled."""
    for run in client.runs(state=["queued", "released"]):
        client.cancel_run(run.id)
    project = client.create_project("Project")
    rows = [{"laneKey": f"lane-{n}", "title": f"Lane {n}", "role": "backend"} for n in range(lanes)]
    plan = client.create_plan(project.id, "Plan", rows)
    return [str(run.id) for run in client.approve_plan(plan.id).runs]


def wait_until(holds: Any, what: str, timeout: float = SECONDS) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


def test_a_lane_from_claim_to_ship(server: ServerProcess) -> None:
    with client_of(server) as client:
        (run_id,) = make_runs(client)
        with client.claim(role="backend", wait_seconds=5) as lane:
            assert (str(lane.run.id), lane.attempt, lane.outcome) == (run_id, 1, None)
            lane.phase("tests")
            for number in range(250):
                lane.log(f"line {number}")
            lane.action("edit", file="x.py")
            assert lane.ship(pr_url="https://git.example/1").pr_url == "https://git.example/1"
        assert (lane.outcome, lane.should_stop, lane.lost) == ("shipped", True, False)
        events = list(client.events(run_id))
        assert [event.seq for event in events] == list(range(1, 255))
        assert [event.payload["line"] for event in events if event.type == "log_line"] == [
            f"line {number}" for number in range(250)
        ]
        with pytest.raises(NoLane):
            client.claim(role="backend")


def test_a_body_that_blocks_keeps_its_lane(server: ServerProcess) -> None:
    with client_of(server) as client:
        (run_id,) = make_runs(client)
        with client.claim(run_id, lease_seconds=2) as lane:
            time.sleep(4)
            assert not lane.should_stop
            lane.ship()
        assert client.read_run(run_id).attempt == 1
        assert [event.type for event in client.events(run_id)] == ["claimed", "ship_complete"]


def test_workers_in_threads_share_a_client(server: ServerProcess) -> None:
    with client_of(server) as client:
        run_ids = make_runs(client, 12)
        shipped: list[str] = []

        def work() -> None:
            for lane in client.claims(role="backend", wait_seconds=0.5):
                with lane:
                    lane.log("on it")
                    lane.ship()
                    shipped.append(str(lane.run.id))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert sorted(shipped) == sorted(run_ids)
        assert {client.read_run(run_id).attempt for run_id in run_ids} == {1}


@pytest.mark.parametrize("verb", ["pause_run", "cancel_run"])
def test_an_operator_is_heard_within_a_second(server: ServerProcess, verb: str) -> None:
    best = float("inf")
    with client_of(server) as client:
        for run_id in make_runs(client, 3):
            with client.claim(run_id) as lane:
                event = lane.pause_event if verb == "pause_run" else lane.stop_event
                wait_until(lambda: "heartlane_streams 1.0" in client.metrics(), "the lane is followed")
                began = time.monotonic()
                getattr(client, verb)(run_id)
                assert event.wait(SECONDS)
                best = min(best, time.monotonic() - began)
                if verb == "pause_run":
                    assert (lane.paused, lane.should_stop) == (True, False)
                    client.resume_run(run_id)
                    lane.checkpoint()
                else:
                    assert lane.lost
                    with pytest.raises(LaneLost):
                        lane.checkpoint()
    assert best < 1.0


def test_a_budget_that_is_used_up_is_heard_within_a_second_or_so(server: ServerProcess) -> None:
    with client_of(server) as client:
        run_id, other = make_runs(client, 2)
        project_id = client.read_run(run_id).project_id
        client.set_budget(project_id, usd_total=1)
        with client.claim(run_id, lease_seconds=3600) as lane:
            wait_until(lambda: "heartlane_streams 1.0" in client.metrics(), "the lane is followed")
            client.claim_run(other, "spends")
            client.report(other, "spends", events=[{"type": "heartbeat", "payload": {"usage": {"cost_usd": 2}}}])
            # The server looks once a second; no renewal is due for twenty minutes.
            assert lane.pause_event.wait(SECONDS)
            assert (lane.paused, lane.should_stop) == (True, False)
            asked = client.read_run(run_id).last_heartbeat
            client.let_go_on(project_id, hours=1)
            lane.checkpoint()
            heard = client.read_run(run_id).last_heartbeat
            assert asked is not None
            assert heard is not None
            assert heard > asked


def test_a_server_that_is_killed_costs_a_lane_nothing(server: ServerProcess) -> None:
    with client_of(server) as client:
        (run_id,) = make_runs(client)
        with client.claim(run_id, lease_seconds=60) as lane:
            for number in range(60):
                lane.log(f"line {number}")
                if number % 20 == 10:
                    lane.flush()
                    server.kill()
                    restarting = threading.Timer(0.5, server.start)
                    restarting.start()
                    lane.log(f"line {number}, in the dark")
                    lane.flush()
                    restarting.join(SECONDS)
            server.kill()
            restarting = threading.Timer(0.3, server.start)
            restarting.start()
            lane.ship(summary="Done.")
            restarting.join(SECONDS)
        run = client.read_run(run_id)
        assert (run.state, run.attempt, run.summary) == ("shipped", 1, "Done.")
        lines = [event.payload["line"] for event in client.events(run_id, type="log_line")]
        expected = [
            line
            for number in range(60)
            for line in ([f"line {number}"] + ([f"line {number}, in the dark"] if number % 20 == 10 else []))
        ]
        assert lines == expected


def test_claims_go_on_over_a_restart(server: ServerProcess) -> None:
    with client_of(server) as client:
        found: list[str] = []

        def work() -> None:
            with client.claim(wait_seconds=SECONDS, lease_seconds=6) as lane:
                found.append(str(lane.run.id))
                lane.ship()

        worker = threading.Thread(target=work)
        worker.start()
        wait_until(lambda: "heartlane_claims_waiting 1.0" in client.metrics(), "the claim waits")
        server.kill()
        server.start()
        run_ids = make_runs(client)
        worker.join(SECONDS)
        assert found == run_ids


def test_a_stream_over_a_restart(server: ServerProcess) -> None:
    with client_of(server) as client:
        (run_id,) = make_runs(client)
        client.claim_run(run_id, "w1", lease_seconds=3600)
        seen: list[int] = []
        for told in client.stream(run_id):
            if isinstance(told, RunObject):
                continue
            assert isinstance(told, EventObject)
            seen.append(told.seq)
            if told.seq in (2, 4):
                server.kill()
                server.start()
            if told.seq == 6:
                break
            client.report(run_id, "w1", seq=told.seq, events=[{"type": "action", "payload": {}}])
        assert seen == [1, 2, 3, 4, 5, 6]


# --- processes -----------------------------------------------------------------------------------------------------

WORKER = """
import sys, time
from heartlane import Client
with Client(trust_env=False) as client:
    with client.claim(lease_seconds=int(sys.argv[1])) as lane:
        lane.phase("working")
        lane.flush()
        print("working", flush=True)
        time.sleep(60)
"""


@contextmanager
def worker_process(server: ServerProcess, folder: Path, lease_seconds: int) -> Iterator[subprocess.Popen[str]]:
    """A worker of its own process, once it works a lane."""
    env = environment(folder / "home") | {
        "HEARTLANE_URL": server.url,
        "HEARTLANE_TOKEN": server.make_token(f"worker-{time.monotonic_ns()}"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(lease_seconds)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_gives_the_lane_back(server: ServerProcess, tmp_path: Path) -> None:
    with client_of(server) as client:
        (run_id,) = make_runs(client)
        with worker_process(server, tmp_path, 60) as process:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=SECONDS)
            assert process.returncode == -signal.SIGINT
            assert "KeyboardInterrupt" in errors
            assert "hlt_" not in errors
        run = client.read_run(run_id)
        assert (run.state, run.failures) == ("released", 0)
        (released,) = client.events(run_id, type="released")
        assert released.payload["reason"] == "the worker was interrupted (KeyboardInterrupt)"


def test_a_killed_worker_is_followed_by_another(server: ServerProcess, tmp_path: Path) -> None:
    with client_of(server) as client:
        (run_id,) = make_runs(client)
        with worker_process(server, tmp_path, 2) as process:
            process.kill()
        with client.claim(wait_seconds=SECONDS) as lane:
            assert (str(lane.run.id), lane.attempt, lane.run.failures) == (run_id, 2, 1)
            lane.ship()


def test_a_fork_of_the_body_disturbs_nothing(server: ServerProcess) -> None:
    with client_of(server) as client:
        (run_id,) = make_runs(client)
        with client.claim(run_id) as lane:
            lane.log("before")
            lane.flush()
            states: Any = multiprocessing.get_context("fork").SimpleQueue()
            child = os.fork()
            if child == 0:
                # The child has a client that works, and no lane.
                told: list[str] = []
                try:
                    told.append(client.read_run(run_id).state)
                    try:
                        lane.log("from the child")
                    except RuntimeError as error:
                        told.append(str(error))
                    with lane:
                        pass
                finally:
                    states.put(told)
                    os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert states.get() == ["running", "This lane belongs to the process that claimed it."]
            lane.log("after")
            lane.ship()
        lines = [event.payload["line"] for event in client.events(run_id, type="log_line")]
        assert lines == ["before", "after"]


def test_two_servers_and_a_worker_that_was_cut_off(postgres_database_url: str, tmp_path: Path) -> None:
    """The lane is taken over through the other replica while the first can't be reached."""
    first = ServerProcess(postgres_database_url, tmp_path, name="first")
    second = ServerProcess(postgres_database_url, tmp_path, name="second")
    with closing(first, second):
        first.start()
        second.start()
        with client_of(first) as cut_off, client_of(second) as other:
            (run_id,) = make_runs(other)
            with cut_off.claim(run_id, lease_seconds=2) as lane:
                lane.flush()
                first.kill()
                with other.claim(wait_seconds=SECONDS) as taken_over:
                    assert (str(taken_over.run.id), taken_over.attempt) == (run_id, 2)
                    # By then the first has long stopped: two workers never work one lane.
                    assert lane.lost
                    with pytest.raises(LaneLost):
                        lane.log("from the past")
                    first.start()
                    taken_over.ship()
            assert other.read_run(run_id).state == "shipped"
            assert [event.attempt for event in other.events(run_id, type="ship_complete")] == [2]
