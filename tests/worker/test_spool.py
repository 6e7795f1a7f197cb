"""The spool: events kept in order, batches that keep their `seq`, what is done where there is no room."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from heartlane.lanes.bounds import EVENTS_PER_REPORT_MAX
from heartlane.worker import spool as spool_module
from heartlane.worker.places import places
from heartlane.worker.spool import Spool
from heartlane.worker.spool_files import Header, Outgoing, SpoolError, SpoolVersion, header_line, line
from heartlane.worker.spools import SpoolBusy, discard, flush, folder_of, list_spools, show
from tests.worker.conftest import PATIENCE, ROOT, until

HEADER = Header("https://lanes.example", "01890a5d-ac96-774b-bcce-b302099a8057", 3, "worker-1")

Open = Callable[..., Spool]


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Open]:
    """Open the same spool again and again; the last one is closed with the test."""
    opened: list[Spool] = []

    def open_again(header: Header = HEADER, **options: Any) -> Spool:
        for spool in opened:
            spool.close()
        opened.append(Spool.open(header, root=tmp_path, **options))
        return opened[-1]

    yield open_again
    for spool in opened:
        spool.close()


def event(number: int, kind: str = "action", size: int = 0) -> dict[str, Any]:
    return {"type": kind, "payload": {"n": number, "fill": "x" * size}, "at": "2026-01-02T03:04:05Z"}


def numbers(batch: Outgoing | None) -> list[int]:
    return [] if batch is None else [item["payload"].get("n") for item in batch.decoded()]


def drain(spool: Spool) -> list[dict[str, Any]]:
    """Everything that is left, acknowledged."""
    events: list[dict[str, Any]] = []
    flush(spool, lambda batch: events.extend(batch.decoded()))
    return events


@contextlib.contextmanager
def full_disk(path: Path, room: int = 0) -> Iterator[None]:
    """No file grows beyond the largest one here by more than `room` bytes: as a disk that has so much left."""
    largest = max((file.stat().st_size for file in path.rglob("*.log")), default=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(largest + room, 1024), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- in and out ---------------------------------------------------------------------------------------------------


def test_events_come_out_as_they_went_in_a_hundred_at_a_time(open_spool: Open) -> None:
    spool = open_spool()
    for number in range(250):
        assert spool.append(event(number))
    assert spool.left == 250
    seen: list[int] = []
    for seq, size in ((1, 100), (2, 100), (3, 50)):
        batch = spool.next_batch()
        assert batch is not None
        assert (batch.seq, len(batch.events)) == (seq, size)
        assert spool.next_batch() == batch, "a batch that was not acknowledged was followed by another"
        seen += numbers(batch)
        spool.acknowledge(batch.seq)
    assert seen == list(range(250))
    assert spool.next_batch() is None
    assert (spool.left, spool.last_seq) == (0, 3)


def test_a_batch_is_the_same_to_the_byte_after_a_crash_and_keeps_its_seq(open_spool: Open) -> None:
    spool = open_spool()
    for number in range(150):
        spool.append(event(number))
    spool.acknowledge(spool.next_batch().seq)  # type: ignore[union-attr]
    before = spool.next_batch()
    assert before is not None
    spool = open_spool()
    for number in range(150, 300):
        spool.append(event(number))
    again = spool.next_batch()
    assert again == before
    assert again.events_json == before.events_json
    spool.acknowledge(2)
    batch = spool.next_batch()
    assert batch is not None
    assert (batch.seq, numbers(batch)) == (3, list(range(150, 250)))
    # Late and wrong acknowledgements change nothing.
    spool.acknowledge(2)
    spool.acknowledge(1)
    assert spool.next_batch() == batch


def test_a_server_that_applied_a_batch_unheard_doesnt_get_it_again(open_spool: Open) -> None:
    spool = open_spool()
    for number in range(120):
        spool.append(event(number))
    assert spool.next_batch() is not None
    spool = open_spool()
    spool.resume(1)
    batch = spool.next_batch()
    assert batch is not None
    assert (batch.seq, numbers(batch)) == (2, list(range(100, 120)))
    spool.resume(1)
    assert spool.next_batch() == batch


def test_a_spool_that_was_wiped_counts_on_above_what_the_server_has(open_spool: Open) -> None:
    open_spool().remove()
    spool = open_spool()
    spool.resume(57)
    spool.append(event(1))
    batch = spool.next_batch()
    assert batch is not None
    assert batch.seq == 58
    spool.acknowledge(58)
    spool = open_spool()
    spool.append(event(2))
    assert spool.next_batch().seq == 59  # type: ignore[union-attr]


def test_an_event_without_a_time_gets_one(open_spool: Open) -> None:
    spool = open_spool()
    spool.append({"type": "heartbeat"})
    (kept,) = drain(spool)
    assert kept["at"].endswith("Z")
    with pytest.raises(TypeError):
        spool.append({"payload": {}})


def test_batches_are_bounded_in_bytes(open_spool: Open) -> None:
    spool = open_spool()
    for number in range(10):
        spool.append(event(number, size=7_000))
    sizes = []
    while (batch := spool.next_batch(size_max=30_000)) is not None:
        sizes.append(len(batch.events))
        spool.acknowledge(batch.seq)
    assert sizes == [4, 4, 2]
    spool.append(event(1, size=7_000))
    assert len(spool.next_batch(size_max=10).events) == 1  # type: ignore[union-attr]


def test_a_batch_waits_for_company_but_not_with_an_error(open_spool: Open) -> None:
    spool = open_spool()
    started = time.monotonic()
    assert spool.next_batch(linger=0.2) is None
    assert time.monotonic() - started >= 0.2
    for kind in ("error", "ship_complete"):
        spool.append(event(1))
        spool.append(event(2, kind))
        started = time.monotonic()
        assert numbers(spool.next_batch(linger=PATIENCE)) == [1, 2]
        assert time.monotonic() - started < PATIENCE / 2
        spool.acknowledge(spool.last_seq)
    for number in range(EVENTS_PER_REPORT_MAX):
        spool.append(event(number))
    assert len(numbers(spool.next_batch(linger=PATIENCE))) == EVENTS_PER_REPORT_MAX


def test_whoever_waits_is_woken_by_what_comes(open_spool: Open) -> None:
    spool = open_spool()
    got: list[list[int]] = []
    sender = threading.Thread(target=lambda: got.append(numbers(spool.next_batch(linger=PATIENCE))))
    sender.start()
    spool.append(event(5, "error"))
    sender.join(PATIENCE)
    assert got == [[5]]


def test_many_threads_may_append_while_one_sends(open_spool: Open) -> None:
    spool = open_spool()
    sent: list[tuple[int, int]] = []

    def append(thread: int) -> None:
        for number in range(500):
            spool.append({"type": "action", "payload": {"thread": thread, "n": number}})

    threads = [threading.Thread(target=append, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    while len(sent) < 2_000:
        batch = spool.next_batch(linger=0.001)
        if batch is not None:
            sent += [(item["payload"]["thread"], item["payload"]["n"]) for item in batch.decoded()]
            spool.acknowledge(batch.seq)
    for thread in threads:
        thread.join(PATIENCE)
    for number in range(4):
        assert [n for thread, n in sent if thread == number] == list(range(500))


def test_a_batch_that_the_server_refuses_is_halved_until_the_one_is_found(open_spool: Open) -> None:
    spool = open_spool()
    for number in range(100):
        spool.append(event(number))
    applied: list[int] = []
    seqs: list[int] = []
    batch = spool.next_batch()
    while batch is not None or (batch := spool.next_batch()) is not None:
        if 37 in numbers(batch):
            batch = spool.refused(batch.seq)
        else:
            applied += numbers(batch)
            seqs.append(batch.seq)
            spool.acknowledge(batch.seq)
            batch = None
    assert applied == [number for number in range(100) if number != 37]
    assert seqs == sorted(set(seqs))
    spool = open_spool()
    assert spool.next_batch() is None
    assert list_spools(spool._folder.parent)[0].positions.refused == 1


def test_both_files_are_on_the_disk_before_a_batch_is_handed_out(
    open_spool: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    monkeypatch.setattr(
        spool_module, "fdatasync", lambda descriptor: synced.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
    )
    spool = open_spool()
    spool.append(event(1))
    assert synced == set()
    spool.next_batch()
    assert {"00000001.log", "state"} <= synced


# --- one process at a time, files, the list -----------------------------------------------------------------------


def test_only_one_process_has_a_spool(open_spool: Open, tmp_path: Path) -> None:
    spool = open_spool()
    with pytest.raises(SpoolBusy, match=f"in use by process {os.getpid()}"):
        Spool.open(HEADER, root=tmp_path)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from heartlane.worker.spool import Spool\nfrom heartlane.worker.spool_files import Header\n"
        f"spool = Spool.open(Header(*{tuple(HEADER)!r}), root=Path(sys.argv[1]))\n"
        "print('mine', flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, input="", check=False)
    assert "SpoolBusy" in refused.stderr
    assert list_spools(tmp_path)[0].busy
    spool.close()
    assert not list_spools(tmp_path)[0].busy
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(SpoolBusy, match=f"in use by process {other.pid}"):
            open_spool()
        other.kill()
        other.wait()
    open_spool()  # whoever was killed holds nothing


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        spool = Spool.open(HEADER, root=tmp_path / "root")
        spool.append(event(1))
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "root").rglob("*")}
        assert modes.pop(folder_of(tmp_path, HEADER).name) == 0o700
        assert set(modes) == {"lock", "state", "00000001.log"}
        assert set(modes.values()) == {0o600}
        assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700
        spool.close()
    finally:
        os.umask(old)


def test_each_server_run_and_attempt_has_its_own_and_no_id_leads_out(tmp_path: Path) -> None:
    headers = [
        HEADER,
        HEADER._replace(server="https://other.example"),
        HEADER._replace(attempt=4),
        HEADER._replace(run="../../etc"),
        HEADER._replace(run="a/b"),
        HEADER._replace(run="x" * 500),
    ]
    folders = {folder_of(tmp_path, header) for header in headers}
    assert len(folders) == len(headers)
    assert {folder.parent for folder in folders} == {tmp_path}


def test_spools_are_in_the_users_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEARTLANE_STATE", str(tmp_path))
    assert list_spools() == []
    with Spool.open(HEADER) as spool:
        assert spool._folder.parent == places().spool == tmp_path / "spool"
    assert [info.header for info in list_spools()] == [None]


def test_what_is_left_can_be_listed_shown_flushed_and_thrown_away(open_spool: Open, tmp_path: Path) -> None:
    spool = open_spool()
    for number in range(205):
        spool.append(event(number))
    spool.acknowledge(spool.next_batch().seq)  # type: ignore[union-attr]
    spool.next_batch()
    (info,) = list_spools(tmp_path)
    assert (info.header, info.waiting, info.busy, info.problem) == (HEADER, 105, True, None)
    assert info.size == spool.size
    spool.close()
    shown = list(show(info.folder))
    assert [item.event["payload"]["n"] for item in shown] == list(range(205))
    assert [item.standing for item in shown] == ["sent"] * 100 + ["sending"] * 100 + ["waiting"] * 5
    assert {item.seq for item in shown} == {None, 2}
    spool = open_spool()
    assert [item["payload"]["n"] for item in drain(spool)] == list(range(100, 205))
    with pytest.raises(SpoolBusy):
        discard(info.folder)
    spool.remove()
    assert list_spools(tmp_path) == []
    with pytest.raises(SpoolError, match="is no spool"):
        discard(info.folder)
    open_spool().close()
    discard(info.folder)
    assert not info.folder.exists()


def test_a_closed_spool_says_so_and_wakes_whoever_waits(open_spool: Open) -> None:
    spool = open_spool()
    caught: list[Exception] = []

    def wait() -> None:
        try:
            spool.next_batch(linger=PATIENCE)
        except SpoolError as error:
            caught.append(error)

    sender = threading.Thread(target=wait)
    sender.start()
    time.sleep(0.05)
    spool.close()
    sender.join(PATIENCE)
    assert [str(error) for error in caught] == ["the spool is closed"]
    with pytest.raises(SpoolError, match="closed"):
        spool.append(event(1))
    spool.close()
    spool.sync()
    spool.remove()


def test_another_versions_spool_is_one_clear_error(open_spool: Open, tmp_path: Path) -> None:
    open_spool().close()
    folder = folder_of(tmp_path, HEADER)
    text = header_line(HEADER).replace(b'{"spool": 1', b'{"spool": 99').split(b" ", 3)[3].strip()
    (folder / "00000001.log").write_bytes(line("H", text))
    with pytest.raises(SpoolVersion, match="in form 99") as caught:
        open_spool()
    assert "\n" not in str(caught.value)
    assert f"`heartlane spool discard {folder.name}`" in str(caught.value)
    (info,) = list_spools(tmp_path)
    assert info.problem == str(caught.value)
    assert not info.busy
    with pytest.raises(SpoolVersion):
        list(show(folder))


def test_a_folder_that_cant_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="can't use the spool"):
        Spool.open(HEADER, root=tmp_path / "file")


# --- no room ------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_once_and_nothing_that_matters_is_lost(open_spool: Open, tmp_path: Path) -> None:
    said: list[str] = []
    spool = open_spool(on_trouble=said.append)
    for number in range(10):
        spool.append(event(number))
    with full_disk(tmp_path, room=500):
        for number in range(10, 150):
            assert spool.append(event(number))
        assert not spool.append(event(0, "heartbeat"))
        spool.append(event(150, "error"))
        assert spool.failing
        assert len(said) == 1
        assert "events are kept in memory" in said[0]
        batch = spool.next_batch()
        assert batch is not None
        assert numbers(batch) == list(range(100))
        spool.acknowledge(batch.seq)
        assert numbers(spool.next_batch()) == list(range(100, 151))
    # What a crash would leave now: the positions, though the disk took nothing else.
    assert list_spools(tmp_path)[0].positions.high == 2
    until(lambda: spool.append(event(151)) and not spool.failing)
    assert len(said) == 2
    assert "on the disk" in said[1]
    spool.acknowledge(2)
    spool = open_spool()
    assert {item["payload"]["n"] for item in drain(spool)} == {151}
    assert spool.dropped == {"heartbeat": 1}


def test_what_is_in_memory_goes_to_the_disk_in_order_when_it_can(open_spool: Open, tmp_path: Path) -> None:
    spool = open_spool()
    with full_disk(tmp_path):
        for number in range(30):
            spool.append(event(number))
        assert spool.failing
    spool.close()
    spool = open_spool()
    assert [item["payload"]["n"] for item in drain(spool)] == list(range(30))


def test_a_batch_that_was_in_memory_only_when_we_died_keeps_its_seq_from_being_used_again(
    open_spool: Open, tmp_path: Path
) -> None:
    spool = open_spool()
    with full_disk(tmp_path):
        for number in range(5):
            spool.append(event(number, size=2_000))
        assert spool.next_batch().seq == 1  # type: ignore[union-attr]
        with full_disk(tmp_path, room=100_000):
            shutil.copytree(folder_of(tmp_path, HEADER), folder_of(tmp_path / "dead", HEADER))
    with Spool.open(HEADER, root=tmp_path / "dead") as after:
        assert after.next_batch() is None
        after.append(event(9))
        batch = after.next_batch()
        assert batch is not None
        assert (batch.seq, numbers(batch)) == (2, [9])


def test_in_memory_log_lines_make_room_for_what_matters(
    open_spool: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MEMORY_BYTES_MAX", 100_000)
    spool = open_spool()
    with full_disk(tmp_path):
        kept = sum(spool.append(event(number, "log_line", 900)) for number in range(200))
        assert 40 < kept < 60, "log lines have half of the room"
        for number in range(95):
            assert spool.append(event(1000 + number, size=900))
        assert spool.append(event(5000, "error", 900))
        assert spool.append(event(5001, "ship_complete", 900))
        events = drain(spool)
    kinds = [item["type"] for item in events]
    assert kinds.count("action") == 95
    assert kinds[-2:] == ["error", "ship_complete"]
    assert spool.dropped["log_line"] == 200 - kinds.count("log_line") == 200
    assert spool.held_seconds < 0.1


def test_where_only_what_matters_is_left_whoever_brings_more_waits(
    open_spool: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MEMORY_BYTES_MAX", 20_000)
    monkeypatch.setattr(spool_module, "HOLD_SECONDS_MAX", 0.3)
    spool = open_spool()
    with full_disk(tmp_path):
        for number in range(25):
            assert spool.append(event(number, size=900))
        assert spool.held_seconds >= 0.3, "it was kept beyond the bound at once"
        before = spool.held_seconds
        assert spool.append(event(25, "error"))
        assert spool.held_seconds - before < 0.1, "an error waited for room"
        monkeypatch.setattr(spool_module, "HOLD_SECONDS_MAX", PATIENCE)
        waiting = threading.Thread(target=spool.append, args=(event(26, size=900),))
        waiting.start()
        time.sleep(0.05)
        assert waiting.is_alive()
        assert len(drain(spool)) >= 26  # room, as they were sent
        waiting.join(PATIENCE / 2)
        assert not waiting.is_alive()


def test_above_its_size_heartbeats_go_first_then_log_lines_and_nothing_else(open_spool: Open) -> None:
    spool = open_spool(size_max=50_000)
    kinds = ("heartbeat", "log_line", "action", "phase_change")
    kept: dict[str, list[int]] = {kind: [] for kind in kinds}
    for number in range(400):
        for kind in kinds:
            if spool.append(event(number, kind, 100)):
                kept[kind].append(number)
    assert len(kept["action"]) == len(kept["phase_change"]) == 400
    assert 0 < len(kept["heartbeat"]) < len(kept["log_line"]) < 400
    assert spool.append(event(1, "error"))
    assert spool.append(event(1, "ship_complete"))
    assert spool.dropped == {
        "heartbeat": 400 - len(kept["heartbeat"]),
        "log_line": 400 - len(kept["log_line"]),
    }
    assert len(drain(spool)) == spool.last_seq * 100 - 100 + 2 + sum(map(len, kept.values())) % 100


def test_what_was_dropped_is_said_once_there_is_room_again(open_spool: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartlane.worker.spool_log.SEGMENT_BYTES", 5_000)
    spool = open_spool(size_max=20_000)
    dropped = sum(not spool.append(event(number, "log_line", 100)) for number in range(1_234))
    assert dropped > 1_000
    drain(spool)
    spool.append(event(1, "action"))
    events = drain(spool)
    assert [item["type"] for item in events] == ["log_line", "action"]
    assert events[0]["payload"] == {
        "line": f"… {dropped:,} lines left out: the spool was full",
        "left_out": dropped,
    }
    spool.append(event(2))
    assert len(drain(spool)) == 1


def bounded(open_spool: Open, count: int) -> None:
    """So many events while the server is away: memory and disk stay within their bounds, and nothing is lost."""
    process = psutil.Process()
    spool = open_spool(size_max=32 * 1024 * 1024)
    before = process.memory_info().rss
    lines = {"type": "log_line", "payload": {"line": "a line of some length, as agents print them by the thousand"}}
    for number in range(count):
        spool.append({**lines, "at": "2026-01-02T03:04:05Z"} if number % 100 else event(number))
    assert spool.size < 33 * 1024 * 1024 + count // 100 * 200
    assert process.memory_info().rss - before < 30 * 1024 * 1024
    spool = open_spool()
    actions: list[int] = []
    flush(spool, lambda batch: actions.extend(n for e in batch.decoded() if (n := e["payload"].get("n")) is not None))
    assert actions == list(range(0, count, 100))
    assert process.memory_info().rss - before < 60 * 1024 * 1024
    assert spool.size < 5 * 1024 * 1024, "what was acknowledged is still there"


def test_a_hundred_thousand_events_are_bounded(open_spool: Open) -> None:
    bounded(open_spool, 100_000)


@pytest.mark.slow
def test_a_million_events_are_bounded(open_spool: Open) -> None:
    bounded(open_spool, 1_000_000)
