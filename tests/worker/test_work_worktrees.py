"""`heartlane work --worktree` on a real server: one lane, one branch, whoever works it."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from heartlane.cli.errors import CODE_OF
from tests.e2e.server_process import ServerProcess
from tests.e2e.server_process import closing as closing_servers
from tests.worker.repositories import git, own_settings, repository
from tests.worker.work_process import Lanes, Worker, closing, prints

RESULT = json.dumps({"type": "result", "subtype": "success", "is_error": False, "result": "Did it.", "session_id": "s"})


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    """One server for all tests of this module; each takes lanes of its own, by a label."""
    folder = tmp_path_factory.mktemp("server")
    server = ServerProcess(f"sqlite:///{folder / 'heartlane.sqlite3'}", folder)
    with closing_servers(server):
        server.start()
        with contextlib.closing(Lanes(server)) as lanes:
            yield lanes


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    own_settings(tmp_path, monkeypatch)
    return repository(tmp_path / "shop")


@pytest.fixture
def worker(lanes: Lanes, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(lanes, tmp_path)
    with closing(worker):
        yield worker


def test_the_next_attempt_goes_on_with_the_branch_of_the_last(lanes: Lanes, worker: Worker, shop: Path) -> None:
    (run_id,) = lanes.add("branch", labels={"for": "branch"})
    # The first attempt commits and fails; the second finds that, adds to it, and leaves its own change uncommitted.
    script = (
        'if [ "$HEARTLANE_ATTEMPT" = 1 ]; then echo one > one.txt; git add .; git commit -qm "One"; exit 3; fi; '
        'test -f one.txt && test "$HEARTLANE_PREVIOUS_BRANCH" = "$HEARTLANE_BRANCH" && echo two > two.txt'
    )
    arguments = ("--once", "--label", "for=branch", "--worktree", str(shop), "--", "sh", "-c", script)
    assert worker.start(*arguments).wait() == CODE_OF["lane_failed"], worker.said()
    assert lanes.run(run_id)["failures"] == 1
    assert worker.start(*arguments).wait() == 0, worker.said()

    run = lanes.run(run_id)
    assert (run["state"], run["attempt"]) == ("shipped", 2)
    (shipped,) = lanes.events(run_id, "ship_complete")
    facts = shipped["payload"]
    assert facts["branch"] == run["branch"] == f"heartlane/branch-{run_id.replace('-', '')[-8:]}"
    assert facts["commit"] == git(shop, "rev-parse", run["branch"])
    assert git(shop, "log", "--format=%s", f"main..{run['branch']}").splitlines()[-1] == "One"
    assert git(shop, "ls-tree", "--name-only", run["branch"]).split() == ["README.md", "one.txt", "two.txt"]
    assert git(shop, "status", "--porcelain") == "", "the repository itself was worked in"
    assert len(git(shop, "worktree", "list").splitlines()) == 1, "the worktree of a lane that has shipped is left"


def test_a_success_without_a_change_is_none(lanes: Lanes, worker: Worker, shop: Path) -> None:
    (run_id,) = lanes.add("idle", labels={"for": "idle"})
    arguments = ("--once", "--label", "for=idle", "--agent", "claude", "--worktree", str(shop))
    assert worker.start(*arguments, "--", *prints(RESULT)).wait() == CODE_OF["lane_failed"], worker.said()
    run = lanes.run(run_id)
    assert (run["state"], run["failures"]) == ("released", 1)
    (error,) = lanes.events(run_id, "error")
    assert error["payload"]["reason"] == "empty"

    assert worker.start(*arguments, "--allow-empty", "--", *prints(RESULT)).wait() == 0, worker.said()
    assert lanes.run(run_id)["state"] == "shipped"


def test_a_lane_that_cant_be_worked_is_handed_back_and_ends_no_worker(lanes: Lanes, worker: Worker, shop: Path) -> None:
    run_id, another = lanes.add("mine", "free", labels={"for": "way"})
    branch = f"heartlane/mine-{run_id.replace('-', '')[-8:]}"
    git(shop, "checkout", "--quiet", "-b", branch)  # somebody looks at it by hand
    arguments = ("--label", "for=way", "--worktree", str(shop), "--", "sh", "-c", "echo x > x")
    worker.start(*arguments)
    run = lanes.wait(run_id, lambda run: run["state"] == "released")
    assert run["failures"] == 0
    assert run["not_before"] is not None, "it would be claimed again at once"
    assert branch in lanes.events(run_id, "released")[0]["payload"]["reason"]
    lanes.wait(another, lambda run: run["state"] == "shipped")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == CODE_OF["terminated"], worker.said()
