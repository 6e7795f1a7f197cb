"""Whatever a process prints is made readable: plain, of bounded length, and fit to be sent."""

from __future__ import annotations

import doctest
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.worker import text
from heartlane.worker.text import clip, last_lines, raw_line, readable

MARK = re.compile(r"… \[([\d,]+) characters left out\]\Z")


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("plain words\n", "plain words"),
        ("    indented\r\n", "    indented"),
        ("no end", "no end"),
        ("", ""),
        (" \t \n", ""),
        ("\x1b[1;31mred\x1b[0m and \x1b[38;2;1;2;3mmore\x1b[m", "red and more"),
        ("\x1b]0;the title\x07after", "after"),
        ("\x1b]8;;https://example.com\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1b(B\x1b[?25lhidden cursor\x1b[?25h", "hidden cursor"),
        ("\x9b1mold\x9b0m", "old"),
        ("cut \x1b[3", "cut "),
        ("  10%\r  55%\r 100%\n", " 100%"),
        ("downloading\r\x1b[2Kdone\r\n", "done"),
        ("working\r\r\r", "working"),
        ("\x1b[2K\x1b[1Gstep 1\x1b[2K\x1b[1Gstep 2", "step 2"),
        ("building |\b/\b-\b done", "building  done"),
        ("bell\x07 and nul\x00", "bell␇ and nul␀"),
        ("a \u202eright to left\u202c", "a <U+202E>right to left<U+202C>"),
        ("lone \ud83d half", "lone \ufffd half"),
        ("del\x7f c1\x85\x86", "del␡ c1\n\ufffd"),
        ("naïve 指令 🙂 café", "naïve 指令 🙂 café"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_a_line_is_made_readable(printed: str, shown: str) -> None:
    assert raw_line(printed) == shown.rstrip()


def test_a_text_keeps_its_lines_but_for_blank_ones_at_its_ends() -> None:
    assert readable("\n\n  first\r\n\r\n\x1b[1msecond\x1b[0m\n\n") == "  first\n\nsecond"


def test_what_is_left_out_is_counted() -> None:
    shown = readable("a" * 5_000 + "b" * 5_000, 2_000)
    found = MARK.search(shown)
    assert found is not None
    assert len(shown) <= 2_000
    assert shown[: found.start()] == "a" * found.start()
    assert found.start() + int(found[1].replace(",", "")) == 10_000


def test_a_line_of_many_megabytes_costs_no_more_than_a_look_at_its_beginning() -> None:
    shown = raw_line("\x1b[31m" + "x" * 20_000_000)
    assert len(shown) <= 2_000
    assert MARK.search(shown)


def test_of_a_long_progress_bar_the_last_state_is_shown() -> None:
    assert raw_line("\r".join(f"{percent} of 1000000" for percent in range(1_000_000)) + "\rdone\n") == "done"


def test_the_end_of_a_text_begins_with_a_line() -> None:
    assert last_lines("first\nsecond\nthird\n", 14) == "second\nthird"
    assert last_lines("one long line", 4) == "line"
    assert last_lines("\x1b[31mshort\x1b[0m", 100) == "short"


@given(st.text(max_size=300), st.integers(50, 200))
def test_any_text_comes_out_fit_to_be_sent(printed: str, limit: int) -> None:
    for shown in (readable(printed, limit), raw_line(printed, limit), last_lines(printed, limit), clip(printed, limit)):
        assert len(shown) <= limit
    for shown in (readable(printed, limit), raw_line(printed, limit), last_lines(printed, limit)):
        shown.encode()
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)


@given(st.text(alphabet="ab \x1b[]0m\r\n\b\t\x07K1G;?", max_size=60))
def test_made_readable_twice_is_made_readable_once(printed: str) -> None:
    once = readable(printed)
    assert readable(once) == once


def test_the_examples_in_the_module_are_true() -> None:
    assert doctest.testmod(text).failed == 0
