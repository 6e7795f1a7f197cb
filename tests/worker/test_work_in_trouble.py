"""`heartlane work` when the server, the network, the disk or the worker itself fails, one thing at a time."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from heartlane.cli.errors import CODE_OF
from heartlane.worker.clock import boottime
from tests.worker import witness
from tests.worker.proxy import FINE, Fate, Fault, FaultyProxy
from tests.worker.work_process import Lanes, Worker, closing, prints, python, wait_for

LEASE = 3
OFTEN = ("--lease", str(LEASE), "--grace", "1s")


@pytest.fixture
def other(lanes: Lanes, tmp_path: Path) -> Iterator[Worker]:
    """A second worker, as on another machine: it has a state of its own."""
    folder = tmp_path / "other"
    folder.mkdir()
    worker = Worker(lanes, folder, "other")
    with closing(worker):
        yield worker


@pytest.fixture
def proxy(lanes: Lanes) -> Iterator[FaultyProxy]:
    with contextlib.closing(FaultyProxy(lanes.server.port)) as proxy:
        yield proxy


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    return tmp_path / "evidence"


def ticks(evidence: Path, attempt: int = 1) -> list[witness.Line]:
    """What the agent of an attempt has written so far."""
    return [line for line in witness.read(evidence) if line.attempt == attempt]


def marks(lanes: Lanes, run_id: str, attempt: int = 1) -> list[str]:
    """The marks of an attempt that the server has."""
    events = lanes.events(run_id, "log_line")
    lines = [event["payload"]["line"] for event in events if event["attempt"] == attempt]
    return [line for line in lines if line.startswith("mark")]


def numbered(count: int) -> list[str]:
    return [f"mark {number}" for number in range(count)]


def test_an_outage_longer_than_the_lease_holds_the_agent_still_and_costs_nothing(
    lanes: Lanes, worker: Worker, proxy: FaultyProxy, evidence: Path
) -> None:
    (run_id,) = lanes.add("outage", labels={"for": "outage"})
    worker.start("--once", "--label", "for=outage", *OFTEN, "--", *witness.agent(evidence, 45), url=proxy.url)
    wait_for(lambda: marks(lanes, run_id), "the agent's first mark")
    lanes.server.kill()
    down_at = boottime()
    # The server took the last renewal after it was sent, so that the lease is over for certain by then.
    wait_for(lambda: boottime() > down_at + LEASE and boottime() - ticks(evidence)[-1].at > 2, "an agent that stands")
    stood_from = ticks(evidence)[-1].at
    assert stood_from < down_at + LEASE
    time.sleep(1.0)
    assert ticks(evidence)[-1].at == stood_from
    up_at = boottime()
    lanes.server.start()
    assert worker.wait() == 0, worker.said()

    run = lanes.run(run_id)
    assert (run["state"], run["attempt"], run["failures"]) == ("shipped", 1, 0)
    assert not [line for line in ticks(evidence) if stood_from < line.at < up_at], "it ran while nobody confirmed it"
    witness.check_never_two(witness.read(evidence))
    assert marks(lanes, run_id) == numbered(45)
    assert "stands still until the server answers" in worker.said()
    assert any("could not be reached" in line for line in lanes.lines(run_id))


def test_an_outage_that_is_too_long_ends_the_agent_and_loses_nothing(
    lanes: Lanes, worker: Worker, proxy: FaultyProxy, evidence: Path, tmp_path: Path
) -> None:
    (run_id,) = lanes.add("long", labels={"for": "long"})
    arguments = ("--once", "--label", "for=long", "--outage", "2s", *OFTEN, "--", *witness.agent(evidence, 1000))
    worker.start(*arguments, url=proxy.url)
    wait_for(lambda: marks(lanes, run_id), "the agent's first mark")
    proxy.cut()
    assert worker.wait() == CODE_OF["lane_lost"], worker.said()
    (pid,) = {line.pid for line in ticks(evidence)}
    assert not psutil.pid_exists(pid)
    proxy.mend()
    # What was not sent in time stays in the spool: the lane is somebody else's from now on.
    lanes.wait(run_id, lambda run: run["state"] == "queued")
    told = len(marks(lanes, run_id))
    assert marks(lanes, run_id) == numbered(told)
    spool = next((tmp_path / "state" / "spool").iterdir())
    kept = b"".join(path.read_bytes() for path in sorted(spool.glob("*.log")))
    printed = -(-len([line for line in ticks(evidence) if line.what == "tick"]) // witness.MARK_TICKS)
    assert all(f'"mark {number}"'.encode() in kept for number in range(told, printed))


def test_a_stopped_workers_agent_stands_still_and_dies_without_a_tick_when_another_has_the_lane(
    lanes: Lanes, worker: Worker, other: Worker, evidence: Path
) -> None:
    (run_id,) = lanes.add("stopped", labels={"for": "stopped"})
    arguments = ("--once", "--label", "for=stopped", *OFTEN, "--")
    worker.start(*arguments, *witness.agent(evidence, 45))
    wait_for(lambda: marks(lanes, run_id), "the agent's first mark")
    worker.signal(signal.SIGSTOP)
    other.start(*arguments, *witness.agent(evidence, 5))
    assert other.wait() == 0, other.said()
    last = ticks(evidence)[-1]
    assert psutil.pid_exists(last.pid), "its guard froze it, and nobody ended it yet"
    worker.signal(signal.SIGCONT)
    assert worker.wait() == CODE_OF["lane_lost"], worker.said()

    assert not psutil.pid_exists(last.pid)
    assert ticks(evidence)[-1] == last
    witness.check_never_two(witness.read(evidence))
    run = lanes.run(run_id)
    assert (run["state"], run["attempt"], run["failures"]) == ("shipped", 2, 1)


def test_a_dead_workers_agent_is_gone_before_its_lane_is_given_back(
    lanes: Lanes, worker: Worker, evidence: Path
) -> None:
    (run_id,) = lanes.add("late", labels={"for": "late"})
    # It prints nothing: the end of the pipe to its worker would end it.
    mute = ("sh", "-c", 'exec "$@" > /dev/null 2>&1', "sh")
    arguments = ("--once", "--label", "for=late", "--lease", "60", "--", *mute, *witness.agent(evidence, 40))
    worker.start(*arguments)
    wait_for(lambda: ticks(evidence), "the agent's first tick")
    guard = psutil.Process(ticks(evidence)[-1].pid).parent()
    assert guard is not None
    guard.suspend()  # as one that a busy machine gives no time to
    try:
        worker.kill()
        assert worker.start(*arguments).wait() == 0, worker.said()
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            guard.resume()
    witness.check_never_two(witness.read(evidence))
    run = lanes.run(run_id)
    assert (run["state"], run["attempt"], run["failures"]) == ("shipped", 2, 0)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.ABANDONED])
@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "long poll"])
def test_a_claim_whose_answer_was_lost_is_taken_up(
    *, lanes: Lanes, worker: Worker, proxy: FaultyProxy, fault: Fault, waiting: bool
) -> None:
    label = f"{fault}-{waiting}"
    lost: list[str] = []

    def fate(method: str, path: str) -> Fate:
        if path.endswith("/runs/claim") and not lost and (not waiting or "waiting for lanes" in worker.said()):
            lost.append(path)
            return Fate(fault)
        return FINE

    proxy.fate = fate
    run_ids = [] if waiting else lanes.add(label, labels={"for": label})
    worker.start("--once", "--label", f"for={label}", "--lease", "300", "--", *prints("done"), url=proxy.url)
    if waiting:
        # The claim is being waited with at the server, and its answer will go nowhere.
        wait_for(lambda: lost, "a claim that is lost")
        time.sleep(1.0)
        run_ids = lanes.add(label, labels={"for": label})
    added = time.monotonic()
    assert worker.wait() == 0, worker.said()
    assert time.monotonic() - added < 15, "it waited until the lost claim was over, for 25 seconds"
    assert lost
    run = lanes.run(run_ids[0])
    assert (run["state"], run["attempt"], run["failures"]) == ("shipped", 1, 0)


def test_no_page_of_a_proxy_ends_anything(lanes: Lanes, worker: Worker, proxy: FaultyProxy, evidence: Path) -> None:
    (run_id,) = lanes.add("pages", labels={"for": "pages"})
    statuses = (200, 301, 400, 401, 403, 404, 409, 413, 429, 500, 502, 503)
    numbers = iter(range(10**6))

    def fate(method: str, path: str) -> Fate:
        number = next(numbers)
        # One request in four gets through, which is enough to keep a lease.
        return FINE if number % 4 == 3 else Fate(Fault.PAGE, 0.0, statuses[number // 4 % len(statuses)])

    worker.start("--label", "for=pages", *OFTEN, "--", *witness.agent(evidence, 60), url=proxy.url)
    wait_for(lambda: "waiting for lanes" in worker.said(), "a worker that is connected")
    proxy.fate = fate
    lanes.wait(run_id, lambda run: run["state"] == "shipped", 60)
    assert worker.process is not None
    assert worker.process.poll() is None, worker.said()
    run = lanes.run(run_id)
    assert (run["attempt"], run["failures"]) == (1, 0)
    assert marks(lanes, run_id) == numbered(60)


def test_a_server_that_restarts_behind_its_proxy_is_waited_for(
    lanes: Lanes, worker: Worker, proxy: FaultyProxy
) -> None:
    (run_id,) = lanes.add("boot", labels={"for": "boot"})
    asked: list[str] = []

    def fate(method: str, path: str) -> Fate:
        asked.append(path)
        return Fate(Fault.PAGE, 0.0, 502) if len(asked) <= 3 else FINE

    proxy.fate = fate
    worker.start("--once", "--label", "for=boot", "--", *prints("done"), url=proxy.url)
    assert worker.wait() == 0, worker.said()
    assert lanes.run(run_id)["state"] == "shipped"


def test_an_address_that_is_not_heartlanes_is_said_so(worker: Worker, proxy: FaultyProxy) -> None:
    proxy.fate = lambda method, path: Fate(Fault.PAGE, 0.0, 404)
    assert worker.start("--once", "--", *prints("done"), url=proxy.url).wait() == CODE_OF["not_heartlane"]
    last = worker.said().splitlines()[-1]
    assert "not as Heartlane" in last
    assert last.endswith("Correct HEARTLANE_URL: the address of the server, without /api at its end.")


def test_a_full_disk_is_said_and_costs_nothing(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("full", labels={"for": "full"})
    script = (
        "import time\nfor n in range(100):\n    print('mark', n, 'x' * 500, flush=True)\n    time.sleep(0.03)\n"
        "print('the end')"
    )
    worker.start("--once", "--label", "for=full", "--", *python(script))
    wait_for(lambda: marks(lanes, run_id), "the agent's first mark")
    assert worker.process is not None
    # No file of the worker's may grow past this, as on a full disk.
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (8_192, resource.RLIM_INFINITY))
    assert worker.wait() == 0, worker.said()
    assert "spool" in worker.said()
    run = lanes.run(run_id)
    assert (run["state"], run["attempt"], run["failures"]) == ("shipped", 1, 0)
    lines = lanes.lines(run_id)
    assert [line.split(" ")[1] for line in lines if line.startswith("mark")] == [str(number) for number in range(100)]
    assert lines[-1] == "the end"
