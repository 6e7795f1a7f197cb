"""What is derived from a run and the time: whether it stalls, and why a person should look at it."""

from __future__ import annotations

from datetime import datetime

import pytest

from heartlane.lanes.commands import Cancel, Claim, Pause, Release, Report, Resume, TakeBack
from heartlane.lanes.run import Event, Run, is_stalled, needs_attention
from tests.runs import NOW, applied, later, phase_change, queued, report, running

BUDGET = Event("error", {"message": "Out of tokens.", "reason": "budget"})


def attention(run: Run, at: datetime = NOW) -> str | None:
    return needs_attention(run, at, stalled=is_stalled(run, at))


def heartbeats_until(run: Run, seconds: float, *events: Event) -> Run:
    """The run after bare heartbeats up to that moment."""
    return applied(run, report(*events, Event("heartbeat", {})), at=later(seconds))


# --- stalled ------------------------------------------------------------------------------------------------------


def test_a_run_stalls_when_heartbeats_arrive_but_nothing_else_does() -> None:
    run = heartbeats_until(running(stalled_after_seconds=900), 901)
    assert not is_stalled(run, later(900))
    assert is_stalled(run, later(901))
    assert attention(run, later(901)) == "stalled"


@pytest.mark.parametrize(
    "event", [Event("action", {}), Event("log_line", {}), Event("error", {}), phase_change("x")], ids=lambda e: e.type
)
def test_anything_beyond_a_heartbeat_is_progress(event: Event) -> None:
    run = heartbeats_until(running(), 901, event)
    assert not is_stalled(run, later(901))


def test_a_new_phase_or_log_line_is_progress_and_the_same_again_is_not() -> None:
    run = applied(running(), Report("w1", phase="tests", log_line="ok"))
    again = applied(run, Report("w1", phase="tests", log_line="ok"), at=later(901))
    assert is_stalled(again, later(901))
    assert not is_stalled(applied(again, Report("w1", log_line="ok 2"), at=later(901)), later(901))
    assert not is_stalled(applied(again, Report("w1", phase="docs"), at=later(901)), later(901))


def test_a_claim_that_is_never_reported_on_stalls_too() -> None:
    run = applied(queued(), Claim("w1", 3600))
    assert is_stalled(run, later(901))


def test_a_holder_that_says_by_itself_that_its_agent_stalled_is_believed_until_something_happens() -> None:
    stalled = applied(running(), report(Event("error", {"message": "Silent for 5 min.", "reason": "stalled"})))
    assert attention(stalled) == "stalled"
    assert attention(heartbeats_until(stalled, 1), later(1)) == "stalled"
    assert attention(applied(stalled, report(Event("action", {}))), NOW) is None


def test_a_paused_lane_and_one_that_waits_for_a_person_are_quiet_by_right() -> None:
    assert not is_stalled(applied(running(), Pause()), later(5000))
    assert not is_stalled(applied(running(), report(phase_change("waiting"))), later(5000))


def test_quiet_time_is_counted_from_the_resume() -> None:
    run = applied(applied(running(), Pause()), Resume(), at=later(2000))
    assert not is_stalled(run, later(2900))
    assert is_stalled(run, later(2901))


@pytest.mark.parametrize("run", [queued(), applied(running(), Release("w1")), applied(running(), Cancel())])
def test_nobody_stalls_a_lane_that_nobody_holds(run: Run) -> None:
    assert not is_stalled(run, later(10**6))


# --- needs_attention ----------------------------------------------------------------------------------------------


def test_a_lane_that_goes_well_needs_nobody() -> None:
    assert attention(queued()) is None
    assert attention(running()) is None
    assert attention(applied(running(), report(Event("ship_complete", {})))) is None


def test_waiting_for_a_human_is_cleared_by_the_next_phase() -> None:
    waiting = applied(running(), report(phase_change("waiting", **{"for": "permission"})))
    assert attention(waiting) == "waiting_for_human"
    assert attention(applied(waiting, Report("w1", phase="tests"))) is None


def test_waiting_is_over_when_the_lease_is() -> None:
    waiting = applied(running(), report(phase_change("waiting")))
    assert attention(applied(waiting, TakeBack(), at=later(300)), later(300)) is None


def test_a_paused_lane() -> None:
    paused = applied(running(), Pause())
    assert attention(paused) == "paused"
    assert attention(applied(paused, Resume())) is None


def test_a_failed_run() -> None:
    assert attention(applied(running(), Cancel())) == "failed"


def test_a_budget_that_is_used_up_is_cleared_by_progress() -> None:
    over = applied(running(), report(BUDGET))
    assert attention(over) == "budget"
    assert attention(applied(over, Report("w1"))) == "budget"
    assert attention(applied(over, report(Event("action", {})))) is None
    assert attention(applied(over, Report("w1", phase="tests"))) is None


def test_a_phase_told_again_is_no_progress_in_a_budget() -> None:
    over = applied(running(), Report("w1", phase="tests"), report(BUDGET))
    assert attention(applied(over, Report("w1", phase="tests"))) == "budget"


def test_the_report_that_uses_up_the_budget_may_bring_a_phase_of_its_own() -> None:
    assert attention(applied(running(), report(BUDGET, phase="over"))) == "budget"
    fatal = Event("error", {"reason": "budget", "fatal": True})
    assert attention(applied(running(), report(fatal, phase="over"))) == "budget"


def test_a_lease_is_running_out_when_less_than_a_third_is_left() -> None:
    run = running(lease_seconds=300)
    assert attention(run, later(200)) is None
    assert attention(run, later(201)) == "lease_running_out"
    assert attention(applied(run, Report("w1"), at=later(202)), later(202)) is None


def test_a_third_is_a_third_of_the_lease_as_last_renewed() -> None:
    short = applied(running(lease_seconds=300), Report("w1", lease_seconds=60))
    assert attention(short, later(40)) is None
    assert attention(short, later(41)) == "lease_running_out"
    long = applied(running(lease_seconds=60), Report("w1", lease_seconds=600))
    assert attention(long, later(401)) == "lease_running_out"


def test_the_most_pressing_reason_is_told() -> None:
    run = applied(running(), report(phase_change("waiting"), BUDGET))
    assert attention(applied(run, Pause())) == "waiting_for_human"
    over = applied(running(), report(BUDGET), Pause())
    assert attention(over) == "budget"
    assert attention(applied(running(), Pause()), later(299)) == "paused"
    assert attention(running(stalled_after_seconds=1), later(299)) == "stalled"
