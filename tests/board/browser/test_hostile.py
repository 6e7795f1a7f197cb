"""Agents' output is hostile text: nothing of it is run, linked blindly, or able to fake the page."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from docs.scene import event
from tests.board.browser.site import Site

pytestmark = pytest.mark.browser

HOSTILE = {
    "markup": "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>",
    "ansi": "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07click\x1b]8;;\x07 \x1b[2J",
    "bidi": "rm -rf \u202etxt.exe\u202c safe",
    "zero": "ad\u200bmin\u2066\u2069",
    "nul": "before\x07after\rover",
    "zalgo": "a" + "\u0301" * 60,
    "tags": "plain\U000e0041\U000e0042",
}


def test_nothing_of_it_is_run_and_what_hides_is_shown(site: Site, page: Page) -> None:
    title = "<b>Bold</b> \u202egnp.exe"
    project, runs = site.lanes(("one", title, "backend"), title="Hostile")
    worker = "<i>eve</i>\u202e:h:1"
    site.fleet.claim(runs[0], worker)
    site.fleet.report(
        runs[0], worker, *(event("log_line", line=line) for line in HOSTILE.values()),
        event("action", tool="\x1b[1mEdit", file="src/\u202egnp.py"), phase="<u>phase</u>", log_line=HOSTILE["markup"],
    )  # fmt: skip
    page.goto(f"/?project={project}")
    row = page.locator(".lane-row")
    expect(row).to_contain_text("<b>Bold</b> ‹U+202E›gnp.exe")
    expect(row).to_contain_text("<i>eve</i>‹U+202E›")
    expect(row).to_contain_text("<u>phase</u>")
    expect(row).to_contain_text("<img src=x onerror=")
    page.goto(f"/lanes/{runs[0]['id']}")
    texts = page.locator(".event-text")
    expect(texts.filter(has_text="<script>")).to_have_count(1)
    expect(texts.filter(has_text="click")).to_have_text("red click ")
    expect(texts.filter(has_text="rm -rf")).to_have_text("rm -rf ‹U+202E›txt.exe‹U+202C› safe")
    expect(texts.filter(has_text="ad‹")).to_have_text("ad‹U+200B›min‹U+2066›‹U+2069›")
    expect(texts.filter(has_text="before")).to_have_text("before␇after␍over")
    expect(texts.filter(has_text="plain")).to_have_text("plain‹U+E0041›‹U+E0042›")
    assert page.evaluate("document.querySelectorAll('main :is(img, script, iframe, b > b, i > i, u)').length") == 0
    assert "owned" not in page.title()


@pytest.mark.parametrize(
    "url",
    ["javascript:document.title='owned'", "data:text/html,<script>1</script>", "//evil.example", "vbscript:x", "x"],
)
def test_only_web_addresses_are_linked(site: Site, page: Page, url: str) -> None:
    project, run = site.held("Ships a trap")
    site.fleet.report(run, "ada:host:1", event("ship_complete", pr_url=url))
    page.goto(f"/lanes/{run['id']}")
    expect(page.locator(".unlinked")).to_have_text(url)
    page.goto(f"/?project={project}")
    expect(page.locator(".lane-row")).to_contain_text("Shipped")
    hrefs = page.locator("main a").evaluate_all("links => links.map(link => link.protocol)")
    assert set(hrefs) <= {"http:", "https:"}
    assert page.locator(".lane-row .c-result a").count() == 0


def test_a_link_out_names_where_it_leads_and_tells_nobody(site: Site, page: Page) -> None:
    _, run = site.held("Ships a look-alike")
    site.fleet.report(run, "ada:host:1", event("ship_complete", pr_url="https://github.com@evil.example/pull/1"))
    page.goto(f"/lanes/{run['id']}")
    link = page.get_by_label("About the lane").get_by_role("link", name=re.compile("evil.example"))
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(link).not_to_contain_text("github.com")


def test_a_line_of_ten_megabytes_costs_what_a_short_one_costs(page: Page) -> None:
    page.goto("/workers")
    took, shown = page.evaluate(
        """async () => {
            const {visible} = await import(document.querySelector("script[type=module]").src.replace("app", "hostile"));
            const line = "\\u202e\\u001b[31m<b>".repeat(1_000_000);
            const began = performance.now();
            const shown = visible(line);
            return [performance.now() - began, shown.length];
        }"""
    )
    assert shown < 20_000
    assert took < 250


def test_a_long_line_is_cut_and_can_be_seen_whole(site: Site, page: Page) -> None:
    _, run = site.held("Long")
    site.fleet.report(run, "ada:host:1", event("log_line", line="long " + "x" * 40_000 + " end"))
    page.goto(f"/lanes/{run['id']}")
    line = page.locator(".event-text", has_text="long")
    expect(line).not_to_contain_text("end")
    line.get_by_role("button", name=re.compile("Show all 40,009 characters")).click()
    expect(line).to_contain_text("x end")
