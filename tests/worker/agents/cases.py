"""The cases of the fixture files: for each agent, lines that it prints, and what comes of them.

    ## what the case shows
    < a line as the agent prints it, `\\e[` for the beginning of a colour
    > an event: its type, then its payload as JSON
    = what is known after the last line, as JSON: "result.reason", "usage.cost_usd", "ended", …

The wall clock is noon of 30 June 2026, two hours ahead of UTC, at the first line, and each line comes a second after
the one before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

from heartlane.worker.agents import Adapter, AgentEvent, open_adapter

FIXTURES: Final = Path(__file__).parent / "fixtures"
START: Final = datetime(2026, 6, 30, 12, 0, tzinfo=timezone(timedelta(hours=2)))


class Case(NamedTuple):
    """One case of a file."""

    agent: str
    title: str
    lines: list[str]
    events: list[tuple[str, dict[str, Any]]]
    known: dict[str, Any]


def cases() -> list[Case]:
    """Every case of every file."""
    return [case for path in sorted(FIXTURES.glob("*.txt")) for case in _cases_of(path)]


def _cases_of(path: Path) -> list[Case]:
    found: list[Case] = []
    for line in path.read_text("utf-8").split("\n"):
        if line.startswith("## "):
            found.append(Case(path.stem, line[3:], [], [], {}))
        elif line.startswith("<"):
            found[-1].lines.append(line[2:].replace("\\e[", "\x1b["))
        elif line.startswith("> "):
            kind, _, payload = line[2:].partition(" ")
            found[-1].events.append((kind, json.loads(payload)))
        elif line.startswith("= "):
            found[-1].known.update(json.loads(line[2:]))
        elif line and not line.startswith("# "):
            raise ValueError(f"{path.name}: {line!r}")
    return found


def read_all(adapter: Adapter, lines: Sequence[str], end: str = "\n") -> list[AgentEvent]:
    """The events of a whole output, a line a second."""
    events = [event for second, line in enumerate(lines) for event in adapter.read(line + end, 100.0 + second)]
    return [*events, *adapter.finish()]


def begun(name: str) -> Adapter:
    """A new adapter, that knows what time it is."""
    adapter = open_adapter(name)
    adapter.begin(START, 100.0)
    return adapter


def known(adapter: Adapter, path: str) -> Any:
    """What an adapter knows, by a dotted path; times as texts."""
    value: Any = adapter
    for part in path.split("."):
        value = getattr(value, part) if value is not None else None
    return value.isoformat() if isinstance(value, datetime) else value
