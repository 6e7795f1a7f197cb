"""The claims of one slot, and what their answers mean.

A slot works one lane at a time and says so (`one_at_a_time`), so that no claim can take a second one, however often it
arrives and whatever became of its answer: a lane that it was granted without hearing of it is what the next claim gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from heartlane.worker.clock import boottime
from heartlane.worker.exchange import Exchange, Reply
from heartlane.worker.options import WorkOptions

CLAIM_PATH: Final = "/api/agents/runs/claim"
SLACK_SECONDS: Final = 10.0
"""How much longer than its long poll a claim waits for the answer."""


class Claimed(NamedTuple):
    """A lane that was claimed: the run as the server answered it, and when the claim was sent (`boottime()`)."""

    run: Mapping[str, Any]
    last_seq: int
    sent_at: float
    worker_id: str

    @property
    def attempt(self) -> tuple[str, int]:
        """Which attempt at which lane it is."""
        return str(self.run["id"]), int(self.run["attempt"])


class Claims:
    """What one slot asks for, on a connection of its own."""

    def __init__(self, exchange: Exchange, options: WorkOptions, worker_id: str) -> None:
        self._exchange = exchange
        self._worker_id = worker_id
        self._lease_seconds = options.lease_seconds
        self._wanted: dict[str, Any] = {
            "worker_id": worker_id,
            "lease_seconds": options.lease_seconds,
            "roles": list(options.roles),
            "labels": dict(options.labels),
            "one_at_a_time": True,
        }
        if options.project_id is not None:
            self._wanted["project_id"] = options.project_id

    def next(self, wait: float) -> tuple[Claimed | None, Reply]:
        """The next lane, waited for at the server for so many seconds; None, and the answer, where there is none."""
        sent_at = boottime()
        reply = self._exchange.post(CLAIM_PATH, {**self._wanted, "wait_seconds": wait}, wait + SLACK_SECONDS)
        return self._read(reply, sent_at), reply

    def held(self) -> tuple[Claimed | None, Reply | None]:
        """A lane that an unanswered claim was granted; None, and the answer that leaves it open if there is one.

        Claims nothing that wasn't granted already.
        """
        query = {"worker_id": self._worker_id, "state": "claimed", "limit": 1}
        listed = self._exchange.get("/api/agents/runs", query)
        if not listed.ok:
            return None, listed
        for run in listed.body.get("runs", ()):
            sent_at = boottime()
            body = {"worker_id": self._worker_id, "lease_seconds": self._lease_seconds}
            reply = self._exchange.post(f"/api/agents/runs/{run['id']}/claim", body)
            claimed = self._read(reply, sent_at)
            gone = reply.status in (404, 409) and reply.code is not None
            return claimed, None if claimed is not None or gone else reply
        return None, None

    def cut(self) -> None:
        """End the call under way, from any thread or a signal handler."""
        self._exchange.cut()

    def _read(self, reply: Reply, sent_at: float) -> Claimed | None:
        run, last_seq = reply.body.get("run"), reply.body.get("last_seq")
        if not reply.ok or not isinstance(run, Mapping):
            return None
        return Claimed(run, last_seq if isinstance(last_seq, int) else 0, sent_at, self._worker_id)
