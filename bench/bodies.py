"""The reports that the bench sends: what a worker's sidecar sends, cut where its `seq` goes.

The generator sends millions of them, so everything but the `seq` is made beforehand.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

Case = Literal["heartbeat", "events"]

EVENTS_PER_REPORT: Final = 10
LEASE_SECONDS: Final = 3_600
"""The longest lease, so that no lane is taken back however long a bench runs."""

_SEQ_MARK: Final = "@seq@"
_WORDS: Final = (
    "test tests module function returns value request answer lease worker claim branch commit file line error warning "
    "passed failed skipped collected imports type check build compile link cache layer step retry timeout connection "
    "schema migration index query row column table update insert select transaction rollback handler router parser"
).split()
_FILES: Final = ("api/orders.py", "api/invoices.py", "web/src/cart.tsx", "tests/test_orders.py", "infra/deploy.yaml")
_TOOLS: Final = ("read", "edit", "shell", "search")


class Cut(NamedTuple):
    """A report's JSON before and after its `seq`."""

    before: str
    after: str


def payload_events(source: random.Random, count: int = EVENTS_PER_REPORT) -> list[dict[str, Any]]:
    """`count` events as an agent's output yields them: log lines and tool calls with payloads of about 100 bytes."""
    moment = datetime(2026, 1, 5, 9, 0, tzinfo=UTC) + timedelta(seconds=source.randrange(1_000_000))
    events: list[dict[str, Any]] = []
    for place in range(count):
        moment += timedelta(milliseconds=source.randrange(20, 900))
        text = " ".join(source.choices(_WORDS, k=11))
        if place % 3 == 1:
            path = f"{source.choice(_FILES)}:{source.randrange(1, 900)}"
            payload = {"tool": source.choice(_TOOLS), "target": path, "detail": text[:52]}
            kind = "action"
        else:
            payload = {"line": text[:88]}
            kind = "log_line"
        events.append({"type": kind, "payload": payload, "at": _rfc3339(moment)})
    return events


def report(case: Case, worker_id: str, attempt: int, source: random.Random) -> Cut:
    """One worker's report: a bare renewal of its lease, or the same with ten events."""
    body: dict[str, Any] = {
        "worker_id": worker_id,
        "lease_seconds": LEASE_SECONDS,
        "attempt": attempt,
        "seq": _SEQ_MARK,
    }
    if case == "events":
        body["events"] = payload_events(source)
    before, after = json.dumps(body, separators=(",", ":")).split(f'"{_SEQ_MARK}"')
    return Cut(before, after)


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
