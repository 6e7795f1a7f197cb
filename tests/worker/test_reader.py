"""What commands print: every byte read, lines made of them, memory bounded, nobody held up unsaid."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.worker.child import Exit
from heartlane.worker.reader import LINE_BYTES_MAX, REDRAWN_BYTES, TAIL_BYTES, CutLine, LineSplitter, Stream, Tail
from tests.worker.conftest import PATIENCE, Printed, Start, noted, read, until


def split(*pieces: bytes, line_max: int = 1 << 20) -> list[str]:
    splitter = LineSplitter(line_max)
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.end()


# --- bytes to lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo\r\nthree", ["one", "two", "three"]),
        (b"\n\n\none\n\r\n\n", ["one"]),
        (b"one\r\r\ntwo\r", ["one", "two"]),
        (b"10%\r20%\r100%\ndone\n", ["100%", "done"]),
        (b"10%\r20%\r", ["20%"]),
        (b"\r10%", ["10%"]),
        (b"99%\r100%\r   \r\x1b[K\nnext", ["100%", "next"]),
        ("grün €\n".encode(), ["grün €"]),
        (b"a\xffb\n\xe2\x82\nc", ["a\ufffdb", "\ufffd", "c"]),
        (b"a\x00b\x1b[31mc\x0bd\x0ce\xc2\x85f\n", ["a\x00b\x1b[31mc\x0bd\x0ce\x85f"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
    ],
)
def test_lines(data: bytes, lines: list[str]) -> None:
    assert split(data) == lines
    assert split(*(data[at : at + 1] for at in range(len(data)))) == lines


PIECES = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", "ü€".encode(), b"\xff", b"\xe2", b"\x82", b" ", b"{}", b"\0"]),
    max_size=60,
)


def last_state(line: bytes) -> bytes:
    states = [state for state in line.split(b"\r") if state.strip()]
    return states[-1] if states else b"" if b"\r" in line else line


@given(PIECES, st.lists(st.integers(1, 7), max_size=40))
def test_how_bytes_are_cut_into_chunks_changes_nothing(pieces: list[bytes], sizes: list[int]) -> None:
    data = b"".join(pieces)
    chunks = []
    at = 0
    for size in [*sizes, len(data) + 1]:
        chunks.append(data[at : at + size])
        at += size
    by_chunks = split(*chunks)
    assert by_chunks == split(data)
    assert all("\n" not in line and line for line in by_chunks)
    assert [line.encode() for line in split(data)] == [
        line.decode("utf-8", "replace").encode() for whole in data.split(b"\n") if (line := last_state(whole))
    ]


@given(st.lists(st.binary(max_size=30), max_size=20), st.integers(4, 40))
def test_no_line_is_longer_than_the_bound_and_what_is_cut_is_counted(chunks: list[bytes], line_max: int) -> None:
    data = b"".join(chunks).replace(b"\r", b"")
    whole = [line for line in data.split(b"\n") if line]
    splitter = LineSplitter(line_max)
    lines = [line for at in range(0, len(data), 7) for line in splitter.feed(data[at : at + 7])] + splitter.end()
    assert len(lines) == len(whole)
    for line, full in zip(lines, whole, strict=True):
        if isinstance(line, CutLine):
            assert len(full) == line_max + line.left_out
            assert full.decode("utf-8", "replace").startswith(line)
        else:
            assert line == full.decode("utf-8", "replace")
            assert len(full) <= line_max
    assert splitter.cut == sum(len(full) > line_max for full in whole)


@pytest.mark.parametrize("chunk", [7_919, 65_536, 20_000_000])
def test_a_line_of_ten_megabytes_keeps_its_head(chunk: int) -> None:
    data = b"before\n" + b"h" * 10_000_000 + b"\nafter\n"
    lines = split(*(data[at : at + chunk] for at in range(0, len(data), chunk)), line_max=1_000_000)
    assert [len(line) for line in lines] == [6, 1_000_000, 5]
    assert isinstance(lines[1], CutLine)
    assert lines[1].left_out == 9_000_000


def test_a_character_that_the_cut_goes_through_is_left_out_whole() -> None:
    (line,) = split("a€€".encode(), line_max=5)
    assert line == "a€"


def test_a_progress_bar_that_never_ends_takes_no_room() -> None:
    splitter = LineSplitter()
    for number in range(100_000):
        assert splitter.feed(b"\rprogress %d of 100000" % number) == []
    assert splitter.partial() == "progress 99999 of 100000"
    assert splitter.feed(b"\rdone\n") == ["done"]
    assert splitter.cut == 0
    assert splitter._size == 0
    for number in range(100_000):
        splitter.feed(b"10%%\rprogress %d\r \r" % number)
        assert splitter._size < 2 * REDRAWN_BYTES
    assert splitter.feed(b"\n") == ["progress 99999"]


def test_a_prompt_that_waits_can_be_seen() -> None:
    splitter = LineSplitter()
    splitter.feed(b"one\nPassword: ")
    assert splitter.partial() == "Password: "
    splitter.feed(b"x" * 1_000_000)
    assert len(splitter.partial()) == 2_000


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_a_tail_is_the_end_from_the_start_of_a_line(chunks: list[bytes]) -> None:
    tail = Tail(64)
    for chunk in chunks:
        tail.add(chunk)
    data = b"".join(chunks)
    kept = tail.text()
    if len(data) < 64:
        assert kept == data.decode("utf-8", "replace")
    else:
        last = data[-64:]
        assert kept == last[last.find(b"\n") + 1 :].decode("utf-8", "replace")


# --- pipes --------------------------------------------------------------------------------------------------------


def test_both_streams_are_drained_together_and_in_order(start: Start) -> None:
    child = start("both_streams", 5_000)
    printed = Printed(child)
    assert child.wait(PATIENCE) == Exit(0, None)
    assert printed.reader.join(PATIENCE)
    for stream, name, fill in (("stdout", "out", "o"), ("stderr", "err", "e")):
        expected = [f"{name} {number} {fill * 1000}" for number in range(5_000)]
        assert printed.lines[stream] == expected  # type: ignore[index]
    assert printed.reader.lines == 10_000
    assert printed.reader.last_output is not None
    assert printed.reader.fault is None
    tail = printed.reader.stderr_tail()
    assert len(tail) <= TAIL_BYTES
    assert tail.startswith("err ")
    assert tail.endswith("e" * 1000 + "\n")


def test_a_flood_is_read_without_loss_and_without_room(start: Start) -> None:
    lines = 0

    def count(stream: Stream, some: list[str]) -> None:
        nonlocal lines
        assert all(len(line) == 199 for line in some)
        lines += len(some)

    child = start("floods", 200)
    before = psutil.Process().memory_info().rss
    reader = read(child, count)
    assert child.wait(PATIENCE) == Exit(0, None)
    assert reader.join(PATIENCE)
    assert lines == reader.lines == 200 * 5_000
    assert reader.bytes_read == 200_000_000
    assert reader.fault is None
    assert psutil.Process().memory_info().rss - before < 40 * 1024 * 1024


def test_a_silent_child_costs_nothing(start: Start) -> None:
    child = start("waits")
    printed = Printed(child)
    before = psutil.Process().cpu_times()
    time.sleep(0.5)
    after = psutil.Process().cpu_times()
    assert (after.user + after.system) - (before.user + before.system) < 0.2
    assert printed.reader.last_output is None


def test_whoever_takes_the_lines_slowly_holds_the_command_up_and_it_is_said(start: Start) -> None:
    slow = threading.Event()

    def take(stream: Stream, lines: list[str]) -> None:
        slow.wait(0.05)

    child = start("floods", 5)
    reader = read(child, take)
    assert child.wait(PATIENCE) == Exit(0, None)
    assert reader.join(PATIENCE)
    assert reader.held_seconds > 0.05
    assert reader.lines == 25_000


def test_whoever_takes_them_quickly_holds_nobody_up(start: Start) -> None:
    child = start("floods", 20, 50)
    printed = Printed(child)
    assert child.wait(PATIENCE) == Exit(0, None)
    assert printed.reader.join(PATIENCE)
    assert printed.reader.held_seconds < 1.0


def test_a_fault_of_ours_doesnt_hold_the_command_up(start: Start) -> None:
    calls = 0

    def fail(stream: Stream, lines: list[str]) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("a fault in an adapter")

    child = start("floods", 10)
    reader = read(child, fail)
    assert child.wait(PATIENCE) == Exit(0, None)
    assert reader.join(PATIENCE)
    assert str(reader.fault) == "a fault in an adapter"
    assert calls == 1
    assert reader.bytes_read == 10_000_000


def test_a_line_of_ten_megabytes_comes_through_a_pipe_whole(start: Start) -> None:
    child = start("long_line", 10)
    printed = Printed(child)
    assert child.wait(PATIENCE) == Exit(0, None)
    assert printed.reader.join(PATIENCE)
    (line,) = printed.lines["stdout"]
    assert not isinstance(line, CutLine)
    assert len(line) == 10_000_000
    assert printed.reader.lines_cut == 0


def test_a_longer_one_comes_through_a_pipe_with_a_count_of_what_is_missing(start: Start) -> None:
    child = start("long_line", 20)
    printed = Printed(child)
    assert child.wait(PATIENCE) == Exit(0, None)
    assert printed.reader.join(PATIENCE)
    (line,) = printed.lines["stdout"]
    assert isinstance(line, CutLine)
    assert len(line) == LINE_BYTES_MAX
    assert len(line) + line.left_out == 20_000_000
    assert printed.reader.lines_cut == 1


def test_binary_output_is_read_on_after(start: Start) -> None:
    child = start("binary")
    printed = Printed(child)
    assert child.wait(PATIENCE) == Exit(0, None)
    assert printed.reader.join(PATIENCE)
    assert printed.lines["stdout"][-1] == "after"
    assert "\ufffd" in printed.lines["stdout"][1]


def test_closing_takes_what_is_there_though_the_pipe_is_held(start: Start, tmp_path: Path) -> None:
    child = start("holds_stdout", tmp_path / "pid")
    lines: list[str] = []
    reader = read(child, lambda stream, some: lines.extend(some))
    (pid,) = noted(tmp_path / "pid")
    assert child.wait(PATIENCE)
    descriptor = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
    os.write(descriptor, b"said by another\nnot complete")
    assert reader.close(PATIENCE)
    os.close(descriptor)
    assert lines == ["said by another", "not complete"]


def test_closing_ends_though_the_command_prints_on_and_on(start: Start) -> None:
    child = start("floods", 100_000)
    reader = read(child, lambda stream, lines: None)
    until(lambda: reader.bytes_read > 1_000_000)
    assert reader.close(PATIENCE)
    assert reader.close(0), "once is enough, and twice no harm"


def test_the_partial_line_of_a_stream_can_be_asked_for_while_it_runs(start: Start) -> None:
    child = start("long_line", 1)
    printed = Printed(child)
    until(lambda: child.exit or printed.reader.partial("stdout"))
    assert printed.reader.join(PATIENCE)
    assert printed.reader.partial("stdout") == printed.reader.partial("stderr") == ""
