"""The lanes in a browser: what needs a hand first, found, filtered, reached and decided by mouse and by keyboard."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from docs.scene import build, event
from tests.board.browser.site import Site, log_in, until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def scene(standing_site: Site) -> dict[str, str]:
    """A fleet at work in a project of its own: ids by lane key."""
    runs = build(standing_site.fleet)
    return {key: run["id"] for key, run in runs.items()} | {"project": runs["totals"]["project_id"]}


def rows(page: Page) -> list[str]:
    """What stands in the list, from above, headings in brackets."""
    shown: list[str] = page.locator(".rows > *").evaluate_all(
        """rows => rows.map(row => row.matches(".group-row") ? `[${row.querySelector("span").textContent}]`
                                                              : row.querySelector(".lane-title").textContent)"""
    )
    return shown


def test_what_needs_a_hand_stands_first_with_its_reason(page: Page, scene: dict[str, str]) -> None:
    page.goto(f"/?project={scene['project']}")
    expect(page.get_by_role("heading", name="Waiting")).to_be_visible()
    shown = rows(page)
    assert shown[0] == "[Needs a hand]"
    assert set(shown[1:5]) == {
        "Basket page keeps its place after login",
        "Results page for readers of screens",
        "VAT of the buyer's country",
        "Drawing for the empty basket",
    }
    assert shown[5] == "[Being worked]"
    row = page.get_by_role("row", name=re.compile("Basket page"))
    expect(row).to_contain_text("Waits for you: May I run `npm install sharp`?")
    expect(page.get_by_role("row", name=re.compile("Drawing for"))).to_contain_text("Failed: The build image has no")
    expect(page.get_by_role("row", name=re.compile("Order totals"))).to_contain_text(re.compile(r"ada.*left.*tests"))
    expect(page.get_by_role("link", name=re.compile("Lanes.*4 lanes need a hand"))).to_be_visible()
    assert page.title().startswith("(4) Lanes")


def test_filters_live_in_the_address(page: Page, scene: dict[str, str]) -> None:
    page.goto(f"/?project={scene['project']}")
    page.get_by_role("link", name=re.compile("Being worked")).click()
    page.get_by_label("Role").select_option("backend")
    page.get_by_label("Search lanes").fill("discounts")
    expect(page.locator(".lane-row")).to_have_count(1)
    assert "state=working" in page.url
    assert "role=backend" in page.url
    assert "q=discounts" in page.url
    page.reload()
    expect(page.locator(".lane-row")).to_have_count(1)
    assert page.get_by_label("Search lanes").input_value() == "discounts"
    page.get_by_label("Search lanes").fill("nothing is called that")
    page.get_by_role("link", name="Show all lanes").click()
    expect(page.get_by_role("heading", name="Needs a hand")).to_be_visible()


@pytest.mark.parametrize(
    ("by", "heads"),
    [
        ("plan", ["[Checkout that people finish]", "[Search that finds]"]),
        ("role", ["[backend]", "[design]"]),
        ("worker", ["[ada]", "[bob]"]),
    ],
)
def test_grouped(page: Page, scene: dict[str, str], by: str, heads: list[str]) -> None:
    page.goto(f"/?project={scene['project']}")
    page.get_by_label("Group by").select_option(by)
    until(lambda: [row for row in rows(page) if row.startswith("[")][:2] == heads, f"grouped by {by}")


def test_by_keyboard_alone(page: Page, scene: dict[str, str]) -> None:
    page.goto(f"/?project={scene['project']}")
    expect(page.get_by_role("heading", name="Needs a hand")).to_be_visible()
    first, second = rows(page)[1:3]
    page.keyboard.press("j")
    expect(page.locator(":focus")).to_have_text(first)
    page.keyboard.press("j")
    expect(page.locator(":focus")).to_have_text(second)
    page.keyboard.press("k")
    page.keyboard.press("a")
    expect(page.get_by_role("dialog")).to_contain_text(first)
    page.keyboard.press("Escape")
    expect(page.locator(":focus")).to_have_text(first)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(first)
    page.keyboard.press("u")
    expect(page.get_by_role("heading", level=1)).to_have_text("Lanes")
    page.keyboard.press("/")
    page.keyboard.type("jgl?")
    assert page.get_by_label("Search lanes").input_value() == "jgl?"
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("w")
    expect(page.get_by_role("heading", level=1)).to_have_text("Workers")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Go to Lanes")
    page.get_by_label("Single keys do something").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page.get_by_role("heading", level=1)).to_have_text("Workers")


def test_the_first_stop_of_the_keyboard_leads_past_the_navigation(page: Page, scene: dict[str, str]) -> None:
    page.goto(f"/?project={scene['project']}")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("To the content")


def test_where_nothing_is_the_next_command_stands(page: Page, site: Site) -> None:
    project = site.fleet.project("Empty")
    page.goto(f"/?project={project}")
    expect(page.get_by_text("heartlane plan create plan.yaml --approve")).to_be_visible()
    page.goto(f"/workers?project={project}")
    expect(page.get_by_text("heartlane work --agent claude")).to_be_visible()


def test_workers_and_what_they_hold(page: Page, scene: dict[str, str]) -> None:
    page.goto(f"/workers?project={scene['project']}")
    expect(page.locator(".sum")).to_have_text("7 working · 3 idle")
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="ada"))
    expect(card).to_contain_text("Order totals with discounts")
    expect(card).to_contain_text("Working")
    page.get_by_role("link", name="Order totals with discounts").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Order totals with discounts")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Workers")


def test_two_browsers_see_what_one_decides(site: Site, context: BrowserContext, page: Page) -> None:
    project, run = site.held("Watched by two")
    page.goto(f"/?project={project}")
    with site.context() as other_context:
        other = other_context.new_page()
        other.goto(f"/?project={project}")
        row = other.get_by_role("row", name=re.compile("Watched by two"))
        expect(row).to_contain_text("Running")
        expect(other.locator("#connection")).to_have_text("Live")
        page.get_by_role("button", name="What can be done with Watched by two").click()
        page.get_by_role("button", name="Pause …").click()
        page.get_by_role("dialog").get_by_role("button", name="Pause").click()
        expect(row).to_contain_text("Paused")
        expect(other.get_by_role("heading", name="Needs a hand")).to_be_visible()
    assert site.run(run["id"])["state"] == "paused"


def test_a_lane_moves_as_its_worker_reports(site: Site, page: Page) -> None:
    project, run = site.held("Moves by itself")
    page.goto(f"/?project={project}")
    row = page.get_by_role("row", name=re.compile("Moves by itself"))
    expect(row).to_contain_text("Begins.")
    expect(page.locator("#connection")).to_have_text("Live")
    site.fleet.report(run, "ada:host:1", event("phase_change", phase="tests"), log_line="12 passed")
    expect(row).to_contain_text("12 passed")
    url = "https://git.example.com/a/b/pulls/7"
    site.fleet.report(run, "ada:host:1", event("ship_complete", pr_url=url))
    expect(row).to_contain_text("Shipped")
    expect(row.get_by_role("link", name=re.compile("#7 git.example.com"))).to_have_attribute(
        "rel", "noopener noreferrer nofollow"
    )


def test_who_may_only_look_sees_no_buttons(site: Site) -> None:
    _, run = site.held("Looked at")
    with site.context(logged_in=False) as context:
        page = context.new_page()
        log_in(page, site.url, site.server.make_token("looker", "viewer"))
        page.goto(f"/lanes/{run['id']}")
        expect(page.get_by_text("You may look. An operator's token may act.")).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)
