"""How a lane ends, goes back or is steered: ships, failures, releases, take-backs and the operator's commands."""

from __future__ import annotations

from typing import Any

import pytest

from heartlane.lanes import bounds
from heartlane.lanes.commands import (
    Cancel,
    Claim,
    Command,
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
from heartlane.lanes.rules import decide, ticket_event
from heartlane.lanes.run import Event, Run
from tests.runs import NOW, applied, claimed, decision, later, phase_change, queued, refused, report, running

SHIP = Event("ship_complete", {})
FATAL = Event("error", {"message": "No disk left.", "fatal": True})


# --- shipped and failed -------------------------------------------------------------------------------------------


def test_ship_complete_ends_the_run_shipped() -> None:
    run = applied(running(), report(SHIP), at=later(9))
    assert (run.state, run.finished_at, run.last_heartbeat) == ("shipped", later(9), later(9))


@pytest.mark.parametrize("state", ["claimed", "running", "paused", "shipping"])
@pytest.mark.parametrize(("event", "ended"), [(SHIP, "shipped"), (FATAL, "failed")])
def test_a_holder_can_end_its_run_from_every_held_state(state: str, event: Event, ended: str) -> None:
    assert applied(claimed(state=state), report(event)).state == ended


@pytest.mark.parametrize(("event", "ended"), [(SHIP, "shipped"), (FATAL, "failed")])
def test_a_run_that_ended_has_no_lease_and_keeps_its_worker_for_the_record(event: Event, ended: str) -> None:
    run = applied(running("w1"), report(event, lease_seconds=600))
    assert (run.lease_expires_at, run.take_back_at, run.worker_id, run.claimed_at) == (None, None, "w1", NOW)
    refusal = refused(run, Report("w1"), later(1))
    assert refusal.code == "RUN_FINISHED"
    assert ended in refusal.error


def test_what_a_ship_brings_is_kept_on_the_run() -> None:
    payload = {"pr_url": "https://git.test/7", "branch": "lane", "commit": "abc123", "summary": "Done."}
    run = applied(running(), report(Event("ship_complete", payload)))
    assert {name: getattr(run, name) for name in payload} == payload


@pytest.mark.parametrize("value", [None, 7, ["x"], {"url": "x"}, True])
def test_a_ships_field_that_is_no_text_is_left_alone(value: object) -> None:
    run = applied(running(pr_url="https://git.test/1"), report(Event("ship_complete", {"pr_url": value})))
    assert (run.state, run.pr_url) == ("shipped", "https://git.test/1")


@pytest.mark.parametrize(
    ("field", "longest"),
    [
        ("pr_url", bounds.PR_URL_MAX),
        ("branch", bounds.BRANCH_MAX),
        ("commit", bounds.COMMIT_MAX),
        ("summary", bounds.SUMMARY_MAX),
    ],
)
def test_longer_text_is_cut_on_the_run_and_whole_in_the_log(field: str, longest: int) -> None:
    ship = Event("ship_complete", {field: "x" * (longest + 1)})
    answer = decision(running(), report(ship))
    assert answer.changes[field] == "x" * longest
    assert list(answer.events) == [ship]


def test_a_fatal_error_ends_the_run_failed() -> None:
    run = applied(running(), report(FATAL), at=later(9))
    assert (run.state, run.error, run.finished_at) == ("failed", "No disk left.", later(9))
    assert run.failures == 0


def test_a_fatal_error_without_a_message_still_says_what_it_is() -> None:
    run = applied(running(), report(Event("error", {"fatal": True})))
    assert run.state == "failed"
    assert run.error


def test_events_after_the_end_are_appended_and_change_nothing() -> None:
    run = applied(running(), report(SHIP, phase_change("tests"), FATAL, Event("log_line", {"line": "x"})))
    assert (run.state, run.phase, run.error, run.log_line) == ("shipped", None, None, None)
    assert run.event_count == 1 + 4


def test_top_level_values_count_in_the_report_that_ends_the_run_too() -> None:
    run = applied(running(), report(SHIP, phase="waiting", log_line="All done."))
    assert (run.state, run.phase, run.log_line, run.waiting_for) == ("shipped", "waiting", "All done.", None)


# --- release ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["claimed", "running", "paused", "shipping"])
def test_a_released_lane_is_claimable_at_once_and_held_by_nobody(state: str) -> None:
    run = applied(claimed(state=state), Release("w1", reason="Quota."))
    assert (run.state, run.worker_id, run.claimed_at, run.lease_expires_at) == ("released", None, None, None)
    assert (run.not_before, run.failures, run.take_back_at) == (None, 0, None)
    assert applied(run, Claim("w2")).attempt == 2


def test_a_release_can_hold_the_lane_back_for_a_while() -> None:
    run = applied(running(), Release("w1", retry_after=90.5))
    assert run.not_before == later(90.5)
    assert refused(run, Claim("w2"), later(90)).code == "LANE_BLOCKED"
    assert applied(run, Claim("w2"), at=later(90.5)).state == "claimed"


def test_a_release_can_count_as_a_failure() -> None:
    run = applied(running(max_failures=2), Release("w1", failed=True))
    assert (run.state, run.failures) == ("released", 1)


def test_releases_that_dont_count_never_use_failures_up() -> None:
    run = queued(max_failures=1)
    for _ in range(6):
        run = applied(run, Claim("w1"), Release("w1"))
    assert (run.state, run.failures, run.attempt) == ("released", 0, 6)


def test_the_release_that_uses_up_the_failures_ends_the_run() -> None:
    run = applied(running(max_failures=1), Release("w1", reason="It won't build.", failed=True, retry_after=60))
    assert (run.state, run.failures, run.not_before, run.finished_at) == ("failed", 1, None, NOW)
    assert run.error is not None
    assert "max_failures 1" in run.error
    assert "It won't build." in run.error


def test_a_release_is_written_to_the_log_with_its_reason() -> None:
    (event,) = decision(running(), Release("w1", 1, "Quota.", 60, failed=True)).events
    expected = {"worker_id": "w1", "attempt": 1, "reason": "Quota.", "retry_after": 60, "failed": True}
    assert event == Event("released", expected)


def test_only_the_holder_may_release_as_a_worker() -> None:
    assert refused(running("w1"), Release("w2")).code == "CLAIM_HELD_BY_OTHER"
    assert refused(running("w1"), Release("w1", attempt=2)).code == "STALE_ATTEMPT"


def test_an_operator_releases_without_being_the_holder() -> None:
    answer = decision(running("w1"), Release(by="ops", reason="Wrong machine."))
    assert answer.changes["state"] == "released"
    assert answer.events[0].payload["by"] == "ops"
    assert answer.events[0].payload["worker_id"] == "w1"


def test_an_operators_release_of_a_certain_attempt_never_hits_a_later_one() -> None:
    run = applied(running("w1"), Release("w1"), Claim("w2"))
    assert refused(run, Release(attempt=1, by="ops")).code == "STALE_ATTEMPT"
    assert applied(run, Release(attempt=2, by="ops")).state == "released"


def test_a_release_whose_answer_was_lost_can_be_sent_again() -> None:
    run = applied(running(), Release("w1", attempt=1))
    assert decision(run, Release("w1", attempt=1)) == Decision({})


def test_a_release_of_what_nobody_holds() -> None:
    assert refused(queued(), Release("w1")).code == "NOT_CLAIMED"
    assert refused(queued(), Release()).code == "NOT_CLAIMED"
    taken_back = applied(running("w1"), TakeBack(), at=later(301))
    assert refused(taken_back, Release("w1", attempt=1)).code == "CLAIM_LOST"


# --- take-back ----------------------------------------------------------------------------------------------------


def test_a_lease_is_taken_back_at_its_deadline_and_not_before() -> None:
    run = running(lease_seconds=60)
    assert applied(run, TakeBack(), at=later(59.999_999)).state == "running"
    taken = applied(run, TakeBack(), at=later(60))
    assert (taken.state, taken.worker_id, taken.lease_expires_at, taken.claimed_at) == ("queued", None, None, None)
    assert (taken.failures, taken.attempt) == (1, 1)


def test_lease_expired_says_all_there_is_to_know() -> None:
    run = applied(running("w1", 60), report(phase_change("tests"), log_line="ok 17"), at=later(5))
    (event,) = decision(run, TakeBack(), later(65)).events
    assert event == Event(
        "lease_expired",
        {
            "worker_id": "w1",
            "attempt": 1,
            "last_heard": "2026-01-02T03:04:10.678901Z",
            "deadline": "2026-01-02T03:05:10.678901Z",
            "last_phase": "tests",
            "last_log_line": "ok 17",
            "failures": 1,
            "max_failures": 5,
        },
    )


@pytest.mark.parametrize("state", ["claimed", "running", "paused", "shipping"])
def test_every_held_state_can_expire(state: str) -> None:
    assert applied(claimed(state=state), TakeBack(), at=later(300)).state == "queued"


def test_the_take_back_that_uses_up_the_failures_ends_the_run() -> None:
    run = applied(running("w1", max_failures=3, failures=2), TakeBack(), at=later(300))
    assert (run.state, run.failures, run.finished_at, run.worker_id) == ("failed", 3, later(300), None)
    assert run.error is not None
    assert "max_failures 3" in run.error
    assert "'w1'" in run.error


def test_a_take_back_that_comes_too_late_changes_nothing() -> None:
    renewed = applied(running(lease_seconds=60), Report("w1"), at=later(59))
    assert applied(renewed, TakeBack(), at=later(60)).state == "running"
    for run in (applied(running(), Release("w1")), applied(running(), report(SHIP))):
        assert decision(run, TakeBack(), later(1000)) == Decision({})


def test_after_a_time_without_a_server_every_holder_has_one_lease_to_be_heard_again() -> None:
    run = running(lease_seconds=60)
    back = TakeBack(resumed_at=later(3600))
    assert applied(run, back, at=later(3659)).state == "running"
    assert applied(run, back, at=later(3660)).state == "queued"


def test_that_grace_is_at_most_five_minutes() -> None:
    run = running(lease_seconds=3600)
    back = TakeBack(resumed_at=later(7200))
    assert applied(run, back, at=later(7499)).state == "running"
    assert applied(run, back, at=later(7500)).state == "queued"


def test_the_grace_never_shortens_a_lease() -> None:
    run = running(lease_seconds=3600)
    back = TakeBack(resumed_at=later(10))
    assert applied(run, back, at=later(3599)).state == "running"


def test_whoever_was_heard_since_has_no_grace() -> None:
    run = applied(running(lease_seconds=60), Report("w1"), at=later(3601))
    assert applied(run, TakeBack(resumed_at=later(3600)), at=later(3661)).state == "queued"


def test_a_look_that_is_decided_too_late_to_know_of_a_time_without_a_server_changes_nothing() -> None:
    run = running(lease_seconds=60)
    back = TakeBack(valid_until=later(63))
    assert applied(run, back, at=later(63)).state == "queued"
    assert decision(run, back, later(63.000_001)) == Decision({})
    # The next look knows that nobody could be heard meanwhile.
    assert applied(run, TakeBack(later(90), later(93)), at=later(92)).state == "running"


def test_the_grace_is_as_long_as_the_lease_that_was_last_agreed() -> None:
    run = applied(running(lease_seconds=200), Report("w1", lease_seconds=10))
    back = TakeBack(resumed_at=later(3600))
    assert applied(run, back, at=later(3609)).state == "running"
    assert applied(run, back, at=later(3610)).state == "queued"


# --- the operator's hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["claimed", "running", "shipping"])
def test_pause_keeps_the_claim_and_its_lease(state: str) -> None:
    before = claimed(state=state)
    run = applied(before, Pause("ops"), at=later(1))
    assert (run.state, run.worker_id, run.lease_expires_at) == ("paused", "w1", before.lease_expires_at)
    assert decision(before, Pause("ops")).events == (Event("paused", {"by": "ops"}),)


def test_resume_goes_on_where_the_lane_stood() -> None:
    assert applied(running(), Pause(), Resume()).state == "running"
    assert applied(running(), Report("w1", phase="shipping"), Pause(), Resume()).state == "shipping"
    assert decision(applied(running(), Pause()), Resume("ops")).events == (Event("resumed", {"by": "ops"}),)


def test_pausing_and_resuming_twice_is_as_good_as_once() -> None:
    assert decision(applied(running(), Pause()), Pause()) == Decision({})
    assert decision(running(), Resume()) == Decision({})


@pytest.mark.parametrize("state", ["queued", "released", "claimed", "running", "paused", "shipping"])
def test_cancel_ends_the_run_failed(state: str) -> None:
    held = state not in ("queued", "released")
    before = claimed(state=state) if held else queued(state=state, not_before=later(60))
    run = applied(before, Cancel("ops"), at=later(1))
    assert (run.state, run.lease_expires_at, run.take_back_at, run.not_before) == ("failed", None, None, None)
    assert (run.finished_at, run.failures, run.worker_id) == (later(1), 0, "w1" if held else None)
    assert run.error == "Cancelled by an operator (ops)."


def test_a_worker_whose_run_was_cancelled_hears_of_it_with_its_next_report() -> None:
    assert refused(applied(running(), Cancel()), Report("w1")).code == "RUN_FINISHED"


def test_retry_queues_a_failed_run_with_its_failures_at_0() -> None:
    failed = applied(running("w1", max_failures=1), TakeBack(), at=later(300))
    run = applied(failed, Retry("ops"), at=later(400))
    assert (run.state, run.failures, run.error, run.finished_at) == ("queued", 0, None, None)
    assert decision(failed, Retry("ops")).events == (Event("retried", {"by": "ops"}),)
    assert applied(run, Claim("w2")).attempt == 2


def test_a_past_holder_of_a_retried_run_has_lost_its_claim() -> None:
    run = applied(running("w1"), Cancel(), Retry())
    assert run.worker_id is None
    assert refused(run, Report("w1")).code == "CLAIM_LOST"


def test_retry_twice_is_as_good_as_once() -> None:
    assert decision(applied(running(), Cancel(), Retry()), Retry()) == Decision({})


@pytest.mark.parametrize(
    ("run", "command", "code"),
    [
        (queued(), Pause(), "NOT_CLAIMED"),
        (queued(), Resume(), "NOT_CLAIMED"),
        (running(), Retry(), "CLAIM_HELD_BY_OTHER"),
        (applied(running(), report(SHIP)), Retry(), "RUN_FINISHED"),
        (applied(running(), report(SHIP)), Pause(), "RUN_FINISHED"),
        (applied(running(), report(SHIP)), Resume(), "RUN_FINISHED"),
        (applied(running(), report(SHIP)), Cancel(), "RUN_FINISHED"),
        (applied(running(), report(SHIP)), Release(), "RUN_FINISHED"),
    ],
)
def test_what_an_operator_can_not_do(run: Run, command: Command, code: str) -> None:
    assert refused(run, command).code == code


# --- the server's own commands ------------------------------------------------------------------------------------


def test_a_blocked_lane_is_claimable_once_every_lane_it_waits_for_has_shipped() -> None:
    run = applied(queued(blockers_left=2), Unblock())
    assert refused(run, Claim("w1")).code == "LANE_BLOCKED"
    assert applied(run, Unblock(), Claim("w1")).state == "claimed"


def test_ripen_clears_a_time_that_has_passed() -> None:
    run = queued(not_before=later(10))
    assert decision(run, Ripen(), later(9)) == Decision({})
    assert applied(run, Ripen(), at=later(10)).not_before is None


# --- what it means for the tickets --------------------------------------------------------------------------------

MOVES: list[tuple[Run, Command, str | None]] = [
    (queued(), Claim("w1"), "claimed"),
    (running(), Claim("w1"), None),
    (claimed(), Report("w1"), None),
    (running(), report(SHIP), "shipped"),
    (running(), report(FATAL), "failed"),
    (running(), Release("w1"), "released"),
    (running(max_failures=1), Release("w1", failed=True), "failed"),
    (running(), TakeBack(later(-300)), None),
    (running(), Pause(), None),
    (running(), Cancel(), "failed"),
    (applied(running(), Cancel()), Retry(), None),
]


@pytest.mark.parametrize(("run", "command", "event"), MOVES)
def test_a_lane_moves_its_tickets_along(run: Run, command: Command, event: str | None) -> None:
    assert ticket_event(run, applied(run, command)) == event


def test_an_expired_lease_gives_the_tickets_back() -> None:
    run = running()
    assert ticket_event(run, applied(run, TakeBack(), at=later(300))) == "released"


# --- whatever a payload holds -------------------------------------------------------------------------------------

ODD: list[Any] = [None, True, 0, 1.5, "", "\0", [], {}, ["x"], {"a": None}, "x" * 20_000, -(10**30)]


@pytest.mark.parametrize("kind", ["heartbeat", "log_line", "phase_change", "action", "error", "ship_complete"])
def test_no_payload_breaks_a_rule(kind: str) -> None:
    fields = ("phase", "for", "line", "message", "fatal", "reason", "pr_url", "branch", "commit", "summary")
    for field in fields:
        for value in ODD:
            answer = decide(running(), report(Event(kind, dict.fromkeys(fields, "x") | {field: value})), NOW)
            assert isinstance(answer, Decision)
            texts = [text for text in answer.changes.values() if isinstance(text, str)]
            assert all("\0" not in text and len(text) <= bounds.SUMMARY_MAX for text in texts)
