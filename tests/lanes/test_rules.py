"""The rules of claims and reports, a sentence of the contract at a time. (Endings and operators: `test_endings.py`.)"""

from __future__ import annotations

from typing import Any

import pytest

from heartlane.lanes.commands import Claim, Pause, Release, Report, Resume, TakeBack
from heartlane.lanes.rules import directive
from heartlane.lanes.run import Event
from tests.runs import NOW, applied, claimed, decision, later, phase_change, queued, refused, report, running

# --- claims -------------------------------------------------------------------------------------------------------


def test_a_claim_makes_the_worker_the_holder_for_the_length_of_its_lease() -> None:
    run = applied(queued(), Claim("w1", 60))
    assert (run.state, run.worker_id, run.attempt) == ("claimed", "w1", 1)
    assert (run.claimed_at, run.last_heartbeat, run.lease_expires_at) == (NOW, NOW, later(60))


def test_a_claim_without_a_length_gets_300_seconds() -> None:
    assert applied(queued(), Claim("w1")).lease_expires_at == later(300)


def test_a_claim_is_written_to_the_log() -> None:
    (event,) = decision(queued(attempt=6), Claim("w1", 60)).events
    assert event == Event("claimed", {"worker_id": "w1", "attempt": 7, "lease_seconds": 60})


@pytest.mark.parametrize("state", ["queued", "released"])
def test_queued_and_released_lanes_are_claimable(state: str) -> None:
    assert applied(queued(state=state), Claim("w1")).state == "claimed"


def test_attempt_grows_with_every_claim_and_seq_begins_anew() -> None:
    run = applied(queued(attempt=4, last_seq=17, state="released", last_worker_id="w1"), Claim("w1"))
    assert (run.attempt, run.last_seq) == (5, 0)


def test_a_claim_tells_nothing_of_what_the_last_attempt_was_doing() -> None:
    before = applied(running(), report(phase_change("shipping"), log_line="pushing"))
    before = applied(before, TakeBack(), at=later(400))
    assert (before.phase, before.log_line) == ("shipping", "pushing")
    run = applied(before, Claim("w2"), at=later(401))
    assert (run.phase, run.log_line, run.waiting_for) == (None, None, None)
    assert applied(run, Pause(), Resume()).state == "running"


def test_a_claim_keeps_what_earlier_attempts_left_behind() -> None:
    before = queued(state="released", pr_url="https://git.test/1", branch="lane", commit="abc", error="Tests failed.")
    run = applied(before, Claim("w2"))
    assert (run.pr_url, run.branch, run.commit) == ("https://git.test/1", "lane", "abc")
    assert run.error == "Tests failed."


def test_a_lane_that_waits_for_others_is_not_claimable() -> None:
    refusal = refused(queued(blockers_left=2), Claim("w1"))
    assert refusal.code == "LANE_BLOCKED"
    assert "2 other lane(s)" in refusal.error


def test_a_lane_is_not_claimable_before_its_time_and_is_from_then_on() -> None:
    run = queued(state="released", not_before=later(10))
    refusal = refused(run, Claim("w1"), later(9.9))
    assert refusal.code == "LANE_BLOCKED"
    assert "2026-01-02T03:04:15Z" in refusal.error
    assert applied(run, Claim("w1"), at=later(10)).not_before is None


def test_the_holders_own_second_call_renews_and_is_the_same_attempt() -> None:
    run = applied(running(last_seq=3), Claim("w1"), at=later(100))
    assert (run.state, run.attempt, run.last_seq) == ("running", 1, 3)
    assert (run.claimed_at, run.lease_expires_at) == (NOW, later(400))
    assert decision(run, Claim("w1")).events == ()


def test_the_holders_second_call_can_change_the_length_of_its_lease() -> None:
    run = applied(running(lease_seconds=60), Claim("w1", 600), at=later(50))
    assert run.lease_expires_at == later(650)
    assert applied(run, Report("w1"), at=later(60)).lease_expires_at == later(660)


@pytest.mark.parametrize("state", ["claimed", "running", "paused", "shipping"])
def test_anybody_elses_claim_hears_who_holds_the_lane_and_until_when(state: str) -> None:
    refusal = refused(claimed(state=state), Claim("w2"))
    assert refusal.code == "CLAIM_HELD_BY_OTHER"
    assert "'w1'" in refusal.error
    assert "2026-01-02T03:09:05Z" in refusal.error


@pytest.mark.parametrize("state", ["shipped", "failed"])
def test_a_lane_that_ended_is_no_longer_queued(state: str) -> None:
    refusal = refused(queued(state=state, finished_at=NOW), Claim("w1"))
    assert refusal.code == "NO_LONGER_QUEUED"
    assert state in refusal.error


# --- the guard ----------------------------------------------------------------------------------------------------


def test_only_the_holder_may_report() -> None:
    refusal = refused(running("w1"), Report("w2"))
    assert refusal.code == "CLAIM_HELD_BY_OTHER"
    assert "'w1'" in refusal.error
    assert "2026-01-02T03:09:05Z" in refusal.error


def test_worker_ids_are_compared_to_the_letter() -> None:
    assert refused(running("w1"), Report("W1")).code == "CLAIM_HELD_BY_OTHER"


def test_a_report_on_a_lane_that_was_never_claimed() -> None:
    assert refused(queued(), Report("w1")).code == "NOT_CLAIMED"


def test_a_past_holder_hears_that_its_claim_is_lost() -> None:
    run = applied(running("w1"), TakeBack(), at=later(301))
    refusal = refused(run, Report("w1"), later(302))
    assert refusal.code == "CLAIM_LOST"
    assert "'w1'" in refusal.error


def test_a_stranger_to_a_lane_that_was_given_back_hears_that_nobody_holds_it() -> None:
    run = applied(running("w1"), Release("w1"))
    assert refused(run, Report("w2")).code == "NOT_CLAIMED"


def test_whoever_sends_an_attempt_held_it_once() -> None:
    # w1 held attempt 1, w2 attempt 2: the run remembers only the last holder, the attempt that is sent tells the rest.
    run = applied(applied(running("w1"), Release("w1"), Claim("w2")), Release("w2"))
    assert refused(run, Report("w1", attempt=1)).code == "CLAIM_LOST"


def test_a_past_holder_hears_who_has_taken_over() -> None:
    run = applied(running("w1"), Release("w1"), Claim("w2"))
    assert refused(run, Report("w1", attempt=1)).code == "CLAIM_HELD_BY_OTHER"


@pytest.mark.parametrize("attempt", [1, 3])
def test_an_attempt_that_is_not_the_current_one_is_stale(attempt: int) -> None:
    run = applied(running("w1"), Release("w1"), Claim("w1"))
    refusal = refused(run, Report("w1", attempt=attempt))
    assert refusal.code == "STALE_ATTEMPT"
    assert "attempt 2" in refusal.error
    assert applied(run, Report("w1", attempt=2)).state == "running"


def test_a_report_after_the_deadline_but_before_the_take_back_still_holds() -> None:
    run = applied(running(lease_seconds=60), Report("w1"), at=later(1000))
    assert (run.worker_id, run.lease_expires_at) == ("w1", later(1060))


def test_a_refusal_carries_the_run_as_it_is() -> None:
    run = running()
    assert refused(run, Report("w2")).run is run


# --- effect 1: the lease ------------------------------------------------------------------------------------------


def test_a_report_renews_the_lease_for_as_long_as_the_claim_had_it() -> None:
    run = applied(running(lease_seconds=60), Report("w1"), at=later(50))
    assert (run.last_heartbeat, run.lease_expires_at, run.updated_at) == (later(50), later(110), later(50))


def test_a_report_may_ask_for_another_length_for_this_once() -> None:
    run = applied(running(lease_seconds=60), Report("w1", lease_seconds=600), at=later(50))
    assert run.lease_expires_at == later(650)
    assert applied(run, Report("w1"), at=later(60)).lease_expires_at == later(120)


def test_a_shorter_lease_is_taken_back_by_its_own_deadline() -> None:
    run = applied(running(lease_seconds=600), Report("w1", lease_seconds=1), at=later(50))
    assert run.lease_expires_at == later(51)
    assert run.take_back_at is not None
    assert run.take_back_at <= later(51)
    assert applied(run, TakeBack(), at=later(51)).state == "queued"


def test_a_claim_that_comes_late_ends_no_lease_earlier() -> None:
    """The holder counts on the deadline that it was told; its next report has the length that was asked for last."""
    run = applied(running(lease_seconds=600), Claim("w1", 60), at=later(50))
    assert (run.lease_expires_at, run.lease_seconds) == (later(600), 60)
    assert applied(run, TakeBack(), at=later(599)).state == "running"
    assert applied(run, Report("w1"), at=later(70)).lease_expires_at == later(130)


def test_a_longer_lease_is_not_taken_back_at_the_old_deadline() -> None:
    run = applied(running(lease_seconds=60), Report("w1", lease_seconds=600), at=later(30))
    looked = applied(run, TakeBack(), at=later(60))
    assert (looked.state, looked.take_back_at) == ("running", later(630))


# --- effect 2: the first report -----------------------------------------------------------------------------------


def test_a_claimed_run_is_running_from_its_holders_first_report_on() -> None:
    assert applied(claimed(), Report("w1")).state == "running"


@pytest.mark.parametrize("state", ["running", "paused", "shipping"])
def test_a_bare_heartbeat_leaves_every_other_state_alone(state: str) -> None:
    assert applied(claimed(state=state), report(Event("heartbeat", {}))).state == state


# --- effect 3: events ---------------------------------------------------------------------------------------------


def test_events_are_appended_in_order_and_as_sent() -> None:
    events = [
        Event("action", {"tool": "edit"}, "2026-01-02T00:00:00+02:00"),
        Event("heartbeat", {}),
        Event("error", {}),
    ]
    assert list(decision(running(), report(*events)).events) == events


def test_phase_change_sets_the_phase() -> None:
    assert applied(claimed(), report(phase_change("tests"))).phase == "tests"


def test_the_phase_shipping_moves_the_run_to_the_state_shipping_and_any_other_back() -> None:
    run = applied(running(), report(phase_change("shipping")))
    assert run.state == "shipping"
    assert applied(run, Report("w1")).state == "shipping"
    assert applied(run, report(phase_change("tests"))).state == "running"


@pytest.mark.parametrize("phase", ["shipping", "tests", "waiting"])
def test_no_phase_leads_out_of_paused(phase: str) -> None:
    paused = applied(running(), Pause())
    assert applied(paused, report(phase_change(phase))).state == "paused"
    run = applied(paused, Report("w1", phase=phase))
    assert (run.state, run.phase) == ("paused", phase)


def test_resume_goes_on_with_the_phase_that_came_while_paused() -> None:
    paused = applied(running(), Pause(), Report("w1", phase="shipping"))
    assert applied(paused, Resume()).state == "shipping"


def test_the_phase_waiting_means_that_a_person_is_waited_for() -> None:
    assert applied(running(), report(phase_change("waiting", **{"for": "permission"}))).waiting_for == "permission"
    assert applied(running(), report(phase_change("waiting"))).waiting_for == "person"
    assert applied(running(), Report("w1", phase="waiting")).waiting_for == "person"


@pytest.mark.parametrize(
    "next_report",
    [report(phase_change("tests")), Report("w1", phase="tests"), report(Event("action", {}))],
    ids=["phase_change", "phase", "action"],
)
def test_waiting_ends_with_the_next_phase_or_action(next_report: Report) -> None:
    waiting = applied(running(), report(phase_change("waiting")))
    assert applied(waiting, next_report).waiting_for is None


@pytest.mark.parametrize(
    "next_report",
    [
        Report("w1"),
        report(Event("heartbeat", {})),
        report(Event("log_line", {"line": "x"})),
        report(Event("error", {})),
    ],
    ids=["bare", "heartbeat", "log_line", "error"],
)
def test_waiting_goes_on_through_anything_else(next_report: Report) -> None:
    waiting = applied(running(), report(phase_change("waiting", **{"for": "permission"})))
    assert applied(waiting, next_report).waiting_for == "permission"


def test_a_phase_that_is_told_again_keeps_what_is_waited_for() -> None:
    waiting = applied(running(), report(phase_change("waiting", **{"for": "permission"}), phase="waiting"))
    assert waiting.waiting_for == "permission"
    assert applied(waiting, Report("w1", phase="waiting")).waiting_for == "permission"


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        ({"line": "compiled"}, "compiled"),
        ({"message": "compiled"}, "compiled"),
        ({"line": "this", "message": "that"}, "this"),
        ({"line": 5, "message": "that"}, "that"),
        ({"line": "x" * 2001}, "x" * 2000),
        ({"line": "a\0b"}, "ab"),
        ({"line": ""}, ""),
        ({}, "before"),
        ({"line": ["no", "text"]}, "before"),
    ],
)
def test_log_line_sets_the_latest_log_line(payload: dict[str, Any], line: str) -> None:
    run = applied(running(log_line="before"), report(Event("log_line", payload)))
    assert run.log_line == line


def test_error_sets_the_error_and_the_run_goes_on() -> None:
    run = applied(running(), report(Event("error", {"message": "Tests failed."})))
    assert (run.state, run.error) == ("running", "Tests failed.")


@pytest.mark.parametrize("fatal", [False, "true", 1, None])
def test_an_error_is_fatal_only_where_it_says_true(fatal: object) -> None:
    assert applied(running(), report(Event("error", {"message": "x", "fatal": fatal}))).state == "running"


def test_heartbeat_and_action_are_appended_only() -> None:
    before = running(phase="tests", log_line="line")
    events = [Event("heartbeat", {"phase": "x", "line": "y"}), Event("action", {"message": "z", "fatal": True})]
    after = applied(before, report(*events), at=later(1))
    same = {"state", "phase", "log_line", "error", "finished_at", "pr_url", "worker_id", "attempt", "failures"}
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert after.event_count == before.event_count + 2


def test_the_last_event_of_a_kind_wins() -> None:
    run = applied(running(), report(phase_change("a"), phase_change("shipping"), phase_change("b")))
    assert (run.phase, run.state) == ("b", "running")


def test_a_phase_change_without_a_phase_is_appended_only() -> None:
    run = applied(running(phase="tests"), report(Event("phase_change", {"name": "x"})))
    assert (run.phase, run.event_count) == ("tests", 2)


# --- effect 4: the top-level values -------------------------------------------------------------------------------


def test_top_level_values_win_over_those_of_the_events() -> None:
    events = [phase_change("shipping"), Event("log_line", {"line": "from the event"})]
    run = applied(running(), report(*events, phase="tests", log_line="from the top"))
    assert (run.phase, run.log_line, run.state) == ("tests", "from the top", "running")


def test_the_top_level_phase_shipping_moves_the_state_too() -> None:
    assert applied(claimed(), Report("w1", phase="shipping")).state == "shipping"


def test_empty_top_level_values_are_values() -> None:
    run = applied(running(phase="tests", log_line="x"), Report("w1", phase="", log_line=""))
    assert (run.phase, run.log_line) == ("", "")


def test_values_that_are_left_out_stay() -> None:
    run = applied(running(phase="tests", log_line="x"), Report("w1"))
    assert (run.phase, run.log_line) == ("tests", "x")


# --- replays ------------------------------------------------------------------------------------------------------


def test_a_seq_above_the_last_one_is_applied_also_where_numbers_are_left_out() -> None:
    run = applied(running(), Report("w1", seq=1), Report("w1", seq=7))
    assert (run.last_seq, applied(run, Report("w1")).last_seq) == (7, 7)


@pytest.mark.parametrize("seq", [7, 6, 1])
def test_a_replay_renews_the_lease_and_changes_nothing_else(seq: int) -> None:
    before = applied(running(), Report("w1", seq=7, phase="tests"))
    replay = report(Event("error", {"message": "x", "fatal": True}), seq=seq, phase="shipping", log_line="no")
    answer = decision(before, replay, later(10))
    assert answer.duplicate
    assert not answer.events
    after = applied(before, replay, at=later(10))
    assert after == before._replace(last_heartbeat=later(10), lease_expires_at=later(310), updated_at=later(10))


def test_a_report_without_seq_is_never_a_replay() -> None:
    run = applied(running(), Report("w1", seq=7))
    answer = decision(run, report(Event("heartbeat", {})))
    assert (answer.duplicate, len(answer.events)) == (False, 1)


def test_a_replay_after_the_end_is_answered_as_such() -> None:
    run = applied(running(), report(Event("ship_complete", {}), seq=7))
    answer = decision(run, report(Event("ship_complete", {}), seq=7), later(5))
    assert answer.duplicate
    assert not answer.changes
    assert not answer.events
    assert directive(run, replay=True) == "stop"


@pytest.mark.parametrize(
    "too_late",
    [Report("w1", seq=8), Report("w1"), Report("w2", seq=7), Report("w1", seq=7, attempt=2)],
    ids=["new seq", "no seq", "another worker", "another attempt"],
)
def test_any_other_report_after_the_end_is_refused(too_late: Report) -> None:
    run = applied(running(), report(Event("ship_complete", {}), seq=7))
    refusal = refused(run, too_late)
    assert refusal.code == "RUN_FINISHED"
    assert "shipped" in refusal.error


# --- what the operator wants of the worker ------------------------------------------------------------------------


def test_the_directive_follows_the_operators_hand() -> None:
    run = running()
    assert directive(run) == "continue"
    paused = applied(run, Pause())
    assert directive(paused) == "pause"
    assert directive(applied(paused, Resume())) == "continue"
    assert directive(applied(run, report(Event("ship_complete", {})))) == "continue"
