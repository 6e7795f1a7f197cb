"""The documentation's pictures of the board: `python -m docs.screenshots`, with a Chromium on this machine.

A server of its own, the fleet of `docs.scene` on it, and real pages: in light, in dark and as wide as a phone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Literal

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from docs.scene import Fleet, build, event
from tests.board.browser.chromium import FLAGS, find
from tests.e2e.server_process import ServerProcess, closing

IMAGES: Final = Path(__file__).resolve().parent / "images"
WIDE: Final = ViewportSize(width=1280, height=800)
PHONE: Final = ViewportSize(width=360, height=720)
PICTURES: Final[tuple[tuple[str, str, ViewportSize, Literal["light", "dark"]], ...]] = (
    ("lanes", "/?project={project}", WIDE, "light"),
    ("lanes-dark", "/?project={project}", WIDE, "dark"),
    ("lanes-phone", "/?project={project}", PHONE, "light"),
    ("lane", "/lanes/{typos}", WIDE, "light"),
    ("lane-dark", "/lanes/{typos}", WIDE, "dark"),
    ("lane-phone", "/lanes/{basket}", PHONE, "dark"),
    ("workers", "/workers?project={project}", WIDE, "light"),
    ("plans", "/plans?project={project}", WIDE, "light"),
)
"""Name, address, window and colours of each picture."""


def tell_a_story(fleet: Fleet, run: dict[str, Any]) -> None:
    """A lane with two attempts whose phases take their time, so that the timeline has something to show."""
    steps = (
        ("reading", 1.2, event("log_line", line="The tokenizer drops what it doesn't know: src/search/tokens.py:88")),
        ("implementing", 2.6, event("action", tool="Edit", file="src/search/typos.py", ok=True)),
        ("tests", 1.6, event("action", tool="Bash", command="pytest tests/search -q", ok=False)),
    )
    fleet.hand(run, "release")
    for worker in ("ines:build-9:302", "omar:build-3:55"):
        fleet.claim(run, worker)
        for phase, seconds, told in steps:
            fleet.report(run, worker, event("phase_change", phase=phase), told)
            time.sleep(seconds)
        fleet.report(run, worker, event("error", message="2 failed: test_two_letters_swapped, test_umlauts"))
        if worker.startswith("ines"):
            fleet.hand(run, "release")
            time.sleep(0.8)
    fleet.report(
        run,
        worker,
        event("phase_change", phase="implementing"),
        event("log_line", line="Swapped letters cost 1, not 2."),
    )
    time.sleep(2.0)
    fleet.report(run, worker, event("phase_change", phase="tests"), log_line="tests/search: 96 passed in 3.11s")
    time.sleep(1.5)


def take(browser: Browser, url: str, token: str, places: dict[str, str]) -> None:
    """Take every picture."""
    state = None
    for name, path, window, colours in PICTURES:
        with browser.new_context(
            viewport=window, color_scheme=colours, reduced_motion="reduce", storage_state=state, base_url=url
        ) as context:
            page = context.new_page()
            if state is None:
                log_in(page, token)
                state = context.storage_state()
            page.goto(path.format(**places))
            page.locator("h1").wait_for()
            page.locator("#connection[data-state=live]").wait_for()
            page.wait_for_timeout(700)  # the last page of the log, the timeline
            page.screenshot(path=IMAGES / f"{name}.png")
            sys.stdout.write(f"docs/images/{name}.png\n")


def log_in(page: Page, token: str) -> None:
    """As a person does."""
    page.goto("/login")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/")


def main() -> int:
    path = find()
    if path is None:
        sys.stderr.write("There is no Chromium to look with: `make browser` installs one.\n")
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="heartlane-pictures-") as folder:
        database = f"sqlite:///{Path(folder) / 'heartlane.db'}"
        server = ServerProcess(database, Path(folder))
        with closing(server), sync_playwright() as playwright:
            server.start()
            token = server.make_token("ann")
            with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {token}"}) as client:
                fleet = Fleet(client, client)
                runs = build(fleet)
                tell_a_story(fleet, runs["typos"])
            places = {key.replace("-", "_"): run["id"] for key, run in runs.items()}
            browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
            take(browser, server.url, token, places | {"project": runs["typos"]["project_id"]})
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
