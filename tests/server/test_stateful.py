"""The machine of `tests/lanes`, through a server's HTTP on each engine: what the rules decide is what a fleet sees.

One server serves all walks, each on lanes of a plan of its own. Its clock stands still but for `let_pass`, so that
every deadline is known to the microsecond.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import httpx
import pytest
import structlog
import uvloop
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from heartlane.server.settings import load_settings
from heartlane.store.store import Store
from tests.harness import Harness, StandingClock
from tests.lanes.machine import LaneMachine, Lanes, LoggedEvent, Reply, ReportSpec, Spec, parsed

T = TypeVar("T")


class HttpLanes(Lanes):
    """Runs of a server, commanded and read by its clients."""

    def __init__(self, runner: asyncio.Runner, harness: Harness, clock: StandingClock) -> None:
        self._runner = runner
        self._harness = harness
        self._clock = clock
        self._ids: dict[str, str] = {}
        self._plan_id = self._project_id = ""

    def plan(self, specs: Sequence[Spec], max_failures: int, stalled_after: int) -> None:
        lanes = [
            {
                "laneKey": spec.key,
                "title": spec.key,
                "role": "backend",
                "priority": spec.priority,
                "after": list(spec.after),
            }
            for spec in specs
        ]
        limits: dict[str, Any] = {"max_failures": max_failures, "stalled_after_seconds": stalled_after}
        runs = self._wait(self._harness.approved(lanes, **limits))
        self._ids = {run["lane_key"]: run["id"] for run in runs}
        self._plan_id, self._project_id = runs[0]["plan_id"], runs[0]["project_id"]

    @property
    def now(self) -> datetime:
        return self._clock.moment

    def let_pass(self, seconds: float, watched: str, resumed_at: datetime | None) -> None:
        # `resumed_at` is what the server has to find out by itself.
        if watched == "unseen":
            self._clock.advance(seconds)
        elif watched == "down":
            self._wait(self._harness.be_down_for(seconds))
        else:
            self._wait(self._harness.let_pass(seconds))

    def take(self, key: str, worker_id: str, lease_seconds: int | None) -> Reply:
        body = _told(worker_id=worker_id, lease_seconds=lease_seconds)
        return self._reply(self._wait(self._harness.worker.post(self._path(key, "claim"), json=body)))

    def take_next(self, worker_id: str, lease_seconds: int | None) -> Reply:
        body = _told(worker_id=worker_id, lease_seconds=lease_seconds, project_id=self._project_id)
        return self._reply(self._wait(self._harness.worker.post("/api/agents/runs/claim", json=body)))

    def reports(self, reports: Mapping[str, ReportSpec]) -> dict[str, Reply]:
        async def at_once() -> list[httpx.Response]:
            return await asyncio.gather(*(self._report(key, report) for key, report in reports.items()))

        return dict(zip(reports, map(self._reply, self._wait(at_once())), strict=True))

    def _report(self, key: str, report: ReportSpec) -> Coroutine[Any, Any, httpx.Response]:
        events = [{"type": kind, "payload": payload} for kind, payload in report.events]
        body = _told(**report._replace(events=())._asdict()) | {"events": events}
        return self._harness.worker.post(self._path(key, "events"), json=body)

    def release(self, key: str, worker_id: str | None, **fields: Any) -> Reply:
        client = self._harness.operator if worker_id is None else self._harness.worker
        body = _told(worker_id=worker_id, **fields)
        return self._reply(self._wait(client.post(self._path(key, "release"), json=body)))

    def steer(self, key: str, verb: str) -> Reply:
        return self._reply(self._wait(self._harness.operator.post(self._path(key, verb))))

    def runs(self) -> dict[str, Mapping[str, Any]]:
        response = self._wait(self._harness.viewer.get("/api/agents/runs", params={"plan_id": self._plan_id}))
        return {run["lane_key"]: parsed(run) for run in response.json()["runs"]}

    def log(self, key: str, after: int) -> list[LoggedEvent]:
        found = self._wait(self._harness.events(self._ids[key], after=after))
        return [
            LoggedEvent(
                event["seq"],
                event["type"],
                event["payload"],
                datetime.fromisoformat(event["recorded_at"]),
                event["worker_id"],
                event["attempt"],
            )
            for event in found
        ]

    def _reply(self, response: httpx.Response) -> Reply:
        body = response.json()
        run = None if body["run"] is None else parsed(body["run"])
        assert response.status_code == (200 if body.get("ok") else 409), response.text
        return Reply(body.get("code"), run, body.get("duplicate", False), body.get("last_seq"))

    def _path(self, key: str, verb: str) -> str:
        return f"/api/agents/runs/{self._ids[key]}/{verb}"

    def _wait(self, answer: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(answer)


def _told(**fields: Any) -> dict[str, Any]:
    """A body: what isn't said is left out."""
    return {name: value for name, value in fields.items() if value not in (None, ())}


@pytest.fixture
def machine(database_url: str) -> Iterator[type[LaneMachine]]:
    """The machine on a server of its own, on each engine."""
    clock = StandingClock()
    # A line for each of some thousand requests would bury what a failing walk has to say.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        store = runner.run(Store.open(database_url, clock=clock))
        options = load_settings({"rate_limits": "off", "database": "sqlite:///unused"})
        harness = runner.run(Harness.start(store, options))
        lanes = HttpLanes(runner, harness, clock)
        yield type("HttpMachine", (LaneMachine,), {"lanes": lanes})
        runner.run(harness.close())
        runner.run(store.close())
    structlog.reset_defaults()


QUICK = settings(max_examples=20, stateful_step_count=25)
DEEP = settings(max_examples=200, stateful_step_count=60)


def test_a_fleet_sees_what_the_model_says(machine: type[LaneMachine]) -> None:
    run_state_machine_as_test(machine, settings=QUICK)


@pytest.mark.slow
def test_a_fleet_sees_what_the_model_says_on_long_walks(machine: type[LaneMachine]) -> None:
    run_state_machine_as_test(machine, settings=DEEP)
