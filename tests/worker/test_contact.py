"""What a worker says of its server, and when it gives up: with a clock of the test's own."""

from __future__ import annotations

import io

import pytest

from heartlane.cli.errors import CODE_OF
from heartlane.worker.contact import Contact
from heartlane.worker.errors import WorkerError
from heartlane.worker.exchange import Reply
from heartlane.worker.status import Status
from tests.worker.work_process import Lanes, Worker, prints, python, wait_for

REFUSED = Reply(None, {}, "no answer from http://h: refused", "server_unreachable", sent=False)
PAGE = Reply(502, {}, "http://h answered 502, but not as Heartlane (text/html)", "not_heartlane")
LIMITED = Reply(429, {"code": "RATE_LIMITED"}, "Too many requests.", "unusable")
BUSY = Reply(503, {"code": "UNAVAILABLE"}, "The server is shutting down.", "unusable")


class Time:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A contact, its clock, and what it has said."""

    def __init__(self, patience: float | None = 15.0) -> None:
        self.time = Time()
        self.reached: list[float] = []
        self._stream = io.StringIO()
        screen = Status(stream=self._stream, live=False)
        self.contact = Contact(
            "http://h",
            screen,
            patience=patience,
            on_reached=lambda: self.reached.append(self.time.now),
            clock=self.time,
        )

    def troubled(self, reply: Reply, seconds: float, step: float = 5.0) -> None:
        """That answer again and again for so long."""
        until = self.time.now + seconds
        tries = 0
        while self.time.now < until:
            tries += 1
            self.contact.trouble(reply, tries)
            self.time.now += step

    def said(self) -> list[str]:
        """The lines since the last call, without their times."""
        lines = [line.split("  ", 1)[1] for line in self._stream.getvalue().splitlines()]
        self._stream.seek(0)
        self._stream.truncate()
        return lines


@pytest.mark.parametrize("reply", [REFUSED, PAGE, BUSY])
def test_a_server_that_is_never_reached_is_given_up_in_time(reply: Reply) -> None:
    scene = Scene()
    scene.troubled(reply, 15)
    assert scene.said() == [f"{reply.problem}; trying for 15 s"]
    with pytest.raises(WorkerError, match="HEARTLANE_URL") as given_up:
        scene.contact.trouble(reply, 4)
    assert given_up.value.kind == "server_unreachable"
    assert not scene.reached


@pytest.mark.parametrize(("patience", "reply"), [(None, REFUSED), (15.0, LIMITED)])
def test_it_is_tried_for_ever_where_that_was_asked_for_or_somebody_is_there(
    patience: float | None, reply: Reply
) -> None:
    scene = Scene(patience)
    scene.troubled(reply, 86_400)
    assert len(scene.said()) < 60


def test_trouble_is_said_at_once_then_ever_more_rarely_and_when_it_is_over() -> None:
    scene = Scene()
    scene.contact.well()
    assert scene.said() == ["connected to http://h; waiting for lanes"]
    assert scene.reached == [1000.0]
    scene.troubled(REFUSED, 3600)
    lines = scene.said()
    assert lines[0] == f"{REFUSED.problem}; trying again"
    assert lines[1] == f"{REFUSED.problem} (for 60 s now); trying again"
    assert len(lines) == 6
    scene.contact.well()
    assert scene.said() == ["the server answers again, after 1 h"]
    assert scene.reached == [1000.0], "once is enough"


def test_a_server_that_comes_and_goes_is_no_flood() -> None:
    scene = Scene()
    scene.contact.well()
    scene.said()
    for _ in range(600):
        scene.contact.trouble(REFUSED, 1)
        scene.contact.trouble(PAGE, 2)
        scene.contact.well()
        scene.time.now += 1
    assert len(scene.said()) <= 2 * 600 / 15


def test_an_address_where_nobody_listens_ends_a_worker_with_a_code_of_its_own(lanes: Lanes, worker: Worker) -> None:
    worker.start("--wait-for-server", "1s", "--", *prints("never"), url="http://127.0.0.1:1")
    assert worker.wait(20) == CODE_OF["server_unreachable"], worker.said()
    first, *_, last = worker.said().splitlines()
    assert "trying for 1 s" in first
    assert "--wait-for-server forever" in last


def test_what_was_left_is_seen_to_once_the_server_is_there(lanes: Lanes, worker: Worker) -> None:
    (run_id,) = lanes.add("left", labels={"for": "left"})
    ticks = "import time\nfor n in range(3000):\n    print('tick', n, flush=True)\n    time.sleep(0.1)\n"
    arguments = ("--wait-for-server", "forever", "--label", "for=left", "--once", "--")
    worker.start(*arguments, *python(ticks))
    lanes.wait(run_id, lambda run: run["log_line"] is not None)
    lanes.server.kill()
    worker.kill()
    worker.start(*arguments, *prints("second"))
    try:
        wait_for(lambda: "is seen to when the server can be reached" in worker.said(), "a word on what is left")
    finally:
        lanes.server.start()
    assert worker.wait() == 0, worker.said()
    assert "an earlier worker was killed" in worker.said()
    run = lanes.run(run_id)
    assert (run["state"], run["attempt"], run["failures"]) == ("shipped", 2, 0)
    numbers = [int(line.split()[1]) for line in lanes.lines(run_id) if line.startswith("tick")]
    assert numbers == list(range(len(numbers)))
