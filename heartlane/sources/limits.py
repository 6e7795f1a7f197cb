"""How long a source's rate limit wants us to wait, by the headers of its answer. Pure: the time is an argument.

GitHub      403 or 429; `Retry-After` (secondary limits), else `X-RateLimit-Remaining: 0` with `X-RateLimit-Reset`
            in seconds since the epoch; a secondary limit without either asks for a minute
GitLab      429; `Retry-After`, else `RateLimit-Reset` in seconds since the epoch
Linear      429, or 400 with the code RATELIMITED in its errors; `X-RateLimit-Requests-Reset` and
            `X-RateLimit-Complexity-Reset` in milliseconds since the epoch
Jira        429; `Retry-After`, else `X-RateLimit-Reset` as a date-time
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

DEFAULT_SECONDS: Final = 60.0
"""How long to wait where a source doesn't say."""
SECONDS_MAX: Final = 86_400.0
MILLISECONDS_FROM: Final = 1e11
"""A number from here on is no second of this millennium: it counts milliseconds."""
_RESETS: Final = (
    "x-ratelimit-requests-reset",
    "x-ratelimit-complexity-reset",
    "x-ratelimit-endpoint-requests-reset",
    "x-ratelimit-reset",
    "ratelimit-reset",
)


def limited_seconds(status: int, headers: Mapping[str, str], body: str, now: datetime) -> float | None:
    """Seconds to wait, at least one; None for an answer that no rate limit is the reason of.

    headers     with their names in lower case

    >>> limited_seconds(429, {"retry-after": "30"}, "", datetime(2026, 1, 1, tzinfo=UTC))
    30.0
    >>> limited_seconds(403, {}, "Resource not accessible", datetime(2026, 1, 1, tzinfo=UTC)) is None
    True
    """
    words = body[:2_000].lower()
    exhausted = headers.get("x-ratelimit-remaining") == "0"
    asked = "retry-after" in headers
    is_limit = (
        status == 429
        or (status == 403 and (exhausted or asked or "rate limit" in words or "abuse detection" in words))
        or (status in (200, 400) and '"ratelimited"' in words)
    )
    if not is_limit:
        return None
    waits = [wait for wait in (_retry_after(headers.get("retry-after"), now),) if wait is not None]
    if not waits:
        waits = [
            wait for name in _RESETS if _counts(name, headers) and (wait := _until(headers[name], now)) is not None
        ]
    return min(SECONDS_MAX, max(1.0, max(waits, default=DEFAULT_SECONDS)))


def _counts(name: str, headers: Mapping[str, str]) -> bool:
    """Whether a limit's reset matters: it is said, and the limit isn't known to have something left."""
    return name in headers and headers.get(name.removesuffix("reset") + "remaining", "0").strip() in ("0", "")


def _retry_after(text: str | None, now: datetime) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()


def _until(text: str, now: datetime) -> float | None:
    try:
        figure = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        return (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    seconds = figure / 1000 if figure >= MILLISECONDS_FROM else figure
    return seconds - now.timestamp()
