"""`heartlane budget` and `heartlane overview`: ceilings set one by one, and figures as tables and as JSON."""

from __future__ import annotations

from heartlane.wire.budgets import BudgetAnswer
from heartlane.wire.overview import OverviewAnswer
from tests.cli.people import People


def test_a_budget_is_set_used_up_and_gone_on_with(fleet: People) -> None:
    project_id = fleet.project("Dear")
    assert "0.00 USD" in fleet.run("budget", "show", "Dear").out
    set_ = fleet.run("budget", "set", "Dear", "--usd-per-day", "1.50", "--tokens-total", "2,000,000")
    assert set_.code == 0, set_
    BudgetAnswer.model_validate(fleet.json("budget", "show", "Dear"), extra="forbid")
    # What isn't named stays.
    told = fleet.json("budget", "set", project_id, "--on-exceeded", "stop", "--tokens-total", "none")["budget"]
    assert (told["usd_per_day"], told["tokens_total"], told["on_exceeded"]) == (1.5, None, "stop")
    run_id = fleet.lanes(project_id, "dear")["dear"]
    fleet.claim(run_id)
    fleet.report(run_id, ("ship_complete", {"cost_usd": 1.5, "input_tokens": 1_000, "agent": "codex"}), phase="tests")
    shown = fleet.run("budget", "show", "Dear").out
    assert "exceeded" in shown
    assert "1.50 USD of 1.50" in shown
    assert "waived" in fleet.run("budget", "go-on", "Dear", "--hours", "2").out
    overview = fleet.run("overview", "--project", "Dear", COLUMNS="120").out
    assert overview.splitlines()[0].split() == ["lanes:", "1", "shipped"]
    assert "codex" in overview
    assert "1 attempts, 1 shipped, 0 failed; 1,000 tokens, 1.50 USD" in overview
    OverviewAnswer.model_validate(fleet.json("overview", "--days", "2"), extra="forbid")


def test_what_is_no_budget_is_said_at_once(fleet: People) -> None:
    fleet.project("Odd")
    for arguments, said in (
        ((), "say what to set"),
        (("--usd-per-day", "much"), "--usd-per-day must be an amount of dollars"),
        (("--tokens-total", "1.5"), "--tokens-total must be a number of tokens"),
        (("--on-exceeded", "explode"), "must be pause or stop"),
        (("--usd-total", "-3"), "usd_total"),
    ):
        ended = fleet.run("budget", "set", "Odd", *arguments)
        assert ended.code != 0
        assert said in ended.err
    assert fleet.run("overview", "--days", "0").code != 0
