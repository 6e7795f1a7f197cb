"""Runs to put before the rules, without a database: what most tests of the pure core begin with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from heartlane.lanes.commands import Claim, Command, Report
from heartlane.lanes.decisions import Decision, Refusal
from heartlane.lanes.rules import decide
from heartlane.lanes.run import Event, Run

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def later(seconds: float) -> datetime:
    """So many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def queued(**changes: Any) -> Run:
    """A run as an approved plan makes it."""
    run = Run(
        number=1,
        id="018f0000-0000-7000-8000-000000000001",
        billing_account_id="018f0000-0000-7000-8000-00000000000a",
        project_id="018f0000-0000-7000-8000-00000000000b",
        plan_id="018f0000-0000-7000-8000-00000000000c",
        milestone_id=None,
        lane_key="lane",
        title="Lane",
        role="backend",
        priority=0,
        ticket_ids_json="[]",
        labels_json="{}",
        label_key="",
        blocked_by_json="[]",
        max_failures=5,
        stalled_after_seconds=900,
        created_at=later(-3600),
    )
    return run._replace(**changes)


def claimed(worker_id: str = "w1", lease_seconds: int = 300, **changes: Any) -> Run:
    """A run that the worker claimed at NOW and hasn't reported on yet."""
    return applied(queued(), Claim(worker_id, lease_seconds))._replace(**changes)


def running(worker_id: str = "w1", lease_seconds: int = 300, **changes: Any) -> Run:
    """A run that the worker claimed and first reported on at NOW."""
    return applied(claimed(worker_id, lease_seconds), Report(worker_id))._replace(**changes)


def decision(run: Run, command: Command, at: datetime = NOW) -> Decision:
    """What the rules answer to a command that goes through."""
    answer = decide(run, command, at)
    assert isinstance(answer, Decision), answer
    return answer


def applied(run: Run, *commands: Command, at: datetime = NOW) -> Run:
    """The run after commands that go through, each at the same moment."""
    for command in commands:
        answer = decision(run, command, at)
        run = run._replace(**answer.changes)
        run = run._replace(event_count=run.event_count + len(answer.events))
    return run


def refused(run: Run, command: Command, at: datetime = NOW) -> Refusal:
    """What the rules answer to a command that doesn't go through."""
    answer = decide(run, command, at)
    assert isinstance(answer, Refusal), answer
    return answer


def report(*events: Event, worker_id: str = "w1", **fields: Any) -> Report:
    """A report of some events."""
    return Report(worker_id, events=events, **fields)


def phase_change(phase: str, **payload: Any) -> Event:
    """The event of a new phase."""
    return Event("phase_change", {"phase": phase, **payload})
