"""What Prometheus can read: counters that the routes raise, and gauges that are read from the database on demand."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)
from sqlalchemy import func, select

from heartlane.lanes.run import HELD_STATES, State
from heartlane.server.errors import ApiError
from heartlane.store.schema import runs
from heartlane.store.store import Store

LEASE_AGES_SECONDS: Final = (10, 30, 60, 300, 900, 3600)
"""Upper bounds of the buckets in which held leases are counted by the time since their last heartbeat."""


disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One registry a server.

    folder      where several processes of one server keep their figures, so that each can tell those of all; None for a
                server that is one process
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        if folder is not None:
            # The library decides by this variable, as it is when a figure is made, and by its own as it is imported.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
            values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._reports = Counter(
            "heartlane_reports_total",
            "Telemetry reports by what became of them: applied, duplicate, refused, failed.",
            ["result"],
            registry=self.registry,
        )
        self._claims = Counter(
            "heartlane_claims_total",
            "Claims by what became of them: claimed, empty, refused, failed.",
            ["result"],
            registry=self.registry,
        )
        self._refusals = Counter(
            "heartlane_refusals_total",
            "Requests that were answered 400 to 499, of workers and people, by error code.",
            ["code"],
            registry=self.registry,
        )
        self._taken_back = Counter(
            "heartlane_leases_taken_back_total", "Leases that ran out and were taken back.", registry=self.registry
        )
        self._batch_size = Histogram(
            "heartlane_ledger_batch_size",
            "Commands committed together in one transaction.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "heartlane_ledger_commit_seconds",
            "Time from taking a batch to its durable commit, in seconds.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
            registry=self.registry,
        )
        # What each process has of it, added up over those that live; and what the database says, as it was read last.
        each: Final = "livesum"
        of_all: Final = "mostrecent"
        self._queue = Gauge(
            "heartlane_ledger_queue", "Commands waiting in the ledger.", registry=self.registry, multiprocess_mode=each
        )
        self._waiting = Gauge(
            "heartlane_claims_waiting",
            "Long polls waiting for a lane.",
            registry=self.registry,
            multiprocess_mode=each,
        )
        self._streams = Gauge(
            "heartlane_streams", "Open event streams.", registry=self.registry, multiprocess_mode=each
        )
        self._runs = Gauge(
            "heartlane_runs", "Runs by state.", ["state"], registry=self.registry, multiprocess_mode=of_all
        )
        self._leases = Gauge(
            "heartlane_leases",
            "Held leases whose last heartbeat is at most this many seconds old (cumulative).",
            ["le"],
            registry=self.registry,
            multiprocess_mode=of_all,
        )
        self.reports = {name: self._reports.labels(name) for name in ("applied", "duplicate", "refused", "failed")}
        self.claims = {name: self._claims.labels(name) for name in ("claimed", "empty", "refused", "failed")}

    def refused(self, error: ApiError) -> None:
        """Count an answer that is an error, if it refuses the request; codes are those of the table alone."""
        if error.status < 500:
            self._refusals.labels(error.code).inc()

    def taken_back(self) -> None:
        """Count one lease that was taken back."""
        self._taken_back.inc()

    def batch(self, size: int, seconds: float) -> None:
        """Count one committed batch."""
        self._batch_size.observe(size)
        self._batch_seconds.observe(seconds)

    async def render(self, store: Store, *, waiting: int, streams: int) -> bytes:
        """The text exposition, with the gauges read now. Raises StoreUnavailable."""
        async with store.reading() as conn:
            now = await store.now()
            counts = (await conn.execute(select(runs.c.state, func.count()).group_by(runs.c.state))).all()
            young = [
                func.count().filter(runs.c.last_heartbeat >= now - timedelta(seconds=bound)).label(f"within_{bound}")
                for bound in LEASE_AGES_SECONDS
            ]
            held = select(*young, func.count()).where(
                runs.c.worker_id.is_not(None), runs.c.state.in_(sorted(HELD_STATES))
            )
            *within, all_held = (await conn.execute(held)).one()
        by_state = dict(map(tuple, counts))
        for state in State:
            self._runs.labels(str(state)).set(by_state.get(str(state), 0))
        for bound, count in zip(LEASE_AGES_SECONDS, within, strict=True):
            self._leases.labels(str(bound)).set(count)
        self._leases.labels("+Inf").set(all_held)
        self.note(store.ledger.waiting, waiting, streams)
        if self._folder is None:
            return generate_latest(self.registry)
        of_all = CollectorRegistry()
        multiprocess.MultiProcessCollector(of_all, str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(of_all)

    def note(self, queue: int, waiting: int, streams: int) -> None:
        """Say how many commands, claims and streams this process has now."""
        self._queue.set(queue)
        self._waiting.set(waiting)
        self._streams.set(streams)
