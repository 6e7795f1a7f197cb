"""A running server with people and workers on it, and browsers that are logged in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from docs.scene import Fleet, Lane, event
from tests.e2e.server_process import ServerProcess

SECONDS: Final = 20.0
"""How long anything may take that a test waits for; all of it comes at once on a machine that isn't busy."""
MILLISECONDS: Final = SECONDS * 1000
WIDE: Final = ViewportSize(width=1280, height=860)
expect.set_options(timeout=MILLISECONDS)


class Site:
    """One server.

    people, worker      clients with an admin's and a worker's token
    """

    def __init__(self, server: ServerProcess, browser: Browser) -> None:
        self.server = server
        self.url = server.url
        self.token = server.make_token("ann")
        self.people = self.client(self.token)
        self.worker = self.client(server.make_token("fleet", "worker"))
        self.fleet = Fleet(self.people, self.worker)
        self.browser = browser
        self.problems: list[str] = []
        self._state: Any = None

    def client(self, token: str) -> httpx.Client:
        """A client of the API."""
        headers = {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=SECONDS, trust_env=False)

    def close(self) -> None:
        """End the clients."""
        self.people.close()
        self.worker.close()

    # --- browsers -------------------------------------------------------------------------------------------------

    def context(self, *, logged_in: bool = True, **options: Any) -> BrowserContext:
        """A browser of its own, that knows nothing of the others but the session."""
        if logged_in and self._state is None:
            with self.browser.new_context() as first:
                page = first.new_page()
                log_in(page, self.url, self.token)
                self._state = first.storage_state()
        state = self._state if logged_in else None
        context = self.browser.new_context(
            **{"viewport": WIDE, "reduced_motion": "reduce", "storage_state": state, "base_url": self.url, **options}
        )
        context.set_default_timeout(MILLISECONDS)
        context.on("weberror", lambda error: self.problems.append(f"{error.error}"))
        # What the policy forbade is told here, and nothing else is allowed to be either.
        context.on("console", lambda message: self._note(message.type, message.text))
        return context

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" and not re.search(r"Failed to load resource|net::ERR", text):
            self.problems.append(text)

    # --- what tests begin with ------------------------------------------------------------------------------------

    def lanes(self, *lanes: Lane, title: str = "Plan") -> tuple[str, list[dict[str, Any]]]:
        """A new project and the runs of its approved plan."""
        project = self.fleet.project(title)
        return project, self.fleet.plan(project, title, lanes or (("one", "The only lane", "backend"),))

    def held(self, title: str = "A lane in work", worker: str = "ada:host:1") -> tuple[str, dict[str, Any]]:
        """A new project and its one lane, which a worker works."""
        project, runs = self.lanes(("one", title, "backend"), title=title)
        self.fleet.claim(runs[0], worker, 600)
        self.fleet.report(runs[0], worker, event("phase_change", phase="implementing"), log_line="Begins.")
        return project, runs[0]

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as it is now."""
        found: dict[str, Any] = self.people.get(f"/api/agents/runs/{run_id}").json()["run"]
        return found


def log_in(page: Page, url: str, token: str) -> None:
    """Log in as a person does."""
    page.goto(f"{url}/login")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{url}/")


def until(holds: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds; what it gave then."""
    deadline = time.monotonic() + SECONDS
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        time.sleep(0.05)
    return value
