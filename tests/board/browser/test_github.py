"""A project's link with GitHub in a browser: made, imported, broken, made again, ended."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.board.browser.site import Site
from tests.sources.tracker import TOKEN, FakeGitHub

pytestmark = pytest.mark.browser


def test_a_link_is_made_breaks_is_mended_and_ends(site: Site, page: Page, github: FakeGitHub) -> None:
    project = site.fleet.project("Linked")
    github.issue("Totals are off by a cent", "agent", "API v2")
    page.goto(f"/settings?project={project}&part=github")
    expect(page.get_by_text("Not linked.")).to_be_visible()
    page.get_by_label("Repository", exact=True).fill("https://git.example.com/acme/shop")
    page.get_by_label("Roles by label").fill("chef soup\nbackend api*")
    page.get_by_role("button", name="Link", exact=True).click()
    expect(page.get_by_text(re.compile("Roles by label: chef"))).to_be_visible()
    page.get_by_label("Roles by label").fill("backend api*")
    page.get_by_role("button", name="Link", exact=True).click()
    expect(page.get_by_text(re.compile("must be that of a repository at"))).to_be_visible()
    expect(page.get_by_label("Roles by label")).to_have_value("backend api*")
    page.get_by_label("Repository", exact=True).fill("http://127.0.0.1/acme/shop.git")
    page.get_by_label("Label", exact=True).fill("agent")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Linked with acme/shop.")).to_be_visible()
    page.get_by_role("button", name="Import issues now").press("Enter")
    expect(page.get_by_text("Imported: 1 new, 0 changed.")).to_be_visible()
    expect(page.get_by_text("1 issue: 1 new")).to_be_visible()

    github.tokens = {"another"}
    page.get_by_role("button", name="Import issues now").click()
    expect(page.get_by_role("alert").filter(has_text="The link with GitHub is broken")).to_be_visible()
    page.reload()
    broken = page.get_by_role("alert").filter(has_text="HEARTLANE_GITHUB_TOKEN")
    expect(broken).to_be_visible()
    github.tokens = {TOKEN}
    broken.get_by_role("button", name="Link again").click()
    expect(broken).to_have_count(0)
    expect(page.get_by_text("1 issue: 0 new")).to_be_visible()
    link = site.people.get(f"/api/projects/{project}/github").json()["github"]
    assert (link["label"], link["roles"]) == ("agent", {"backend": ["api*"]})

    page.get_by_role("button", name="Unlink").click()
    page.get_by_role("dialog").get_by_role("button", name="Unlink").click()
    expect(page.get_by_text("Not linked.")).to_be_visible()
    assert site.people.get(f"/api/projects/{project}/github").status_code == 404


def test_who_may_not_change_it_sees_how_it_stands(site: Site, github: FakeGitHub) -> None:
    project = site.fleet.project("Looked at")
    site.people.patch(f"/api/projects/{project}", json={"repo_url": "http://127.0.0.1/acme/shop"}).raise_for_status()
    site.people.put(f"/api/projects/{project}/github", json={"label": "agent"}).raise_for_status()
    with site.context(logged_in=False) as context:
        page = context.new_page()
        page.set_extra_http_headers({"authorization": f"Bearer {site.server.make_token('vi', 'viewer')}"})
        page.goto(f"/settings?project={project}&part=github")
        expect(page.get_by_text("acme/shop")).to_be_visible()
        expect(page.get_by_role("button", name=re.compile("Import|Unlink|Change"))).to_have_count(0)
