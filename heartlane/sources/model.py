"""What every source of tickets has in common: it gives pages of items, and says where it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Cursor = Mapping[str, Any]
"""Where a source goes on: plain JSON, kept between two runs, and read by nobody but the source itself."""


class Item(NamedTuple):
    """A ticket as a source has it, before anything is cut to fit.

    ref         what people call it there: `#12`, `SHOP-118`, `line 3`
    url         where it is; None for a line of a file that has none
    key         what it is called there, where it has no address
    labels      names of its labels
    closed      whether it is closed there
    resolution  how it ended, in the contract's words; None where the source doesn't say
    roles       the roles that it names itself; None: its labels say
    """

    ref: str
    url: str | None
    title: str
    text: str
    labels: Sequence[str] = ()
    closed: bool = False
    resolution: str | None = None
    request_type: str | None = None
    priority: str | None = None
    blocking: bool | None = None
    roles: Sequence[str] | None = None
    key: str | None = None


class SourcePage(NamedTuple):
    """One page: what is on it, what was left out of it (pull requests), where it goes on.

    cursor      of the next page; on the last one where the *next run* begins
    is_last     whether there is no next page now
    """

    items: Sequence[Item]
    cursor: Cursor
    is_last: bool
    left_out: int = 0


class Source(Protocol):
    """A place where tickets are.

    name        `github`, `gitlab`, `linear`, `jira`, `file`
    subject     what of it: `acme/shop`, a team, a file
    """

    name: str
    subject: str

    def start(self) -> Cursor:
        """The cursor of everything from the beginning."""

    async def page(self, cursor: Cursor) -> SourcePage:
        """The page at the cursor. Raises SourceError; the same cursor can be asked again any time."""
