"""The table of commands and states is whole, and what it says at its coarsest: who may do what from where."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

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
from heartlane.lanes.rules import TABLE, decide
from heartlane.lanes.run import CLAIMABLE_STATES, FINISHED_STATES, HELD_STATES, MUTABLE_COLUMNS, Run, State
from tests.runs import claimed, later, queued

COMMANDS: dict[str, Command] = {
    "report": Report("w1"),
    "claim": Claim("w1"),
    "claim by another": Claim("w2"),
    "release": Release("w1"),
    "release by an operator": Release(),
    "pause": Pause(),
    "resume": Resume(),
    "cancel": Cancel(),
    "retry": Retry(),
    "take back": TakeBack(),
    "unblock": Unblock(),
    "ripen": Ripen(),
    "hold": Hold("pause", "The budget is used up."),
    "hold and stop": Hold("stop", "The budget is used up."),
    "lift": Lift(),
    "pull request": NotePullRequest("https://git.test/1", "merged"),
}

# Where each command leads from each state, at a moment when the lease has run out: a state, or the code of its refusal.
# The states, in this order:
STATES = ("queued", "released", "claimed", "running", "paused", "shipping", "shipped", "failed")
OUTCOMES = {
    "report": "CLAIM_LOST CLAIM_LOST running running paused shipping RUN_FINISHED RUN_FINISHED",
    "claim": "claimed claimed claimed running paused shipping NO_LONGER_QUEUED NO_LONGER_QUEUED",
    "claim by another": "claimed claimed" + " CLAIM_HELD_BY_OTHER" * 4 + " NO_LONGER_QUEUED" * 2,
    "release": "CLAIM_LOST CLAIM_LOST" + " released" * 4 + " RUN_FINISHED RUN_FINISHED",
    "release by an operator": "NOT_CLAIMED NOT_CLAIMED" + " released" * 4 + " RUN_FINISHED RUN_FINISHED",
    "pause": "NOT_CLAIMED NOT_CLAIMED" + " paused" * 4 + " RUN_FINISHED RUN_FINISHED",
    "resume": "NOT_CLAIMED NOT_CLAIMED claimed running shipping shipping RUN_FINISHED RUN_FINISHED",
    "cancel": "failed " * 6 + "RUN_FINISHED RUN_FINISHED",
    "retry": "queued released" + " CLAIM_HELD_BY_OTHER" * 4 + " RUN_FINISHED queued",
    "take back": "queued released" + " queued" * 4 + " shipped failed",
    "unblock": " ".join(STATES),
    "ripen": " ".join(STATES),
    "hold": " ".join(STATES),
    "hold and stop": "queued released claimed running paused shipping shipped failed",
    "lift": " ".join(STATES),
    "pull request": " ".join(STATES),
}


def standing(state: str) -> Run:
    """A run of w1's in that state; in the phase shipping, so that a resume shows whether it looks."""
    if state in CLAIMABLE_STATES:
        return queued(state=state, last_worker_id="w1", attempt=1, phase="shipping")
    run = claimed("w1", 60, state=state, phase="shipping")
    return run if run.held else run._replace(lease_expires_at=None, take_back_at=None, finished_at=later(1))


def test_every_command_meets_a_rule_in_every_state() -> None:
    assert set(TABLE) == set(get_args(Command))
    assert all(set(row) == {str(state) for state in State} for row in TABLE.values())


def test_every_state_is_free_held_or_ended() -> None:
    groups = (CLAIMABLE_STATES, HELD_STATES, FINISHED_STATES)
    assert sorted(state for group in groups for state in group) == sorted(str(state) for state in State)


def test_the_expectations_below_are_whole() -> None:
    assert set(STATES) == {str(state) for state in State}
    assert {type(command) for command in COMMANDS.values()} == set(TABLE)
    assert all(len(outcome.split()) == len(STATES) for outcome in OUTCOMES.values())
    assert set(OUTCOMES) == set(COMMANDS)


@pytest.mark.parametrize(("name", "state"), list(product(COMMANDS, STATES)))
def test_every_command_in_every_state(name: str, state: str) -> None:
    run = standing(state)
    answer = decide(run, COMMANDS[name], later(60))
    expected = OUTCOMES[name].split()[STATES.index(state)]
    if not isinstance(answer, Decision):
        assert answer.code == expected
        assert answer.run is run
        return
    after = run._replace(**answer.changes)
    assert after.state == expected
    assert set(answer.changes) <= set(MUTABLE_COLUMNS)
    # Whatever the command: a holder, a lease and a time to look at it go together, and exactly with the held states.
    assert after.held == (after.lease_expires_at is not None) == (after.take_back_at is not None)
    assert not (after.held and after.worker_id is None)
    assert not (after.state in CLAIMABLE_STATES and after.worker_id is not None)
    assert after.finished == (after.finished_at is not None)
    assert after.attempt == run.attempt + (name.startswith("claim") and state in CLAIMABLE_STATES)
