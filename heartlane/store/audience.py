"""Which projects have webhooks, as this process knows it: what makes a change without any listener cost nothing."""

from __future__ import annotations

from collections.abc import Callable


class Audience:
    """Known from memory.

    A webhook counts here at once when it was made on this server; when it was made on another, with the next look at
    the outbox, which every server has every two seconds. What is known may so be older than the database by that, and
    it only says whether to ask: who is told is read in the transaction of the change.

    projects    the projects with at least one enabled webhook
    on_told     called from the event loop when something was committed to the outbox
    """

    def __init__(self) -> None:
        self.projects: frozenset[str] = frozenset()
        self.on_told: Callable[[], None] | None = None

    def told(self) -> None:
        """Something was committed to the outbox."""
        if self.on_told is not None:
            self.on_told()

    def add(self, project_id: str) -> None:
        """A project has a webhook from now on."""
        self.projects |= {project_id}
