"""One example of every body and every answer, as the OpenAPI document shows them.

They tell one story: a shop's checkout, planned from two tickets, whose backend lane a worker holds. The test suite
validates each against its model.
"""

from __future__ import annotations

import json
from typing import Any, Final

from heartlane.wire import budget_examples, github_examples, news_examples, overview_examples, people_examples

ACCOUNT: Final = "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40"
PROJECT: Final = "01983c5b-1a2b-7d4c-8e5f-6a7b8c9d0e1f"
MILESTONE: Final = "01983c5b-9f3e-7a10-b2c4-d5e6f7a8b9c0"
TICKET: Final = "01983c5c-0d1e-7f2a-93b4-c5d6e7f8a9b0"
OTHER_TICKET: Final = "01983c5c-4b5c-7d6e-8f90-a1b2c3d4e5f6"
PLAN: Final = "01983c5d-2e3f-7041-a2b3-c4d5e6f70819"
RUN: Final = "01983c5d-8a9b-7c0d-9e1f-2a3b4c5d6e7f"
OTHER_RUN: Final = "01983c5d-8a9c-7b1e-8d2f-3c4b5a6d7e8f"
WORKER: Final = "build-7.backend.4121"

NOW: Final = "2026-01-02T03:04:05.678901Z"
EARLIER: Final = "2026-01-02T02:58:31.120455Z"
LATER: Final = "2026-01-02T03:09:05.678901Z"

PROJECT_OBJECT: Final[dict[str, Any]] = {
    "id": PROJECT,
    "billing_account_id": ACCOUNT,
    "name": "Web shop",
    "repo_url": "https://git.example.com/shop/web.git",
    "default_branch": "main",
    "max_failures": 5,
    "stalled_after_seconds": 900,
    "max_active": 12,
    "max_active_by_role": {"devops": 1},
    "max_active_by_source": {"github.com": 8},
    "created_at": EARLIER,
    "updated_at": EARLIER,
}

MILESTONE_OBJECT: Final[dict[str, Any]] = {
    "id": MILESTONE,
    "project_id": PROJECT,
    "name": "Checkout in one page",
    "description": "No reloads between the cart and the receipt.",
    "status": "open",
    "due_at": "2026-03-01T00:00:00Z",
    "created_at": EARLIER,
    "updated_at": EARLIER,
}

TICKET_OBJECT: Final[dict[str, Any]] = {
    "id": TICKET,
    "project_id": PROJECT,
    "milestone_id": MILESTONE,
    "title": "Totals without a reload",
    "description": "The total follows at once when a line of the cart changes.",
    "request_type": "feature",
    "priority": "high",
    "blocking": False,
    "roles": {"frontend": "pending", "backend": "in_progress", "merged": "pending"},
    "stage": "in_progress",
    "status": "open",
    "resolution_type": None,
    "pr_urls": [],
    "evidence": "Three of five people in the last test reloaded the page by hand.",
    "suggested_resolution": None,
    "actor_role": "product",
    "verified_existing": False,
    "external_url": "https://tracker.example.com/SHOP-118",
    "external_key": None,
    "created_at": EARLIER,
    "updated_at": NOW,
    "closed_at": None,
}

LANES: Final[list[dict[str, Any]]] = [
    {
        "laneKey": "frontend",
        "title": "Frontend: Totals without a reload",
        "role": "frontend",
        "ticketIds": [TICKET],
        "labels": {},
        "priority": 10,
        "after": [],
    },
    {
        "laneKey": "backend",
        "title": "Backend: Totals without a reload and 1 more",
        "role": "backend",
        "ticketIds": [TICKET, OTHER_TICKET],
        "labels": {},
        "priority": 10,
        "after": [],
    },
]

PENDING_PLAN: Final[dict[str, Any]] = {
    "id": PLAN,
    "project_id": PROJECT,
    "billing_account_id": ACCOUNT,
    "milestone_id": MILESTONE,
    "created_by_user_id": None,
    "title": "Checkout in one page",
    "status": "pending",
    "source_ticket_ids": [TICKET, OTHER_TICKET],
    "lanes": LANES,
    "rejection_reason": None,
    "approved_at": None,
    "rejected_at": None,
    "created_at": EARLIER,
    "updated_at": EARLIER,
}
APPROVED_PLAN: Final = PENDING_PLAN | {"status": "approved", "approved_at": EARLIER}
REJECTED_PLAN: Final = PENDING_PLAN | {
    "status": "rejected",
    "rejected_at": NOW,
    "rejection_reason": "Split the payment step off first.",
    "updated_at": NOW,
}

QUEUED_RUN: Final[dict[str, Any]] = {
    "id": OTHER_RUN,
    "plan_id": PLAN,
    "project_id": PROJECT,
    "billing_account_id": ACCOUNT,
    "milestone_id": MILESTONE,
    "lane_key": "frontend",
    "title": "Frontend: Totals without a reload",
    "role": "frontend",
    "ticket_ids": [TICKET],
    "state": "queued",
    "phase": None,
    "worker_id": None,
    "claimed_at": None,
    "lease_expires_at": None,
    "last_heartbeat": None,
    "log_line": None,
    "error": None,
    "pr_url": None,
    "branch": None,
    "commit": None,
    "summary": None,
    "agent": None,
    "model": None,
    "input_tokens": None,
    "output_tokens": None,
    "cached_tokens": None,
    "cost_usd": None,
    "attempt": 0,
    "failures": 0,
    "max_failures": 5,
    "not_before": None,
    "blocked_by": [],
    "needs_attention": None,
    "stalled": False,
    "event_count": 0,
    "labels": {},
    "priority": 10,
    "created_at": EARLIER,
    "updated_at": EARLIER,
    "finished_at": None,
}
RUNNING_RUN: Final = QUEUED_RUN | {
    "id": RUN,
    "lane_key": "backend",
    "title": "Backend: Totals without a reload and 1 more",
    "role": "backend",
    "ticket_ids": [TICKET, OTHER_TICKET],
    "state": "running",
    "phase": "tests",
    "worker_id": WORKER,
    "claimed_at": EARLIER,
    "lease_expires_at": LATER,
    "last_heartbeat": NOW,
    "log_line": "42 passed",
    "attempt": 1,
    "event_count": 17,
    "updated_at": NOW,
}
CLAIMED_RUN: Final = RUNNING_RUN | {
    "state": "claimed",
    "phase": None,
    "claimed_at": NOW,
    "log_line": None,
    "event_count": 1,
}
DETAILS: Final[dict[str, Any]] = {
    "prompt": "# Totals without a reload\n\nThe total follows at once when a line of the cart changes.",
    "tickets": [TICKET_OBJECT],
}


def _ended(**changes: Any) -> dict[str, Any]:
    return {"ok": True, "run": RUNNING_RUN | changes}


def _created(body: dict[str, Any], *left_out: str) -> dict[str, Any]:
    """An object as the body that would have made it."""
    made = {"id", "project_id", "billing_account_id", "status", "created_at", "updated_at", *left_out}
    return {name: value for name, value in body.items() if name not in made and value is not None}


REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "report": {
        "A heartbeat": {"worker_id": WORKER},
        "A batch of events": {
            "worker_id": WORKER,
            "attempt": 1,
            "seq": 12,
            "phase": "tests",
            "log_line": "42 passed",
            "events": [
                {"type": "phase_change", "payload": {"phase": "tests"}, "at": "2026-01-02T03:04:01.5Z"},
                {"type": "action", "payload": {"tool": "shell", "command": "make test"}},
            ],
        },
        "The end": {
            "worker_id": WORKER,
            "attempt": 1,
            "seq": 13,
            "events": [
                {
                    "type": "ship_complete",
                    "payload": {
                        "pr_url": "https://git.example.com/shop/web/pulls/204",
                        "branch": "lane/backend",
                        "summary": "Totals are pushed over the cart's stream.",
                    },
                }
            ],
        },
    },
    "claim_next": {
        "Wait for a backend lane": {
            "worker_id": WORKER,
            "lease_seconds": 300,
            "roles": ["backend"],
            "labels": {"os": "linux"},
            "wait_seconds": 30,
        }
    },
    "claim_run": {"Claim": {"worker_id": WORKER, "lease_seconds": 300}},
    "release_run": {
        "A quota that resets": {
            "worker_id": WORKER,
            "attempt": 1,
            "reason": "usage limit; it resets at 05:00",
            "retry_after": 7200,
        },
        "By an operator": {"reason": "the machine is to be switched off"},
    },
    "create_project": {"A project": _created(PROJECT_OBJECT)},
    "patch_project": {"Fewer failures": {"max_failures": 3}},
    "create_milestone": {"A milestone": _created(MILESTONE_OBJECT)},
    "patch_milestone": {"Done": {"status": "closed"}},
    "create_ticket": {
        "A ticket of two roles": _created(TICKET_OBJECT, "stage", "roles", "pr_urls")
        | {"roles": ["frontend", "backend"]}
    },
    "patch_ticket": {
        "Merged": {"roles": {"merged": "done"}},
        "Close as a duplicate": {
            "roles": {"frontend": "skipped", "backend": "skipped", "merged": "skipped"},
            "status": "closed",
            "resolution_type": "duplicate",
        },
    },
    "sync_tickets": {
        "One that is new, one that was closed there": {
            "tickets": [
                {
                    "external_url": "https://tracker.example.com/SHOP-118",
                    "title": "Totals without a reload",
                    "description": "The total follows when a line changes.",
                    "request_type": "feature",
                    "priority": "high",
                    "roles": ["frontend", "backend"],
                },
                {
                    "external_url": "https://tracker.example.com/SHOP-77",
                    "title": "Old browsers",
                    "description": "They see a page without styles.",
                    "request_type": "bug",
                    "priority": "low",
                    "status": "closed",
                    "resolution_type": "wont_fix",
                    "create": False,
                },
            ]
        }
    },
    "change_tickets": {"Move two": {"ticket_ids": [TICKET, OTHER_TICKET], "stage": "up_next"}},
    "create_plan": {
        "From tickets": {"milestoneId": MILESTONE, "ticketIds": [TICKET, OTHER_TICKET]},
        "Lane by lane": {
            "projectId": PROJECT,
            "title": "Checkout in one page",
            "lanes": [
                {"laneKey": "api", "title": "Totals in the API", "role": "backend", "prompt": "Add a totals stream."},
                {
                    "laneKey": "page",
                    "title": "Totals on the page",
                    "role": "frontend",
                    "labels": {"os": "linux"},
                    "after": ["api"],
                },
            ],
        },
    },
    "reject_plan": {"A reason": {"reason": "Split the payment step off first."}},
    **budget_examples.REQUESTS,
    **news_examples.REQUESTS,
    **github_examples.REQUESTS,
}
"""Operation → name of the example → body."""

ANSWERS: Final[dict[str, Any]] = {
    "report": {"ok": True, "run": RUNNING_RUN, "directive": "continue", "duplicate": False, "server_time": NOW},
    "claim_next": {"ok": True, "run": CLAIMED_RUN | DETAILS, "last_seq": 0, "words": None, "server_time": NOW},
    "claim_run": {"ok": True, "run": CLAIMED_RUN | DETAILS, "last_seq": 0, "words": None, "server_time": NOW},
    "release_run": _ended(state="released", worker_id=None, claimed_at=None, lease_expires_at=None),
    "pause_run": _ended(state="paused", needs_attention="paused"),
    "resume_run": _ended(),
    "cancel_run": _ended(
        state="failed",
        error="Cancelled by an operator (anna).",
        lease_expires_at=None,
        needs_attention="failed",
        finished_at=NOW,
    ),
    "retry_run": _ended(state="queued", worker_id=None, claimed_at=None, lease_expires_at=None),
    "get_runs": {"runs": [RUNNING_RUN, QUEUED_RUN], "next_cursor": None},
    "get_run": {"run": RUNNING_RUN | DETAILS},
    "get_events": {
        "events": [
            {
                "seq": 16,
                "type": "phase_change",
                "payload": {"phase": "tests"},
                "at": "2026-01-02T03:04:01.5Z",
                "recorded_at": NOW,
                "worker_id": WORKER,
                "attempt": 1,
            },
            {
                "seq": 17,
                "type": "action",
                "payload": {"tool": "shell", "command": "make test"},
                "at": None,
                "recorded_at": NOW,
                "worker_id": WORKER,
                "attempt": 1,
            },
        ],
        "next_cursor": None,
    },
    "get_workers": {
        "workers": [
            {
                "worker_id": WORKER,
                "status": "working",
                "since": EARLIER,
                "last_heard": NOW,
                "asks": None,
                "runs": [RUNNING_RUN],
            },
            people_examples.WAITING_WORKER,
        ],
        "next_cursor": None,
    },
    "create_project": {"project": PROJECT_OBJECT},
    "read_project": {"project": PROJECT_OBJECT},
    "patch_project": {"project": PROJECT_OBJECT | {"max_failures": 3, "updated_at": NOW}},
    "list_projects": {"projects": [PROJECT_OBJECT], "next_cursor": None},
    "create_milestone": {"milestone": MILESTONE_OBJECT},
    "read_milestone": {"milestone": MILESTONE_OBJECT},
    "patch_milestone": {"milestone": MILESTONE_OBJECT | {"status": "closed", "updated_at": NOW}},
    "list_milestones": {"milestones": [MILESTONE_OBJECT], "next_cursor": "bWlsZXN0b25lczowMTk4M2M1Yg"},
    "create_ticket": {
        "ticket": TICKET_OBJECT
        | {
            "roles": {"frontend": "pending", "backend": "pending", "merged": "pending"},
            "stage": "backlog",
            "updated_at": EARLIER,
        }
    },
    "read_ticket": {"ticket": TICKET_OBJECT},
    "patch_ticket": {
        "ticket": TICKET_OBJECT
        | {
            "roles": {"frontend": "done", "backend": "done", "merged": "done"},
            "stage": "live",
            "status": "closed",
            "resolution_type": "completed",
            "pr_urls": ["https://git.example.com/shop/web/pulls/204"],
            "closed_at": NOW,
        }
    },
    "sync_tickets": {
        "results": [{"outcome": "created", "ticket": TICKET_OBJECT}, {"outcome": "skipped", "ticket": None}]
    },
    "change_tickets": {"tickets": [TICKET_OBJECT | {"stage": "up_next"}], "next_cursor": None},
    "list_tickets": {"tickets": [TICKET_OBJECT], "next_cursor": None},
    "create_plan": {"plan": PENDING_PLAN},
    "list_plans": {"plans": [PENDING_PLAN], "next_cursor": None},
    "read_plan": {"plan": APPROVED_PLAN, "runs": [QUEUED_RUN, RUNNING_RUN]},
    "read_prompts": {"prompts": {"api": "Add a totals stream."}},
    "approve_plan": {"plan": APPROVED_PLAN, "runs": [QUEUED_RUN, QUEUED_RUN | {"id": RUN, "lane_key": "backend"}]},
    "reject_plan": {"plan": REJECTED_PLAN},
    "healthz": {"status": "ok", "version": "1.0.0"},
    "readyz": {"status": "ready"},
    **github_examples.ANSWERS,
    **people_examples.ANSWERS,
    **budget_examples.ANSWERS,
    **overview_examples.ANSWERS,
    **news_examples.ANSWERS,
}
"""Operation → its answer."""


def _block(event: str, data: Any, place: int | str | None = None) -> str:
    """One event of a stream."""
    lines = [] if place is None else [f"id: {place}"]
    return "\n".join([*lines, f"event: {event}", f"data: {json.dumps(data, separators=(',', ':'))}", "", ""])


STREAMS: Final[dict[str, str]] = {
    "stream_run": "retry: 1834\n\n"
    + _block("run", RUNNING_RUN)
    + "".join(_block(event["type"], event, event["seq"]) for event in ANSWERS["get_events"]["events"])
    + ": keep-alive\n\n"
    + _block("end", {"error": "The token 'board' has been revoked.", "code": "TOKEN_REVOKED"}),
    "stream_work": "retry: 2210\n\n"
    + _block("reset", {"reason": "start", "cursor": "4711"}, 4711)
    + _block("plan", APPROVED_PLAN)
    + _block("run", QUEUED_RUN)
    + "".join(
        _block("event", {"run_id": RUN, **event}, f"4712.{place}" if place < 2 else 4712)
        for place, event in enumerate(ANSWERS["get_events"]["events"][:2], 1)
    )
    + _block("run", RUNNING_RUN)
    + _block("leases", [[RUN, RUNNING_RUN["lease_expires_at"], RUNNING_RUN["last_heartbeat"]]])
    + ": keep-alive\n\nid: 4720\n\n",
}
"""Operation → what its stream may tell."""
