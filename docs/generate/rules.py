"""What the rules do with each command in each state: asked of the rules themselves, on a lane that is played there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Final

from docs.generate.markdown import code, table
from heartlane.lanes.commands import (
    Cancel,
    Claim,
    Command,
    Hold,
    Lift,
    NotePullRequest,
    Pause,
    Release,
    Report,
    Resume,
    Retry,
    Ripen,
    TakeBack,
    Unblock,
)
from heartlane.lanes.decisions import Decision
from heartlane.lanes.planning import Lane, Source, initial_runs
from heartlane.lanes.rules import decide
from heartlane.lanes.run import Event, Run, State

BEGIN: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATE: Final = BEGIN + timedelta(hours=1)
"""When every lease here has run out, and nothing else has changed yet."""
HOLDER: Final = "w1"
STATES: Final = tuple(str(state) for state in State)

SHIP: Final = Report(HOLDER, events=[Event("ship_complete", {})])
FATAL: Final = Report(HOLDER, events=[Event("error", {"message": "no", "fatal": True})])
SHIPPING: Final = Report(HOLDER, phase="shipping")

PLAYED: Final[Mapping[str, tuple[Command, ...]]] = {
    "queued": (Claim(HOLDER), TakeBack()),
    "claimed": (Claim(HOLDER),),
    "running": (Claim(HOLDER), Report(HOLDER)),
    "paused": (Claim(HOLDER), Report(HOLDER), Pause()),
    "shipping": (Claim(HOLDER), SHIPPING),
    "shipped": (Claim(HOLDER), SHIP),
    "failed": (Claim(HOLDER), Cancel()),
    "released": (Claim(HOLDER), Release(HOLDER)),
}
"""State → how a lane comes there that w1 holds, or held."""

COMMANDS: Final[Mapping[str, Command]] = {
    "claim, by the worker": Claim(HOLDER),
    "claim, by another": Claim("w2"),
    "report, by the worker": Report(HOLDER),
    "report, phase `shipping`": SHIPPING,
    "report, `ship_complete`": SHIP,
    "report, `error` that is fatal": FATAL,
    "report, by another": Report("w2"),
    "release, by the worker": Release(HOLDER),
    "release, by an operator": Release(),
    "pause": Pause(),
    "resume": Resume(),
    "cancel": Cancel(),
    "retry": Retry(),
    "the lease runs out": TakeBack(),
    "a lane it waits for ships": Unblock(),
    "`not_before` passes": Ripen(),
    "its project's budget pauses it": Hold("pause", "The project's budget is used up."),
    "its project's budget stops it": Hold("stop", "The project's budget is used up."),
    "its project's budget lets it go on": Lift(),
    "its pull request is opened, merged or closed": NotePullRequest("https://git.test/1", "merged"),
}


def states_and_commands() -> str:
    """One row a command, one column a state; what becomes of the lane."""
    rows = [[name, *(_outcome(state, command) for state in STATES)] for name, command in COMMANDS.items()]
    return table(["", *map(code, STATES)], rows)


def lane_in(state: str, *, failures_left: int = 5) -> Run:
    """A lane that was played to that state, with so many failures left before it fails for good."""
    source = Source("account", "project", "plan", None, max_failures=5, stalled_after_seconds=900)
    (run,) = initial_runs(source, [Lane("api", "Totals in the API", "backend")], {"api": "run"}, {}, BEGIN)
    for command in PLAYED[state]:
        decision = allowed(run, command, LATE if isinstance(command, TakeBack) else BEGIN)
        run = run._replace(**decision.changes)
    return run._replace(max_failures=run.failures + failures_left)


def allowed(run: Run, command: Command, now: datetime) -> Decision:
    """What the rules make of a command that they don't refuse here. Raises TypeError where they do."""
    decision = decide(run, command, now)
    if not isinstance(decision, Decision):
        raise TypeError(f"{command} is refused in {run.state}: {decision.error}")
    return decision


def transitions() -> Iterator[tuple[str, str]]:
    """Every pair of states that some command leads through, from the first to the second."""
    commands = (*COMMANDS.values(), Release(HOLDER, failed=True), Report(HOLDER, phase="tests"))
    for state, failures_left, command in product(STATES, (1, 5), commands):
        run = lane_in(state, failures_left=failures_left)
        # A resume looks at the phase, so each lane is tried in that phase too.
        for standing in (run, run._replace(phase="shipping")):
            decision = decide(standing, command, LATE)
            if isinstance(decision, Decision) and decision.changes.get("state", state) != state:
                yield state, decision.changes["state"]


def _outcome(state: str, command: Command) -> str:
    run = lane_in(state)
    if isinstance(command, Unblock):
        run = run._replace(blockers_left=1)
    if isinstance(command, Lift):
        run = run._replace(budget_hold="pause")
    if isinstance(command, Ripen):
        run = run._replace(not_before=BEGIN)
    decision = decide(run, command, LATE)
    if not isinstance(decision, Decision):
        return f"[{code(decision.code)}](reference/errors.md#{decision.code.lower()})"
    after = run._replace(**decision.changes)
    if after.state != state:
        return f"→ {code(after.state)}"
    if after.lease_expires_at != run.lease_expires_at:
        return "renewed"
    return "noted" if decision.changes else "–"
