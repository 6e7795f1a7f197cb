"""Projects, milestones, tickets, plans, events and workers as they are answered. (Runs: `heartlane.wire.run_json`.)"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson

from heartlane.store.external import name_of_key
from heartlane.store.pages import Page
from heartlane.store.plans import Plan
from heartlane.store.projects import Milestone, Project
from heartlane.store.runs import LoggedEvent
from heartlane.store.ticket_sync import Synced
from heartlane.store.tickets import TicketRow
from heartlane.store.workers import Worker
from heartlane.wire.parse import dump_json
from heartlane.wire.run_json import JSON_OPTIONS, run_body


def dump(value: Any) -> bytes:
    """An answer's body. Values may hold datetimes and ready-made JSON fragments."""
    return orjson.dumps(value, option=JSON_OPTIONS)


def list_body(name: str, page: Page, body: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """One page under its plural name."""
    return {name: [body(row) for row in page.rows], "next_cursor": page.next_cursor}


def project_body(project: Project) -> dict[str, Any]:
    """A project."""
    body = project._asdict()
    del body["limited"]
    for name in ("max_active_by_role", "max_active_by_source"):
        body[name] = orjson.Fragment(body.pop(f"{name}_json"))
    return body


def milestone_body(milestone: Milestone) -> dict[str, Any]:
    """A milestone."""
    return milestone._asdict()


def ticket_body(ticket: TicketRow) -> dict[str, Any]:
    """A ticket; `roles` is an object of role → state."""
    return {
        "id": ticket.id,
        "project_id": ticket.project_id,
        "milestone_id": ticket.milestone_id,
        "title": ticket.title,
        "description": ticket.description,
        "request_type": ticket.request_type,
        "priority": ticket.priority,
        "blocking": bool(ticket.blocking),
        "roles": orjson.Fragment(ticket.roles_json),
        "stage": ticket.stage,
        "status": ticket.status,
        "resolution_type": ticket.resolution_type,
        "pr_urls": orjson.Fragment(ticket.pr_urls_json),
        "evidence": None if ticket.evidence_json is None else orjson.Fragment(ticket.evidence_json),
        "suggested_resolution": ticket.suggested_resolution,
        "actor_role": ticket.actor_role,
        "verified_existing": bool(ticket.verified_existing),
        "external_url": ticket.external_url,
        "external_key": name_of_key(ticket.external_key),
        "created_at": ticket.created_at,
        "updated_at": ticket.updated_at,
        "closed_at": ticket.closed_at,
    }


def synced_body(synced: Synced) -> dict[str, Any]:
    """What became of a ticket that a source told of."""
    return {"outcome": synced.outcome, "ticket": None if synced.ticket is None else ticket_body(synced.ticket)}


def plan_body(plan: Plan) -> dict[str, Any]:
    """A plan with its lanes, without their prompts."""
    return {
        "id": plan.id,
        "project_id": plan.project_id,
        "billing_account_id": plan.billing_account_id,
        "milestone_id": plan.milestone_id,
        "created_by_user_id": plan.created_by_user_id,
        "title": plan.title,
        "status": plan.status,
        "source_ticket_ids": orjson.Fragment(plan.source_ticket_ids_json),
        "lanes": orjson.Fragment(plan.lanes_json),
        "rejection_reason": plan.rejection_reason,
        "approved_at": plan.approved_at,
        "rejected_at": plan.rejected_at,
        "created_at": plan.created_at,
        "updated_at": plan.updated_at,
    }


def event_body(event: LoggedEvent) -> dict[str, Any]:
    """One event of a run's log."""
    return {**event._asdict(), "payload": orjson.Fragment(dump_json(event.payload))}


def worker_body(worker: Worker, now: datetime) -> dict[str, Any]:
    """A worker, how it stands, and the lanes it holds or the one it asks for."""
    status, ask = worker.status(now), worker.ask
    asks = None
    if status == "waiting" and ask is not None:
        asks = {"project_id": ask.project_id, "roles": ask.roles, "labels": ask.labels, "since": ask.asks_since}
    return {
        "worker_id": worker.worker_id,
        "status": status,
        "since": worker.since,
        "last_heard": worker.last_heard,
        "asks": asks,
        "runs": [run_body(run, now) for run in worker.runs],
    }
