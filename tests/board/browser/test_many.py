"""Five thousand lanes: there within a second, small over the wire, and without jank while they change."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from docs.scene import event
from tests.board.browser.site import Site, until

pytestmark = pytest.mark.browser

LANES = 5_000
HELD = 60
WIRE_BYTES_MAX = 250_000
# What is promised is a second and no task that a person feels, measured on a machine that does nothing else; a busy one
# gets more, and far less than what a page would take that drew every row.
PAINT_MILLISECONDS_MAX = 3_000
TASK_MILLISECONDS_MAX = 400
NODES_MAX = 2_500

OBSERVE = """
    window.tasks = [];
    new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((entry) => entry.duration)))
        .observe({type: "longtask", buffered: true});
    new MutationObserver((_, observer) => {
        if (!document.querySelector(".lane-row")) return;
        observer.disconnect();
        requestAnimationFrame(() => {
            window.shownAt = performance.now();
            window.bytes = performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
                .reduce((sum, entry) => sum + entry.transferSize, 0);
        });
    }).observe(document, {childList: true, subtree: true});
"""


@pytest.fixture(scope="module")
def many(standing_site: Site) -> tuple[str, list[dict[str, Any]]]:
    """A project with five thousand lanes, and those of them that are held."""
    fleet = standing_site.fleet
    project = fleet.project("Many")
    held: list[dict[str, Any]] = []
    roles = ("backend", "frontend", "test", "qa")
    for plan in range(LANES // 1_000):
        lanes = tuple(
            (f"lane-{plan}-{number}", f"Piece of work {plan}-{number}", roles[number % 4]) for number in range(1_000)
        )
        runs = fleet.plan(project, f"Plan {plan}", lanes)
        held += runs[: HELD // (LANES // 1_000)]
    for place, run in enumerate(held):
        fleet.claim(run, f"worker-{place}:h:1", 600)
    return project, held


def test_five_thousand_lanes(site: Site, page: Page, many: tuple[str, list[dict[str, Any]]]) -> None:
    project, held = many
    page.add_init_script(OBSERVE)
    page.goto(f"/?project={project}")
    expect(page.locator(".lane-row").first).to_be_visible()
    shown_at = page.evaluate("shownAt")
    assert page.evaluate("bytes") <= WIRE_BYTES_MAX
    assert shown_at <= PAINT_MILLISECONDS_MAX
    expect(page.get_by_role("link", name=re.compile("All 5,000"))).to_be_visible()
    assert page.evaluate("document.querySelectorAll('*').length") < NODES_MAX
    assert max(page.evaluate("tasks"), default=0) < TASK_MILLISECONDS_MAX
    for place, run in enumerate(held):
        site.fleet.report(run, f"worker-{place}:h:1", event("phase_change", phase="tests"), log_line=f"said {place}")
        if place % 10 == 0:
            page.mouse.wheel(0, 4_000)
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator(".lane-row").first).to_contain_text("said")
    page.get_by_label("Search lanes").fill("4-777")
    expect(page.locator(".lane-row")).to_have_count(1)
    page.get_by_label("Search lanes").fill("")
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    expect(page.locator(f".lane-row[aria-rowindex='{LANES + 3}']")).to_be_in_viewport()
    assert max(page.evaluate("tasks"), default=0) < TASK_MILLISECONDS_MAX


def test_a_log_of_many_events_keeps_the_page_small(site: Site, page: Page) -> None:
    _, run = site.held("A log without end")
    for report in range(60):
        lines = (event("log_line", line=f"line {report * 100 + number}") for number in range(100))
        site.fleet.report(run, "ada:host:1", *lines)
    page.goto(f"/lanes/{run['id']}")
    expect(page.get_by_text("line 5999", exact=True)).to_be_visible()
    log = page.get_by_role("log")
    for _ in range(6):
        log.evaluate("lines => lines.scrollTo(0, 0)")
        until(lambda: log.evaluate("lines => lines.scrollTop") > 100, "earlier events stand above")
    assert page.locator(".event").count() <= 400
    page.get_by_role("button", name="Follow", exact=True).click()
    expect(page.get_by_text("line 5999", exact=True)).to_be_visible()
    assert page.locator(".event").count() <= 400
