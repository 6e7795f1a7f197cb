"""Every event type: the worker's with those payload fields that have an effect, the server's with a real payload."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from docs.generate.markdown import code, fence, table
from docs.generate.rules import BEGIN, HOLDER, allowed, lane_in
from heartlane.lanes import bounds
from heartlane.lanes.commands import (
    Cancel,
    Claim,
    Command,
    Hold,
    Lift,
    NotePullRequest,
    Pause,
    Release,
    Resume,
    Retry,
    TakeBack,
)
from heartlane.lanes.run import Event, EventType


class Field(NamedTuple):
    """A payload field with an effect.

    kind    what it has to be; anything else is stored and has no effect
    effect  what it does to the run
    column  the column of the run that it sets
    sample  a payload with it, that a test sends
    """

    name: str
    kind: str
    effect: str
    column: str
    sample: Mapping[str, object]


class WorkerEvent(NamedTuple):
    """An event that workers send: what it tells, what it does as such, and its fields."""

    meaning: str
    fields: Sequence[Field]


class ServerEvent(NamedTuple):
    """An event that the server writes: what it tells, how it comes about, and what its fields are."""

    meaning: str
    state: str
    command: Command
    fields: Mapping[str, str]


def _string(longest: int) -> str:
    return f"string, kept up to {longest:,} characters"


OF_WORKERS: Final[Mapping[str, WorkerEvent]] = {
    "heartbeat": WorkerEvent(
        "The worker lives. It is stored and changes nothing; the report that carries it renews the lease, as every "
        "report does. It is no sign of progress: a lane with heartbeats alone becomes `stalled`.",
        (),
    ),
    "log_line": WorkerEvent(
        "A line that the work printed.",
        (
            Field("line", _string(bounds.LOG_LINE_MAX), "becomes the run's `log_line`", "log_line", {"line": "x"}),
            Field("message", _string(bounds.LOG_LINE_MAX), "the same, without `line`", "log_line", {"message": "x"}),
        ),
    ),
    "phase_change": WorkerEvent(
        "The work has come to another phase. The phase `shipping` moves the run to the state `shipping`, any other "
        "back to `running`; a paused run stays paused. The phase `waiting` means that the worker waits for a person.",
        (
            Field("phase", _string(bounds.PHASE_MAX), "becomes the run's `phase`", "phase", {"phase": "tests"}),
            Field(
                "for",
                _string(bounds.PHASE_MAX),
                "with the phase `waiting`: for what (`permission`, …). `needs_attention` is `waiting_for_human` until "
                "the next phase or action",
                "waiting_for",
                {"phase": "waiting", "for": "permission"},
            ),
        ),
    ),
    "action": WorkerEvent(
        "The worker did something: called a tool, edited a file. Ends a wait for a person, and the mark that a budget "
        "is used up. Its payload is stored as sent.",
        (),
    ),
    "error": WorkerEvent(
        "Something went wrong.",
        (
            Field("message", _string(bounds.ERROR_MAX), "becomes the run's `error`", "error", {"message": "no"}),
            Field("fatal", "`true`", "ends the run as `failed`", "state", {"fatal": True}),
            Field(
                "reason",
                "the string `budget`",
                "`needs_attention` is `budget` until the next phase or action",
                "over_budget",
                {"reason": "budget"},
            ),
            Field(
                "reason",
                "the string `stalled`",
                "the run counts as stalled at once, until something else happens",
                "progress_at",
                {"reason": "stalled"},
            ),
        ),
    ),
    "ship_complete": WorkerEvent(
        "The work is done: the run ends as `shipped`, its tickets move on, and lanes that waited for it may go. What "
        "stands behind it in the same report is stored, and no longer moves the run.",
        (
            Field(
                "pr_url", _string(bounds.PR_URL_MAX), "kept on the run and on its tickets", "pr_url", {"pr_url": "u"}
            ),
            Field("branch", _string(bounds.BRANCH_MAX), "kept on the run", "branch", {"branch": "b"}),
            Field("commit", _string(bounds.COMMIT_MAX), "kept on the run", "commit", {"commit": "c"}),
            Field("summary", _string(bounds.SUMMARY_MAX), "kept on the run", "summary", {"summary": "s"}),
        ),
    ),
}

_BY: Final = "name of the operator's token"
OF_THE_SERVER: Final[Mapping[str, ServerEvent]] = {
    "claimed": ServerEvent(
        "A worker has claimed the lane. A holder's own second claim renews, and writes nothing.",
        "queued",
        Claim(HOLDER, 60),
        {
            "worker_id": "who holds it now",
            "attempt": "the fencing number of this claim",
            "lease_seconds": "length of the lease",
        },
    ),
    "lease_expired": ServerEvent(
        "The lease ran out, and the lane was taken back. It is `queued` again or, with `failures` at `max_failures`, "
        "`failed`.",
        "running",
        TakeBack(),
        {
            "worker_id": "who held it",
            "attempt": "the attempt that ended",
            "last_heard": "when the worker last reported",
            "deadline": "when its lease ran out",
            "last_phase": "the phase it was in, or null",
            "last_log_line": "the last line it sent, or null",
            "failures": "failures of the lane, this one among them",
            "max_failures": "at how many the lane fails for good",
        },
    ),
    "released": ServerEvent(
        "The lane was given back: by its holder, or by an operator.",
        "running",
        Release(None, reason="wrong machine", retry_after=60, by="me"),
        {
            "worker_id": "who held it",
            "attempt": "the attempt that ended",
            "reason": "why, as told; or null",
            "retry_after": "seconds for which nobody can claim it; null for none",
            "failed": "whether it counts as a failure",
            "by": f"{_BY}; not there when the holder released it",
        },
    ),
    "paused": ServerEvent("An operator paused the lane; its holder keeps it.", "running", Pause("me"), {"by": _BY}),
    "resumed": ServerEvent("An operator let a paused lane go on.", "paused", Resume("me"), {"by": _BY}),
    "cancelled": ServerEvent(
        "An operator ended the run as `failed`.",
        "running",
        Cancel("me"),
        {"by": _BY, "worker_id": "who held it, or null"},
    ),
    "retried": ServerEvent("An operator put a failed run back into the queue.", "failed", Retry("me"), {"by": _BY}),
    "budget_held": ServerEvent(
        "The project's budget is used up: the holder keeps its claim and hears `pause` until it may go on; or it hears "
        "`stop`, ends what it does, and gives the lane back.",
        "running",
        Hold("pause", "The project's budget is used up: 40.12 USD of 40.00 USD today."),
        {"reason": "why, in one sentence", "directive": "what the holder hears: `pause` or `stop`"},
    ),
    "budget_lifted": ServerEvent(
        "The project's budget lets the lane go on: a new day, a higher ceiling, or a person's word.",
        "running",
        Lift(),
        {"held": "how the budget held the lane: `pause`, or `stop`"},
    ),
    "pull_request": ServerEvent(
        "What became of the lane's pull request, as GitHub's webhook tells it. It changes nothing of the run, whatever "
        "state that is in; the role `merged` of its tickets is `done` once all their pull requests are merged.",
        "shipped",
        NotePullRequest("https://github.com/acme/shop/pull/204", "merged", "Totals without a reload", "ada"),
        {
            "url": "the pull request, the run's `pr_url`",
            "state": "`opened`, `merged`, or `closed` without being merged",
            "title": "its title, or null",
            "by": "who did it there, or null",
        },
    ),
}


def of_workers() -> str:
    """The types that a worker sends, each under a heading of its own."""
    return "\n\n".join(_of_worker(str(kind), OF_WORKERS[kind]) for kind in EventType if kind in OF_WORKERS)


def of_the_server() -> str:
    """The types that the server alone writes: every other one."""
    return "\n\n".join(_of_server(str(kind), OF_THE_SERVER[kind]) for kind in EventType if kind not in OF_WORKERS)


def payload_of(event: ServerEvent) -> dict[str, object]:
    """The payload that the rules write."""
    return written_by(event).payload


def written_by(event: ServerEvent) -> Event:
    """The event as the rules write it."""
    lane = lane_in(event.state)
    if isinstance(event.command, Lift):
        lane = lane._replace(budget_hold="pause")
    (written,) = allowed(lane, event.command, BEGIN + timedelta(minutes=10)).events
    return written


def _of_worker(name: str, event: WorkerEvent) -> str:
    parts = [f"### {name}", event.meaning]
    if event.fields:
        rows = [[code(field.name), field.kind, field.effect] for field in event.fields]
        parts.append(table(["payload field", "type", "effect"], rows))
    return "\n\n".join(parts)


def _of_server(name: str, event: ServerEvent) -> str:
    rows = [[code(field), meaning] for field, meaning in event.fields.items()]
    payload = json.dumps(payload_of(event), ensure_ascii=False)
    return "\n\n".join(
        [f"### {name}", event.meaning, table(["payload field", "meaning"], rows), fence(payload, "json")]
    )
