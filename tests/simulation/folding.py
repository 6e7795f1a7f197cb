"""A lane as its event log alone tells it, by rules of its own, read from the wire contract and not from the product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

HELD: Final = frozenset({"claimed", "running", "paused", "shipping"})
FREE: Final = frozenset({"queued", "released"})
ENDED: Final = frozenset({"shipped", "failed"})
BY_WORKERS: Final = frozenset({"heartbeat", "log_line", "phase_change", "action", "error", "ship_complete"})
KEPT: Final = ("pr_url", "branch", "commit", "summary")


class Broken(Exception):
    """What must always hold, doesn't.

    check   the name of the promise
    """

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


class Folded:
    """What the events so far make of a lane."""

    __slots__ = (
        "attempt",
        "branch",
        "commit",
        "count",
        "ended_by_chunk",
        "error",
        "failures",
        "holder",
        "log_line",
        "max_failures",
        "phase",
        "pr_url",
        "state",
        "summary",
        "takers",
    )

    def __init__(self, max_failures: int) -> None:
        self.max_failures = max_failures
        self.state = "queued"
        self.holder: str | None = None
        self.attempt = 0
        self.count = 0
        self.failures = 0
        self.phase: str | None = None
        self.log_line: str | None = None
        self.error: str | None = None
        self.pr_url: str | None = None
        self.branch: str | None = None
        self.commit: str | None = None
        self.summary: str | None = None
        self.takers: dict[int, str] = {}
        self.ended_by_chunk = False

    def begin_chunk(self) -> None:
        """The events of another report or command follow."""
        self.ended_by_chunk = False

    def take_in(self, kind: str, payload: Mapping[str, Any], worker_id: str | None, attempt: int) -> None:
        """One event further. Raises Broken."""
        self.count += 1
        if kind in BY_WORKERS:
            self._by_worker(kind, payload, worker_id, attempt)
        elif kind == "claimed":
            self._claimed(payload)
        elif kind in ("lease_expired", "released"):
            self._let_go(kind, payload)
        elif kind == "paused":
            self._held(kind)
            self.state = "paused"
        elif kind == "resumed":
            self._held(kind)
            self.state = "shipping" if self.phase == "shipping" else "running"
        elif kind == "cancelled":
            if self.state in ENDED:
                raise Broken("an end is an end", f"cancelled when it was {self.state}")
            self.state = "failed"
        elif kind == "retried":
            if self.state != "failed":
                raise Broken("an end is an end", f"retried when it was {self.state}")
            self.state, self.holder, self.failures, self.error = "queued", None, 0, None

    def _by_worker(self, kind: str, payload: Mapping[str, Any], worker_id: str | None, attempt: int) -> None:
        if self.ended_by_chunk:
            return  # told in the same report as the end: appended, without effect
        self._held(kind)
        if worker_id != self.holder or attempt != self.attempt:
            said = f"{kind} of {worker_id}, attempt {attempt}, while {self.holder} holds it as attempt {self.attempt}"
            raise Broken("a past holder changes nothing", said)
        if self.state == "claimed":
            self.state = "running"
        if kind == "log_line":
            self.log_line = payload["line"]
        elif kind == "phase_change":
            self.phase = payload["phase"]
            if self.state != "paused":
                self.state = "shipping" if self.phase == "shipping" else "running"
        elif kind == "error":
            self.error = payload["message"]
            if payload.get("fatal"):
                self._end("failed")
        elif kind == "ship_complete":
            for name in KEPT:
                if name in payload:
                    setattr(self, name, payload[name])
            self._end("shipped")

    def _end(self, state: str) -> None:
        self.state = state
        self.ended_by_chunk = True

    def _claimed(self, payload: Mapping[str, Any]) -> None:
        worker_id, attempt = payload["worker_id"], payload["attempt"]
        if self.state not in FREE:
            check = "at most one holder" if self.state in HELD else "an end is an end"
            raise Broken(check, f"claimed by {worker_id} when {self.holder} held it, {self.state}")
        if attempt != self.attempt + 1:
            raise Broken("every claim is another attempt", f"attempt {attempt} after {self.attempt}")
        self.state, self.holder, self.attempt = "claimed", worker_id, attempt
        self.phase = self.log_line = None
        self.takers[attempt] = worker_id

    def _let_go(self, kind: str, payload: Mapping[str, Any]) -> None:
        self._held(kind)
        if payload["worker_id"] != self.holder or payload["attempt"] != self.attempt:
            raise Broken("a past holder changes nothing", f"{kind} names {payload}, held by {self.holder}")
        self.holder = None
        self.state = "queued" if kind == "lease_expired" else "released"
        if kind == "lease_expired" or payload.get("failed"):
            self.failures += 1
            if self.failures >= self.max_failures:
                self.state = "failed"
                self.error = None  # said in words of the server's

    def _held(self, kind: str) -> None:
        if self.state not in HELD:
            check = "an end is an end" if self.state in ENDED else "at most one holder"
            raise Broken(check, f"{kind} when it was {self.state}")
