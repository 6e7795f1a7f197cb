"""What a database held at each schema: rows as the version of that time wrote them, to be found again after an upgrade.

A new revision that adds a table or a column, or writes one otherwise, gets an entry of its own in `ROWS`, with whole
rows of the tables that it touches; the tests ask for it. What earlier entries say stays as it is: it is history.
Times are datetimes, ids texts, flags booleans; `tests/upgrade/database.py` writes them as each engine keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]

NOW: Final = datetime(2026, 11, 24, 3, 4, 5, 678_901, UTC)


LATER: Final = NOW.replace(year=2500)


def _id(number: int) -> str:
    return f"019ac000-0000-7000-8000-{number:012}"


ACCOUNT, PROJECT, MILESTONE, TOKEN, PLAN = map(_id, range(1, 6))
TICKET_OPEN, TICKET_CLOSED, TICKET_IMPORTED = _id(11), _id(12), _id(13)
HELD, QUEUED, WAITING, SHIPPED, FAILED, RELEASED = map(_id, range(21, 27))
SESSION, LINK, ENTRY = map(_id, range(31, 34))
WEBHOOK, DELIVERY, NOTICE = map(_id, range(41, 44))
LANES: Final = (
    '[{"laneKey":"lane-1","title":"Läne 1","role":"backend","ticketIds":[],"labels":{},"priority":0,"after":[]}]'
)


def _run(number: int, run_id: str, **fields: Any) -> Row:
    """A row of `runs` at schema 0001."""
    return {
        "number": number,
        "id": run_id,
        "billing_account_id": ACCOUNT,
        "project_id": PROJECT,
        "plan_id": PLAN,
        "milestone_id": MILESTONE,
        "lane_key": f"lane-{number}",
        "title": f"Läne {number}",
        "role": "backend",
        "priority": 0,
        "ticket_ids_json": "[]",
        "labels_json": "{}",
        "label_key": "",
        "blocked_by_json": "[]",
        "max_failures": 5,
        "stalled_after_seconds": 900,
        "created_at": NOW - timedelta(days=1),
        "state": "queued",
        "phase": None,
        "log_line": None,
        "error": None,
        "worker_id": None,
        "last_worker_id": None,
        "attempt": 0,
        "last_seq": 0,
        "lease_seconds": 0,
        "claimed_at": None,
        "lease_expires_at": None,
        "last_heartbeat": None,
        "take_back_at": None,
        "progress_at": None,
        "waiting_for": None,
        "over_budget": False,
        "failures": 0,
        "not_before": None,
        "blockers_left": 0,
        "pr_url": None,
        "branch": None,
        "commit": None,
        "summary": None,
        "event_count": 0,
        "updated_at": NOW,
        "finished_at": None,
        **fields,
    }


def _ticket(ticket_id: str, **fields: Any) -> Row:
    """A row of `tickets` at schema 0001."""
    return {
        "id": ticket_id,
        "project_id": PROJECT,
        "milestone_id": MILESTONE,
        "title": "Sign in",
        "description": "People can sign in.",
        "request_type": "feature",
        "priority": "high",
        "blocking": True,
        "roles_json": '{"backend":"in_progress","merged":"pending"}',
        "stage": "in_progress",
        "status": "open",
        "resolution_type": None,
        "pr_urls_json": "[]",
        "evidence_json": '{"seen":["\\u0000"]}',
        "suggested_resolution": None,
        "actor_role": None,
        "verified_existing": False,
        "external_url": None,
        "created_at": NOW,
        "updated_at": NOW,
        "closed_at": None,
        **fields,
    }


def _events(position: int, last_seq: int, minutes_ago: int, worker_id: str, attempt: int, **fields: Any) -> Row:
    """A row of `events` of the first run at schema 0001."""
    return {
        "position": position,
        "run_number": 1,
        "last_seq": last_seq,
        "recorded_at": NOW - timedelta(minutes=minutes_ago),
        "worker_id": worker_id,
        "attempt": attempt,
        **fields,
    }


_0001: Final[Tables] = {
    "accounts": [{"id": ACCOUNT, "name": "default", "created_at": NOW}],
    "projects": [
        {
            "id": PROJECT,
            "billing_account_id": ACCOUNT,
            "name": "Shop",
            "repo_url": "git@git.test:shop.git",
            "default_branch": "main",
            "max_failures": 5,
            "stalled_after_seconds": 900,
            "created_at": NOW,
            "updated_at": NOW,
        }
    ],
    "milestones": [
        {
            "id": MILESTONE,
            "project_id": PROJECT,
            "name": "Spring",
            "description": None,
            "status": "open",
            "due_at": datetime(2999, 12, 31, 23, 59, 59, 999_999, UTC),
            "created_at": NOW,
            "updated_at": NOW,
        }
    ],
    "tokens": [
        {
            "id": TOKEN,
            "account_id": ACCOUNT,
            "project_id": PROJECT,
            "name": "ci",
            "scope": "worker",
            "token_hash": "0f" * 32,
            "hint": "hl_abc",
            "created_at": NOW,
            "expires_at": NOW + timedelta(days=90),
            "revoked_at": NOW,
            "last_used_at": NOW,
        }
    ],
    "tickets": [
        _ticket(TICKET_OPEN),
        _ticket(
            TICKET_CLOSED,
            stage="live",
            status="closed",
            resolution_type="completed",
            roles_json='{"backend":"done","merged":"done"}',
            pr_urls_json='["https://git.test/1"]',
            closed_at=NOW,
        ),
    ],
    "plans": [
        {
            "id": PLAN,
            "billing_account_id": ACCOUNT,
            "project_id": PROJECT,
            "milestone_id": MILESTONE,
            "created_by_user_id": None,
            "title": "Plan",
            "status": "approved",
            "source_ticket_ids_json": f'["{TICKET_OPEN}"]',
            "lanes_json": LANES,
            "prompts_json": '{"lane-1":"Build it."}',
            "rejection_reason": None,
            "approved_at": NOW,
            "rejected_at": None,
            "created_at": NOW,
            "updated_at": NOW,
        }
    ],
    "runs": [
        _run(
            1,
            HELD,
            state="running",
            ticket_ids_json=f'["{TICKET_OPEN}"]',
            phase="tests",
            log_line="12 tests passed",
            worker_id="w1",
            last_worker_id="w0",
            attempt=2,
            last_seq=7,
            lease_seconds=300,
            claimed_at=NOW,
            last_heartbeat=NOW,
            lease_expires_at=NOW + timedelta(seconds=300),
            take_back_at=NOW + timedelta(seconds=200),
            progress_at=NOW,
            failures=1,
            event_count=5,
        ),
        _run(2, QUEUED, priority=3, labels_json='{"os":"linux"}', label_key='{"os":"linux"}'),
        _run(3, WAITING, blocked_by_json=f'["{HELD}"]', blockers_left=1),
        _run(
            4,
            SHIPPED,
            state="shipped",
            worker_id="w2",
            attempt=1,
            claimed_at=NOW,
            pr_url="https://git.test/1",
            branch="lane",
            commit="abc",
            summary="It works.",
            finished_at=NOW,
        ),
        _run(5, FAILED, state="failed", error="Out of tokens.", over_budget=True, failures=5, finished_at=NOW),
        _run(6, RELEASED, state="released", last_worker_id="w3", attempt=1, not_before=LATER),
    ],
    "run_prompts": [{"run_id": HELD, "prompt": "Build it."}],
    "run_blockers": [{"blocker_id": HELD, "run_id": WAITING}],
    "label_sets": [
        {"billing_account_id": ACCOUNT, "label_key": ""},
        {"billing_account_id": ACCOUNT, "label_key": '{"os":"linux"}'},
    ],
    "events": [
        _events(
            1,
            1,
            20,
            "w0",
            1,
            count=1,
            types=64,
            body='[{"type":"claimed","payload":{"worker_id":"w0","attempt":1,"lease_seconds":300}}]',
        ),
        _events(
            2,
            3,
            9,
            "w0",
            2,
            count=2,
            types=128 | 64,
            body='[{"type":"lease_expired","payload":{}},{"type":"claimed","payload":{"worker_id":"w1"}}]',
        ),
        _events(
            3,
            5,
            0,
            "w1",
            2,
            count=2,
            types=4 | 2,
            body='[{"type":"phase_change","payload":{"phase":"tests"},"at":"2026-11-24T03:04:05Z"},'
            '{"type":"log_line","payload":{"line":"\\u0000 and ü"}}]',
        ),
    ],
    "control": [{"id": 1, "alive_at": NOW, "resumed_at": NOW - timedelta(days=1)}],
}

_0002: Final[Tables] = {
    "sessions": [
        {
            "id": SESSION,
            "account_id": ACCOUNT,
            "token_id": TOKEN,
            "secret_hash": "1f" * 32,
            "method": "link",
            "address": "192.0.2.1",
            "user_agent": "Browser/1.0",
            "created_at": NOW,
            "last_used_at": NOW,
            "expires_at": LATER,
            "ended_at": NOW,
            "end_reason": "logged_out",
        }
    ],
    "login_links": [
        {
            "id": LINK,
            "token_id": TOKEN,
            "secret_hash": "2f" * 32,
            "created_at": NOW,
            "expires_at": NOW + timedelta(minutes=5),
            "used_at": NOW,
        }
    ],
    "audit": [
        {
            "number": 1,
            "id": ENTRY,
            "account_id": ACCOUNT,
            "project_id": PROJECT,
            "at": NOW,
            "action": "plan.approved",
            "object_type": "plan",
            "object_id": PLAN,
            "object_name": "Plan",
            "actor_kind": "session",
            "actor_name": "ci",
            "token_id": TOKEN,
            "session_id": SESSION,
            "address": "192.0.2.1",
            "user_agent": "Browser/1.0",
            "details_json": '{"lanes":1}',
        }
    ],
}

_URL: Final = "https://tracker.test/ü/118"
_0003: Final[Tables] = {
    "tickets": [
        *({**row, "external_key": None, "external_said_json": None} for row in _0001["tickets"]),
        _ticket(
            TICKET_IMPORTED,
            external_url=_URL,
            external_key="url:340f4b12f7a0d781b749990cf60c2b32",
            external_said_json='{"resolution_type":null,"roles":["backend"],"status":"open","texts":{"title":"Sign"}}',
        ),
    ]
}

_0005: Final[Tables] = {
    "webhooks": [
        {
            "id": WEBHOOK,
            "billing_account_id": ACCOUNT,
            "project_id": PROJECT,
            "name": "Böt",
            "format": "standard",
            "url_sealed": "gAAA",
            "url_shown": "https://bot.test/***",
            "events_json": '["run.*"]',
            "secret_sealed": "gAAB",
            "old_secret_sealed": "gAAC",
            "old_secret_until": LATER,
            "enabled": False,
            "disabled_reason": "failing",
            "disabled_at": NOW,
            "failures": 12,
            "failing_since": NOW - timedelta(days=1),
            "created_at": NOW,
            "updated_at": NOW,
        }
    ],
    "webhook_deliveries": [
        {
            "number": 1,
            "id": DELIVERY,
            "webhook_id": WEBHOOK,
            "type": "run.shipped",
            "body": '{"type":"run.shipped"}',
            "state": "pending",
            "attempts": 1,
            "next_at": LATER,
            "give_up_at": LATER,
            "created_at": NOW,
            "finished_at": None,
        }
    ],
    "webhook_attempts": [
        {
            "delivery_number": 1,
            "attempt": 1,
            "at": NOW,
            "status": 500,
            "milliseconds": 7,
            "error": "Answered 500.",
            "answer": "nö",
        }
    ],
    "notices": [
        {
            "number": 1,
            "id": NOTICE,
            "billing_account_id": ACCOUNT,
            "project_id": PROJECT,
            "kind": "lane_failed",
            "key": f"lane_failed:{FAILED}:1:2",
            "text": "'Läne 5' failed: Out of tokens.",
            "run_id": FAILED,
            "plan_id": PLAN,
            "webhook_id": None,
            "worker_id": "w3",
            "details_json": "{}",
            "raised_at": NOW,
            "closed_at": NOW,
            "closed_by": "dismissed",
            "dismissed_by": "ci",
        }
    ],
    "notice_rules": [{"project_id": PROJECT, "rules_json": '{"lane_failed":{"enabled":false}}', "updated_at": NOW}],
}

_0006: Final[Tables] = {
    "github_links": [
        {
            "project_id": PROJECT,
            "label": "agent",
            "roles_json": '{"backend":["api*"]}',
            "milestone_id": MILESTONE,
            "import_json": '{"state":"running","cursor":{}}',
            "import_due_at": LATER,
            "created_at": NOW,
            "updated_at": NOW,
        }
    ],
    "github_deliveries": [{"delivery_id": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "received_at": NOW}],
    "pull_requests": [
        {"project_id": PROJECT, "url_key": "5f" * 16, "url": "https://git.test/1", "state": "merged", "updated_at": NOW}
    ],
}

_DAY: Final = 20_781
_0007: Final[Tables] = {
    "projects": [
        {
            **_0001["projects"][0],
            "max_active": 40,
            "max_active_by_role_json": '{"qa":1}',
            "max_active_by_source_json": '{"git.test":9}',
            "limited": True,
        }
    ],
    "runs": [
        {
            **row,
            "source": "git.test",
            "phase_at": NOW,
            "failure_reason": "auth",
            "agent": "codex",
            "model": "m-1",
            "input_tokens": 1_200,
            "output_tokens": 300,
            "cached_tokens": None,
            "cost_micros": 250_000,
            "attempt_usage_json": "[1200,300,null,250000]",
            "budget_hold": "pause" if row["id"] == HELD else None,
        }
        for row in _0001["runs"]
    ],
    "lane_sources": [{"billing_account_id": ACCOUNT, "project_id": PROJECT, "source": "git.test"}],
    "budgets": [
        {
            "project_id": PROJECT,
            "usd_day": 50_000_000,
            "usd_total": None,
            "tokens_day": 1_000_000,
            "tokens_total": None,
            "on_exceeded": "pause",
            "spent_usd_day": 5_250_000,
            "spent_usd_total": 9_000_000,
            "spent_tokens_day": 1_500,
            "spent_tokens_total": 9_000,
            "day": _DAY,
            "waived_until": NOW,
            "state": "ok",
            "told": "ok",
            "words": None,
            "reopens_at": None,
            "updated_at": NOW,
        }
    ],
    "usage_days": [
        {
            "project_id": PROJECT,
            "day": _DAY,
            "role": "backend",
            "agent": "codex",
            "model": "",
            "shard": 3,
            "attempts": 2,
            "shipped": 1,
            "failed": 1,
            "input_tokens": 1_200,
            "output_tokens": 300,
            "cached_tokens": 0,
            "cost_micros": 250_000,
        }
    ],
    "failure_days": [{"project_id": PROJECT, "day": _DAY, "reason": "auth", "shard": 0, "count": 1}],
    "phase_days": [{"project_id": PROJECT, "day": _DAY, "phase": "Prüfung", "bucket": 24, "shard": 0, "count": 7}],
}

_0009: Final[Tables] = {
    "tokens": [
        {**_0001["tokens"][0], "worker_prefix": "build-", "networks": "10.0.0.0/8,2001:db8::/32"},
    ]
}
_0011: Final[Tables] = {
    "workers_seen": [
        {
            "billing_account_id": ACCOUNT,
            "worker_id": "wörker-9",
            "scope": PROJECT,
            "roles_json": '["backend"]',
            "labels_json": '{"os":"linux"}',
            "asks_since": NOW,
            "asks_until": LATER,
            "seen_at": NOW,
        }
    ],
}

_0010: Final[Tables] = {
    "control": [{**_0001["control"][0], "events_pruned_before": NOW - timedelta(days=30), "oldest_schema": "0010"}]
}

ROWS: Final[Mapping[str, Tables]] = {
    "0001": _0001,
    "0002": _0002,
    "0003": _0003,
    "0005": _0005,
    "0006": _0006,
    "0007": _0007,
    "0009": _0009,
    "0010": _0010,
    "0011": _0011,
}
"""Revision → table → rows. A revision has the tables of those before it, but for those that it gives anew."""

GONE: Final[frozenset[tuple[str, str]]] = frozenset()
"""Columns (table, column) that a later revision has dropped for good reason."""


def rows_at(revision: str, revisions: Sequence[str]) -> dict[str, Sequence[Row]]:
    """The rows of a database at a revision, in an order in which none points to one that isn't there yet."""
    tables: dict[str, Sequence[Row]] = {}
    for each in revisions[: revisions.index(revision) + 1]:
        tables |= ROWS.get(each, {})
    return tables
