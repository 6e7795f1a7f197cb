"""The walk through a source: a page read, a page written, the cursor kept.

The cursor is kept only when the page before it is written. So whatever ends an import (a crash, a rate limit, a source
that is down), the next one reads at most one page twice, and writing a page twice is the same as writing it once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from heartlane.lanes.bounds import TICKETS_PER_BATCH_MAX
from heartlane.sources.model import Cursor, Item, Source
from heartlane.sources.roles import RoleRules
from heartlane.sources.shape import Shaped, shape

StateFilter = Literal["open", "closed", "all"]

NOTES_MAX: Final = 1_000
"""Notes that an import keeps; past it they are only counted."""


class Sink(Protocol):
    """Where tickets go."""

    async def put(self, tickets: Sequence[Shaped]) -> Sequence[str]:
        """Make or change these, 200 at most, all or none; the outcome of each (`created`, `updated`, …)."""


@dataclass
class Progress:
    """How far an import is.

    cursor      of the page to be read next
    pages, read pages and items so far
    left_out    what the source's pages had in them that is no ticket
    outcomes    how many were created, updated, unchanged, skipped
    notes       what had to be cut or filled up: `#12: title cut …`
    """

    cursor: Cursor
    pages: int = 0
    read: int = 0
    left_out: int = 0
    finished: bool = False
    notes_left_out: int = 0
    outcomes: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("created", "updated", "unchanged", "skipped"), 0)
    )
    notes: list[str] = field(default_factory=list)

    def as_object(self) -> dict[str, Any]:
        """The figures, as JSON has them."""
        return {
            "finished": self.finished,
            "pages": self.pages,
            "read": self.read,
            **self.outcomes,
            "left_out": self.left_out,
            "notes": list(self.notes),
            "notes_left_out": self.notes_left_out,
        }


@dataclass(frozen=True)
class Wanted:
    """What is imported, and as what.

    state           which items become tickets; those of another state only change tickets that are there already
    milestone_id    the milestone here that they get
    """

    rules: RoleRules = field(default_factory=RoleRules)
    state: StateFilter = "open"
    milestone_id: str | None = None

    def takes(self, item: Item) -> bool:
        """Whether an item becomes a ticket where there is none yet."""
        return self.state == "all" or (self.state == "closed") == item.closed


async def run_import(
    source: Source,
    sink: Sink,
    wanted: Wanted,
    progress: Progress,
    keep: Callable[[Progress], Awaitable[None]],
    *,
    pages_max: int | None = None,
) -> None:
    """Walk from `progress.cursor` to the end, or for so many pages. `keep` is called when all of a page is written.

    Raises SourceError, and whatever `sink` raises; `progress` is then as it was last kept.
    """
    while not progress.finished and (pages_max is None or progress.pages < pages_max):
        page = await source.page(progress.cursor)
        shaped = _once(
            [
                shape(item, wanted.rules, create=wanted.takes(item), milestone_id=wanted.milestone_id)
                for item in page.items
            ]
        )
        outcomes: list[str] = []
        for start in range(0, len(shaped), TICKETS_PER_BATCH_MAX):
            outcomes += await sink.put(shaped[start : start + TICKETS_PER_BATCH_MAX])
        progress.cursor, progress.finished = page.cursor, page.is_last
        progress.pages += 1
        progress.read += len(page.items)
        progress.left_out += page.left_out
        for each, outcome in zip(shaped, outcomes, strict=True):
            progress.outcomes[outcome] = progress.outcomes.get(outcome, 0) + 1
            if outcome in ("created", "updated"):
                _note(progress, each)
        await keep(progress)


def _once(shaped: Sequence[Shaped]) -> list[Shaped]:
    """Each ticket once, as the page has it last."""
    by_name = {each.fields.get("external_url") or each.fields["external_key"]: each for each in shaped}
    return list(by_name.values())


def _note(progress: Progress, shaped: Shaped) -> None:
    for note in shaped.notes:
        if len(progress.notes) < NOTES_MAX:
            progress.notes.append(f"{shaped.ref}: {note}")
        else:
            progress.notes_left_out += 1
