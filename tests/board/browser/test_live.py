"""What the board does when it is cut off: says so, comes back by itself, and loses nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from docs.scene import event
from tests.board.browser.site import Site, log_in
from tests.e2e.server_process import ServerProcess, closing

pytestmark = pytest.mark.browser


def test_a_killed_server_is_said_and_come_back_to(browser: Browser, sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "heartlane.db")
    server = ServerProcess(f"sqlite:///{tmp_path / 'heartlane.db'}", tmp_path)
    with closing(server):
        server.start()
        site = Site(server, browser)
        project, run = site.held("Outlives the server")
        with site.context() as context:
            lanes, lane = context.new_page(), context.new_page()
            lanes.goto(f"/?project={project}")
            lane.goto(f"/lanes/{run['id']}")
            row = lanes.get_by_role("row", name=re.compile("Outlives"))
            expect(row).to_contain_text("Begins.")
            for page in (lanes, lane):
                expect(page.locator("#connection")).to_have_text("Live")
            server.kill()
            expect(lanes.locator("#connection")).to_have_text("Not live")
            expect(lanes.locator("#banner")).to_contain_text("The connection to the server broke")
            expect(row).to_contain_text("Begins.")  # what was known stays
            server.start()
            reported = event("log_line", line="said after the restart")
            site.fleet.report(run, "ada:host:1", reported)
            for page in (lanes, lane):
                expect(page.locator("#connection")).to_have_text("Live")
            expect(lanes.locator("#banner")).to_be_empty()
            expect(row).to_contain_text("said after the restart")
            # Once each: nothing is missed, nothing told twice.
            expect(lane.locator(".event-text", has_text="said after the restart")).to_have_count(1)
            expect(lane.locator(".event-text", has_text="implementing")).to_have_count(1)
        site.close()


def test_an_ended_session_leads_to_the_login_and_back_to_the_same_place(site: Site) -> None:
    project, _ = site.held("Seen again after the login")
    with site.context(logged_in=False) as context:
        page = context.new_page()
        log_in(page, site.url, site.token)
        place = f"/?project={project}&state=working&by=role"
        page.goto(place)
        expect(page.locator(".lane-row")).to_have_count(1)
        session = page.evaluate("fetch('/api/me').then(answer => answer.json()).then(({me}) => me.session.id)")
        assert site.people.delete(f"/api/sessions/{session}").status_code < 300
        page.wait_for_url(re.compile(r"/login\?next="))
        page.get_by_label("Token").fill(site.token)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(site.url + place)
        expect(page.locator(".lane-row")).to_have_count(1)


def test_a_lane_that_is_not_there_says_so(page: Page) -> None:
    page.goto("/lanes/0198c9a0-0000-7000-8000-000000000000")
    expect(page.get_by_role("alert")).to_contain_text("Not here")
    page.get_by_role("link", name="All lanes").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Lanes")


def test_colours_follow_the_system_or_the_switch(site: Site) -> None:
    with site.context(color_scheme="dark") as context:
        page = context.new_page()
        page.goto("/workers")
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        page.get_by_role("button", name="Colours: as the system").click()
        expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
        light = page.evaluate(ground)
        assert light != dark
        page.reload()
        assert page.evaluate(ground) == light


def test_who_leaves_the_log_standing_is_told_of_what_is_new(site: Site, page: Page) -> None:
    _, run = site.held("Talks a lot")
    lines = [event("log_line", line=f"line {number}") for number in range(100)]
    site.fleet.report(run, "ada:host:1", *lines)
    page.goto(f"/lanes/{run['id']}")
    expect(page.get_by_text("line 99", exact=True)).to_be_visible()
    page.get_by_role("button", name="Following").click()
    site.fleet.report(run, "ada:host:1", event("log_line", line="one more"))
    page.get_by_role("button", name="1 new line").click()
    expect(page.get_by_text("one more")).to_be_visible()
    page.get_by_label("Search the log").fill("line 7")
    expect(page.locator(".event")).to_have_count(11)
    expect(page.locator("mark").first).to_have_text("line 7")
    page.get_by_label("Search the log").fill("")
    page.get_by_label("output").uncheck()
    expect(page.locator(".event[data-type=log_line]")).to_have_count(0)
    expect(page.locator(".event[data-type=phase_change]")).to_have_count(1)
