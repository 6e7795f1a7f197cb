"""A small model of a lane, written from the wire contract, for the real ones to be compared with.

It shares nothing with `heartlane.lanes.rules` and is built the other way round. The rules keep columns and say which of
them change; the model keeps what has happened, and derives what a run must show now:

    claims      every claim the lane ever had; only the last can be open, so that a second holder can't be expressed,
                and the attempt is nothing but how many there are
    entries     what was accepted into its log, one entry for each command that was; `told` folds them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

GRACE_SECONDS = 300
GAP_SECONDS = 3
DEFAULT_LEASE_SECONDS = 300


class Answer(NamedTuple):
    """What became of a command: the code of its refusal, or None; and whether it was a replay."""

    code: str | None = None
    duplicate: bool = False


DONE, DUPLICATE = Answer(), Answer(duplicate=True)


class Entry(NamedTuple):
    """One accepted command: its events (type, payload), and the latest values that a report sent beside them."""

    at: datetime
    worker_id: str | None
    attempt: int
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()
    phase: str | None = None
    log_line: str | None = None


class Saying:
    """Stands for a text that the contract leaves to the server: equal to every text in which the words occur."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and all(word in other for word in self._words)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Saying{self._words!r}"


@dataclass
class Claim:
    """One worker's claim. `status`: open, kept (the run ended under it) or closed (the worker holds it no more)."""

    worker_id: str
    lease_seconds: int
    claimed_at: datetime
    heard: datetime
    deadline: datetime
    last_seq: int = 0
    reported: bool = False
    status: str = "open"

    def renew(self, lease_seconds: int, now: datetime) -> None:
        """The lease lasts this long from now."""
        self.heard, self.deadline = now, now + timedelta(seconds=lease_seconds)


@dataclass
class Told:
    """What a log says of its run. `ended`: None, shipped or failed."""

    phase: str | None = None
    log_line: str | None = None
    error: str | Saying | None = None
    waiting: bool = False
    over_budget: bool = False
    progress_at: datetime | None = None
    said_stalled: bool = False
    failures: int = 0
    ended: str | None = None
    paused: bool = False
    shipped: dict[str, Any] = field(default_factory=dict)

    def progress(self, at: datetime) -> None:
        """A sign of the holder beyond a bare heartbeat."""
        self.progress_at, self.said_stalled = at, False


def told(entries: Sequence[Entry], max_failures: int) -> Told:
    """Fold a lane's log: each entry's events in order, and then the latest values, which win."""
    now = Told()
    for entry in entries:
        phase, log_line, budget_told = now.phase, now.log_line, False
        for kind, payload in entry.events:
            if kind in SERVER_EVENTS:
                _of_the_server(now, kind, payload, entry.at, max_failures)
                continue
            if kind == "error" and payload.get("reason") == "stalled":
                now.said_stalled = True
            elif kind != "heartbeat":
                now.progress(entry.at)
            if now.ended is None:
                _of_the_worker(now, kind, payload)
                budget_told |= kind == "error" and payload.get("reason") == "budget"
        if entry.phase is not None:
            if entry.phase != phase:
                now.progress(entry.at)
                now.over_budget &= budget_told
            now.phase = entry.phase
            now.waiting = entry.phase == "waiting" and now.ended is None
        if entry.log_line is not None:
            if entry.log_line != log_line:
                now.progress(entry.at)
            now.log_line = entry.log_line
    return now


SERVER_EVENTS = ("claimed", "lease_expired", "released", "paused", "resumed", "cancelled", "retried")


def _of_the_worker(now: Told, kind: str, payload: Mapping[str, Any]) -> None:
    phase, line, message = (_text(payload, name) for name in ("phase", "line", "message"))
    if kind == "phase_change" and phase is not None:
        now.phase, now.waiting, now.over_budget = phase, phase == "waiting", False
    elif kind == "log_line":
        now.log_line = line if line is not None else message if message is not None else now.log_line
    elif kind == "action":
        now.waiting = now.over_budget = False
    elif kind == "error":
        now.error = now.error if message is None else message
        now.over_budget |= payload.get("reason") == "budget"
        if payload.get("fatal") is True:
            now.error = Saying("fatal") if message is None else message
            now.ended, now.waiting, now.paused = "failed", False, False
    elif kind == "ship_complete":
        now.shipped |= {name: payload[name] for name in SHIPPED_FIELDS if _text(payload, name) is not None}
        now.ended, now.waiting, now.paused = "shipped", False, False


def _text(payload: Mapping[str, Any], name: str) -> str | None:
    value = payload.get(name)
    return value if isinstance(value, str) else None


SHIPPED_FIELDS = ("pr_url", "branch", "commit", "summary")


def _of_the_server(now: Told, kind: str, payload: Mapping[str, Any], at: datetime, max_failures: int) -> None:
    if kind in ("paused", "resumed"):
        now.paused = kind == "paused"
        if kind == "resumed":
            now.progress(at)
        return
    now.waiting = now.paused = False
    if kind == "cancelled":
        now.ended, now.error = "failed", Saying("Cancelled")
        return
    now.over_budget = False
    if kind == "claimed":
        now.phase = now.log_line = None
        now.progress(at)
    elif kind == "retried":
        now.ended, now.error, now.failures = None, None, 0
    elif kind == "lease_expired" or payload.get("failed"):
        now.failures += 1
        if now.failures >= max_failures:
            now.ended, now.error = "failed", Saying("max_failures", str(max_failures))


class LaneModel:
    """One lane, its whole past, and what that makes of it now. Every command answers what the real one must answer."""

    def __init__(
        self, key: str, *, priority: int = 0, max_failures: int = 5, stalled_after: int = 900, after: Sequence[str] = ()
    ) -> None:
        self.key = key
        self.priority = priority
        self.max_failures = max_failures
        self.stalled_after = stalled_after
        self.waits_for = set(after)
        self.claims: list[Claim] = []
        self.entries: list[Entry] = []
        self.released = False
        self.not_before: datetime | None = None
        self.finished_at: datetime | None = None

    # --- what the past makes of it --------------------------------------------------------------------------------

    @property
    def told(self) -> Told:
        """The fold of its log."""
        return told(self.entries, self.max_failures)

    @property
    def attempt(self) -> int:
        """How many claims there were."""
        return len(self.claims)

    @property
    def claim(self) -> Claim | None:
        """The open claim."""
        return self.claims[-1] if self.claims and self.claims[-1].status == "open" else None

    @property
    def recorded(self) -> Claim | None:
        """The claim that the run shows: the open one, or the one it ended under."""
        return self.claims[-1] if self.claims and self.claims[-1].status != "closed" else None

    @property
    def holder(self) -> str | None:
        """Who holds the lane."""
        return None if self.claim is None else self.claim.worker_id

    @property
    def state(self) -> str:
        """The state as the contract names it."""
        now = self.told
        if now.ended is not None:
            return now.ended
        if self.claim is None:
            return "released" if self.released else "queued"
        if now.paused:
            return "paused"
        if now.phase == "shipping":
            return "shipping"
        return "running" if self.claim.reported else "claimed"

    def claimable(self, now: datetime) -> bool:
        """Whether anybody may claim the lane now."""
        free = self.claim is None and self.told.ended is None
        return free and not self.waits_for and (self.not_before is None or self.not_before <= now)

    def log(self) -> list[tuple[str, Mapping[str, Any], datetime, str | None, int]]:
        """Every event that must stand in its log: type, payload, when it was recorded, whose, and in which attempt."""
        return [
            (kind, payload, entry.at, entry.worker_id, entry.attempt)
            for entry in self.entries
            for kind, payload in entry.events
        ]

    def view(self, now: datetime) -> dict[str, Any]:
        """What the run must show at `now`, under the contract's names."""
        told, recorded = self.told, self.recorded
        stalled = self._stalled(told, now)
        return {
            "state": self.state,
            "phase": told.phase,
            "log_line": told.log_line,
            "error": told.error,
            **{name: told.shipped.get(name) for name in SHIPPED_FIELDS},
            "worker_id": None if recorded is None else recorded.worker_id,
            "claimed_at": None if recorded is None else recorded.claimed_at,
            "last_heartbeat": self.claims[-1].heard if self.claims else None,
            "lease_expires_at": None if self.claim is None else self.claim.deadline,
            "attempt": self.attempt,
            "failures": told.failures,
            "max_failures": self.max_failures,
            "priority": self.priority,
            "not_before": self.not_before,
            "finished_at": self.finished_at,
            "event_count": len(self.log()),
            "stalled": stalled,
            "needs_attention": self._needs_attention(told, now, stalled=stalled),
        }

    def _stalled(self, told: Told, now: datetime) -> bool:
        if self.claim is None or told.paused or told.waiting or told.progress_at is None:
            return False
        return told.said_stalled or now - told.progress_at > timedelta(seconds=self.stalled_after)

    def _needs_attention(self, told: Told, now: datetime, *, stalled: bool) -> str | None:
        if told.ended == "failed":
            return "budget" if told.over_budget else "failed"
        if self.claim is None:
            return None
        reasons = {"waiting_for_human": told.waiting, "budget": told.over_budget, "paused": told.paused}
        reasons["stalled"] = stalled
        left, lease = self.claim.deadline - now, self.claim.deadline - self.claim.heard
        reasons["lease_running_out"] = left * 3 < lease
        return next((reason for reason, holds in reasons.items() if holds), None)

    # --- commands of workers --------------------------------------------------------------------------------------

    def take(self, worker_id: str, lease_seconds: int | None, now: datetime) -> Answer:
        """A claim of this very lane."""
        if self.told.ended is not None:
            return Answer("NO_LONGER_QUEUED")
        if self.claim is not None:
            if self.claim.worker_id != worker_id:
                return Answer("CLAIM_HELD_BY_OTHER")
            granted = self.claim.deadline
            self.claim.lease_seconds = lease_seconds or self.claim.lease_seconds
            self.claim.renew(self.claim.lease_seconds, now)
            self.claim.deadline = max(granted, self.claim.deadline)
            return DONE
        if not self.claimable(now):
            return Answer("LANE_BLOCKED")
        lease = lease_seconds or DEFAULT_LEASE_SECONDS
        self.claims.append(Claim(worker_id, lease, now, now, now + timedelta(seconds=lease)))
        self.not_before, self.released = None, False
        self._log("claimed", {"worker_id": worker_id, "attempt": self.attempt, "lease_seconds": lease}, now)
        return DONE

    def report(
        self,
        worker_id: str,
        now: datetime,
        *,
        lease_seconds: int | None = None,
        phase: str | None = None,
        log_line: str | None = None,
        events: Sequence[tuple[str, Mapping[str, Any]]] = (),
        attempt: int | None = None,
        seq: int | None = None,
    ) -> Answer:
        """A worker's telemetry."""
        recorded = self.recorded
        replay = recorded is not None and seq is not None and seq <= recorded.last_seq
        ended = self.told.ended
        if ended is not None:
            same = recorded is not None and recorded.worker_id == worker_id and attempt in (None, self.attempt)
            return DUPLICATE if replay and same else Answer("RUN_FINISHED")
        code = self._fence(worker_id, attempt)
        claim = self.claim
        if code is not None or claim is None:
            return Answer(code)
        claim.renew(lease_seconds or claim.lease_seconds, now)
        if replay:
            return DUPLICATE
        claim.last_seq = claim.last_seq if seq is None else seq
        claim.reported = True
        self.entries.append(Entry(now, worker_id, self.attempt, tuple(events), phase, log_line))
        if self.told.ended is not None:
            claim.status, self.finished_at = "kept", now
        return DONE

    def release(
        self,
        worker_id: str | None,
        now: datetime,
        *,
        attempt: int | None = None,
        retry_after: float | None = None,
        failed: bool = False,
    ) -> Answer:
        """The holder gives the lane back, or (without `worker_id`) an operator takes it."""
        if self.told.ended is not None:
            return Answer("RUN_FINISHED")
        if self.claim is None:
            again = self.released and worker_id == self.claims[-1].worker_id and attempt == self.attempt
            return DONE if again else Answer(self._fence(worker_id, attempt))
        code = self._fence(worker_id or self.claim.worker_id, attempt)
        if code is not None:
            return Answer(code)
        payload = {"worker_id": self.claim.worker_id, "attempt": self.attempt, "failed": failed}
        self._log("released", {**payload, "retry_after": retry_after}, now)
        self.released = True
        self._lose(now)
        if retry_after and self.told.ended is None:
            self.not_before = now + timedelta(seconds=retry_after)
        return DONE

    def _fence(self, worker_id: str | None, attempt: int | None) -> str | None:
        """The code of the refusal of whoever isn't the holder, or speaks of another attempt."""
        if self.claim is None:
            past = worker_id is not None and self.claims != [] and self.claims[-1].worker_id == worker_id
            return "CLAIM_LOST" if past or (worker_id is not None and attempt is not None) else "NOT_CLAIMED"
        if worker_id != self.claim.worker_id:
            return "CLAIM_HELD_BY_OTHER"
        return "STALE_ATTEMPT" if attempt not in (None, self.attempt) else None

    # --- the operator's hand, and the server's --------------------------------------------------------------------

    def steer(self, verb: str, now: datetime) -> Answer:
        """`pause`, `resume`, `cancel` or `retry`."""
        if verb == "retry":
            return self._retry(now)
        if self.told.ended is not None:
            return Answer("RUN_FINISHED")
        if verb == "cancel":
            self._log("cancelled", {"worker_id": self.holder}, now)
            self.not_before, self.finished_at = None, now
            if self.claim is not None:
                self.claim.status = "kept"
            return DONE
        if self.claim is None:
            return Answer("NOT_CLAIMED")
        if self.told.paused != (verb == "pause"):
            self._log("paused" if verb == "pause" else "resumed", {}, now)
            self.claim.reported = True  # a lane that was let go on counts as running, heard from or not
        return DONE

    def _retry(self, now: datetime) -> Answer:
        if self.told.ended == "shipped":
            return Answer("RUN_FINISHED")
        if self.claim is not None:
            return Answer("CLAIM_HELD_BY_OTHER")
        if self.told.ended == "failed":
            self._log("retried", {}, now)
            if self.claims:
                self.claims[-1].status = "closed"
            self.released, self.finished_at = False, None
        return DONE

    def look(self, now: datetime, resumed_at: datetime | None) -> bool:
        """A server looks whether the lease has run out, and takes the lane back if so.

        resumed_at      since when a server runs again: who was not heard since then has its grace from that moment
        """
        if self.claim is None:
            return False
        deadline = self.claim.deadline
        if resumed_at is not None and self.claim.heard < resumed_at:
            lease = min(deadline - self.claim.heard, timedelta(seconds=GRACE_SECONDS))
            deadline = max(deadline, resumed_at + lease)
        if now < deadline:
            return False
        told = self.told
        payload = {
            "worker_id": self.claim.worker_id,
            "attempt": self.attempt,
            "last_phase": told.phase,
            "last_log_line": told.log_line,
            "failures": told.failures + 1,
            "max_failures": self.max_failures,
        }
        self._log("lease_expired", payload, now)
        self.released = False
        self._lose(now)
        return True

    def ripen(self, now: datetime) -> None:
        """A server looks whether the time until which the lane is held back has passed."""
        if self.not_before is not None and self.not_before <= now:
            self.not_before = None

    def _lose(self, now: datetime) -> None:
        self.claims[-1].status = "closed"
        self.finished_at = now if self.told.ended is not None else None

    def _log(self, kind: str, payload: Mapping[str, Any], now: datetime) -> None:
        """A server-side event, in the name of whoever holds (or last held) the lane."""
        worker_id = None if self.recorded is None else self.recorded.worker_id
        self.entries.append(Entry(now, worker_id, self.attempt, ((kind, payload),)))


class FleetModel:
    """Several lanes, the time, and when servers ran."""

    def __init__(self, lanes: Sequence[LaneModel], now: datetime) -> None:
        self.lanes = {lane.key: lane for lane in lanes}
        self.now = now
        self.alive_at = now
        self.resumed_at: datetime | None = None

    def take_next(self, worker_id: str, lease_seconds: int | None) -> LaneModel | None:
        """A claim of the best lane: the highest priority, then the oldest; None where none is claimable."""
        free = [lane for lane in self.lanes.values() if lane.claimable(self.now)]
        if not free:
            return None
        best = max(
            free, key=lambda lane: lane.priority
        )  # the first of the highest: lanes are in the order of their age
        best.take(worker_id, lease_seconds, self.now)
        return best

    def unblock(self) -> None:
        """Lanes that have shipped hold no other one back."""
        shipped = {lane.key for lane in self.lanes.values() if lane.told.ended == "shipped"}
        for lane in self.lanes.values():
            lane.waits_for -= shipped

    def let_pass(self, seconds: float, watched: str) -> None:
        """Let time pass: `served` (a server ran and looks then), `down` (none ran, one looks then), or `unseen`."""
        self.now += timedelta(seconds=seconds)
        if watched == "unseen":
            return
        if watched == "served":
            self.alive_at = self.now
        if self.now - self.alive_at > timedelta(seconds=GAP_SECONDS):
            self.resumed_at = self.now
        self.alive_at = self.now
        for lane in self.lanes.values():
            lane.look(self.now, self.resumed_at)
            lane.ripen(self.now)
