"""What is answered about tickets that come from elsewhere, and about projects that are linked with GitHub."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from heartlane.wire.answers import Answer, TicketObject
from heartlane.wire.names import ImportStateName, Open, RoleName, SyncOutcomeName


class SyncedTicket(Answer):
    """What became of one ticket that a source told of."""

    outcome: Open[SyncOutcomeName]
    """`skipped`: the project has none, and none was to be made."""
    ticket: TicketObject | None
    """As it is now; null where it was skipped."""


class SyncedTickets(Answer):
    """What became of the tickets, in the order given."""

    results: list[SyncedTicket]


class ImportObject(Answer):
    """How an import from GitHub stands."""

    state: Open[ImportStateName]
    """`waiting`: GitHub doesn't answer or has us wait, and it goes on by itself; `failed`: it doesn't."""
    read: int
    created: int
    updated: int
    unchanged: int
    skipped: int
    left_out: int
    """Pull requests."""
    notes: list[str]
    """What had to be cut or filled up, the first of it."""
    error: str | None
    updated_at: datetime


class GithubLinkObject(Answer):
    """How a project is linked with GitHub."""

    project_id: UUID
    repository: str | None
    """`owner/name` of the project's `repo_url`; null where that is no repository."""
    label: str | None
    roles: dict[Open[RoleName], list[str]]
    milestone_id: UUID | None
    hears: bool
    """Whether the server takes webhooks: it has a secret for them."""
    last_import: ImportObject | None
    created_at: datetime
    updated_at: datetime


class GithubLinkAnswer(Answer):
    """The link of one project with GitHub."""

    github: GithubLinkObject


class GithubHeardAnswer(Answer):
    """What became of a message of GitHub's."""

    ok: Literal[True]
    duplicate: bool
    """It was heard before, and changed nothing now."""
    ignored: str | None
    """Why nothing came of it; null where something did."""
    projects: int
    tickets: int
    lanes: int
