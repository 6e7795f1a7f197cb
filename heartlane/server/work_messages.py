"""The messages of a project's or an account's stream, as they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from heartlane.lanes.run import EVENT_TYPE_BITS, Run
from heartlane.server.bodies import dump, event_body, plan_body
from heartlane.server.scope_topic import LEASES, PLAN, RUN, Message
from heartlane.server.sse import frame
from heartlane.store.log import HeldRun, LogRow, Place
from heartlane.store.plans import Plan
from heartlane.store.runs import LoggedEvent
from heartlane.wire.run_json import run_body

ResetReason = Literal["start", "too_old", "too_far", "unknown"]


def event_messages(row: LogRow, events: Sequence[LoggedEvent], mask: int, after: Place | None = None) -> list[Message]:
    """The events of a row of the log whose types are in the mask, behind a place."""
    messages = []
    for told, event in enumerate(events, 1):
        kind = EVENT_TYPE_BITS[event.type]
        place = Place(row.position) if told == len(events) else Place(row.position, told)
        if kind & mask and (after is None or place > after):
            data = dump({"run_id": row.run_id, **event_body(event)})
            messages.append(Message(kind, place, frame("event", data, place=place)))
    return messages


def run_message(run: Run, now: datetime) -> Message:
    """The run as it is now."""
    return Message(RUN, None, frame("run", dump(run_body(run, now))))


def plan_message(plan: Plan) -> Message:
    """The plan as it is now."""
    return Message(PLAN, None, frame("plan", dump(plan_body(plan))))


def leases_message(held: Sequence[HeldRun]) -> Message:
    """Renewed leases: an array of [run id, lease_expires_at, last_heartbeat]."""
    data = dump([(run.id, run.lease_expires_at, run.last_heartbeat) for run in held])
    return Message(LEASES, None, frame("leases", data))


def reset_frame(reason: ResetReason, place: Place) -> bytes:
    """What tells a reader to load the lists: everything behind the place follows, nothing before it was told."""
    return frame("reset", dump({"reason": reason, "cursor": str(place)}), place=place)
