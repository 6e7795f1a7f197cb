"""A project's settings and figures in a browser: problems told at once, secrets shown once, a budget's end in words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from docs.scene import event
from tests.board.browser.site import Site, until

pytestmark = pytest.mark.browser
USED = {"input_tokens": 40_000, "output_tokens": 2_000, "cached_tokens": 0, "cost_usd": 2.5}


def test_budget_and_caps(site: Site, page: Page) -> None:
    project = site.fleet.project("Bounded")
    page.goto(f"/settings?project={project}")
    page.get_by_label("Dollars a day").fill("lots")
    page.get_by_label("Tokens in all").fill("-5")
    page.get_by_role("button", name="Set the budget").click()
    expect(page.get_by_text("Dollars a day must be a number.")).to_be_visible()
    expect(page.get_by_text("Tokens in all must be at least 0.")).to_be_visible()
    expect(page.get_by_label("Dollars a day")).to_have_value("lots")
    page.get_by_label("Dollars a day").fill("12.5")
    page.get_by_label("Tokens in all").fill("1,000,000")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The budget is set")).to_be_visible()
    budget = site.people.get(f"/api/projects/{project}/budget").json()["budget"]
    assert (budget["usd_per_day"], budget["tokens_total"], budget["usd_total"]) == (12.5, 1_000_000, None)
    page.get_by_label("qa", exact=True).fill("2")
    page.get_by_label("Of each source of tickets").fill("github.com 8\ngitlab.com few")
    page.get_by_role("button", name="Set the caps").click()
    expect(page.get_by_text("gitlab.com must be")).to_be_visible()
    page.get_by_label("Of each source of tickets").fill("github.com 8")
    page.get_by_role("button", name="Set the caps").click()
    expect(page.get_by_text("The caps are set")).to_be_visible()
    read = site.people.get(f"/api/projects/{project}").json()["project"]
    assert (read["max_active_by_role"], read["max_active_by_source"]) == ({"qa": 2}, {"github.com": 8})


def test_a_budget_that_is_used_up_says_so_until_a_person_says_go_on(site: Site, page: Page) -> None:
    project, run = site.held("Dear")
    site.people.put(f"/api/projects/{project}/budget", json={"usd_per_day": 1}).raise_for_status()
    site.fleet.report(run, "ada:host:1", event("heartbeat", usage=USED))

    def state() -> str:
        return str(site.people.get(f"/api/projects/{project}/budget").json()["budget"]["state"])

    until(lambda: state() == "exceeded", "the budget is used up")
    page.goto(f"/?project={project}")
    expect(page.get_by_text("budget is used up")).to_be_visible()
    page.get_by_role("button", name="Go on").press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The ceilings stay as they are")
    dialog.get_by_label("For how many hours").fill("0")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("For how many hours must be")).to_be_visible()
    dialog.get_by_label("For how many hours").fill("2")
    page.keyboard.press("Enter")
    expect(page.get_by_text("budget is used up")).to_have_count(0)
    assert state() == "waived"


def test_webhooks(site: Site, page: Page) -> None:
    project = site.fleet.project("Tells")
    path = f"/api/projects/{project}/webhooks"

    def hooks() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = site.people.get(path).json()["webhooks"]
        return found

    page.goto(f"/settings?project={project}&part=webhooks")
    page.get_by_role("button", name="New webhook").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Address").fill("ftp://example.com")
    dialog.get_by_label("Name").fill("n" * 300)
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_text("Address must be")).to_be_visible()
    expect(dialog.get_by_text("Name must be")).to_be_visible()
    dialog.get_by_label("Address").fill("https://bot.example.com/secret")
    dialog.get_by_label("Name").fill("<b>Bot</b>")
    dialog.get_by_role("button", name="Create").click()
    expect(page.get_by_text(re.compile("^whsec_"))).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_text("whsec_")).to_have_count(0)
    expect(page.get_by_role("heading", name="<b>Bot</b>")).to_be_visible()
    page.get_by_role("button", name="Test: ").click()
    expect(page.get_by_text("A test is on its way")).to_be_visible()
    page.get_by_role("link", name="Log of").click()
    expect(page.get_by_text("webhook.test")).to_have_count(1)
    page.get_by_role("button", name="Send again").press("Enter")
    expect(page.get_by_text("It is sent again")).to_be_visible()
    page.get_by_text("and what is sent").click()
    expect(page.get_by_text('"type": "webhook.test"')).to_be_visible()
    page.go_back()
    page.get_by_role("button", name="Disable: ").click()
    expect(dialog).to_contain_text("what still waits to be sent is dropped")
    dialog.get_by_role("button", name="Disable").click()
    expect(page.get_by_text("disabled by hand")).to_be_visible()
    assert [hook["enabled"] for hook in hooks()] == [False]
    page.get_by_role("button", name="Delete: ").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="No webhooks")).to_be_visible()
    assert hooks() == []


def test_rules_the_audit_log_and_sessions(site: Site, page: Page) -> None:
    project = site.fleet.project("Ruled")
    page.goto(f"/settings?project={project}&part=notices")
    page.get_by_label("A lane stalled").uncheck()
    page.get_by_label("Minutes until a plan waits long").fill("0")
    page.get_by_role("button", name="Set the rules").click()
    expect(page.get_by_text("Minutes until a plan waits long must be at least")).to_be_visible()
    page.get_by_label("Minutes until a plan waits long").fill("90")
    page.get_by_role("button", name="Set the rules").click()
    expect(page.get_by_text("The rules are set")).to_be_visible()
    rules = site.people.get(f"/api/projects/{project}/notice-rules").json()["notice_rules"]
    assert rules["lane_stalled"] == {"enabled": False}
    assert rules["plan_waiting"] == {"enabled": True, "after_seconds": 5400}
    page.get_by_role("link", name="Audit log").click()
    expect(page.get_by_text("notice_rules.changed")).to_be_visible()
    page.get_by_label("Show").select_option("project")
    expect(page.get_by_text("project.created")).to_be_visible()
    expect(page.get_by_text("notice_rules.changed")).to_have_count(0)
    with site.context(logged_in=False) as context:
        other = context.new_page()
        other.goto("/login")
        other.get_by_label("Token").fill(site.server.make_token("ottilie", "viewer"))
        other.get_by_role("button", name="Log in").click()
        other.wait_for_url(f"{site.url}/")
        page.get_by_role("link", name="Sessions").click()
        page.get_by_role("button", name="End the session of ottilie").click()
        page.get_by_role("dialog").get_by_role("button", name="End the session").click()
        expect(page.get_by_text("The session is over")).to_be_visible()
        until(lambda: other.request.get("/api/me").status == 401, "the session is over")


def test_the_overview_tells_what_was_done(site: Site, page: Page) -> None:
    project, run = site.held("Counted")
    page.goto(f"/overview?project={project}")
    expect(page.get_by_text("No figures yet")).to_be_visible()
    site.fleet.report(run, "ada:host:1", event("heartbeat", usage=USED))
    site.fleet.report(run, "ada:host:1", event("ship_complete", summary="Done."))
    page.get_by_role("link", name="7 days").click()
    expect(page.get_by_text("1 lane: 1 shipped")).to_be_visible()
    expect(page.get_by_role("img", name="1 attempt in 7 days: 1 shipped, 0 failed")).to_be_visible()
    expect(page.get_by_role("row", name="implementing")).to_be_visible()
    page.get_by_role("link", name="Tokens").click()
    expect(page).to_have_url(re.compile("of=tokens"))
    page.get_by_text("As a table").last.click()
    expect(page.get_by_role("row", name=re.compile("40.0k 2000|40.0k 2.0k"))).to_be_visible()
