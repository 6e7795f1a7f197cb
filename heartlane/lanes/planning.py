"""Planning: from tickets to lanes, from lanes to queued runs.

A plan made from tickets has one lane per role; a ticket with several roles stands in several lanes. A plan can also be
given lane by lane, where `after` holds a lane back until the named ones are shipped. Either way `problems` finds all
that is wrong with the lanes at once, and `initial_runs` makes the runs of an approved plan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from heartlane.lanes import bounds
from heartlane.lanes.run import Role, Run, label_key

AFTER_PER_PLAN_MAX: Final = 20_000
"""Lanes named in the `after`s of one plan, all together: each becomes a row when the plan is approved."""

TICKET_PRIORITIES: Final[Mapping[str, int]] = {
    "critical": 20,
    "urgent": 20,
    "high": 10,
    "low": -10,
}
"""What a ticket's priority, in any case, makes of its lanes' priority; any other word is 0."""


class SelectedTicket(NamedTuple):
    """What planning needs of a ticket: `roles` are those that still want a lane (`tickets.lane_roles`)."""

    id: str
    title: str
    description: str
    priority: str
    roles: Sequence[str]
    suggested_resolution: str | None = None


class Lane(NamedTuple):
    """One lane of a plan; `key` is its name within the plan.

    ticket_ids  the tickets it works on
    labels      what it asks of a worker
    priority    higher is claimed first
    prompt      what the worker is asked to do, or None
    after       keys of the lanes that must be shipped first
    """

    key: str
    title: str
    role: str
    ticket_ids: Sequence[str] = ()
    labels: Mapping[str, str] = {}
    priority: int = 0
    prompt: str | None = None
    after: Sequence[str] = ()


class Problem(NamedTuple):
    """What is wrong with a lane: the path within the request body, and a predicate ("must …")."""

    path: str
    message: str


class Source(NamedTuple):
    """What the runs of a plan have in common: whose they are, and the project's settings at the approval."""

    billing_account_id: str
    project_id: str
    plan_id: str
    milestone_id: str | None
    max_failures: int
    stalled_after_seconds: int


def lanes_from_tickets(tickets: Sequence[SelectedTicket]) -> list[Lane]:
    """One lane per role that any of the tickets still wants, in the order of the roles; tickets in the order given.

    The lane's key is its role, its priority that of its most urgent ticket, its prompt the tickets' own texts.
    """
    lanes = []
    for role in Role:
        chosen = [ticket for ticket in tickets if role in ticket.roles]
        if chosen:
            lanes.append(
                Lane(
                    key=str(role),
                    title=_title(role, chosen),
                    role=str(role),
                    ticket_ids=tuple(ticket.id for ticket in chosen),
                    priority=max(TICKET_PRIORITIES.get(ticket.priority.lower(), 0) for ticket in chosen),
                    prompt=_prompt(chosen),
                )
            )
    return lanes


def _title(role: Role, tickets: Sequence[SelectedTicket]) -> str:
    more = f" and {len(tickets) - 1} more" if len(tickets) > 1 else ""
    return f"{role.capitalize()}: {tickets[0].title}{more}"[: bounds.TITLE_MAX]


def _prompt(tickets: Sequence[SelectedTicket]) -> str:
    """The tickets' texts; only their titles, when all together would be longer than a prompt may be."""
    parts = []
    for ticket in tickets:
        part = f"# {ticket.title}\n\n{ticket.description}"
        if ticket.suggested_resolution:
            part += f"\n\nSuggested resolution:\n{ticket.suggested_resolution}"
        parts.append(part)
    text = "\n\n".join(parts)
    if len(text) <= bounds.PROMPT_MAX:
        return text
    return "\n".join(f"# {ticket.title}" for ticket in tickets)[: bounds.PROMPT_MAX]


def tidy(lane: Lane) -> Lane:
    """The lane without repetitions in its tickets and its `after`, the order kept."""
    return lane._replace(ticket_ids=tuple(dict.fromkeys(lane.ticket_ids)), after=tuple(dict.fromkeys(lane.after)))


def problems(lanes: Sequence[Lane]) -> list[Problem]:
    """Everything wrong with the lanes among each other: keys used twice, `after` unknown names, cycles, too many.

    Paths are those of the body (`lanes.2.after.0`). A cycle is told once, at its first lane, with the way around.
    """
    found: list[Problem] = []
    first: dict[str, int] = {}
    for place, lane in enumerate(lanes):
        if first.setdefault(lane.key, place) != place:
            found.append(Problem(f"lanes.{place}.laneKey", f"must be unique: lane {first[lane.key]} has the same"))
    for place, lane in enumerate(lanes):
        found.extend(
            Problem(f"lanes.{place}.after.{index}", f"must name a lane of this plan: there is no {name!r}")
            for index, name in enumerate(lane.after)
            if name not in first
        )
    if sum(len(lane.after) for lane in lanes) > AFTER_PER_PLAN_MAX:
        found.append(Problem("lanes", f"must name at most {AFTER_PER_PLAN_MAX} lanes in `after`, all together"))
    for cycle in _cycles(lanes, first):
        way = " → ".join([*cycle, cycle[0]])
        if len(way) > bounds.REJECT_REASON_MAX:
            way = way[: bounds.REJECT_REASON_MAX] + "…"
        found.append(Problem(f"lanes.{first[cycle[0]]}.after", f"must not make a lane wait for itself: {way}"))
    return found


def _cycles(lanes: Sequence[Lane], first: Mapping[str, int]) -> list[list[str]]:
    """One cycle for each knot of lanes that wait for each other, as the keys along it."""
    after = {lane.key: [name for name in lane.after if name in first] for lane in reversed(lanes)}
    unfinished = _never_free(after)
    cycles: list[list[str]] = []
    visited: set[str] = set()
    for start in [lane.key for lane in lanes if lane.key in unfinished]:
        # Every unfinished lane waits for another unfinished one, so walking on must come back to where it was.
        path: dict[str, int] = {}
        key = start
        while key not in path and key not in visited:
            path[key] = len(path)
            key = next(name for name in after[key] if name in unfinished)
        if key in path:
            loop = list(path)[path[key] :]
            turn = min(range(len(loop)), key=lambda index: first[loop[index]])
            cycles.append(loop[turn:] + loop[:turn])
        visited.update(path)
    return cycles


def _never_free(after: Mapping[str, Sequence[str]]) -> set[str]:
    """The lanes that are in a cycle or wait for one: what is left when all that can go on has gone."""
    waits = {key: len(set(names)) for key, names in after.items()}
    waiting: dict[str, list[str]] = {key: [] for key in after}
    for key, names in after.items():
        for name in set(names):
            waiting[name].append(key)
    free = [key for key, count in waits.items() if count == 0]
    while free:
        key = free.pop()
        del waits[key]
        for other in waiting[key]:
            waits[other] -= 1
            if waits[other] == 0:
                free.append(other)
    return set(waits)


def initial_runs(
    source: Source, lanes: Sequence[Lane], run_ids: Mapping[str, str], hosts: Mapping[str, str], now: datetime
) -> list[Run]:
    """One queued run per lane, in the plan's order. `run_ids`: lane key → the new run's id; `hosts`: ticket id → the
    host of its address, for those that have one. A lane's source is that of the first of its tickets with a host.

    `number` is 0: the database gives it, in this order, when the runs are stored.
    """
    return [
        Run(
            number=0,
            id=run_ids[lane.key],
            billing_account_id=source.billing_account_id,
            project_id=source.project_id,
            plan_id=source.plan_id,
            milestone_id=source.milestone_id,
            lane_key=lane.key,
            title=lane.title,
            role=lane.role,
            priority=lane.priority,
            ticket_ids_json=_dump(list(lane.ticket_ids)),
            labels_json=_dump(dict(lane.labels)),
            label_key=label_key(dict(lane.labels)),
            blocked_by_json=_dump([run_ids[name] for name in lane.after]),
            max_failures=source.max_failures,
            stalled_after_seconds=source.stalled_after_seconds,
            created_at=now,
            source=next((hosts[ticket_id] for ticket_id in lane.ticket_ids if ticket_id in hosts), ""),
            state="queued",
            blockers_left=len(lane.after),
            updated_at=now,
        )
        for lane in lanes
    ]


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
