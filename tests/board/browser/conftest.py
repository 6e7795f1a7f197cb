"""A Chromium and a server for the tests that look at the board as people do; without a Chromium these are left out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.board.browser import chromium
from tests.board.browser.site import Site
from tests.e2e.server_process import ServerProcess, closing
from tests.sources.tracker import TOKEN, FakeGitHub, speaking

BROWSER = chromium.find()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a browser there is nothing to look with."""
    if BROWSER is None:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("browser")])
        items[:] = [item for item in items if not item.get_closest_marker("browser")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so."""
    if BROWSER is None:
        terminalreporter.write_line(chromium.LEFT_OUT, yellow=True)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A Chromium without a window, for these tests alone: while it lives, this thread can run no other event loop."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(chromium.FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def github() -> Iterator[FakeGitHub]:
    """A tracker like GitHub, that the server imports from."""
    tracker = FakeGitHub()
    with speaking(tracker):
        yield tracker


@pytest.fixture(scope="package")
def standing_site(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, browser: Browser, github: FakeGitHub
) -> Iterator[Site]:
    """A server that stays for all of these tests."""
    folder = tmp_path_factory.mktemp("board")
    shutil.copyfile(sqlite_template, folder / "heartlane.db")
    database = f"sqlite:///{folder / 'heartlane.db'}"
    server = ServerProcess(database, folder, github_api_url=github.url, github_token=TOKEN)
    with closing(server):
        server.start()
        site = Site(server, browser)
        yield site
        site.close()


@pytest.fixture
def site(standing_site: Site) -> Iterator[Site]:
    """The same; a test that left an error in a browser's console, say by the content policy, fails."""
    standing_site.problems.clear()
    yield standing_site
    assert not standing_site.problems, standing_site.problems


@pytest.fixture
def context(site: Site) -> Iterator[BrowserContext]:
    """A browser that is logged in."""
    with site.context() as context:
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page of it."""
    return context.new_page()
