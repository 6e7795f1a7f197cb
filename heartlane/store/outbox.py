"""The outbox: what is to be sent to webhooks, written in the transaction of the change that it tells of.

    change ─┬─ COMMIT ──► `take` (a lease on each due row) ──► sent ──► `settle` (done, again later, or given up)
            └─ outbox rows

A change that is undone leaves no row; one that is committed has its rows whatever happens to the server after. What is
done with them stands in `heartlane.store.deliveries`.

Who listens is known from memory, so that a batch whose projects have no webhook pays for nothing (`Audience`). Inside a
batch that has news for one, the webhooks are read afresh, in the batch's own transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from heartlane.lanes.news import is_chosen
from heartlane.store.ids import new_id
from heartlane.store.news_schema import webhook_deliveries
from heartlane.store.rows import Rows
from heartlane.wire.run_json import JSON_OPTIONS

GIVE_UP_AFTER: Final = timedelta(hours=24)
"""How long a row is tried."""

AUDIENCE: Final = """
SELECT CAST(w.id AS text), CAST(w.project_id AS text), w.events_json, p.name
FROM webhooks AS w JOIN projects AS p ON p.id = w.project_id WHERE w.enabled AND w.project_id {ids}
"""


class News(NamedTuple):
    """One thing to tell: its type (`heartlane.lanes.news`), and what goes under `data`, for orjson."""

    type: str
    project_id: str
    data: Mapping[str, Any]


async def tell(rows: Rows, news: Sequence[News], now: datetime) -> bool:
    """Write what the projects' webhooks have chosen of the news into the outbox; whether that was anything."""
    hooks: dict[str, list[tuple[str, list[str], str]]] = {}
    for webhook_id, project_id, events_json, name in await rows.by_ids(AUDIENCE, sorted({e.project_id for e in news})):
        hooks.setdefault(project_id, []).append((webhook_id, json.loads(events_json), name))
    made: list[dict[str, Any]] = []
    for each in news:
        listening = [hook for hook in hooks.get(each.project_id, ()) if is_chosen(hook[1], each.type)]
        if listening:
            body = body_of(each, listening[0][2], now)
            made += [delivery_row(webhook_id, each.type, body, now) for webhook_id, _, _ in listening]
    if made:
        await rows.insert(webhook_deliveries, made)
    return bool(made)


def body_of(news: News, project_name: str, now: datetime) -> str:
    """What a receiver gets, as JSON text: `type`, `timestamp`, and `data` with the project and what it is about."""
    data = {"project": {"id": news.project_id, "name": project_name}, **news.data}
    return orjson.dumps({"type": news.type, "timestamp": now, "data": data}, option=JSON_OPTIONS).decode()


def delivery_row(webhook_id: str, news_type: str, body: str, now: datetime) -> dict[str, Any]:
    """A new row of the outbox, due at once."""
    return {
        "id": new_id(),
        "webhook_id": webhook_id,
        "type": news_type,
        "body": body,
        "state": "pending",
        "attempts": 0,
        "next_at": now,
        "give_up_at": now + GIVE_UP_AFTER,
        "created_at": now,
    }
