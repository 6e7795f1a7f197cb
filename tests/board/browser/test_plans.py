"""Plans in a browser: approved, rejected with a reason that isn't lost, and followed as their lanes ship."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from docs.scene import Lane, event
from tests.board.browser.site import Site, until

pytestmark = pytest.mark.browser
LANES: tuple[Lane, ...] = (("api", "Totals in the API", "backend"), ("page", "Totals on the page", "frontend"))


def pending(site: Site, title: str) -> tuple[str, str]:
    """A new project and the id of its plan that waits."""
    project = site.fleet.project(title)
    site.fleet.plan(project, title, LANES, approve=False)
    (plan,) = site.people.get("/api/agents/plans", params={"project_id": project}).json()["plans"]
    return project, plan["id"]


def test_approving_by_keyboard_queues_the_lanes(site: Site, page: Page) -> None:
    project, plan = pending(site, "Approved by key")
    page.goto(f"/plans?project={project}")
    page.get_by_role("link", name="To approve 1").click()
    expect(page).to_have_url(re.compile("status=pending"))
    page.get_by_role("link", name="Approved by key").press("Enter")
    expect(page.get_by_text("After api")).to_be_visible()
    page.get_by_text("What is asked for of api").press("Enter")
    expect(page.get_by_text("As our buyers asked for.")).to_be_visible()
    page.keyboard.press("a")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 lanes are queued at once")
    expect(dialog).to_contain_text("1 lane can begin now")
    expect(dialog.locator(":focus")).to_have_text("Leave it")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("0 of 2 shipped · 2 queued")).to_be_visible()
    assert site.people.get(f"/api/agents/plans/{plan}").json()["plan"]["status"] == "approved"
    expect(page.get_by_role("link", name="Totals in the API")).to_have_attribute("href", re.compile("/lanes/"))


def test_progress_is_shown_as_it_happens(site: Site, page: Page) -> None:
    project, runs = site.lanes(*LANES, title="Followed")
    page.goto(f"/plans?project={project}")
    expect(page.get_by_text("0 of 2 shipped")).to_be_visible()
    site.fleet.claim(runs[0], "ada:host:1", 600)
    expect(page.get_by_text("1 claimed · 1 queued")).to_be_visible()
    page.get_by_role("link", name="Followed").click()
    site.fleet.report(runs[0], "ada:host:1", event("ship_complete", summary="Done."))
    expect(page.get_by_text("1 of 2 shipped · 1 queued")).to_be_visible()


def test_a_reason_is_asked_for_and_kept(site: Site, page: Page) -> None:
    project, plan = pending(site, "Rejected in words")
    page.goto(f"/plans/{plan}")
    page.get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Reject the plan").click()
    expect(dialog.get_by_text("Reason must not be empty.")).to_be_visible()
    reason = dialog.get_by_label("Reason")
    expect(reason).to_be_focused()
    reason.fill("Split <b>it</b> first.")
    page.reload()
    page.get_by_role("button", name="Reject").click()
    expect(reason).to_have_value("Split <b>it</b> first.")
    dialog.get_by_role("button", name="Reject the plan").click()
    expect(page.get_by_text("Rejected: Split <b>it</b> first.")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    page.goto(f"/plans?project={project}&status=rejected")
    expect(page.get_by_text("Split <b>it</b> first.")).to_be_visible()


def test_a_plan_from_elsewhere_appears_and_who_may_only_look_decides_nothing(site: Site) -> None:
    project = site.fleet.project("Looked at")
    with site.context(logged_in=False) as context:
        page = context.new_page()
        page.goto("/login")
        page.get_by_label("Token").fill(site.server.make_token("vera", "viewer"))
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{site.url}/")
        page.goto(f"/plans?project={project}")
        expect(page.get_by_text("heartlane plan create plan.yaml")).to_be_visible()
        expect(page.get_by_text("Live")).to_be_visible()
        site.fleet.plan(project, "Just made", LANES, approve=False)
        page.get_by_role("link", name="Just made").click()
        expect(page.get_by_text("You may look")).to_be_visible()
        expect(page.get_by_role("button", name="Approve")).to_have_count(0)
        page.keyboard.press("a")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_notices_are_counted_and_dismissed(site: Site, page: Page) -> None:
    project, run = site.held("Told of")
    site.fleet.report(run, "ada:host:1", event("error", message="No <i>disk</i>.", fatal=True))

    def told() -> list[str]:
        listed = site.people.get("/api/agents/notices", params={"project_id": project, "open": "true"}).json()
        return [notice["id"] for notice in listed["notices"]]

    until(told, "a notice")
    page.goto(f"/notices?project={project}")
    expect(page.get_by_text("failed: No <i>disk</i>.")).to_be_visible()
    expect(page.get_by_role("navigation", name="Main").get_by_text("1 open notice")).to_be_visible()
    page.get_by_role("button", name="Dismiss").press("Enter")
    expect(page.get_by_role("heading", name="Nothing to tell")).to_be_visible()
    assert told() == []
    page.get_by_role("link", name="Closed").click()
    expect(page.get_by_text("dismissed by ann")).to_be_visible()
