"""The run: one lane of an approved plan on its way from `queued` to `shipped` or `failed`.

A `Run` is the row of the `runs` table as a frozen value. The rules (`heartlane.lanes.rules`) read one and answer which
of its columns change; nothing else in Heartlane sets a run's state.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol


class State(StrEnum):
    """Where a run stands. `claimed` … `shipping` are held by a worker; `shipped` and `failed` are ends."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    RUNNING = "running"
    PAUSED = "paused"
    SHIPPING = "shipping"
    SHIPPED = "shipped"
    FAILED = "failed"
    RELEASED = "released"


CLAIMABLE_STATES: Final = frozenset({"queued", "released"})
HELD_STATES: Final = frozenset({"claimed", "running", "paused", "shipping"})
FINISHED_STATES: Final = frozenset({"shipped", "failed"})


class Role(StrEnum):
    """Which kind of worker a lane is for."""

    FRONTEND = "frontend"
    BACKEND = "backend"
    TEST = "test"
    DESIGN = "design"
    DEVOPS = "devops"
    QA = "qa"
    OTHER = "other"


class EventType(StrEnum):
    """Every type in the event log. A worker sends the first six; the server alone writes the rest."""

    HEARTBEAT = "heartbeat"
    LOG_LINE = "log_line"
    PHASE_CHANGE = "phase_change"
    ACTION = "action"
    ERROR = "error"
    SHIP_COMPLETE = "ship_complete"
    CLAIMED = "claimed"
    LEASE_EXPIRED = "lease_expired"
    RELEASED = "released"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    PULL_REQUEST = "pull_request"
    BUDGET_HELD = "budget_held"
    BUDGET_LIFTED = "budget_lifted"


WORKER_EVENT_TYPES: Final = ("heartbeat", "log_line", "phase_change", "action", "error", "ship_complete")
EVENT_TYPE_BITS: Final[dict[str, int]] = {str(kind): 1 << place for place, kind in enumerate(EventType)}
"""One bit a type, in the order of `EventType` (append only: the bits are stored)."""


class Run(NamedTuple):
    """One row of `runs`. Ids are lower-case UUIDs, times aware UTC; `*_json` columns hold JSON text.

    number             age in the queue and the event log's key; grows, never reused
    attempt            fencing number: 0 until claimed, +1 at every claim, never back
    last_seq           last report `seq` applied in this attempt; 0 in a new one
    lease_seconds      length of the lease as last agreed
    take_back_at       when the take-back looks at this run again: never later than the deadline
    progress_at        last sign of the holder beyond a bare heartbeat
    waiting_for        set while the worker waits for a person (`permission`, …)
    blockers_left      how many of `blocked_by` are not shipped yet
    label_key          the canonical text of the labels; "" without any
    source             where its tickets come from, the host of their addresses; "" without any
    phase_at           since when it is in its phase
    failure_reason     the `reason` that the worker's last error gave
    *_tokens, cost_micros   what its attempts have used in all (`heartlane.lanes.usage`), None until the agent says
    attempt_usage_json what the current attempt has used of that
    budget_hold        `pause` or `stop` while the project's budget keeps the lane from going on
    """

    number: int
    id: str
    billing_account_id: str
    project_id: str
    plan_id: str
    milestone_id: str | None
    lane_key: str
    title: str
    role: str
    priority: int
    ticket_ids_json: str
    labels_json: str
    label_key: str
    blocked_by_json: str
    max_failures: int
    stalled_after_seconds: int
    created_at: datetime
    # Everything below but `source` is set by the rules alone.
    state: str = "queued"
    phase: str | None = None
    log_line: str | None = None
    error: str | None = None
    worker_id: str | None = None
    last_worker_id: str | None = None
    attempt: int = 0
    last_seq: int = 0
    lease_seconds: int = 0
    claimed_at: datetime | None = None
    lease_expires_at: datetime | None = None
    last_heartbeat: datetime | None = None
    take_back_at: datetime | None = None
    progress_at: datetime | None = None
    waiting_for: str | None = None
    over_budget: bool = False
    failures: int = 0
    not_before: datetime | None = None
    blockers_left: int = 0
    pr_url: str | None = None
    branch: str | None = None
    commit: str | None = None
    summary: str | None = None
    event_count: int = 0
    updated_at: datetime | None = None
    finished_at: datetime | None = None
    source: str = ""
    phase_at: datetime | None = None
    failure_reason: str | None = None
    agent: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost_micros: int | None = None
    attempt_usage_json: str | None = None
    budget_hold: str | None = None

    @property
    def held(self) -> bool:
        """Whether a worker holds the claim."""
        return self.state in HELD_STATES

    @property
    def finished(self) -> bool:
        """Whether the run has ended (`shipped` or `failed`)."""
        return self.state in FINISHED_STATES

    @property
    def ticket_ids(self) -> list[str]:
        """Ids of the tickets this lane works on."""
        ids: list[str] = json.loads(self.ticket_ids_json)
        return ids

    @property
    def labels(self) -> dict[str, str]:
        """What the lane asks of a worker, beside its role."""
        labels: dict[str, str] = json.loads(self.labels_json)
        return labels


RUN_COLUMNS: Final = Run._fields
FIXED_COLUMNS: Final = (*RUN_COLUMNS[: RUN_COLUMNS.index("state")], "source")
"""Columns that are written once, when the plan is approved."""
MUTABLE_COLUMNS: Final = tuple(name for name in RUN_COLUMNS if name not in FIXED_COLUMNS)
"""Columns that the rules set."""


class Event(NamedTuple):
    """An event about to be appended: type, payload (any JSON object), and `at`, the worker's own time as sent."""

    type: str
    payload: dict[str, Any]
    at: str | None = None


def label_key(labels: dict[str, str]) -> str:
    """The canonical text of a label set: equal sets give equal text, the empty set gives "".

    >>> label_key({"os": "linux", "gpu": "yes"})
    '{"gpu":"yes","os":"linux"}'
    >>> label_key({})
    ''
    """
    return json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if labels else ""


class Watched(Protocol):
    """What time alone may change on a run is derived from these of its columns."""

    @property
    def state(self) -> str: ...
    @property
    def progress_at(self) -> datetime | None: ...
    @property
    def stalled_after_seconds(self) -> int: ...
    @property
    def waiting_for(self) -> str | None: ...
    @property
    def over_budget(self) -> bool: ...
    @property
    def lease_expires_at(self) -> datetime | None: ...
    @property
    def last_heartbeat(self) -> datetime | None: ...
    @property
    def budget_hold(self) -> str | None: ...


def is_stalled(run: Watched, now: datetime) -> bool:
    """Whether the holder's heartbeats arrive but nothing else has for `stalled_after_seconds`.

    A lane that is paused, by hand or by its project's budget, and one that waits for a person are quiet by right.
    """
    if run.state not in ("claimed", "running", "shipping") or run.waiting_for is not None or run.progress_at is None:
        return False
    if run.budget_hold is not None:
        return False
    return (now - run.progress_at).total_seconds() > run.stalled_after_seconds


def stalled_since(run: Run, now: datetime) -> datetime:
    """The `progress_at` of a run whose holder says by itself, at `now`, that its agent has stalled."""
    return now - timedelta(seconds=run.stalled_after_seconds, microseconds=1)


def needs_attention(run: Watched, now: datetime, *, stalled: bool) -> str | None:
    """Why a person should look at this run now, or None. Derived from the row and the time, so progress clears it.

    stalled     what `is_stalled` says of the same run and time
    """
    state = run.state
    if state == "failed":
        return "budget" if run.over_budget else "failed"
    if run.budget_hold is not None and state != "shipped":
        return "budget"
    if state not in HELD_STATES:
        return None
    if run.waiting_for is not None:
        return "waiting_for_human"
    if run.over_budget:
        return "budget"
    if state == "paused":
        return "paused"
    if stalled:
        return "stalled"
    # A sidecar renews at a third of the lease: with less than a third left, two renewals have gone missing. Counted
    # from the last renewal, for a report may ask for another length than the claim did.
    deadline, heard = run.lease_expires_at, run.last_heartbeat
    if deadline is not None and heard is not None and (deadline - now) * 3 < deadline - heard:
        return "lease_running_out"
    return None
