"""Proves from a history and the logs that were read at its end what Heartlane promises; says what doesn't hold.

`check` looks at two things. Each run's log by itself, in the server's own order: it is walked event by event, and at
every step there must be one holder or none. And what clients heard against it, in real time: a call that began when
another had been answered comes after it.

What is promised, by the name of the violation:

    two holders             an attempt is one worker's, and begins only when the one before has ended
    past holder             no call of an earlier attempt that began after a later claim was answered was granted
    lost                    every event of a report that was answered 200 is in the log
    doubled                 no event is there twice
    disorder                the events of an attempt stand in the order in which they were told
    refused, yet done       no event of reports that were all refused is in the log
    out of nowhere          nor is one that nobody sent
    gap                     a log is numbered 1, 2, 3 …, and its run counts as many
    robbed                  no lease is taken back before the time that its holder was last told
    late                    a lease that ran out is taken back within LATE_SECONDS, as far as the system could work
    left behind             at the end no lease that ran out is still held
    row                     a run's state is what its log says
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from tests.chaos.history import FaultSpan, Op

LATE_SECONDS: Final = 2.0
"""What the contract promises of the take-back."""
MEASURE_SECONDS: Final = 1.0
"""How far beyond that a busy machine's clock readings are believed."""
ENDED: Final = {"shipped": "ship_complete", "failed": "error"}
WORKERS: Final = frozenset({"heartbeat", "log_line", "phase_change", "action", "error", "ship_complete"})


class Violation(NamedTuple):
    """What doesn't hold, where, and what shows it."""

    kind: str
    run: str
    says: str


class Run(NamedTuple):
    """One run as it was read at the end: its row, and its log."""

    row: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]


class Holding(NamedTuple):
    """One attempt, by its log. `over`: how it ended, None where it holds still."""

    worker: str
    attempt: int
    over: str | None


class Found(NamedTuple):
    """What was proved, and how late take-backs were where nothing kept them from being in time, in seconds."""

    violations: list[Violation]
    take_backs: int
    latest_seconds: float


def check(
    ops: Iterable[Op], runs: Mapping[str, Run], troubled: Sequence[FaultSpan] = (), *, read_at: float = float("inf")
) -> Found:
    """Everything at once.

    troubled    when the system could not work, up to when it had to be well again: a lease isn't late for that time
    read_at     when the runs were read, in seconds since 1970
    """
    by_run: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        run_id = op.asks.get("run") or op.heard.get("id")
        if run_id is not None:
            by_run[str(run_id)].append(op)
    violations: list[Violation] = []
    take_backs, latest = 0, 0.0
    for run_id, run in runs.items():
        holdings, wrong = _walk(run)
        calls = by_run.get(run_id, [])
        wrong += _check_claims(calls, holdings)
        wrong += _check_past_holders(calls)
        wrong += _check_marks(calls, run)
        wrong += _check_row(run, holdings)
        late, of_leases = _check_leases(calls, run, troubled, read_at)
        take_backs += len(late)
        latest = max([latest, *late])
        violations += [Violation(kind, run_id, says) for kind, says in (*wrong, *of_leases)]
    unread = [
        run_id for run_id, calls in by_run.items() if run_id not in runs and any(op.outcome == "ok" for op in calls)
    ]
    violations += [Violation("lost", run_id, "calls on it were granted, and it isn't there") for run_id in unread]
    return Found(violations, take_backs, latest)


Wrong = list[tuple[str, str]]


def _walk(run: Run) -> tuple[list[Holding], Wrong]:
    """The log from its begin: who held the lane, one after the other."""
    holdings: list[Holding] = []
    wrong: Wrong = []
    holder: tuple[str, int] | None = None
    for number, event in enumerate(run.events, 1):
        who, kind = (event["worker_id"], event["attempt"]), event["type"]
        if event["seq"] != number:
            wrong.append(("gap", f"event {number} has the number {event['seq']}"))
        if kind == "claimed":
            if holder is not None:
                wrong.append(("two holders", f"{who} claims while {holder} holds it (event {number})"))
                holdings.append(Holding(*holder, "claimed"))
            if event["attempt"] != (holdings[-1].attempt if holdings else 0) + 1:
                wrong.append(("two holders", f"attempt {event['attempt']} after {holdings[-1:]} (event {number})"))
            holder = who
        elif kind in WORKERS:
            if who != holder:
                wrong.append(("past holder", f"{who} told {kind} while {holder} holds it (event {number})"))
            if kind == "ship_complete" or (kind == "error" and event["payload"].get("fatal")):
                holdings.append(Holding(*who, kind))
                holder = None
        elif kind in ("released", "lease_expired", "cancelled"):
            if holder is not None:
                holdings.append(Holding(*holder, kind))
            elif kind != "cancelled":
                wrong.append(("two holders", f"{kind} while nobody holds it (event {number})"))
            holder = None
    if holder is not None:
        holdings.append(Holding(*holder, None))
    return holdings, wrong


def _check_claims(calls: Sequence[Op], holdings: Sequence[Holding]) -> Wrong:
    workers = {holding.attempt: holding.worker for holding in holdings}
    wrong: Wrong = []
    for op in calls:
        if op.does == "claim" and op.outcome == "ok" and op.heard.get("attempt") is not None:
            attempt, worker = op.heard["attempt"], op.asks["worker_id"]
            if workers.get(attempt) != worker:
                wrong.append(("two holders", f"{worker} was granted attempt {attempt}, of {workers.get(attempt)}"))
    return wrong


def _check_past_holders(calls: Sequence[Op]) -> Wrong:
    claimed: dict[int, float] = {}
    for op in calls:
        if op.does == "claim" and op.outcome == "ok":
            attempt = op.heard["attempt"]
            claimed[attempt] = min(op.ended, claimed.get(attempt, op.ended))
    wrong: Wrong = []
    for op in calls:
        attempt = op.asks.get("attempt") if op.does != "claim" else op.heard.get("attempt")
        if op.outcome != "ok" or attempt is None:
            continue
        later = [number for number, at in claimed.items() if number > attempt and at < op.began]
        if later:
            wrong.append(("past holder", f"{op.does} of attempt {attempt} was granted after the claim of {max(later)}"))
    return wrong


def _check_marks(calls: Sequence[Op], run: Run) -> Wrong:
    wrong: Wrong = []
    stands: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    for event in run.events:
        mark = event["payload"].get("mark")
        if mark is not None:
            stands[mark].append((event["seq"], event["worker_id"], event["attempt"]))
    sent: dict[str, set[str]] = defaultdict(set)
    told: dict[tuple[str, int], dict[int, list[str]]] = defaultdict(dict)
    for op in calls:
        for mark in op.asks.get("marks", ()):
            sent[mark].add(op.outcome)
            if op.outcome == "ok" and mark not in stands:
                wrong.append(("lost", f"{mark} was answered 200"))
        attempt = op.asks.get("attempt")
        if op.outcome == "ok" and op.asks.get("marks") and attempt is not None and op.asks.get("seq") is not None:
            told[op.asks["worker_id"], attempt][op.asks["seq"]] = op.asks["marks"]
    for mark, places in stands.items():
        if len(places) > 1:
            wrong.append(("doubled", f"{mark} stands at {[seq for seq, _, _ in places]}"))
        if mark not in sent:
            wrong.append(("out of nowhere", mark))
        elif sent[mark] == {"fail"}:
            wrong.append(("refused, yet done", mark))
    for who, reports in told.items():
        marks = [mark for seq in sorted(reports) for mark in reports[seq]]
        places = [stands[mark][0] for mark in marks if mark in stands]
        if places != sorted(places):
            wrong.append(("disorder", f"{who}: {marks} stand at {[seq for seq, _, _ in places]}"))
        if any((worker, attempt) != who for _, worker, attempt in places):
            wrong.append(("past holder", f"{who} was answered 200 for events of another attempt"))
    return wrong


def _check_row(run: Run, holdings: Sequence[Holding]) -> Wrong:
    row, last = run.row, holdings[-1] if holdings else None
    wrong: Wrong = []
    if row["event_count"] != len(run.events):
        wrong.append(("gap", f"the run counts {row['event_count']} events; there are {len(run.events)}"))
    if row["attempt"] != (last.attempt if last else 0):
        wrong.append(("row", f"attempt {row['attempt']}, by its log {last}"))
    held = row["state"] in ("claimed", "running", "paused", "shipping")
    if held != (last is not None and last.over is None):
        wrong.append(("row", f"state {row['state']}, by its log {last}"))
    if (row["state"] == "shipped") != (last is not None and last.over == "ship_complete"):
        wrong.append(("row", f"state {row['state']}, by its log {last}"))
    if held and last is not None and row["worker_id"] != last.worker:
        wrong.append(("row", f"held by {row['worker_id']}, by its log {last}"))
    return wrong


def _check_leases(
    calls: Sequence[Op], run: Run, troubled: Sequence[FaultSpan], read_at: float
) -> tuple[list[float], Wrong]:
    """How late each take-back was, by time in which the system could work, and what is wrong."""
    wrong: Wrong = []
    promised: Counter[int] = Counter()
    for op in calls:
        until = op.heard.get("lease_expires_at")
        attempt = op.heard.get("attempt")
        if op.outcome == "ok" and until is not None and attempt is not None:
            promised[attempt] = max(promised[attempt], seconds(until))  # type: ignore[assignment]
    late = []
    for event in run.events:
        if event["type"] != "lease_expired":
            continue
        taken_at, deadline = seconds(event["recorded_at"]), seconds(event["payload"]["deadline"])
        if taken_at < promised[event["attempt"]]:
            wrong.append(("robbed", f"attempt {event['attempt']} had until {promised[event['attempt']]}: {taken_at}"))
        late.append(well_seconds(deadline, taken_at, troubled))
        if late[-1] > LATE_SECONDS + MEASURE_SECONDS:
            wrong.append(("late", f"attempt {event['attempt']} was taken back {late[-1]:.1f} s after its deadline"))
    until = run.row["lease_expires_at"]
    if until is not None:
        over = well_seconds(seconds(until), read_at, troubled) if read_at < float("inf") else 0.0
        if over > LATE_SECONDS + MEASURE_SECONDS:
            wrong.append(("left behind", f"its lease ran out {over:.1f} s ago"))
    return late, wrong


def well_seconds(begin: float, end: float, troubled: Sequence[FaultSpan]) -> float:
    """How much of the time between two moments lies in no trouble.

    >>> well_seconds(0, 10, [FaultSpan("x", 1, 3), FaultSpan("x", 2, 5)])
    6.0
    """
    well, at = 0.0, begin
    for span in sorted(troubled, key=lambda span: span.began):
        if span.ended <= at or span.began >= end:
            continue
        well += max(0.0, span.began - at)
        at = max(at, span.ended)
    return float(well + max(0.0, end - at))


def seconds(text: str) -> float:
    """A time of the API, in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()
