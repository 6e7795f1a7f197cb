"""Examples of what is linked with GitHub, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

NOW: Final = "2026-01-02T03:04:05.678Z"
_LINK: Final[dict[str, Any]] = {
    "project_id": "01983c5a-7f10-7c3e-9a51-0c5a3f1b2d41",
    "repository": "acme/shop",
    "label": "agent",
    "roles": {"backend": ["area/backend", "api*"]},
    "milestone_id": None,
    "hears": True,
    "last_import": None,
    "created_at": NOW,
    "updated_at": NOW,
}
_FIGURES: Final[dict[str, Any]] = {
    "read": 100,
    "created": 96,
    "updated": 0,
    "unchanged": 0,
    "skipped": 4,
    "left_out": 12,
}
_RUNNING: Final[dict[str, Any]] = {"state": "running", **_FIGURES, "notes": [], "error": None, "updated_at": NOW}

REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "put_github_link": {
        "Issues with a label": {"label": "agent", "roles": {"backend": ["area/backend", "api*"]}, "milestone_id": None}
    },
    "hear_github": {
        "An issue got a label": {
            "action": "labeled",
            "issue": {
                "number": 12,
                "html_url": "https://github.com/acme/shop/issues/12",
                "title": "Totals without a reload",
                "body": "The total follows when a line changes.",
                "state": "open",
                "labels": [{"name": "agent"}],
            },
            "repository": {"html_url": "https://github.com/acme/shop"},
        }
    },
}
ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "read_github_link": {"github": _LINK},
    "put_github_link": {"github": _LINK},
    "delete_github_link": {"github": _LINK},
    "import_github": {"github": _LINK | {"last_import": _RUNNING}},
    "hear_github": {"ok": True, "duplicate": False, "ignored": None, "projects": 1, "tickets": 1, "lanes": 0},
}
