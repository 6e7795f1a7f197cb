"""The run object as it is answered: built here and nowhere else, for every route, error and stream."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import orjson

from heartlane.lanes.run import Run, is_stalled, needs_attention
from heartlane.lanes.usage import MICROS

JSON_OPTIONS: Final = orjson.OPT_UTC_Z
"""Aware UTC datetimes come out as RFC 3339 with a `Z`."""


def run_body(run: Run, now: datetime) -> dict[str, Any]:
    """The run as a value for orjson with JSON_OPTIONS; JSON columns go through as they are.

    now     the database's time, by which `stalled` and `needs_attention` are derived
    """
    stalled = is_stalled(run, now)
    return {
        "id": run.id,
        "plan_id": run.plan_id,
        "project_id": run.project_id,
        "billing_account_id": run.billing_account_id,
        "milestone_id": run.milestone_id,
        "lane_key": run.lane_key,
        "title": run.title,
        "role": run.role,
        "ticket_ids": orjson.Fragment(run.ticket_ids_json),
        "state": run.state,
        "phase": run.phase,
        "worker_id": run.worker_id,
        "claimed_at": run.claimed_at,
        "lease_expires_at": run.lease_expires_at,
        "last_heartbeat": run.last_heartbeat,
        "log_line": run.log_line,
        "error": run.error,
        "pr_url": run.pr_url,
        "branch": run.branch,
        "commit": run.commit,
        "summary": run.summary,
        "agent": run.agent,
        "model": run.model,
        "input_tokens": run.input_tokens,
        "output_tokens": run.output_tokens,
        "cached_tokens": run.cached_tokens,
        "cost_usd": None if run.cost_micros is None else run.cost_micros / MICROS,
        "attempt": run.attempt,
        "failures": run.failures,
        "max_failures": run.max_failures,
        "not_before": run.not_before,
        "blocked_by": orjson.Fragment(run.blocked_by_json),
        "needs_attention": needs_attention(run, now, stalled=stalled),
        "stalled": stalled,
        "event_count": run.event_count,
        "labels": orjson.Fragment(run.labels_json),
        "priority": run.priority,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "finished_at": run.finished_at,
    }
