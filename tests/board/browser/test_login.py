"""The login as people meet it in a browser: by a link, by a token, after a session has ended."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.board.browser.site import Site, log_in, until

pytestmark = pytest.mark.browser


def link_of(site: Site, token: str) -> str:
    """A new one-time link."""
    with site.client(token) as client:
        url: str = client.post("/api/login-links").json()["login_link"]["url"]
    return url


def who(page: Page) -> str:
    """Whom the server takes the browser for."""
    answer = page.request.get("/api/me").json()
    return str(answer.get("me", {}).get("name"))


def test_a_link_logs_in_when_its_button_is_pressed_and_not_before(site: Site) -> None:
    link = link_of(site, site.server.make_token("linda", "viewer"))
    with site.context(logged_in=False) as preview, site.context(logged_in=False) as mine, site.context() as other:
        looked = preview.new_page()
        looked.goto(link)
        expect(looked.get_by_text("one-time login link")).to_be_visible()
        page = mine.new_page()
        page.goto(link)
        expect(page.get_by_label("Token")).to_be_hidden()
        assert "hll_" not in page.url
        page.keyboard.press("Enter")  # the button has the focus
        expect(page).to_have_url(f"{site.url}/")
        assert who(page) == "linda"
        page.go_back()
        assert "hll_" not in page.url
        late = other.new_page()
        late.goto(link)
        late.get_by_role("button", name="Log in").click()
        expect(late.get_by_role("alert")).to_contain_text("used before")
        assert who(late) == "ann", "who was logged in stays so"


def test_a_wrong_token_is_said_beside_its_field(site: Site) -> None:
    with site.context(logged_in=False) as context:
        page = context.new_page()
        page.goto("/login?next=/workers")
        expect(page.get_by_label("Token")).to_be_focused()
        page.keyboard.type("hlt_nonsense")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("no token of this server")
        expect(page.get_by_label("Token")).to_have_attribute("aria-invalid", "true")
        page.get_by_label("Token").fill(site.token)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{site.url}/workers")


def test_an_ended_session_comes_back_to_the_same_place(site: Site) -> None:
    token = site.server.make_token("otto", "operator")
    with site.context(logged_in=False) as context:
        page = context.new_page()
        log_in(page, site.url, token)
        page.goto("/?q=basket")
        (session,) = page.request.get("/api/sessions").json()["sessions"]
        site.people.delete(f"/api/sessions/{session['id']}")
        expect(page).to_have_url(re.compile(r"/login\?next=.*q%3Dbasket"))
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{site.url}/?q=basket")


def test_logging_out_is_for_good(site: Site) -> None:
    with site.context(logged_in=False) as context:
        page = context.new_page()
        log_in(page, site.url, site.server.make_token("olga", "viewer"))
        page.goto("/login")
        expect(page.get_by_text("olga")).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        until(lambda: page.request.get("/api/me").status == 401, "the session is over")


def test_every_page_has_a_way_out(site: Site) -> None:
    with site.context(logged_in=False) as context:
        page = context.new_page()
        log_in(page, site.url, site.server.make_token("lea", "viewer"))
        page.goto("/workers")
        page.keyboard.press("g")
        page.keyboard.press("q")
        expect(page.get_by_role("dialog")).to_contain_text("logged in as lea")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert who(page) == "lea"
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("dialog").get_by_role("button", name="Log out").click()
        expect(page).to_have_url(f"{site.url}/login")
        assert page.request.get("/api/me").status == 401


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_everybody_can_read_it(site: Site, colours: str) -> None:
    with site.context(color_scheme=colours, viewport={"width": 360, "height": 640}) as context:
        page = context.new_page()
        for place in ("/login", f"/login?next=/{'x' * 200}"):
            page.goto(place)
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
