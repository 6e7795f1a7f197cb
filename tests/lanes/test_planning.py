from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.lanes import bounds
from heartlane.lanes.planning import (
    AFTER_PER_PLAN_MAX,
    Lane,
    SelectedTicket,
    Source,
    initial_runs,
    lanes_from_tickets,
    problems,
    tidy,
)
from heartlane.lanes.run import Role

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROLES = [str(role) for role in Role]
SOURCE = Source("account", "project", "plan", "milestone", 5, 900)


def ticket(name: str, *roles: str, priority: str = "medium") -> SelectedTicket:
    return SelectedTicket(name, f"Title of {name}", f"Description of {name}", priority, roles)


def lane(key: str, *after: str) -> Lane:
    return Lane(key, key, "backend", after=after)


# --- from tickets -------------------------------------------------------------------------------------------------


def test_one_lane_per_role_and_a_ticket_with_several_roles_in_several_lanes() -> None:
    lanes = lanes_from_tickets([ticket("a", "frontend", "backend"), ticket("b", "backend")])
    assert [(lane.key, lane.role, lane.ticket_ids) for lane in lanes] == [
        ("frontend", "frontend", ("a",)),
        ("backend", "backend", ("a", "b")),
    ]
    assert [lane.title for lane in lanes] == ["Frontend: Title of a", "Backend: Title of a and 1 more"]


def test_no_tickets_or_none_with_work_left_make_no_lanes() -> None:
    assert lanes_from_tickets([]) == []
    assert lanes_from_tickets([ticket("a")]) == []


@pytest.mark.parametrize(
    ("priorities", "expected"),
    [(["medium"], 0), (["low"], -10), (["low", "HIGH"], 10), (["Critical", "low"], 20), (["as you like"], 0)],
)
def test_a_lane_is_as_urgent_as_its_most_urgent_ticket(priorities: list[str], expected: int) -> None:
    lanes = lanes_from_tickets([ticket(str(place), "qa", priority=word) for place, word in enumerate(priorities)])
    assert [lane.priority for lane in lanes] == [expected]


def test_the_prompt_is_the_tickets_texts() -> None:
    asked = ticket("a", "qa")._replace(suggested_resolution="Try the cache first.")
    prompt = lanes_from_tickets([asked, ticket("b", "qa")])[0].prompt
    assert prompt == (
        "# Title of a\n\nDescription of a\n\nSuggested resolution:\nTry the cache first.\n\n"
        "# Title of b\n\nDescription of b"
    )


def test_a_prompt_that_would_be_too_long_names_the_tickets() -> None:
    long = [ticket(str(place), "qa")._replace(description="x" * 5_000) for place in range(50)]
    prompt = lanes_from_tickets(long)[0].prompt
    assert prompt is not None
    assert len(prompt) <= bounds.PROMPT_MAX
    assert prompt.splitlines() == [f"# {each.title}" for each in long]


@given(st.lists(st.sets(st.sampled_from(ROLES)), max_size=20))
def test_every_role_of_every_ticket_has_exactly_one_lane(wanted: list[set[str]]) -> None:
    tickets = [ticket(str(place), *sorted(roles)) for place, roles in enumerate(wanted)]
    lanes = lanes_from_tickets(tickets)
    assert len({lane.key for lane in lanes}) == len(lanes)
    assert problems(lanes) == []
    standing = [(ticket_id, lane.role) for lane in lanes for ticket_id in lane.ticket_ids]
    assert sorted(standing) == sorted((str(place), role) for place, roles in enumerate(wanted) for role in roles)


# --- lanes given directly -----------------------------------------------------------------------------------------


def test_a_good_plan_has_no_problems() -> None:
    assert problems([lane("a"), lane("b", "a"), lane("c", "a", "b")]) == []


def test_all_problems_are_told_at_once() -> None:
    found = problems([lane("a", "nobody"), lane("b", "c"), lane("c", "b"), lane("a"), lane("d", "d", "nothing")])
    assert [problem.path for problem in found] == [
        "lanes.3.laneKey",
        "lanes.0.after.0",
        "lanes.4.after.1",
        "lanes.1.after",
        "lanes.4.after",
    ]
    assert "b → c → b" in found[3].message
    assert "d → d" in found[4].message


def test_a_lane_that_only_waits_for_a_cycle_is_not_blamed() -> None:
    found = problems([lane("free"), lane("waits", "b"), lane("b", "c"), lane("c", "b", "free")])
    assert [problem.path for problem in found] == ["lanes.2.after"]


def test_a_long_chain_is_no_problem_and_a_long_cycle_is_one() -> None:
    keys = [f"lane-{place}" for place in range(bounds.LANES_PER_PLAN_MAX)]
    chain = [lane(keys[0])] + [lane(key, before) for before, key in pairwise(keys)]
    assert problems(chain) == []
    found = problems([lane(keys[0], keys[-1]), *chain[1:]])
    assert [problem.path for problem in found] == ["lanes.0.after"]
    assert len(found[0].message) < 3_000


def test_too_many_waits_are_refused() -> None:
    keys = [f"k{place}" for place in range(210)]
    lanes = [lane(key, *keys[:place]) for place, key in enumerate(keys)]
    assert sum(len(each.after) for each in lanes) > AFTER_PER_PLAN_MAX
    assert [problem.path for problem in problems(lanes)] == ["lanes"]


def test_tidy_drops_repetitions_and_keeps_the_order() -> None:
    untidy = Lane("a", "a", "qa", ticket_ids=("2", "1", "2"), after=("y", "x", "y"))
    assert (tidy(untidy).ticket_ids, tidy(untidy).after) == (("2", "1"), ("y", "x"))


@given(st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=4), max_size=13))
def test_a_cycle_is_found_if_and_only_if_the_lanes_have_no_order(waits: dict[int, list[int]]) -> None:
    lanes = [lane(str(key), *(str(name) for name in names if name in waits)) for key, names in waits.items()]
    left = {each.key: set(each.after) for each in lanes}
    while free := [key for key, names in left.items() if not names & left.keys()]:
        for key in free:
            del left[key]
    found = problems(lanes)
    assert bool(found) == bool(left)
    for problem in found:
        keys = problem.message.rsplit(": ", 1)[1].split(" → ")
        assert keys[0] == keys[-1]
        after = {each.key: each.after for each in lanes}
        assert all(following in after[key] for key, following in pairwise(keys))


# --- runs ---------------------------------------------------------------------------------------------------------


def test_an_approved_plan_queues_one_run_per_lane() -> None:
    lanes = [
        Lane("a", "First", "backend", ticket_ids=("t",), labels={"os": "linux"}, priority=3),
        Lane("b", "Second", "qa", after=("a",)),
    ]
    first, second = initial_runs(SOURCE, lanes, {"a": "run-a", "b": "run-b"}, {}, NOW)
    assert (first.id, first.lane_key, first.title, first.role, first.priority) == ("run-a", "a", "First", "backend", 3)
    assert (first.ticket_ids, first.labels, first.label_key) == (["t"], {"os": "linux"}, '{"os":"linux"}')
    assert (first.state, first.attempt, first.failures, first.max_failures, first.blockers_left) == (
        "queued",
        0,
        0,
        5,
        0,
    )
    assert (first.project_id, first.plan_id, first.milestone_id) == ("project", "plan", "milestone")
    assert first.created_at == first.updated_at == NOW
    assert (first.worker_id, first.claimed_at, first.lease_expires_at, first.last_heartbeat) == (None,) * 4
    assert (second.blocked_by_json, second.blockers_left, second.label_key) == ('["run-a"]', 1, "")
