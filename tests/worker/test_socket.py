"""The lane's socket: who may speak, what may be said, and that nobody holds it up."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.worker.ask import ask
from heartlane.worker.errors import WorkerError
from heartlane.worker.messages import MESSAGE_BYTES_MAX, BadMessage, Report, as_events, read_message
from heartlane.worker.socket import CONNECTIONS_MAX, PATH_BYTES_MAX, LaneRefused, LaneSocket, peer_uid

LANE = {"id": "019a", "title": "Totals", "prompt": "x" * 200_000}


class Worker:
    """A handler that writes down what it hears, and refuses what says so."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_report(self, phase: str | None, log: str | None, events: Sequence[dict[str, Any]]) -> None:
        if phase == "refused":
            raise LaneRefused("the lane went to another worker", "lane_lost")
        if phase == "broken":
            raise ZeroDivisionError("secret detail")
        self.heard.append((phase, log, list(events)))

    def on_ship(self, fields: dict[str, str]) -> None:
        self.heard.append(fields)

    def on_fail(self, message: str, fatal: bool) -> None:
        self.heard.append((message, fatal))

    def lane(self) -> dict[str, Any]:
        return LANE


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def lane_socket(worker: Worker, tmp_path: Path) -> Iterator[LaneSocket]:
    with LaneSocket(worker) as made:
        yield made


@contextlib.contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        yield connection


def say(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """The answers to some lines on one connection, until it ends."""
    with connected(path) as connection:
        connection.sendall(b"".join(lines))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answers:
            return [json.loads(answer) for answer in answers]


def asked(lane_socket: LaneSocket, **message: Any) -> dict[str, Any]:
    return ask(message, {"HEARTLANE_SOCKET": str(lane_socket.path)})


# --- what is said -------------------------------------------------------------------------------------------------


def test_each_verb_reaches_the_worker(lane_socket: LaneSocket, worker: Worker) -> None:
    event = {"type": "action", "payload": {"tool": "edit", "file": "größe.py"}}
    assert asked(lane_socket, verb="report", phase="tests", log="41 passed", events=[event]) == {"ok": True}
    assert asked(lane_socket, verb="ship", pr_url="https://x/1", other=1) == {"ok": True}
    assert asked(lane_socket, verb="fail", message="no disk", fatal=True) == {"ok": True}
    assert asked(lane_socket, verb="lane") == {"ok": True, "lane": LANE}
    assert worker.heard == [("tests", "41 passed", [event]), {"pr_url": "https://x/1"}, ("no disk", True)]


def test_many_messages_go_over_one_connection_in_order(lane_socket: LaneSocket, worker: Worker) -> None:
    lines = [json.dumps({"verb": "report", "log": str(number)}).encode() + b"\r\n\n" for number in range(500)]
    assert say(lane_socket.path, *lines) == [{"ok": True}] * 500
    assert [log for _, log, _ in worker.heard] == [str(number) for number in range(500)]


def test_a_message_that_comes_in_pieces_is_one_message(lane_socket: LaneSocket, worker: Worker) -> None:
    with connected(lane_socket.path) as connection:
        for byte in b'{"verb": "fail", "message": "\xc3\xb6"}\n':
            connection.send(bytes([byte]))
        assert json.loads(connection.recv(100)) == {"ok": True}
    assert worker.heard == [("ö", False)]


def test_a_message_that_is_cut_off_is_not_taken(lane_socket: LaneSocket, worker: Worker) -> None:
    assert say(lane_socket.path, b'{"verb": "fail", "message": "half"}') == []
    assert worker.heard == []


def test_all_problems_of_a_message_are_named_at_once(lane_socket: LaneSocket, worker: Worker) -> None:
    events = [{"type": "nap"}, 7, {"type": "ship_complete"}, {"type": "action", "payload": ["x"]}]
    events += [{"type": "error", "payload": {"fatal": True}}, {"type": "action", "payload": {"a": ["b\0"]}}]
    message = {"verb": "report", "phase": "p" * 201, "log": "l" * 2_001, "events": events}
    (answer,) = say(lane_socket.path, json.dumps(message).encode() + b"\n")
    assert answer["kind"] == "wrong_input"
    assert {issue["path"]: issue["message"] for issue in answer["issues"]} == {
        "phase": "must be at most 200 characters long, not 201",
        "log": "must be at most 2,000 characters long, not 2,001",
        "events.0.type": "must be one of heartbeat, log_line, phase_change, action, error",
        "events.1": "must be an object",
        "events.2.type": "must not be ship_complete: that is what the verb ship is for",
        "events.3.payload": "must be an object",
        "events.4.payload.fatal": "must not be true: that is what the verb fail is for",
        "events.5.payload": "must not contain NUL characters",
    }
    assert all(f"{issue['path']} {issue['message']}" in answer["error"] for issue in answer["issues"])
    assert worker.heard == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"hello", "is not a JSON object in UTF-8"),
        (b"[]", "is not a JSON object in UTF-8"),
        (b"\xff\xfe", "is not a JSON object in UTF-8"),
        (b"[" * 100_000, "is nested deeper than 100 levels"),
        (b"{}", "verb must be one of report, ship, fail, lane"),
        (b'{"verb": ["report"]}', "verb must be one of report, ship, fail, lane"),
        (b'{"verb": "report"}', "says nothing"),
        (b'{"verb": "report", "phase": 7}', "phase must be a string"),
        (b'{"verb": "report", "events": {}}', "events must be an array"),
        (b'{"verb": "report", "events": [' + b",".join([b'{"type": "action"}'] * 101) + b"]}", "at most 100, not 101"),
        (b'{"verb": "report", "log": "a\\u0000"}', "log must not contain NUL"),
        (b'{"verb": "report", "log": "\\ud800"}', "half of a surrogate pair"),
        (b'{"verb": "report", "events": [{"type": "action", "payload": {"x": NaN}}]}', "NaN, which is not JSON"),
        (b'{"verb": "report", "events": [{"type": "action", "payload": {"x": 1e999}}]}', "too large for a double"),
        (b'{"verb": "report", "log": "a", "log": "b"}', "names a field of an object twice"),
        (
            b'{"verb": "report", "events": [{"type": "action", "payload": {"x": "' + b"y" * 41_000 + b'"}}]}',
            "at most 40,960 bytes",
        ),
        (
            b'{"verb": "report", "events": [{"type": "action", "payload": {"x": ' + b"[" * 200 + b"]" * 200 + b"}}]}",
            "nested deeper than 100",
        ),
        (b'{"verb": "ship", "pr_url": "javascript:x"}', "begins with http:// or https://"),
        (b'{"verb": "ship", "summary": ""}', "summary must not be empty"),
        (b'{"verb": "ship", "summary": "' + b"x" * 10_001 + b'"}', "at most 10,000"),
        (b'{"verb": "fail"}', "message is required"),
        (b'{"verb": "fail", "message": " "}', "message must not be empty"),
        (b'{"verb": "fail", "message": "x", "fatal": "yes"}', "fatal must be true or false"),
    ],
)
def test_a_bad_message_is_answered_and_the_connection_goes_on(
    line: bytes, problem: str, lane_socket: LaneSocket, worker: Worker
) -> None:
    bad, good = say(lane_socket.path, line + b"\n", b'{"verb": "ship"}\n')
    assert problem in bad["error"]
    assert (bad["kind"], good) == ("wrong_input", {"ok": True})
    assert worker.heard == [{}]


@given(line=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: json.dumps({"verb": text}).encode()))
def test_no_line_upsets_the_reader(line: bytes) -> None:
    with contextlib.suppress(BadMessage):
        read_message(line)


def test_the_longest_message_goes_through_and_an_endless_one_ends(lane_socket: LaneSocket, worker: Worker) -> None:
    rest = MESSAGE_BYTES_MAX - len(b'{"verb": "lane", "x": ""}')
    (answer,) = say(lane_socket.path, b'{"verb": "lane", "x": "' + b"x" * rest + b'"}\n')
    assert answer["ok"]
    with connected(lane_socket.path) as connection, contextlib.suppress(ConnectionError):
        while True:
            connection.sendall(b"x" * 65536)
    assert asked(lane_socket, verb="ship") == {"ok": True}


def test_closing_while_a_connection_is_served_is_no_fault(
    lane_socket: LaneSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread may see that it is over, and end, between the two steps of `close`."""
    wake_up = lane_socket._wake_up

    class Late:
        def send(self, data: bytes) -> int:
            with connected(lane_socket.path):
                lane_socket._thread.join()
            return wake_up.send(data)

        def close(self) -> None:
            wake_up.close()

    monkeypatch.setattr(lane_socket, "_wake_up", Late())
    lane_socket.close()
    assert not lane_socket.path.exists()


def test_a_workers_no_and_its_faults_are_answered(lane_socket: LaneSocket) -> None:
    with pytest.raises(WorkerError, match=r"^the lane went to another worker$") as caught:
        asked(lane_socket, verb="report", phase="refused")
    assert caught.value.kind == "lane_lost"
    with pytest.raises(WorkerError, match=r"^the worker failed: ZeroDivisionError$"):
        asked(lane_socket, verb="report", phase="broken")
    assert asked(lane_socket, verb="lane")["lane"] == LANE


def test_a_report_as_events_says_the_phase_first() -> None:
    action = {"type": "action", "payload": {}}
    assert as_events(Report("tests", "41 passed", [action])) == [
        {"type": "phase_change", "payload": {"phase": "tests"}},
        {"type": "log_line", "payload": {"line": "41 passed"}},
        action,
    ]
    assert as_events(Report(None, None, [action])) == [action]


# --- many at once -------------------------------------------------------------------------------------------------


def test_many_at_once_are_each_answered_in_order(lane_socket: LaneSocket, worker: Worker) -> None:
    def talk(name: int) -> None:
        lines = [json.dumps({"verb": "report", "phase": str(name), "log": str(n)}).encode() + b"\n" for n in range(20)]
        answers.append(say(lane_socket.path, *lines))

    answers: list[list[dict[str, Any]]] = []
    threads = [threading.Thread(target=talk, args=(name,)) for name in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [[{"ok": True}] * 20] * 50
    for name in range(50):
        assert [log for phase, log, _ in worker.heard if phase == str(name)] == [str(n) for n in range(20)]


def test_whoever_does_not_read_holds_up_nobody(lane_socket: LaneSocket) -> None:
    with connected(lane_socket.path) as lazy:
        lazy.settimeout(2)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 200_000:
                sent += lazy.send(b'{"verb": "lane"}\n' * 100) // 17
        assert sent < 200_000, "the worker kept on reading, and so kept answers without bound"
        assert asked(lane_socket, verb="ship") == {"ok": True}
        lazy.settimeout(30)
        with lazy.makefile("rb") as answers:
            assert json.loads(answers.readline())["lane"] == LANE


def test_too_many_connections_are_told(lane_socket: LaneSocket) -> None:
    with contextlib.ExitStack() as open_ones:
        for _ in range(CONNECTIONS_MAX):
            one = open_ones.enter_context(connected(lane_socket.path))
            one.sendall(b'{"verb": "ship"}\n')
            assert json.loads(one.recv(100)) == {"ok": True}
        with pytest.raises(WorkerError, match="128 connections"):
            asked(lane_socket, verb="ship")
    assert asked_until_answered(lane_socket) == {"ok": True}


def asked_until_answered(lane_socket: LaneSocket) -> dict[str, Any]:
    """The answer once the connections that were just closed are gone."""
    for _ in range(200):
        with contextlib.suppress(WorkerError):
            return asked(lane_socket, verb="ship")
        threading.Event().wait(0.05)
    raise AssertionError("closed connections still count")


# --- where it is, and who may speak ---------------------------------------------------------------------------------


def test_it_is_private_and_goes_when_closed(worker: Worker) -> None:
    lane_socket = LaneSocket(worker)
    assert stat.S_IMODE(lane_socket.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(lane_socket.path.parent.stat().st_mode) == 0o700
    lane_socket.close()
    lane_socket.close()
    assert not lane_socket.path.parent.exists()
    with pytest.raises(WorkerError, match="is gone") as caught:
        asked(lane_socket, verb="lane")
    assert caught.value.kind == "not_in_a_lane"


def test_it_stands_in_the_lanes_folder_where_that_is_short_enough(worker: Worker, tmp_path: Path) -> None:
    with LaneSocket(worker, Path("/tmp") / os.path.relpath(tmp_path, "/tmp")) as lane_socket:
        assert lane_socket.path.parent == tmp_path
        assert asked(lane_socket, verb="ship") == {"ok": True}
    assert tmp_path.exists()
    assert not lane_socket.path.exists()


def test_its_path_is_short_however_long_the_folders_are(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with LaneSocket(worker, long) as lane_socket:
        assert len(os.fsencode(lane_socket.path)) <= PATH_BYTES_MAX
        assert asked(lane_socket, verb="ship") == {"ok": True}
    assert list(long.iterdir()) == []


def test_the_system_says_who_calls() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.geteuid()


SPEAK = """
import os, socket, sys
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
    connection.sendall(b'{"verb": "lane"}\\n')
    print(connection.recv(65536).decode())
except PermissionError:
    print("not let in")
except BrokenPipeError:
    print(connection.recv(65536).decode())
"""


def other_user_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What another user's process gets: a real one as root, else the worker is made to take itself for another."""
    command = [sys.executable, "-I", "-c", SPEAK, str(path)]
    if os.geteuid() == 0:
        command.append("65534")
    else:
        monkeypatch.setattr("heartlane.worker.socket.os.geteuid", lambda: 4_000_000)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_another_user_does_not_even_get_to_the_socket(lane_socket: LaneSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    said = other_user_says(lane_socket.path, monkeypatch)
    assert said == "not let in" or "belongs to another user" in said


def test_another_user_is_refused_also_where_the_folder_is_open(
    lane_socket: LaneSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane_socket.path.parent.chmod(0o755)
    lane_socket.path.chmod(0o666)
    answer = json.loads(other_user_says(lane_socket.path, monkeypatch))
    assert answer == {"error": "this lane's worker belongs to another user", "kind": "not_in_a_lane"}
    monkeypatch.undo()
    assert asked(lane_socket, verb="ship") == {"ok": True}
