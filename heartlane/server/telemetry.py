"""`POST /api/agents/runs/{id}/events`: a worker's report renews its lease and tells what happened."""

from __future__ import annotations

import re
from typing import Final

import orjson

from heartlane.lanes.commands import Report
from heartlane.lanes.decisions import Decision
from heartlane.lanes.rules import directive
from heartlane.lanes.run import Event
from heartlane.server.auth import require_worker
from heartlane.server.context import Context
from heartlane.server.errors import ApiError, Issue, invalid_request
from heartlane.server.hot import HotRequest, HotRoute, read_body, refuse
from heartlane.wire.requests import ReportBody
from heartlane.wire.run_json import JSON_OPTIONS, run_body

UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def run_id(path_id: str) -> str:
    """The run's id out of a path, in lower case. Raises ApiError for what is no UUID."""
    if UUID.fullmatch(path_id) is None:
        raise invalid_request([Issue("id", "must be a UUID")])
    return path_id.lower()


def telemetry(context: Context) -> HotRoute:
    """The telemetry route of this server."""
    submit = context.store.ledger.submit
    metrics = context.metrics
    applied, duplicate = metrics.reports["applied"], metrics.reports["duplicate"]
    refused, failed = metrics.reports["refused"], metrics.reports["failed"]

    async def handle(request: HotRequest) -> bytes:
        principal = request.principal
        try:
            target = run_id(request.path_id)
            body = read_body(ReportBody, request.body)
            require_worker(principal, body.worker_id)
            report = Report(
                body.worker_id,
                body.lease_seconds,
                body.phase,
                body.log_line,
                [Event(event["type"], event.get("payload", {}), event.get("at")) for event in body.events],
                body.attempt,
                body.seq,
            )
            outcome = await submit(target, report, account_id=principal.account_id, project_id=principal.project_id)
        except ApiError:
            refused.inc()
            raise
        except Exception:
            failed.inc()
            raise
        decision, run = outcome.decision, outcome.run
        if run is None or not isinstance(decision, Decision):
            refusal = refuse(outcome)
            refused.inc()
            raise refusal
        (duplicate if decision.duplicate else applied).inc()
        return orjson.dumps(
            {
                "ok": True,
                "run": run_body(run, outcome.now),
                "directive": directive(run, replay=decision.duplicate),
                "duplicate": decision.duplicate,
                "server_time": outcome.now,
            },
            option=JSON_OPTIONS,
        )

    return HotRoute(context, "report", "worker", handle)
