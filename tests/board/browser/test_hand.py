"""The operator's hand in a browser: every button by mouse and by keyboard, each said beforehand and confirmed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from docs.scene import event
from tests.board.browser.site import Site, until

pytestmark = pytest.mark.browser
WORKER = "ada:host:1"


def by_mouse(page: Page, verb: str) -> None:
    """Press the lane's button."""
    page.get_by_role("group", name="What can be done").get_by_role("button", name=verb).click()


def by_keyboard(page: Page, verb: str) -> None:
    """Press the verb's key; no button is touched."""
    expect(page.get_by_role("button", name=verb)).to_be_visible()
    page.keyboard.press({"Pause": "p", "Resume": "p", "Release": "e", "Cancel": "x", "Retry": "r"}[verb])


def confirm_by_mouse(page: Page, verb: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=verb).click()


def confirm_by_keyboard(page: Page, verb: str) -> None:
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(":focus")).to_have_text("Leave it")  # what is done in a hurry does nothing
    page.keyboard.press("Tab")
    expect(dialog.locator(":focus")).to_have_text(verb)
    page.keyboard.press("Enter")


@pytest.mark.parametrize(
    ("press", "confirm"), [(by_mouse, confirm_by_mouse), (by_keyboard, confirm_by_keyboard)], ids=["mouse", "keyboard"]
)
def test_every_button(
    site: Site, page: Page, press: Callable[[Page, str], None], confirm: Callable[[Page, str], None]
) -> None:
    _, run = site.held(f"Handled by {press.__name__}")
    page.goto(f"/lanes/{run['id']}")
    for verb, says, state in (
        ("Pause", "ada keeps the lane and its lease", "paused"),
        ("Resume", "ada is told to go on", "running"),
        ("Release", "any worker that fits may claim it: attempt 2", "released"),
        ("Cancel", "The lane ends as failed", "failed"),
        ("Retry", "queued again with no failures counted", "queued"),
    ):
        press(page, verb)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(f"{verb} “Handled by")
        expect(dialog).to_contain_text(says)
        confirm(page, verb)
        expect(page.locator(".lane-head .state")).to_have_attribute("data-state", state)
        assert site.run(run["id"])["state"] == state
    audit = site.people.get("/api/audit", params={"limit": 10}).json()["entries"]
    assert {"run.paused", "run.released", "run.cancelled"} <= {entry["action"] for entry in audit}


def test_a_question_that_is_left_changes_nothing(site: Site, page: Page) -> None:
    _, run = site.held("Left as it is")
    page.goto(f"/lanes/{run['id']}")
    for leave in ("Escape", "button"):
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        if leave == "Escape":
            page.keyboard.press("Escape")
        else:
            page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.locator(":focus")).to_have_text("Cancel")
    assert site.run(run["id"])["state"] == "running"


def test_the_board_says_whether_the_worker_knows(site: Site, page: Page) -> None:
    _, run = site.held("Told in time")
    page.goto(f"/lanes/{run['id']}")
    by_mouse(page, "Pause")
    expect(page.get_by_role("dialog")).to_contain_text(re.compile(r"any other worker .* with its next report"))
    confirm_by_mouse(page, "Pause")
    expect(page.get_by_text(re.compile("ada may not know yet: it last reported"))).to_be_visible()
    answer = site.worker.post(f"/api/agents/runs/{run['id']}/events", json={"worker_id": WORKER})
    assert answer.json()["directive"] == "pause"
    expect(page.get_by_text(re.compile("ada knows since"))).to_be_visible()


def test_an_order_reaches_a_worker_that_is_due_within_a_second(site: Site, page: Page) -> None:
    _, run = site.held("Due at once")
    page.goto(f"/lanes/{run['id']}")
    by_mouse(page, "Pause")
    page.get_by_role("dialog").get_by_role("button", name="Pause").evaluate("button => button.click()")
    pressed = time.monotonic()

    def directive() -> bool:
        report = site.worker.post(f"/api/agents/runs/{run['id']}/events", json={"worker_id": WORKER})
        return bool(report.json()["directive"] == "pause")

    until(directive, "the directive came")
    assert time.monotonic() - pressed < 1.0


def test_a_refusal_is_said_in_the_servers_words(site: Site, page: Page) -> None:
    _, run = site.held("Shipped meanwhile")
    page.goto(f"/lanes/{run['id']}")
    page.get_by_role("button", name="Pause").click()
    site.fleet.report(run, WORKER, event("ship_complete"))
    confirm_by_mouse(page, "Pause")
    expect(page.locator(".toast.bad")).to_contain_text("shipped")
    expect(page.locator(".lane-head .state")).to_have_attribute("data-state", "shipped")
    expect(page.get_by_role("group", name="What can be done").get_by_role("button")).to_have_count(0)
