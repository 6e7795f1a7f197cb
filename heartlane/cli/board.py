"""The live board's lanes: which are shown, in which order, and which one is chosen. Nothing here draws or asks.

    needs a hand ─► shipping ─► running ─► claimed ─► queued ─► ended

What has to be worked out of all lanes is worked out when one has changed and somebody looks, not for each change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from heartlane.cli.lanes import matches
from heartlane.lanes.run import FINISHED_STATES

Json = dict[str, Any]

ATTENTION_ORDER: Final = ("waiting_for_human", "budget", "stalled", "lease_running_out", "failed", "paused")
NEEDS_A_HAND: Final = "Needs a hand"
GROUPS: Final[Mapping[str, str]] = {
    "shipping": "Shipping",
    "running": "Running",
    "claimed": "Claimed",
    "paused": "Paused",
    "queued": "Waiting",
    "released": "Waiting",
    "failed": "Failed",
    "shipped": "Shipped",
}
"""State → the heading that lanes in it stand under, in the order of the headings."""
LEASE: Final = frozenset({"lease_expires_at", "last_heartbeat"})
"""What a heartbeat alone changes."""
_RANKS: Final = {state: place for place, state in enumerate(GROUPS)}


class Narrowing(NamedTuple):
    """Which lanes are shown; what is empty doesn't narrow."""

    states: frozenset[str] = frozenset()
    role: str | None = None
    worker_id: str | None = None
    attention: bool = False
    search: str = ""
    ended: bool = True

    def fits(self, run: Json) -> bool:
        """Whether a lane is shown."""
        if self.states and run["state"] not in self.states:
            return False
        if self.role is not None and run["role"] != self.role:
            return False
        if self.worker_id is not None and run["worker_id"] != self.worker_id:
            return False
        if self.attention and run["needs_attention"] is None:
            return False
        if not self.ended and run["state"] in FINISHED_STATES and run["needs_attention"] is None:
            return False
        return not self.search or matches(run, self.search)


class Heading(NamedTuple):
    """A line above the lanes of one group."""

    text: str
    size: int


Entry = Heading | Json


class Board:
    """All lanes, and what of them is shown."""

    def __init__(self, narrowing: Narrowing, changed: Callable[[Json | None, Json], None] | None = None) -> None:
        self.runs: dict[str, Json] = {}
        self.narrowing = narrowing
        self.link_text, self.link_good = "connecting", False
        self.loaded = False
        self.chosen: str | None = None
        self._told = changed
        self._dirty = True
        self._shown: list[Json] = []
        self._entries: list[Entry] = []
        self._counts: Counter[str] = Counter()

    # --- what the feed says ---------------------------------------------------------------------------------------

    def all_runs(self, runs: Sequence[Json]) -> None:
        """These are all lanes; others are gone. One that is known in a later state stays in it."""
        first = not self.loaded
        fresh = {run["id"] for run in runs}
        self.runs = {run_id: run for run_id, run in self.runs.items() if run_id in fresh}
        self.loaded = self._dirty = True
        for run in runs:
            self._put(run, tell=not first)

    def run_changed(self, run: Json) -> None:
        """A lane as it is now."""
        self._put(run, tell=True)

    def lease_renewed(self, run_id: str, lease_expires_at: str | None, last_heartbeat: str | None) -> None:
        """A lane's lease, and nothing else of it."""
        run = self.runs.get(run_id)
        if run is not None and run["lease_expires_at"] is not None:
            run["lease_expires_at"], run["last_heartbeat"] = lease_expires_at, last_heartbeat

    def link(self, text: str, *, good: bool) -> None:
        """How the connection is, in words."""
        self.link_text, self.link_good = text, good

    def _put(self, run: Json, *, tell: bool) -> None:
        before = self.runs.get(run["id"])
        # A list that was asked for before a change may come after it.
        if before is not None and _moment(run) < _moment(before):
            return
        self.runs[run["id"]] = run
        if before is not None and all(before.get(name) == run[name] for name in run if name not in LEASE):
            return
        self._dirty = True
        if tell and self._told is not None:
            self._told(before, run)

    # --- what is shown --------------------------------------------------------------------------------------------

    def narrow(self, **changes: Any) -> None:
        """Show other lanes from now on."""
        self.narrowing = self.narrowing._replace(**changes)
        self._dirty = True

    @property
    def counts(self) -> Counter[str]:
        """How many lanes are in each state, and need a hand, whether they are shown or not."""
        self._work_out()
        return self._counts

    @property
    def shown(self) -> Sequence[Json]:
        """The lanes that are shown, in their order."""
        self._work_out()
        return self._shown

    @property
    def entries(self) -> Sequence[Entry]:
        """The same with headings."""
        self._work_out()
        return self._entries

    def run_chosen(self) -> Json | None:
        """The lane that keys are for; the first one until another is chosen."""
        self._work_out()
        return None if self.chosen is None else self.runs.get(self.chosen)

    def move(self, by: int) -> None:
        """Choose the lane so many places further down; the last or first where there are not so many."""
        shown = self.shown
        if not shown:
            return
        place = next((place for place, run in enumerate(shown) if run["id"] == self.chosen), 0)
        self.chosen = shown[max(0, min(len(shown) - 1, place + by))]["id"]

    def _work_out(self) -> None:
        if not self._dirty:
            return
        self._dirty = False
        counts = Counter(run["state"] for run in self.runs.values())
        counts[NEEDS_A_HAND] = sum(run["needs_attention"] is not None for run in self.runs.values())
        self._counts = counts
        before = [run["id"] for run in self._shown]
        # Sorting is stable: within a group the newest plan's lanes come first, by their keys.
        by_key = sorted(filter(self.narrowing.fits, self.runs.values()), key=lambda run: natural(run["lane_key"]))
        self._shown = sorted(sorted(by_key, key=lambda run: run["created_at"], reverse=True), key=_rank)
        self._entries = list(_with_headings(self._shown))
        ids = {run["id"] for run in self._shown}
        if self.chosen not in ids:
            # What was below it moves up to where it was.
            place = before.index(self.chosen) if self.chosen in before else 0
            below = (run_id for run_id in before[place:] if run_id in ids)
            self.chosen = next(below, self._shown[0]["id"] if self._shown else None)


@lru_cache(maxsize=20_000)
def natural(text: str) -> tuple[tuple[int, str], ...]:
    """A text's place in an order that people expect of numbers in it.

    >>> sorted(["lane-10", "lane-9"], key=natural)
    ['lane-9', 'lane-10']
    """
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", text))


def _moment(run: Json) -> str:
    # Fractions of a second may be of any length: without the Z they compare as text.
    return (run["updated_at"] or "").removesuffix("Z")


def _rank(run: Json) -> tuple[int, int]:
    why = run["needs_attention"]
    if why is not None:
        return 0, ATTENTION_ORDER.index(why) if why in ATTENTION_ORDER else len(ATTENTION_ORDER)
    return 1, _RANKS.get(run["state"], len(_RANKS))


def _with_headings(runs: Sequence[Json]) -> list[Entry]:
    groups: dict[str, list[Json]] = {}
    for run in runs:
        name = NEEDS_A_HAND if run["needs_attention"] is not None else GROUPS.get(run["state"], run["state"])
        groups.setdefault(name, []).append(run)
    entries: list[Entry] = []
    for name, group in groups.items():
        entries += [Heading(name, len(group)), *group]
    return entries
