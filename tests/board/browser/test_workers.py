"""Real workers on the board: one that waits for a lane is there before it has any, and is seen to have gone."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.board.browser.site import Site, until
from tests.cli.command import heartlane
from tests.worker.work_process import Lanes, Worker, closing, python

pytestmark = pytest.mark.browser


def card_of(page: Page, name: str) -> Locator:
    return page.locator(".worker-card").filter(has_text=name)


def test_a_worker_that_waits_is_seen_before_it_has_a_lane_and_after_it_has_gone(
    page: Page, site: Site, tmp_path: Path
) -> None:
    with contextlib.closing(Lanes(site.server)) as lanes:
        worker = Worker(lanes, tmp_path, "patient")

        def status() -> str | None:
            query = {"project_id": lanes.project}
            found = site.people.get("/api/agents/workers", params=query).json()["workers"]
            return next((each["status"] for each in found if "patient" in each["worker_id"]), None)

        with closing(worker):
            script = "import time\nwhile True: time.sleep(1)"
            worker.start(
                *("--project", lanes.project, "--role", "qa", "--role", "test", "--label", "os=linux", "--"),
                *python(script),
            )
            until(lambda: status() == "waiting", "the server knows that it waits")
            page.goto(f"/workers?project={lanes.project}")
            expect(page.locator(".sum")).to_have_text("1 waiting")
            card = card_of(page, "patient")
            expect(card).to_have_attribute("data-kind", "waiting")
            expect(card).to_contain_text("Asks for a lane of qa, test, offers os=linux, first")
            table = heartlane("workers", "--project", lanes.project, HEARTLANE_URL=site.url, HEARTLANE_TOKEN=site.token)
            assert "waiting" in table.out, table
            assert "asks for qa, test, os=linux" in table.out

            lanes.add("found", role="qa")
            expect(card).to_have_attribute("data-kind", "working")
            expect(card).to_contain_text("Lane found")
            (run,) = site.people.get("/api/agents/runs", params={"project_id": lanes.project}).json()["runs"]
            until(lambda: site.run(run["id"])["state"] != "claimed", "it has reported")
            worker.kill()

        site.people.post(f"/api/agents/runs/{run['id']}/cancel").raise_for_status()
        # A worker that goes while it waits is idle as soon as its connection has broken.
        other = Worker(lanes, tmp_path / "other", "hasty")
        (tmp_path / "other").mkdir()
        with closing(other):
            other.start("--project", lanes.project, "--", *python(script))
            until(lambda: "hasty" in str(site.people.get("/api/agents/workers").json()), "the other one waits")
        page.goto(f"/workers?project={lanes.project}")
        expect(card_of(page, "hasty")).to_be_visible()
        until(lambda: page.reload() and card_of(page, "hasty").get_attribute("data-kind") == "idle", "it has gone")
