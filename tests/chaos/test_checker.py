"""The checker itself: it finds nothing wrong with what a right server does, and every wrong that is planted."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.checker import LATE_SECONDS, MEASURE_SECONDS, Run, check
from tests.chaos.history import FaultSpan, History, Op, Outcome, read

LEASE: Final = 5.0


def instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


class Model:
    """A right server, and clients that ask it by chance: their history, and what the server would show at the end."""

    def __init__(self, seed: int, runs: int = 3, steps: int = 60) -> None:
        self.ops: list[Op] = []
        self.runs: dict[str, Run] = {}
        self._chance = random.Random(seed)
        self._now = 1_000_000.0
        self._marks = 0
        names = [f"run-{number}" for number in range(runs)]
        self._rows: dict[str, dict[str, Any]] = {
            name: {"state": "queued", "attempt": 0, "worker_id": None, "lease_expires_at": None, "seq": 0}
            for name in names
        }
        self._events: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self._past: list[tuple[str, str, int]] = []
        for _ in range(steps):
            self._step(self._chance.choice(names))
        self._take_back()
        for name in names:
            row = {**self._rows[name], "event_count": len(self._events[name])}
            self.runs[name] = Run(row, self._events[name])

    @property
    def read_at(self) -> float:
        return self._now

    def _step(self, name: str) -> None:
        row, chance = self._rows[name], self._chance
        self._now += chance.uniform(0.0, 1.0)
        self._take_back()
        if row["state"] in ("queued", "released"):
            self._claim(name, row)
        elif row["state"] in ("claimed", "running"):
            act = chance.random()
            if act < 0.6:
                self._report(name, row)
            elif act < 0.7:
                self._release(name, row)
            elif act < 0.8:
                self._now += chance.uniform(0.0, 2 * LEASE)
        if self._past and chance.random() < 0.3:
            past, worker, attempt = chance.choice(self._past)
            self._refused(past, worker, attempt)

    def _op(self, does: str, asks: dict[str, Any], outcome: Outcome, heard: dict[str, Any]) -> None:
        began = self._now - self._chance.uniform(0.0, 0.3)
        ended = self._now + self._chance.uniform(0.0, 0.3) if outcome != "unknown" else float("inf")
        worker = asks["worker_id"]
        self.ops.append(Op(len(self.ops), worker, does, asks, began, ended, outcome, heard))
        self._now += 0.3  # what is asked next is asked after this was heard

    def _tell(self, name: str, kind: str, row: dict[str, Any], at: float, **payload: Any) -> None:
        self._events[name].append(
            {
                "seq": len(self._events[name]) + 1,
                "type": kind,
                "payload": payload,
                "worker_id": row["worker_id"],
                "attempt": row["attempt"],
                "recorded_at": instant(at),
            }
        )

    def _heard(self, name: str, row: dict[str, Any]) -> dict[str, Any]:
        return {"id": name, "attempt": row["attempt"], "lease_expires_at": row["lease_expires_at"]}

    def _take_back(self) -> None:
        for name, row in self._rows.items():
            until = row["lease_expires_at"]
            if until is not None and (deadline := datetime.fromisoformat(until).timestamp()) < self._now - LATE_SECONDS:
                self._tell(name, "lease_expired", row, deadline + self._chance.uniform(0, LATE_SECONDS), deadline=until)
                self._let_go(name, row, "queued")

    def _let_go(self, name: str, row: dict[str, Any], state: str) -> None:
        self._past.append((name, row["worker_id"], row["attempt"]))
        row.update(state=state, worker_id=None, lease_expires_at=None)

    def _claim(self, name: str, row: dict[str, Any]) -> None:
        row.update(state="claimed", attempt=row["attempt"] + 1, worker_id=f"w{len(self.ops)}", seq=0)
        row["lease_expires_at"] = instant(self._now + LEASE)
        self._tell(name, "claimed", row, self._now)
        outcome: Outcome = "ok" if self._chance.random() < 0.8 else "unknown"
        heard = self._heard(name, row) if outcome == "ok" else {}
        self._op("claim", {"worker_id": row["worker_id"]}, outcome, heard)

    def _report(self, name: str, row: dict[str, Any]) -> None:
        self._marks += 1
        marks = [f"m{self._marks}.{number}" for number in range(self._chance.randint(1, 3))]
        row.update(state="running", seq=row["seq"] + 1)
        asks = {
            "run": name,
            "worker_id": row["worker_id"],
            "attempt": row["attempt"],
            "seq": row["seq"],
            "marks": marks,
        }
        ships = self._chance.random() < 0.15
        while self._chance.random() < 0.2:  # tries that certainly did nothing
            self._op("report", asks, "fail", {"status": 503})
        row["lease_expires_at"] = instant(self._now + LEASE)
        for mark in marks:
            self._tell(name, "action", row, self._now, mark=mark)
        if self._chance.random() < 0.2:  # done, and the answer got lost; sent again, and known as such
            self._op("report", asks, "unknown", {})
            row["lease_expires_at"] = instant(self._now + LEASE)
        if ships:
            self._tell(name, "ship_complete", row, self._now)
            row.update(state="shipped", lease_expires_at=None)
        if self._chance.random() < 0.9:
            self._op("report", asks, "ok", self._heard(name, row))
        else:
            self._op("report", asks, "unknown", {})

    def _release(self, name: str, row: dict[str, Any]) -> None:
        self._tell(name, "released", row, self._now)
        asks = {"run": name, "worker_id": row["worker_id"], "attempt": row["attempt"]}
        self._let_go(name, row, "released")
        self._op("release", asks, "ok", {"id": name, "attempt": row["attempt"]})

    def _refused(self, name: str, worker: str, attempt: int) -> None:
        self._marks += 1
        asks = {"run": name, "worker_id": worker, "attempt": attempt, "marks": [f"m{self._marks}"]}
        self._op("report", asks, "fail", {"code": "STALE_ATTEMPT"})


@given(st.integers(0, 10**9))
def test_nothing_is_wrong_with_a_right_server(seed: int) -> None:
    model = Model(seed)
    assert check(model.ops, model.runs, read_at=model.read_at).violations == []


# --- what may be wrong --------------------------------------------------------------------------------------------

Wrong = Callable[[Model, random.Random], bool]
"""Does one wrong thing to a history or a log; False where there is nothing to do it to."""


def _acked(model: Model) -> list[tuple[str, str]]:
    return [
        (op.asks["run"], mark)
        for op in model.ops
        if op.outcome == "ok" and op.asks.get("seq") is not None
        for mark in op.asks.get("marks", ())
    ]


def _renumber(run: Run) -> None:
    for number, event in enumerate(run.events, 1):
        event["seq"] = number  # type: ignore[index]
    run.row["event_count"] = len(run.events)  # type: ignore[index]


def _event(run: Run, mark: str) -> dict[str, Any]:
    return next(dict(event) for event in run.events if event["payload"].get("mark") == mark)


def lose(model: Model, chance: random.Random) -> bool:
    name, mark = chance.choice(_acked(model))
    run = model.runs[name]
    run.events[:] = [event for event in run.events if event["payload"].get("mark") != mark]  # type: ignore[index]
    _renumber(run)
    return True


def double(model: Model, chance: random.Random) -> bool:
    name, mark = chance.choice(_acked(model))
    run = model.runs[name]
    place = [event["payload"].get("mark") for event in run.events].index(mark)
    run.events.insert(place, copy.deepcopy(run.events[place]))  # type: ignore[attr-defined]
    _renumber(run)
    return True


def swap(model: Model, chance: random.Random) -> bool:
    reports = [op for op in model.ops if op.outcome == "ok" and len(op.asks.get("marks", ())) > 1]
    if not reports:
        return False
    op = chance.choice(reports)
    run = model.runs[op.asks["run"]]
    marks = [event["payload"].get("mark") for event in run.events]
    one, two = marks.index(op.asks["marks"][0]), marks.index(op.asks["marks"][1])
    run.events[one], run.events[two] = run.events[two], run.events[one]  # type: ignore[index]
    _renumber(run)
    return True


def apply_what_was_refused(model: Model, chance: random.Random) -> bool:
    """With the past holder's name on it."""
    refused = [op for op in model.ops if op.heard.get("code") == "STALE_ATTEMPT"]
    if not refused:
        return False
    op = chance.choice(refused)
    run = model.runs[op.asks["run"]]
    event = {**run.events[-1], "type": "action", "payload": {"mark": op.asks["marks"][0]}}
    run.events.append({**event, "worker_id": op.asks["worker_id"], "attempt": op.asks["attempt"]})  # type: ignore[attr-defined]
    _renumber(run)
    return True


def apply_as_the_holders(model: Model, chance: random.Random) -> bool:
    """A refused event in the log, under the name of whoever holds the lane: nothing but its mark tells."""
    refused = [op for op in model.ops if op.heard.get("code") == "STALE_ATTEMPT"]
    held = [(op, event) for op in refused for event in model.runs[op.asks["run"]].events if event["type"] == "action"]
    if not held:
        return False
    op, event = chance.choice(held)
    run = model.runs[op.asks["run"]]
    place = run.events.index(event)
    run.events.insert(place, {**event, "payload": {"mark": op.asks["marks"][0]}})  # type: ignore[attr-defined]
    _renumber(run)
    return True


def grant_a_past_holder(model: Model, chance: random.Random) -> bool:
    """A call of an earlier attempt is answered 200, and nothing else shows it."""
    claims = [op for op in model.ops if op.does == "claim" and op.outcome == "ok" and op.heard["attempt"] > 1]
    if not claims:
        return False
    claim = chance.choice(claims)
    asks = {"run": claim.heard["id"], "worker_id": "past", "attempt": claim.heard["attempt"] - 1}
    model.ops.append(Op(10**6, "past", "report", asks, claim.ended + 0.1, claim.ended + 0.2, "ok", {}))
    return True


def grant_one_attempt_twice(model: Model, chance: random.Random) -> bool:
    claim = chance.choice([op for op in model.ops if op.does == "claim" and op.outcome == "ok"])
    other = copy.deepcopy(claim)
    other.asks["worker_id"] = "other"
    model.ops.append(other)
    return True


def claim_beside_the_holder(model: Model, chance: random.Random) -> bool:
    ends = [
        (run, place)
        for run in model.runs.values()
        for place, event in enumerate(run.events)
        if event["type"] in ("released", "lease_expired")
    ]
    if not ends:
        return False
    run, place = chance.choice(ends)
    del run.events[place]  # type: ignore[attr-defined]
    _renumber(run)
    return any(event["type"] == "claimed" for event in run.events[place:])


def take_back_late(model: Model, chance: random.Random) -> bool:
    expired = [event for run in model.runs.values() for event in run.events if event["type"] == "lease_expired"]
    if not expired:
        return False
    event = chance.choice(expired)
    at = datetime.fromisoformat(event["payload"]["deadline"]).timestamp() + LATE_SECONDS + MEASURE_SECONDS + 0.1
    event["recorded_at"] = instant(at)  # type: ignore[index]
    return True


def take_back_early(model: Model, chance: random.Random) -> bool:
    """Before the time that the holder was last told of."""
    heard = {(op.heard.get("id"), op.heard.get("attempt")): op for op in model.ops if op.heard.get("lease_expires_at")}
    expired = [
        (event, op)
        for name, run in model.runs.items()
        for event in run.events
        if event["type"] == "lease_expired" and (op := heard.get((name, event["attempt"]))) is not None
    ]
    if not expired:
        return False
    event, op = chance.choice(expired)
    at = datetime.fromisoformat(op.heard["lease_expires_at"]).timestamp() - 0.01
    event["recorded_at"] = instant(at)  # type: ignore[index]
    event["payload"]["deadline"] = instant(at)
    return True


def leave_behind(model: Model, chance: random.Random) -> bool:
    held = [run for run in model.runs.values() if run.row["lease_expires_at"] is not None]
    if not held:
        return False
    run = chance.choice(held)
    until = model.read_at - LATE_SECONDS - MEASURE_SECONDS - 0.1
    run.row["lease_expires_at"] = instant(until)  # type: ignore[index]
    return True


def skip_a_number(model: Model, chance: random.Random) -> bool:
    run = chance.choice([run for run in model.runs.values() if run.events])
    for event in run.events[chance.randrange(len(run.events)) :]:
        event["seq"] += 1  # type: ignore[index]
    return True


def miscount(model: Model, chance: random.Random) -> bool:
    chance.choice(list(model.runs.values())).row["event_count"] += 1  # type: ignore[index]
    return True


def invent(model: Model, chance: random.Random) -> bool:
    name, mark = chance.choice(_acked(model))
    run = model.runs[name]
    run.events.insert(  # type: ignore[attr-defined]
        [event["payload"].get("mark") for event in run.events].index(mark),
        {**_event(run, mark), "payload": {"mark": "nobody's"}},
    )
    _renumber(run)
    return True


def forget_the_end(model: Model, chance: random.Random) -> bool:
    shipped = [run for run in model.runs.values() if run.row["state"] == "shipped"]
    if not shipped:
        return False
    chance.choice(shipped).row["state"] = "running"  # type: ignore[index]
    return True


def lose_the_run(model: Model, chance: random.Random) -> bool:
    name, _ = chance.choice(_acked(model))
    del model.runs[name]
    return True


WRONGS: Final[list[tuple[Wrong, str]]] = [
    (lose, "lost"),
    (double, "doubled"),
    (swap, "disorder"),
    (apply_what_was_refused, "past holder"),
    (apply_as_the_holders, "refused, yet done"),
    (grant_a_past_holder, "past holder"),
    (grant_one_attempt_twice, "two holders"),
    (claim_beside_the_holder, "two holders"),
    (take_back_late, "late"),
    (take_back_early, "robbed"),
    (leave_behind, "left behind"),
    (skip_a_number, "gap"),
    (miscount, "gap"),
    (invent, "out of nowhere"),
    (forget_the_end, "row"),
    (lose_the_run, "lost"),
]


@pytest.mark.parametrize(("wrong", "kind"), WRONGS, ids=[wrong.__name__ for wrong, _ in WRONGS])
def test_what_is_wrong_is_found(wrong: Wrong, kind: str) -> None:
    planted = 0
    for seed in range(100):
        model = Model(seed)
        if _acked(model) and wrong(model, random.Random(seed)):
            planted += 1
            violations = check(model.ops, model.runs, read_at=model.read_at).violations
            assert kind in {violation.kind for violation in violations}, seed
        if planted == 10:
            return
    raise AssertionError(f"{planted} models had a place for it")


def test_a_lease_is_not_late_for_what_kept_the_system_from_working() -> None:
    for seed in range(100):
        model = Model(seed)
        if take_back_late(model, random.Random(seed)):
            always = FaultSpan("PostgreSQL killed", 0.0)
            assert check(model.ops, model.runs, [always], read_at=model.read_at).violations == []
            return


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    with History(tmp_path / "history") as history:
        asked = history.invoke("w", "claim", {"worker_id": "w"})
        history.invoke("w", "report", {"marks": ["m"]})
        with history.fault("server killed"):
            history.complete(asked, "ok", id="run", attempt=1)
    assert read(tmp_path / "history") == (history.ops, history.faults)
    assert [op.outcome for op in history.ops] == ["ok", "unknown"]
