"""What agents used, and what bounds it: figures never go down, however often and in whatever order they are told."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.lanes.commands import Claim, Hold, Lift, Release, Report, TakeBack
from heartlane.lanes.decisions import Decision
from heartlane.lanes.limits import Budget, Caps, Gate, on_day, spend, verdict
from heartlane.lanes.rules import decide, directive
from heartlane.lanes.run import Event, Run, needs_attention
from heartlane.lanes.usage import TOKENS_MAX, Usage, decode, encode, highest, plus, read_usage
from tests.runs import NOW, applied, decision, running

NONSENSE = [-1, 1e300, math.nan, math.inf, "12", None, True, [], {}, 2**80, -0.5, TOKENS_MAX + 1]
FIGURE: st.SearchStrategy[Any] = st.one_of(st.integers(0, 10**6), st.sampled_from(NONSENSE))
NAMES = ("input_tokens", "output_tokens", "cached_tokens", "cost_usd", "agent", "model")
FIGURES = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, FIGURE))
TYPES = st.sampled_from(["heartbeat", "log_line", "action", "error", "phase_change"])
COLUMNS = Usage._fields


def told(kind: str, figures: dict[str, Any]) -> Report:
    return Report("w1", events=[Event(kind, {"usage": figures})])


def sums(run: Run) -> tuple[int, ...]:
    return tuple(getattr(run, name) or 0 for name in COLUMNS)


@given(st.lists(st.one_of(st.none(), st.tuples(TYPES, FIGURES)), max_size=20))
def test_figures_are_the_sums_of_what_each_attempt_told_at_most(
    steps: list[tuple[str, dict[str, Any]] | None],
) -> None:
    """None stands for a new attempt."""
    run = running()
    attempts: list[Counter[str]] = [Counter()]
    for step in steps:
        before = run
        if step is None:
            run = applied(applied(run, Release("w1")), Claim("w1", 300))
            attempts.append(Counter())
            assert sums(run) == sums(before)
            continue
        run = applied(run, told(*step))
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            value = step[1].get(name)
            if type(value) is int and 0 <= value <= TOKENS_MAX:
                attempts[-1][name] = max(attempts[-1][name], value)
        assert all(now >= old for now, old in zip(sums(run), sums(before), strict=True))
        assert sums(applied(run, told(*step))) == sums(run), "told once more, it changes nothing"
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        assert (getattr(run, name) or 0) == sum(attempt[name] for attempt in attempts)


@given(st.lists(FIGURES, max_size=6), st.randoms(use_true_random=False))
def test_the_order_doesnt_matter(said: list[dict[str, Any]], random: Any) -> None:
    mixed = said[:]
    random.shuffle(mixed)
    one = applied(running(), Report("w1", events=[Event("heartbeat", {"usage": each}) for each in said]))
    other = applied(running(), Report("w1", events=[Event("heartbeat", {"usage": each}) for each in mixed]))
    assert sums(one) == sums(other)


@given(st.dictionaries(st.sampled_from(NAMES), st.recursive(st.floats() | st.text() | st.integers(), st.lists)))
def test_whatever_is_said_is_read_as_figures_within_bounds_or_not_at_all(said: dict[str, Any]) -> None:
    usage = read_usage(said)
    assert all(figure is None or 0 <= figure <= TOKENS_MAX for figure in usage)
    assert decode(encode(usage)) == usage
    assert highest(usage, usage) == usage
    assert plus(Usage(), Usage(), usage) == usage


def test_a_bare_heartbeat_touches_no_figures() -> None:
    changes = decision(running(), Report("w1", events=[Event("heartbeat", {})])).changes
    assert not {"attempt_usage_json", *COLUMNS} & changes.keys()


def test_an_action_may_have_a_field_of_that_name() -> None:
    run = applied(running(), Report("w1", events=[Event("action", {"usage": "see --help", "input_tokens": 3})]))
    assert sums(run) == (0, 0, 0, 0)


# --- budgets and caps ---

AMOUNT = st.one_of(st.none(), st.integers(0, 1_000))
BUDGETS = st.tuples(AMOUNT, AMOUNT, AMOUNT, AMOUNT).map(lambda ceilings: Budget(*ceilings, day=NOW.date()))
SPENDING = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 100_000))


@given(BUDGETS, st.lists(SPENDING, max_size=12))
def test_a_budget_knows_what_was_spent_on_its_day_and_in_all(budget: Budget, steps: list[tuple[int, int, int]]) -> None:
    now, all_usd, all_tokens = NOW, 0, 0
    of_day: Counter[tuple[str, Any]] = Counter()
    for usd, tokens, seconds in steps:
        now += timedelta(seconds=seconds)
        budget = spend(budget, usd, tokens, now)
        all_usd, all_tokens = all_usd + usd, all_tokens + tokens
        of_day["usd", now.date()] += usd
        of_day["tokens", now.date()] += tokens
        assert (budget.spent_usd_total, budget.spent_tokens_total) == (all_usd, all_tokens)
        assert budget.spent_usd_day == of_day["usd", now.date()]
        assert budget.spent_tokens_day == of_day["tokens", now.date()]
        reached = [
            ceiling is not None and spent >= ceiling
            for ceiling, spent in zip(
                budget[:4], (budget.spent_usd_day, all_usd, budget.spent_tokens_day, all_tokens), strict=True
            )
        ]
        found = verdict(budget, now)
        assert found.shut == any(reached)
        assert (found.words is None) == (found.state in ("ok", "none"))
        if found.shut and found.reopens_at is not None:
            assert not verdict(budget, found.reopens_at).shut, "it opens when it says it does"
        waived = budget._replace(waived_until=now + timedelta(seconds=1))
        assert not verdict(waived, now).shut
        assert verdict(waived, now + timedelta(seconds=1)).shut == verdict(budget, now + timedelta(seconds=1)).shut


def test_a_clock_that_goes_back_a_day_gives_nothing_back() -> None:
    budget = spend(Budget(usd_day=10), 10, 0, NOW)
    assert on_day(budget, NOW - timedelta(days=1)) == budget
    assert verdict(budget, NOW - timedelta(days=1)).shut


@pytest.mark.parametrize(("spent", "state"), [(0, "ok"), (79, "ok"), (80, "warned"), (99, "warned"), (100, "exceeded")])
def test_it_warns_from_eight_tenths_on(spent: int, state: str) -> None:
    assert verdict(Budget(tokens_total=100, spent_tokens_total=spent), NOW).state == state
    day = datetime(2026, 1, 2, tzinfo=UTC).date()
    assert verdict(Budget(usd_day=100, spent_usd_day=spent, day=day), NOW).state == state


CAP = st.one_of(st.none(), st.integers(0, 4))
KINDS = st.tuples(st.sampled_from(["backend", "qa"]), st.sampled_from(["", "github.com"]))


@given(CAP, st.dictionaries(st.sampled_from(["backend", "qa"]), st.integers(0, 3)), st.lists(KINDS, max_size=12))
def test_no_gate_lets_more_through_than_its_caps(
    most: int | None, by_role: dict[str, int], wanted: list[tuple[str, str]]
) -> None:
    gate = Gate(Caps(most, by_role, {"github.com": 1}), None, {})
    active: list[tuple[str, str]] = []
    for role, source in wanted:
        if gate.refusal(role, source) is None:
            gate.count(role, source, 1)
            active.append((role, source))
        else:
            full = [
                most is not None and len(active) >= most,
                role in by_role and sum(each == role for each, _ in active) >= by_role[role],
                source == "github.com" and any(each == source for _, each in active),
            ]
            assert any(full), "it refuses only where a cap is reached"
    assert most is None or len(active) <= most
    assert all(sum(each == role for each, _ in active) <= cap for role, cap in by_role.items())


# --- lanes that a budget holds ---


def test_a_lane_stands_still_until_there_is_budget_again() -> None:
    run = applied(running(), Hold("pause", "used up"))
    assert (directive(run), needs_attention(run, NOW, stalled=False)) == ("pause", "budget")
    # Nothing that the worker tells lets it go.
    told_more = Report("w1", phase="tests", events=[Event("action", {"tool": "Edit"}), Event("phase_change", {})])
    assert directive(applied(run, told_more)) == "pause"
    assert directive(applied(applied(run, told_more), Lift())) == "continue"


def test_a_worker_that_stands_still_can_be_told_to_stop() -> None:
    run = applied(applied(running(), Hold("pause", "used up")), Hold("stop", "used up"))
    assert (directive(run), run.state, run.worker_id) == ("stop", "running", "w1")
    # The stronger word stays, and is said once.
    assert decide(run, Hold("stop", "used up"), NOW) == decide(run, Hold("pause", "used up"), NOW) == Decision({})
    # Until it has stopped its last words are taken; nothing of it is counted against the lane.
    run = applied(run, Report("w1", events=[Event("log_line", {"line": "stops"})]))
    assert (directive(run), run.log_line) == ("stop", "stops")
    free = applied(run, Release("w1"))
    assert (free.state, free.failures, needs_attention(free, NOW, stalled=False)) == ("released", 0, "budget")
    assert needs_attention(applied(free, Lift()), NOW, stalled=False) is None
    assert directive(applied(run, Lift())) == "continue"


def test_a_worker_that_was_told_to_stop_and_says_nothing_more_has_not_failed() -> None:
    run = applied(running(), Hold("stop", "used up"))
    later = run._replace(lease_expires_at=NOW - timedelta(seconds=1))
    free = applied(later, TakeBack())
    assert (free.state, free.worker_id, free.failures) == ("queued", None, 0)
    assert needs_attention(free, NOW, stalled=False) == "budget"
    assert applied(later._replace(budget_hold=None), TakeBack()).failures == 1
