"""A worktree for each lane: made, taken over on the same machine and on another, and what stands in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartlane.worker.errors import WorkerError
from heartlane.worker.repository import Repository, lane_name
from heartlane.worker.worktree import Worktree, prepare
from tests.worker.repositories import clone, commit, git, own_settings, repository, run_of, with_remote

BRANCH = "heartlane/api-00000001"


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_settings(tmp_path, monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "worktrees"


def made(repo: Path, root: Path, run: dict[str, Any] | None = None, **options: Any) -> Worktree:
    return prepare(Repository.open(repo), run or run_of(), root=root, **options)


def refusal(kind: str, call: Callable[[], object]) -> str:
    """The call is refused with an error of this kind, of one line; the line."""
    with pytest.raises(WorkerError) as caught:
        call()
    assert caught.value.kind == kind, caught.value
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# --- a new lane ---------------------------------------------------------------------------------------------------


def test_a_new_lane_gets_a_branch_and_a_folder_of_its_own(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root) as worktree:
        assert worktree.branch == BRANCH
        assert worktree.path.name == "api-00000001"
        assert root in worktree.path.parents
        assert worktree.cwd == worktree.path
        assert (worktree.path / "README.md").read_text("utf-8") == "# Shop\n"
        assert git(worktree.path, "symbolic-ref", "--short", "HEAD") == BRANCH
        assert not worktree.reused
        assert worktree.notes == []
        assert worktree.base.name == "main"
    assert git(repo, "symbolic-ref", "--short", "HEAD") == "main"
    assert git(repo, "status", "--porcelain") == ""


def test_uncommitted_work_in_the_repository_is_left_alone(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    (repo / "README.md").write_text("half done\n", "utf-8")
    with made(repo, root) as worktree:
        assert (worktree.path / "README.md").read_text("utf-8") == "# Shop\n"
    assert (repo / "README.md").read_text("utf-8") == "half done\n"


def test_a_lane_begins_at_the_projects_default_branch(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    git(repo, "switch", "--quiet", "--create", "develop")
    wanted = commit(repo)
    git(repo, "switch", "--quiet", "main")
    with made(repo, root, default_branch="develop") as worktree:
        assert worktree.base == ("develop", wanted)
        assert git(worktree.path, "rev-parse", "HEAD") == wanted


def test_without_a_default_branch_it_begins_at_the_present_head(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    git(repo, "switch", "--quiet", "--detach")
    wanted = commit(repo)
    with made(repo, root) as worktree:
        assert worktree.base == (None, wanted)
        assert git(worktree.path, "rev-parse", "HEAD") == wanted


def test_it_begins_at_what_the_remote_has_by_now(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    other = clone(origin, tmp_path / "other")
    newest = commit(other)
    git(other, "push", "--quiet")
    with made(repo, root, default_branch="main") as worktree:
        assert worktree.base == ("main", newest)
    assert git(repo, "rev-parse", "main") != newest, "a branch of the user's was moved"


def test_commits_of_the_user_that_are_not_pushed_yet_count(tmp_path: Path, root: Path) -> None:
    repo, _ = with_remote(tmp_path)
    newest = commit(repo)
    with made(repo, root, default_branch="main") as worktree:
        assert worktree.base.commit == newest


def test_where_the_user_and_the_remote_parted_the_remote_counts(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    other = clone(origin, tmp_path / "other")
    theirs = commit(other, "theirs.txt")
    git(other, "push", "--quiet")
    commit(repo, "mine.txt")
    with made(repo, root, default_branch="main") as worktree:
        assert worktree.base.commit == theirs


def test_a_remote_that_is_not_there_is_a_note(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    shutil.rmtree(origin)
    with made(repo, root, default_branch="main") as worktree:
        (note,) = worktree.notes
        assert note.startswith("origin could not be asked for newer commits")


def test_a_folder_within_the_repository_is_where_the_agent_works(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    commit(repo, "packages/api/main.py", "x = 1\n")
    with made(repo / "packages" / "api", root) as worktree:
        assert worktree.cwd == worktree.path / "packages" / "api"
        assert (worktree.cwd / "main.py").exists()


def test_a_bare_repository_will_do(tmp_path: Path, root: Path) -> None:
    _, origin = with_remote(tmp_path)
    with made(origin, root, default_branch="main") as worktree:
        commit(worktree.path, "new.txt")
        assert worktree.result().commits == 1


def test_submodules_are_there(tmp_path: Path, root: Path) -> None:
    library = repository(tmp_path / "library")
    repo = repository(tmp_path / "shop")
    git(repo, "submodule", "--quiet", "add", str(library), "vendor/library")
    commit(repo)
    with made(repo, root) as worktree:
        assert (worktree.path / "vendor" / "library" / "README.md").exists()
        assert worktree.finish(shipped=True) is None
        assert not worktree.path.exists()


def test_variables_that_name_another_repository_mislead_nobody(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, other = repository(tmp_path / "shop"), repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    worktree = made(repo, root)
    monkeypatch.delenv("GIT_DIR")
    assert BRANCH in git(repo, "branch", "--list", BRANCH)
    assert git(other, "branch", "--list", BRANCH) == ""
    worktree.close()


def test_ten_lanes_at_once(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    script = (
        "import sys, json; from pathlib import Path\n"
        "from heartlane.worker.repository import Repository\n"
        "from heartlane.worker.worktree import prepare\n"
        "run = {'id': sys.argv[3], 'lane_key': 'api'}\n"
        "with prepare(Repository.open(Path(sys.argv[1])), run, root=Path(sys.argv[2])) as worktree:\n"
        "    print(worktree.path)\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(repo), str(root), run_of(number=number)["id"]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(1, 11)
    ]
    ended = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 10, ended
    paths = {Path(out.strip()) for out, _ in ended}
    assert len(paths) == 10
    assert all((path / "README.md").exists() for path in paths)
    assert len(git(repo, "branch", "--list", "heartlane/*").splitlines()) == 10


# --- a lane that is taken over ------------------------------------------------------------------------------------


def test_the_next_attempt_goes_on_where_the_last_one_stopped(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root) as first:
        done = commit(first.path, "done.txt")
        (first.path / "begun.txt").write_text("half\n", "utf-8")
    with made(repo, root, run_of(attempt=2)) as second:
        assert second.path == first.path
        assert second.reused
        assert git(second.path, "rev-parse", "HEAD") == done
        assert (second.path / "begun.txt").read_text("utf-8") == "half\n"


def test_a_branch_without_its_worktree_is_taken_up_again(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root) as first:
        done = commit(first.path, "done.txt")
    git(repo, "worktree", "remove", str(first.path))
    with made(repo, root) as second:
        assert second.reused
        assert git(second.path, "rev-parse", "HEAD") == done


def test_a_folder_that_vanished_is_made_again(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root) as first:
        done = commit(first.path, "done.txt")
    shutil.rmtree(first.path)
    with made(repo, root) as second:
        assert git(second.path, "rev-parse", "HEAD") == done
        assert "had vanished" in " ".join(second.notes)


def test_other_peoples_worktrees_are_not_forgotten_on_the_way(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    git(repo, "worktree", "add", "--quiet", "-b", "theirs", str(tmp_path / "stick"))
    shutil.move(tmp_path / "stick", tmp_path / "unplugged")
    with made(repo, root) as first:
        pass
    shutil.rmtree(first.path)
    made(repo, root).close()
    assert str(tmp_path / "stick") in git(repo, "worktree", "list")


def test_another_machine_goes_on_from_what_was_pushed(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    with made(repo, root) as first:
        done = commit(first.path, "done.txt")
        git(first.path, "push", "--quiet", "origin", BRANCH)
    elsewhere = clone(origin, tmp_path / "elsewhere")
    git(elsewhere, "update-ref", "-d", f"refs/remotes/origin/{BRANCH}")
    with made(elsewhere, tmp_path / "state2") as second:
        assert second.reused
        assert git(second.path, "rev-parse", "HEAD") == done
        assert git(second.path, "symbolic-ref", "--short", "HEAD") == BRANCH


def test_back_on_the_first_machine_the_work_of_the_second_is_there(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, origin = with_remote(tmp_path)
    elsewhere = clone(origin, tmp_path / "elsewhere")
    with made(repo, root) as first:
        commit(first.path, "one.txt")
        git(first.path, "push", "--quiet", "origin", BRANCH)
        (first.path / "begun.txt").write_text("half\n", "utf-8")
    with made(elsewhere, tmp_path / "state2") as second:
        done = commit(second.path, "two.txt")
        git(second.path, "push", "--quiet", "origin", BRANCH)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # a machine on which nobody told Git a name
    with made(repo, root) as third:
        assert git(third.path, "rev-parse", "HEAD") == done
        assert not (third.path / "begun.txt").exists()
        assert "git stash" in " ".join(third.notes)
    assert "left by an earlier attempt" in git(repo, "stash", "list")
    git(repo, "stash", "pop", "--quiet")
    assert (repo / "begun.txt").read_text("utf-8") == "half\n"


def test_commits_that_parted_from_the_pushed_ones_are_kept_on_a_branch(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    elsewhere = clone(origin, tmp_path / "elsewhere")
    with made(repo, root) as first:
        left = commit(first.path, "mine.txt")
    with made(elsewhere, tmp_path / "state2") as second:
        done = commit(second.path, "theirs.txt")
        git(second.path, "push", "--quiet", "origin", BRANCH)
    with made(repo, root) as third:
        assert git(third.path, "rev-parse", "HEAD") == done
        assert f"{BRANCH}-kept-{left[:8]}" in " ".join(third.notes)
    assert git(repo, "rev-parse", f"{BRANCH}-kept-{left[:8]}") == left


def test_a_branch_that_the_agent_made_itself_is_gone_on_with(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    elsewhere = clone(origin, tmp_path / "elsewhere")
    git(elsewhere, "switch", "--quiet", "--create", "totals")
    done = commit(elsewhere, "totals.txt")
    git(elsewhere, "push", "--quiet", "origin", "totals")
    with made(repo, root, earlier_branch="totals") as worktree:
        assert worktree.branch == "totals"
        assert worktree.reused
        assert git(worktree.path, "rev-parse", "HEAD") == done


@pytest.mark.parametrize("branch", ["main", "gone", "-x", "a b", "x..y"])
def test_an_earlier_branch_that_is_no_use_is_left_aside(branch: str, tmp_path: Path, root: Path) -> None:
    repo, _ = with_remote(tmp_path)
    with made(repo, root, earlier_branch=branch) as worktree:
        assert worktree.branch == BRANCH
        assert not worktree.reused


def test_the_last_attempts_branch_is_not_begun_anew_because_the_remote_is_away(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    shutil.rmtree(origin)
    line = refusal("git_failed", lambda: made(repo, root, earlier_branch="totals"))
    assert "origin" in line
    assert git(repo, "branch", "--list", "heartlane/*") == ""


def test_a_merge_under_way_is_not_overrun_by_what_another_machine_pushed(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    elsewhere = clone(origin, tmp_path / "elsewhere")
    with made(repo, root) as first:
        path = first.path
        git(path, "switch", "--quiet", "--create", "other")
        commit(path, "README.md", "one\n")
        git(path, "switch", "--quiet", BRANCH)
        here = commit(path, "README.md", "two\n")
        git(path, "push", "--quiet", "origin", BRANCH)
        merge = ["git", "merge", "--quiet", "other"]
        assert subprocess.run(merge, cwd=path, capture_output=True, check=False).returncode == 1
    with made(elsewhere, tmp_path / "state2") as second:
        commit(second.path, "three.txt")
        git(second.path, "push", "--quiet", "origin", BRANCH)
    line = refusal("worktree_busy", lambda: made(repo, root))
    assert f"{path} is in the midst of a merge" in line
    assert git(path, "rev-parse", "HEAD") == here
    assert "README.md" in git(path, "diff", "--name-only", "--diff-filter=U")
    git(path, "merge", "--abort")
    made(repo, root).close()


def test_a_branch_the_agent_switched_to_is_kept_and_told(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root) as first:
        git(first.path, "switch", "--quiet", "--create", "mine")
        done = commit(first.path)
    with made(repo, root) as second:
        assert git(second.path, "rev-parse", "HEAD") == done
        assert "HEAD on branch mine" in " ".join(second.notes)
        assert second.result().branch == "mine"


def test_a_detached_head_and_a_merge_under_way_are_told(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root) as first:
        commit(first.path, "README.md", "one\n")
        git(first.path, "switch", "--quiet", "--detach", "main")
        commit(first.path, "README.md", "two\n")
        merge = ["git", "merge", "--quiet", BRANCH]
        assert subprocess.run(merge, cwd=first.path, capture_output=True, check=False).returncode == 1
    with made(repo, root) as second:
        assert "in the midst of a merge" in " ".join(second.notes)
        assert "HEAD detached" in " ".join(second.notes)
        assert second.result().branch is None


def test_a_repository_that_was_moved_finds_its_worktrees(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root) as first:
        done = commit(first.path)
    shutil.move(repo, tmp_path / "moved")
    with made(tmp_path / "moved", root) as second:
        assert second.path == first.path
        assert git(second.path, "rev-parse", "HEAD") == done


# --- what stands in the way ---------------------------------------------------------------------------------------


def test_what_is_no_repository_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").write_text("", "utf-8")
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    assert "not in a Git repository" in refusal("not_a_repository", lambda: Repository.open(tmp_path / "plain"))
    assert "does not exist" in refusal("not_a_repository", lambda: Repository.open(tmp_path / "nowhere"))
    assert "is not a folder" in refusal("not_a_repository", lambda: Repository.open(tmp_path / "file"))
    assert "no commit yet" in refusal("not_a_repository", lambda: Repository.open(tmp_path / "empty"))


def test_a_missing_git_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in refusal("git_failed", lambda: Repository.open(tmp_path))


def test_a_git_that_is_too_old_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "git"
    old.write_text("#!/bin/sh\necho git version 2.25.1\n", "utf-8")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "git 2.25.1 is too old: --worktree needs 2.30" in refusal("git_failed", lambda: Repository.open(tmp_path))


def test_a_repository_of_another_user_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = repository(tmp_path / "shop")
    strict = tmp_path / "git"  # Git's own switch for trying this; this test's user may own everything
    strict.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {shutil.which("git")} "$@"\n', "utf-8")
    strict.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "safe.directory" in refusal("not_a_repository", lambda: Repository.open(repo))


def test_a_default_branch_that_is_not_there_is_one_line(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    assert "'trunk'" in refusal("not_a_repository", lambda: made(repo, root, default_branch="trunk"))
    assert "no name of a branch" in refusal("wrong_input", lambda: made(repo, root, default_branch="-x y"))


def test_a_branch_that_is_checked_out_elsewhere_is_named(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    git(repo, "switch", "--quiet", "--create", BRANCH)
    line = refusal("worktree_in_the_way", lambda: made(repo, root))
    assert f"{BRANCH} is checked out in {repo}" in line


def test_a_branch_called_heartlane_is_named(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    git(repo, "branch", "heartlane")
    assert "git branch -m heartlane" in refusal("worktree_in_the_way", lambda: made(repo, root))


def test_a_folder_in_the_way_is_named_and_untouched(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    path = Repository.open(repo).folder_for(root) / "api-00000001"
    path.mkdir(parents=True)
    (path / "mine.txt").write_text("mine\n", "utf-8")
    assert f"{path} is in the way" in refusal("worktree_in_the_way", lambda: made(repo, root))
    assert (path / "mine.txt").read_text("utf-8") == "mine\n"


def test_a_locked_worktree_whose_folder_is_away_is_named(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root) as first:
        git(repo, "worktree", "lock", str(first.path))
    shutil.rmtree(first.path)
    assert "git worktree unlock" in refusal("worktree_in_the_way", lambda: made(repo, root))


def test_a_worktree_that_a_worker_is_in_is_not_given_to_another(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root):
        assert "another worker still works in" in refusal("worktree_busy", lambda: made(repo, root, wait_seconds=0.2))
    made(repo, root).close()


def test_the_last_worker_is_waited_for(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    first = made(repo, root)
    threading.Timer(0.5, first.close).start()
    with made(repo, root) as second:
        assert second.path == first.path


def test_a_failure_halfway_leaves_a_lane_that_can_be_prepared_again(tmp_path: Path, root: Path) -> None:
    library = repository(tmp_path / "library")
    repo = repository(tmp_path / "shop")
    git(repo, "submodule", "--quiet", "add", str(library), "vendor/library")
    commit(repo)
    shutil.move(library, tmp_path / "away")
    assert "submodules" in refusal("git_failed", lambda: made(repo, root))
    shutil.move(tmp_path / "away", library)
    with made(repo, root) as worktree:
        assert (worktree.path / "vendor" / "library" / "README.md").exists()


# --- names --------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(keys=st.lists(st.text(max_size=120), min_size=20, max_size=40))
def test_every_lane_key_gives_a_name_that_git_takes(keys: list[str]) -> None:
    names = [lane_name(key, run_of()["id"]) for key in keys]
    for name in names:
        assert len(name) <= 49
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
        assert not name.startswith((".", "-"))
        assert ".." not in name
        assert ".lock" not in name
    for name in sorted(set(names))[:2]:
        checked = subprocess.run(["git", "check-ref-format", f"refs/heads/heartlane/{name}"], check=False)
        assert checked.returncode == 0, name


def test_runs_of_one_plan_have_names_of_their_own() -> None:
    ids = [f"019a1b2c-3d4e-7f00-8000-00000000000{number}" for number in range(1, 4)]
    assert len({lane_name("api", run_id) for run_id in ids}) == 3
