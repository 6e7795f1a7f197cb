"""What earlier attempts left: read from a run and its log, also from a real server's."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heartlane.worker.earlier import TELLING_TYPES, Earlier, what_is_left
from tests.harness import Harness

RUN = {"id": "019a", "attempt": 3, "branch": None, "pr_url": None, "error": None}


def event(seq: int, type_: str, attempt: int = 2, **payload: Any) -> dict[str, Any]:
    return {"seq": seq, "type": type_, "attempt": attempt, "payload": payload}


def test_a_first_attempt_has_nothing_before_it() -> None:
    assert what_is_left({**RUN, "attempt": 1, "branch": "x"}, [event(1, "error", 1, message="mine")]) == Earlier()


def test_a_killed_worker_left_its_phase_and_what_it_had_said() -> None:
    events = [
        event(1, "claimed", worker_id="ada"),
        event(2, "action", tool="shell", branch="totals"),
        event(3, "action", tool="pr", pr_url="https://github.com/me/shop/pull/7"),
        event(4, "log_line", line="started", session_id="s-1", agent="claude"),
        event(5, "phase_change", phase="edit"),
        event(6, "lease_expired", worker_id="ada", last_phase="tests", last_heard="T", last_log_line="41 passed"),
    ]
    assert what_is_left(RUN, events) == Earlier(
        branch="totals",
        pr_url="https://github.com/me/shop/pull/7",
        phase="tests",
        error="worker ada was lost, last heard T; its last line: 41 passed",
        session_id="s-1",
        agent="claude",
    )


def test_the_last_word_counts_whatever_the_order_of_the_events() -> None:
    events = [
        event(9, "released", reason="usage limit", branch="second"),
        event(2, "error", 1, message="no disk", branch="first", session_id="s-1"),
        event(7, "error", message="tests fail"),
        event(8, "phase_change", phase="review"),
        event(3, "lease_expired", 1, last_phase="edit"),
        event(6, "claimed"),
    ]
    left = what_is_left(RUN, events)
    assert (left.branch, left.phase, left.error, left.session_id) == ("second", "review", "usage limit", "s-1")


def test_errors_and_phases_of_attempts_before_the_last_are_history() -> None:
    events = [
        event(1, "error", 1, message="no disk"),
        event(2, "phase_change", 1, phase="edit"),
        event(3, "claimed", 2),
    ]
    assert what_is_left(RUN, events) == Earlier()


def test_this_attempts_own_events_are_left_out() -> None:
    assert what_is_left(RUN, [event(8, "error", 3, message="mine", branch="mine")]) == Earlier()


def test_another_session_is_not_taken_for_the_last_agents() -> None:
    events = [
        event(1, "log_line", 1, session_id="s-1", agent="claude"),
        event(2, "log_line", 2, session_id="s-2"),
    ]
    left = what_is_left(RUN, events)
    assert (left.session_id, left.agent) == ("s-2", None)


def test_what_the_run_itself_keeps_fills_in() -> None:
    run = {**RUN, "branch": "kept", "pr_url": "https://x/1", "error": "Cancelled by an operator."}
    left = what_is_left(run, [event(1, "action", branch="newer")])
    assert (left.branch, left.pr_url, left.error) == ("newer", "https://x/1", "Cancelled by an operator.")


def test_long_and_strange_values_fit_into_an_environment() -> None:
    left = what_is_left(RUN, [event(1, "error", message="\0x" * 5_000), event(2, "action", branch="  ", pr_url=7)])
    assert left == Earlier(error="x" * 2_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(
    run=st.dictionaries(st.sampled_from(["attempt", "branch", "pr_url", "error"]), JSON),
    events=st.lists(
        st.dictionaries(st.sampled_from(["seq", "type", "attempt", "payload", "worker_id"]), JSON)
        | st.fixed_dictionaries(
            {
                "attempt": st.integers(0, 3),
                "type": st.sampled_from(TELLING_TYPES),
                "payload": st.dictionaries(
                    st.sampled_from(["branch", "session_id", "agent", "message", "last_phase", "reason", "phase"]), JSON
                ),
            }
        )
    ),
)
def test_nothing_upsets_it(run: dict[str, Any], events: list[dict[str, Any]]) -> None:
    for value in what_is_left(run, events).known().values():
        assert isinstance(value, str)
        assert value
        assert "\0" not in value


async def test_a_real_log_says_what_the_last_worker_left(harness: Harness) -> None:
    (run,) = await harness.approved()
    await harness.claim(run["id"], "ada", lease_seconds=60)
    opened = {
        "type": "action",
        "payload": {"tool": "pr", "branch": "totals", "pr_url": "https://x/1", "session_id": "s"},
    }
    await harness.report(run["id"], "ada", phase="tests", log_line="41 passed", events=[opened])
    await harness.let_pass(61)
    second = await harness.claim(run["id"], "bob")
    left = what_is_left(second, await harness.events(run["id"], type=list(TELLING_TYPES)))
    assert (left.branch, left.pr_url, left.phase, left.session_id) == ("totals", "https://x/1", "tests", "s")
    assert left.error is not None
    assert left.error.startswith("worker ada was lost, last heard 20")
    await harness.worker.post(
        f"/api/agents/runs/{run['id']}/release", json={"worker_id": "bob", "reason": "usage limit"}
    )
    third = await harness.claim(run["id"], "cleo")
    left = what_is_left(third, await harness.events(run["id"], type=list(TELLING_TYPES)))
    assert (left.branch, left.phase, left.error) == ("totals", None, "usage limit")
