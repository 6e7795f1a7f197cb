"""Examples of the overview, as the API's document shows them."""

from __future__ import annotations

from typing import Any, Final

_USED: Final[dict[str, Any]] = {
    "attempts": 41,
    "shipped": 34,
    "failed": 5,
    "input_tokens": 18_400_000,
    "output_tokens": 912_000,
    "cached_tokens": 61_000_000,
    "cost_usd": 97.61,
}

ANSWERS: Final[dict[str, Any]] = {
    "read_overview": {
        "overview": {
            "project_id": None,
            "since": "2026-01-02",
            "until": "2026-01-02",
            "lanes": {
                "queued": 12,
                "claimed": 1,
                "running": 7,
                "paused": 1,
                "shipping": 2,
                "shipped": 310,
                "failed": 4,
                "released": 0,
            },
            "shipped_per_day": 34.0,
            "days": [{"day": "2026-01-02", **_USED}],
            "total": _USED,
            "projects": [{"project_id": "01983c5b-1a2b-7d4c-8e5f-6a7b8c9d0e1f", "name": "Shop", **_USED}],
            "roles": [{"role": "backend", **_USED}],
            "agents": [{"agent": "claude", "model": None, **_USED}],
            "phases": [{"phase": "tests", "count": 39, "median_seconds": 139.6, "p90_seconds": 394.8}],
            "failures": [{"reason": "lease_expired", "count": 3}, {"reason": "timeout", "count": 2}],
        }
    }
}
