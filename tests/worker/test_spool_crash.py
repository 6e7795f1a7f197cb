"""The spool through crashes and damage: nothing kept is lost, nothing is sent twice, nothing makes it unreadable."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartlane.worker.spool import Spool
from heartlane.worker.spools import flush, list_spools, show
from tests.worker.conftest import ROOT, until
from tests.worker.spooler import HEADER

SPOOLER: Final = Path(__file__).with_name("spooler.py")


def applied(sent: Path) -> tuple[list[int], int]:
    """What a server has of what was sent, and the last `seq`: a `seq` not above the last applied is a replay."""
    numbers: list[int] = []
    last = 0
    for line in sent.read_text().splitlines():
        seq, _, events = line.partition(" ")
        if int(seq) > last:
            last = int(seq)
            numbers += [event["payload"]["n"] for event in json.loads(events)]
    return numbers, last


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait_for_more(path: Path, before: int) -> None:
    until(lambda: size(path) > before)


def survive_kills(folder: Path, kills: int) -> None:
    chance = random.Random()
    appended, sent = folder / "appended", folder / "sent"
    first = 0
    for _ in range(kills):
        command = [sys.executable, str(SPOOLER), str(folder / "spool"), str(appended), str(sent), str(first)]
        before = size(appended)
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as worker:
            wait_for_more(appended, before)
            try:
                worker.wait(chance.uniform(0.0, 0.15))
            except subprocess.TimeoutExpired:
                worker.kill()
            assert worker.wait() < 0
        # The event that was being appended may be there or not; the next begins well above it.
        first = int(appended.read_text().split()[-1]) + 10
    noted = [int(line) for line in appended.read_text().split()]
    with Spool.open(HEADER, root=folder / "spool") as spool:
        with sent.open("a") as file:
            flush(spool, lambda batch: print(batch.seq, batch.events_json.decode(), file=file))
        assert spool.damaged == 0
    numbers, last = applied(sent)
    assert numbers == sorted(set(numbers)), "sent twice, or out of order"
    assert set(noted) <= set(numbers), "lost"
    assert len(set(numbers) - set(noted)) <= kills
    by_seq: dict[str, set[str]] = {}
    for line in sent.read_text().splitlines():
        by_seq.setdefault(line.split(" ", 1)[0], set()).add(line)
    assert all(len(lines) == 1 for lines in by_seq.values()), "a batch that was sent again was not the same"
    assert last == len(by_seq)


def test_kills_at_random_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    survive_kills(tmp_path, 6)


@pytest.mark.slow
def test_many_kills_at_random_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    survive_kills(tmp_path, 60)


# --- damage -------------------------------------------------------------------------------------------------------

COUNT: Final = 260


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spool with one batch acknowledged, one under way, and events that wait, in several segments."""
    root = tmp_path_factory.mktemp("pristine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heartlane.worker.spool_log.SEGMENT_BYTES", 6_000)
        with Spool.open(HEADER, root=root) as spool:
            for number in range(COUNT):
                spool.append({"type": "action", "payload": {"n": number}, "at": "2026-01-02T03:04:05Z"})
            spool.acknowledge(spool.next_batch().seq)  # type: ignore[union-attr]
            spool.next_batch()
    assert len(list(root.rglob("*.log"))) >= 3
    return root


def read_all(root: Path) -> list[tuple[int, list[int]]]:
    """All that is left by `seq`, with one event more to show that it can still be written to."""
    batches: list[tuple[int, list[int]]] = []

    def send(batch: Any) -> None:
        batches.append((batch.seq, [event["payload"]["n"] for event in batch.decoded()]))

    with Spool.open(HEADER, root=root) as spool:
        assert spool.append({"type": "action", "payload": {"n": COUNT}})
        flush(spool, send)
        assert spool.left == 0
    with Spool.open(HEADER, root=root) as spool:
        assert spool.next_batch() is None, "what was acknowledged came again"
    return batches


def splice(path: Path, start: int, end: int, filling: bytes) -> None:
    """Put something else in the place of some bytes of a file."""
    data = bytearray(path.read_bytes())
    data[start:end] = filling
    path.write_bytes(data)


def numbers_in(segment: Path) -> set[int]:
    """The events whose lines are whole in a segment."""
    lines = segment.read_bytes().split(b"\n")[:-1]
    return {json.loads(line.split(b" ", 4)[4])["payload"]["n"] for line in lines if line.startswith(b"E ")}


def check(batches: list[tuple[int, list[int]]], *, resent: bool) -> list[int]:
    """The order and the numbers are right whatever is missing. Returns the events."""
    seqs = [seq for seq, _ in batches]
    events = [number for _, numbers in batches for number in numbers]
    assert seqs == sorted(set(seqs))
    assert events == sorted(set(events))
    assert events[-1] == COUNT
    # The server has seq 1, and perhaps 2: what was in them must not come under a higher one.
    for seq, numbers in batches:
        if seq > 2:
            assert min(numbers) >= 200
    assert resent or min(seqs) >= 2
    return events


@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1))
def test_a_tail_cut_off_anywhere_costs_only_what_was_in_it(pristine: Path, share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "spool"
        shutil.copytree(pristine, root)
        *_, last = sorted(root.rglob("*.log"))
        os.truncate(last, int(size(last) * share))
        kept = numbers_in(last)
        assert kept <= set(check(read_all(root), resent=False))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_damage_makes_it_unreadable_or_doubles_an_event(pristine: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "spool"
        shutil.copytree(pristine, root)
        files = sorted(path for path in root.rglob("*") if path.name == "state" or path.suffix == ".log")
        hurt = data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True))
        lines_hurt = 0
        for path in hurt:
            start = data.draw(st.integers(0, size(path) - 1))
            length = data.draw(st.integers(1, 300))
            kind = data.draw(st.sampled_from(["flip", "zeros", "garbage", "truncate", "insert"]))
            if kind == "flip":
                flipped = path.read_bytes()[start] ^ 1 << data.draw(st.integers(0, 7))
                splice(path, start, start + 1, bytes([flipped]))
            elif kind == "zeros":
                splice(path, start, start + length, bytes(length))
            elif kind == "garbage":
                splice(path, start, start + length, data.draw(st.binary(min_size=length, max_size=length)))
            elif kind == "truncate":
                os.truncate(path, start)
                lines_hurt += COUNT
            else:
                splice(path, start, start, b"\nE 0 1 \nS\n\n" * 3)
            lines_hurt += 2 + length // 50
        assert len(list_spools(root)) == 1
        list(show(next(root.iterdir())))
        events = check(read_all(root), resent=any(path.name == "state" for path in hurt))
        assert len(set(range(200, COUNT)) - set(events)) <= lines_hurt


def test_the_positions_lost_altogether_are_found_in_the_log(pristine: Path, tmp_path: Path) -> None:
    root = tmp_path / "spool"
    shutil.copytree(pristine, root)
    (state,) = root.rglob("state")
    state.unlink()
    batches = read_all(root)
    assert batches[0] == (2, list(range(100, 200)))
    assert batches[1] == (3, list(range(200, COUNT + 1)))


def test_an_older_slot_counts_where_the_newest_is_torn(pristine: Path, tmp_path: Path) -> None:
    for slot in (0, 1):
        root = tmp_path / str(slot)
        shutil.copytree(pristine, root)
        (state,) = root.rglob("state")
        splice(state, slot * 512 + 40, slot * 512 + 80, bytes(40))
        assert read_all(root)[0] == (2, list(range(100, 200)))


def test_a_file_that_was_just_begun_when_the_power_went_is_begun_anew(tmp_path: Path) -> None:
    for content in (b"", b"H 0", b"\0" * 4096):
        shutil.rmtree(tmp_path / "spool", ignore_errors=True)
        with Spool.open(HEADER, root=tmp_path / "spool") as spool:
            folder = spool._folder
        (folder / "00000001.log").write_bytes(content)
        assert read_all(tmp_path / "spool") == [(1, [COUNT])]
