"""Every page by axe, in light, in dark and at 360 px: no violations; and nothing is wider than the window."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

from docs.scene import build
from heartlane.board.pages import pages_there
from tests.board.browser.site import WIDE, Site

pytestmark = pytest.mark.browser
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
PHONE = ViewportSize(width=360, height=740)


@pytest.fixture(scope="module")
def ids(standing_site: Site) -> dict[str, str]:
    """A run and a plan of a fleet at work, and its project."""
    run = build(standing_site.fleet)["basket"]
    return {"lane": run["id"], "plan": run["plan_id"], "project": run["project_id"]}


def problems(page: Page) -> list[str]:
    """What axe finds, a line each."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{each['id']}: {node['html'][:160]} {node['failureSummary']}" for each in found for node in each["nodes"]]


PARTS = [f"settings&part={part}" for part in ("webhooks", "github", "notices", "audit", "sessions")]


@pytest.mark.parametrize("name", [page.name for page in pages_there()] + PARTS)
def test_no_violations(page: Page, ids: dict[str, str], name: str) -> None:
    name, *part = name.split("&")
    path = next(each.path for each in pages_there() if each.name == name)
    page.goto(path.replace("{id}", ids.get(name, "")) + "?" + "&".join([f"project={ids['project']}", *part]))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator(".loading")).to_have_count(0)
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes[:1] if part else schemes:  # parts of a page share its colours
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert problems(page) == [], scheme
    page.set_viewport_size(PHONE)
    assert problems(page) == [], "360 px"
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.set_viewport_size(WIDE)


def test_dialogs_and_messages(page: Page, ids: dict[str, str]) -> None:
    page.goto(f"/lanes/{ids['lane']}")
    page.get_by_role("button", name=re.compile("Cancel")).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert problems(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert problems(page) == []
    page.keyboard.press("Escape")
    page.goto("/lanes/0198c9a0-0000-7000-8000-000000000000")
    expect(page.get_by_role("alert")).to_be_visible()
    assert problems(page) == []
