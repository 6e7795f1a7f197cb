"""Examples of budgets, as the API's document shows them."""

from __future__ import annotations

from typing import Any, Final

PROJECT: Final = "01983c5b-1a2b-7d4c-8e5f-6a7b8c9d0e1f"

BUDGET_OBJECT: Final[dict[str, Any]] = {
    "project_id": PROJECT,
    "usd_per_day": 40.0,
    "usd_total": 600.0,
    "tokens_per_day": None,
    "tokens_total": None,
    "on_exceeded": "pause",
    "state": "exceeded",
    "words": "The project's budget is used up: 40.12 USD of 40.00 USD today.",
    "changes_at": "2026-01-03T00:00:00Z",
    "waived_until": None,
    "spent": {"usd_today": 40.12, "usd_total": 213.5, "tokens_today": 5_120_000, "tokens_total": 31_400_000},
}

REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "put_budget": {
        "Dollars": {"usd_per_day": 40, "usd_total": 600},
        "Tokens, and workers that stop": {"tokens_per_day": 20_000_000, "on_exceeded": "stop"},
    },
    "go_on": {"Two hours": {"hours": 2}, "Until the day ends": {}},
}
ANSWERS: Final[dict[str, Any]] = {
    "read_budget": {"budget": BUDGET_OBJECT},
    "put_budget": {"budget": BUDGET_OBJECT},
    "go_on": {"budget": BUDGET_OBJECT | {"state": "waived", "waived_until": "2026-01-03T00:00:00Z"}},
}
