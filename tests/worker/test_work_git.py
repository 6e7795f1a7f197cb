"""Worktrees as a whole worker makes, keeps and removes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from heartlane.cli.errors import CODE_OF
from tests.worker.repositories import commit, git, own_settings, repository
from tests.worker.work_process import Lanes, Worker, prints


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    own_settings(tmp_path, monkeypatch)
    return repository(tmp_path / "shop")


def git_env(folder: Path) -> dict[str, str]:
    return {"GIT_CONFIG_GLOBAL": str(folder / "gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"}


def test_a_lane_begins_at_its_projects_default_branch(lanes: Lanes, worker: Worker, tmp_path: Path, repo: Path) -> None:
    git(repo, "switch", "--quiet", "--create", "develop")
    commit(repo, "only-in-develop.txt")
    git(repo, "switch", "--quiet", "main")
    answer = lanes.http.post("/api/projects", json={"name": "Shop", "default_branch": "develop"})
    before, lanes.project = lanes.project, answer.json()["project"]["id"]
    (run_id,) = lanes.add("branch", labels={"for": "branch"})
    lanes.project = before
    worker.start("--once", "--label", "for=branch", "--worktree", str(repo), "--", "ls", env=git_env(tmp_path))
    assert worker.wait() == 0, worker.said()
    assert "only-in-develop.txt" in lanes.lines(run_id)


def test_the_worktree_of_a_lane_that_has_ended_goes_when_the_next_worker_starts(
    lanes: Lanes, worker: Worker, tmp_path: Path, repo: Path
) -> None:
    ended, goes_on = lanes.add("ended", "goes-on", labels={"for": "ended"})
    worker.start(
        "--label", "for=ended", "--worktree", str(repo), "--parallel", "2", "--", *prints(code=1), env=git_env(tmp_path)
    )
    for run_id in (ended, goes_on):
        lanes.wait(run_id, lambda run: run["failures"] > 0)
    worker.kill()
    lanes.steer(ended, "cancel")
    worktrees = sorted(path.name for path in (tmp_path / "state" / "worktrees").glob("*/*") if path.is_dir())
    assert len(worktrees) == 2
    arguments = ("--once", "--label", "for=none", "--worktree", str(repo), "--", "true")
    worker.start(*arguments, env=git_env(tmp_path))
    lanes.add("none", labels={"for": "none"})
    assert worker.wait() == 0, worker.said()
    left = [path.name for path in (tmp_path / "state" / "worktrees").glob("*/*") if path.is_dir()]
    assert [name for name in left if "ended" in name] == []
    assert any("goes-on" in name for name in left)


def test_a_lane_that_no_worker_can_begin_is_counted_and_the_next_one_worked(lanes: Lanes, worker: Worker) -> None:
    too_long, fine = lanes.add("long", labels={"for": "long"}, prompt="€" * 60_000) + lanes.add(
        "fine", labels={"for": "long"}
    )
    worker.start("--label", "for=long", "--", *prints("done"), "{prompt}")
    assert lanes.wait(fine, lambda run: run["state"] == "shipped")
    assert lanes.wait(too_long, lambda run: run["failures"] > 0)
    assert "{prompt_file}" in worker.said()
    worker.kill()

    (again,) = lanes.add("long-once", labels={"for": "long-once"}, prompt="€" * 60_000)
    worker.start("--once", "--label", "for=long-once", "--", *prints("done"), "{prompt}")
    assert worker.wait() == CODE_OF["prompt_unusable"]
    assert lanes.run(again)["state"] == "released"
