"""What a lane has logged, and what it logs from now on until it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from heartlane.cli.api import Api, Json
from heartlane.cli.fields import payload
from heartlane.cli.output import many_lines, to_json
from heartlane.client import calls
from heartlane.wire.answers import EventObject

LOGGED: Final = ("log_line", "error")
"""Types that are printed where not every event is asked for."""
QUIET: Final = frozenset({"heartbeat"})
"""Types that are never printed by themselves: a worker sends them all day."""


class Printer(NamedTuple):
    """How events are printed.

    everything  every event, with its type; else what was logged, alone
    timestamps  with the time of each
    as_json     a line of JSON for each
    """

    everything: bool = False
    timestamps: bool = False
    as_json: bool = False

    def wants(self, event: Json) -> bool:
        """Whether an event is to be printed."""
        return event["type"] not in QUIET if self.everything else event["type"] in LOGGED

    def lines(self, event: Json) -> Iterator[str]:
        """The lines of an event, harmless."""
        if self.as_json:
            yield to_json(event)
            return
        before = f"{event['recorded_at'][:19]}Z  " if self.timestamps else ""
        if self.everything:
            yield f"{before}{event['type']:<14} {payload(event)}".rstrip()
            return
        said: dict[str, Any] = event["payload"]
        text = said.get("line", said.get("message", ""))
        mark = "error: " if event["type"] == "error" else ""
        for line in many_lines(text).split("\n"):
            yield f"{before}{mark}{line}"

    def show(self, event: Json) -> None:
        """Print an event, if it is to be printed."""
        if self.wants(event):
            for line in self.lines(event):
                print(line, flush=True)


def print_log(api: Api, run_id: str, printer: Printer, after: int = 0) -> int:
    """Print the log as it is now, behind the `seq` after; the last `seq` that was read. Raises HeartlaneError."""
    types = () if printer.everything else LOGGED
    for event in api.rows(calls.events(run_id, after=after, type=types)):  # type: ignore[arg-type]  # names of types
        after = event["seq"]
        printer.show(event)
    return after


def follow_log(api: Api, run_id: str, printer: Printer, after: int = 0) -> str:
    """Print the log as it grows, whatever becomes of the server meanwhile, until the lane ends; its last state.

    Raises HeartlaneError: what doesn't pass by itself, such as a token that is revoked.
    """
    for told in api.client.stream(run_id, after=after):
        if isinstance(told, EventObject):
            after = told.seq
            printer.show(told.model_dump(mode="json"))
        elif told.finished_at is not None:
            # What it ended with may stand behind this in the stream, and a stream has no end by itself.
            print_log(api, run_id, printer, after)
            return str(told.state)
    raise AssertionError("a stream that is followed has no end")
