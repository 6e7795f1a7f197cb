"""The reader of event streams: the same blocks, however the bytes are cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.client import sse
from heartlane.client.sse import Block, Parser, TooLarge
from heartlane.server.sse import KEEP_ALIVE, frame

STREAM = (
    b"retry: 1500\n\n"
    + frame("run", b'{"a":"\xc3\xbc"}')
    + KEEP_ALIVE
    + frame("log_line", json.dumps({"line": "a\nb\r\n"}).encode(), place=7)
)
BLOCKS = [Block("run", '{"a":"ü"}', None), Block("log_line", '{"line": "a\\nb\\r\\n"}', "7")]


@given(st.lists(st.integers(0, len(STREAM))), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_however_it_is_cut(places: list[int], line_end: bytes) -> None:
    stream = STREAM.replace(b"\n", line_end) + b"event: half"
    cuts = [0, *sorted(places), len(stream)]
    parser = Parser()
    found = [block for start, end in itertools.pairwise(cuts) for block in parser.feed(stream[start:end])]
    if line_end == b"\r":
        # The very last carriage return may be half of a line end, until the next byte says that it isn't.
        found += parser.feed(b"\r")
    assert found == BLOCKS


@given(st.binary())
def test_whatever_comes_is_no_crash(data: bytes) -> None:
    parser = Parser()
    for block in [*parser.feed(data), *parser.feed(b"\n\n")]:
        assert isinstance(block, Block)


def test_lines_of_data_belong_together() -> None:
    assert list(Parser().feed(b"data: a\ndata:b\ndata\nnonsense: x\n\nid: 3\n\n")) == [
        Block("message", "a\nb\n", None),
        Block("message", "", "3"),
    ]


def test_an_event_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "BLOCK_BYTES_MAX", 1000)
    for piece in (b"x" * 300, b"data: " + b"x" * 300 + b"\n"):
        parser = Parser()
        pieces = itertools.repeat(piece, 10)
        with pytest.raises(TooLarge):
            list(itertools.chain.from_iterable(map(parser.feed, pieces)))
