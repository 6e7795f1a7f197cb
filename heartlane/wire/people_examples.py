"""One example of every answer about people, and of a worker that waits, in the story of `heartlane.wire.examples`."""

from __future__ import annotations

from typing import Any, Final

ACCOUNT: Final = "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d40"
PROJECT: Final = "01983c5b-1a2b-7d4c-8e5f-6a7b8c9d0e1f"
PLAN: Final = "01983c5d-2e3f-7041-a2b3-c4d5e6f70819"
TOKEN: Final = "01983c5a-8b21-7d4f-ab62-1d6b40c3e5f1"  # noqa: S105 - a token's id
SESSION: Final = "01983c5e-3c4d-7e5f-8a6b-7c8d9e0f1a2b"
ENTRY: Final = "01983c5e-6f70-7182-93a4-b5c6d7e8f901"
NOW: Final = "2026-01-02T03:04:05.678901Z"
EARLIER: Final = "2026-01-02T02:58:31.120455Z"
SOON: Final = "2026-01-02T03:09:05.678901Z"
BROWSER: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0"

WAITING_WORKER: Final[dict[str, Any]] = {
    "worker_id": "build-8.any.77",
    "status": "waiting",
    "since": None,
    "last_heard": NOW,
    "asks": {"project_id": None, "roles": ["test", "qa"], "labels": {"os": "linux"}, "since": EARLIER},
    "runs": [],
}

SESSION_OBJECT: Final[dict[str, Any]] = {
    "id": SESSION,
    "account_id": ACCOUNT,
    "token_id": TOKEN,
    "token_name": "anna",
    "scope": "operator",
    "project_id": None,
    "method": "link",
    "address": "192.0.2.17",
    "user_agent": BROWSER,
    "created_at": EARLIER,
    "last_used_at": NOW,
    "expires_at": "2026-01-09T02:58:31.120455Z",
    "ended_at": None,
    "end_reason": None,
}

ANSWERS: Final[dict[str, Any]] = {
    "read_me": {
        "me": {
            "token_id": TOKEN,
            "name": "anna",
            "scope": "operator",
            "account_id": ACCOUNT,
            "project_id": None,
            "worker_prefix": None,
            "networks": ["198.51.100.0/24"],
            "session": SESSION_OBJECT,
            "csrf_token": "1rJ0yqgq3vZ4lG7m2u9dXxwP6cN8bK5aTfQeRsUoIhE",
        }
    },
    "list_sessions": {"sessions": [SESSION_OBJECT], "next_cursor": None},
    "end_session": {"session": SESSION_OBJECT | {"ended_at": NOW, "end_reason": "revoked"}},
    "create_login_link": {
        "login_link": {
            "url": "https://lanes.example.com/login#link=hll_…",
            "expires_at": SOON,
        }
    },
    "list_audit": {
        "entries": [
            {
                "id": ENTRY,
                "account_id": ACCOUNT,
                "project_id": PROJECT,
                "at": NOW,
                "action": "plan.approved",
                "object_type": "plan",
                "object_id": PLAN,
                "object_name": "Checkout in one page",
                "actor_kind": "session",
                "actor_name": "anna",
                "token_id": TOKEN,
                "session_id": SESSION,
                "address": "192.0.2.17",
                "user_agent": BROWSER,
                "details": {"lanes": 2},
            }
        ],
        "next_cursor": "YXVkaXQ6NDE3",
    },
}
"""Operation → its answer."""
