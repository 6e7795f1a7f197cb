"""Reads Server-Sent Events: bytes in, blocks out. Nothing here reads a socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

BLOCK_BYTES_MAX: Final = 64 * 1024 * 1024
"""No event is larger; what is, isn't from Heartlane."""


class Block(NamedTuple):
    """One event: its type, its data, and its id where it has one."""

    event: str
    data: str
    id: str | None


class TooLarge(ValueError):
    """A block without an end."""


class Parser:
    """Takes a stream's bytes as they come, cut anywhere. Comments and `retry` are passed over.

    >>> parser = Parser()
    >>> list(parser.feed(b": keep-alive\\n\\nid: 3\\nevent: log_l"))
    []
    >>> list(parser.feed(b'ine\\r\\ndata: {"seq":3}\\n\\nevent: cut off'))
    [Block(event='log_line', data='{"seq":3}', id='3')]
    """

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._id: str | None = None
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Block]:
        """The blocks that are complete with these bytes. Raises TooLarge."""
        # A carriage return at the end may be half of a line end.
        whole = self._rest + data
        held = whole[-1:] if whole.endswith(b"\r") else b""
        lines = whole[: len(whole) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        if self._size + len(self._rest) > BLOCK_BYTES_MAX:
            raise TooLarge
        for line in lines:
            block = self._line(line.decode("utf-8", "replace"))
            if block is not None:
                yield block

    def _line(self, line: str) -> Block | None:
        if not line:
            block = None
            if self._data or self._id is not None:  # an `id` without data moves what the stream is resumed by
                block = Block(self._event or "message", "\n".join(self._data), self._id)
            self._event, self._id, self._data, self._size = "", None, [], 0
            return block
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
        elif name == "event":
            self._event = value
        elif name == "id":
            self._id = value
        return None
