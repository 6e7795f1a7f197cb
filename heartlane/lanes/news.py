"""What is told outside: the closed list of news types, which of them a change of a run is, and who has chosen which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from heartlane.lanes.run import Event, Run

NOTICE_KINDS: Final[Mapping[str, str]] = {
    "lane_failed": "A lane ended failed: its worker said so.",
    "attempts_used_up": "A lane ended failed: it has failed as often as it may.",
    "lane_waiting": "A worker waits for a person.",
    "lane_stalled": "A worker's heartbeats arrive, but nothing else has for a while.",
    "worker_silent": "A worker that holds a lane has missed two renewals.",
    "plan_waiting": "A plan has waited long for somebody to approve or reject it.",
    "budget_80": "A project has used 80 % of a budget.",
    "budget_100": "A project has used up a budget.",
    "webhook_disabled": "A webhook was disabled: its endpoint is gone, or has failed for a day.",
}
"""Kind of notice → what it says."""

NEWS_TYPES: Final[Mapping[str, str]] = {
    "run.claimed": "A worker has claimed a lane.",
    "run.waiting": "The worker waits for a person.",
    "run.released": "The lane was given back or taken from its holder by an operator, and can be claimed again.",
    "run.lease_expired": "The lease ran out, and the lane was taken back.",
    "run.paused": "An operator has paused the lane.",
    "run.resumed": "An operator lets the lane go on.",
    "run.retried": "An operator has put a failed lane back into the queue.",
    "run.cancelled": "An operator has ended the lane; `run.failed` comes too.",
    "run.shipped": "The lane's work is done.",
    "run.failed": "The lane ended failed, for whatever reason.",
    "plan.created": "A plan waits for approval.",
    "plan.approved": "A plan was approved, and its lanes are queued.",
    "plan.rejected": "A plan was rejected.",
    **{f"notice.{kind}": meaning for kind, meaning in NOTICE_KINDS.items()},
    "webhook.test": "Somebody has asked for a test. It can't be chosen; it comes when it is asked for.",
}
"""Type → what it tells. The list is closed: new types are added, and none changes its meaning."""

TEST: Final = "webhook.test"
GROUPS: Final = ("*", "run.*", "plan.*", "notice.*")
"""What chooses all types, or all of one kind, those that are added later included."""
CHOICES: Final = (*GROUPS, *(name for name in NEWS_TYPES if name != TEST))

_OF_EVENTS: Final[Mapping[str, str]] = {
    kind: f"run.{kind}"
    for kind in ("claimed", "released", "lease_expired", "paused", "resumed", "retried", "cancelled")
}
_OF_ENDS: Final[Mapping[str, str]] = {"shipped": "run.shipped", "failed": "run.failed"}


def is_chosen(chosen: Iterable[str], news_type: str) -> bool:
    """Whether an endpoint that has chosen these hears of this type.

    >>> is_chosen(["run.*"], "run.shipped"), is_chosen(["run.failed"], "run.shipped"), is_chosen(["*"], "plan.created")
    (True, False, True)
    """
    group = news_type.partition(".")[0] + ".*"
    return any(choice in ("*", group, news_type) for choice in chosen)


def news_of(before: Run, after: Run, events: Sequence[Event]) -> list[tuple[str, Event | None]]:
    """The news that one decided command is, each with the server's event in the log that it comes of, if any."""
    told: list[tuple[str, Event | None]] = [
        (_OF_EVENTS[event.type], event) for event in events if event.type in _OF_EVENTS
    ]
    if after.waiting_for is not None and before.waiting_for is None:
        told.append(("run.waiting", None))
    if after.state != before.state and after.state in _OF_ENDS:
        told.append((_OF_ENDS[after.state], told[0][1] if told else None))
    return told
