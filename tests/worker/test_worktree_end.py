"""What a lane's worktree holds in the end, when it is removed, and what is pushed where."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from heartlane.worker.errors import WorkerError
from heartlane.worker.pull_request import open_pull_request, push
from heartlane.worker.repository import Repository
from heartlane.worker.worktree import Worktree, prepare
from heartlane.worker.worktree_end import FILES_MAX, Swept, prune
from tests.worker.programs import write_program
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


# --- the result ---------------------------------------------------------------------------------------------------


def test_an_idle_agent_changed_nothing(tmp_path: Path, root: Path) -> None:
    with made(repository(tmp_path / "shop"), root) as worktree:
        result = worktree.result()
        assert not result.changed
        assert (result.commits, result.files, result.dirty) == (0, 0, False)


def test_commits_and_uncommitted_files_are_both_counted(tmp_path: Path, root: Path) -> None:
    with made(repository(tmp_path / "shop"), root) as worktree:
        commit(worktree.path, "one.txt", "1\n2\n3\n")
        head = commit(worktree.path, "README.md", "# Store\n")
        (worktree.path / "one.txt").write_text("1\n2\n", "utf-8")
        (worktree.path / "größe.txt").write_text("new\n", "utf-8")
        (worktree.path / "picture").write_bytes(b"\0\1")
        git(worktree.path, "add", "picture")
        result = worktree.result()
        assert result.changed
        assert result.payload() == {
            "branch": BRANCH,
            "commit": head,
            "base": "main",
            "commits": 2,
            "uncommitted": True,
            "files": 4,
            "insertions": 3,
            "deletions": 1,
            "changed_files": ["README.md", "one.txt", "picture", "größe.txt"],
        }


def test_an_uncommitted_change_alone_counts(tmp_path: Path, root: Path) -> None:
    with made(repository(tmp_path / "shop"), root) as worktree:
        (worktree.path / "README.md").write_text("# Store\n", "utf-8")
        result = worktree.result()
        assert (result.changed, result.commits, result.dirty) == (True, 0, True)


def test_files_that_git_ignores_do_not_count(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    commit(repo, ".gitignore", "built/\n")
    with made(repo, root) as worktree:
        (worktree.path / "built").mkdir()
        (worktree.path / "built" / "x").write_text("x", "utf-8")
        assert not worktree.result().changed
        assert worktree.finish(shipped=True) is None


def test_only_so_many_files_are_named(tmp_path: Path, root: Path) -> None:
    with made(repository(tmp_path / "shop"), root) as worktree:
        for number in range(FILES_MAX + 50):
            (worktree.path / f"{number}.txt").write_text("x\n", "utf-8")
        commit(worktree.path, "last.txt")
        result = worktree.result()
        assert result.files == FILES_MAX + 51
        assert len(result.changed_files) == FILES_MAX


def test_what_others_put_onto_the_base_meanwhile_is_not_the_lanes_work(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    with made(repo, root, default_branch="main") as worktree:
        commit(worktree.path, "mine.txt")
        other = clone(origin, tmp_path / "other")
        commit(other, "theirs.txt")
        git(other, "push", "--quiet")
        git(worktree.path, "fetch", "--quiet")
        git(worktree.path, "rebase", "--quiet", "origin/main")
        result = worktree.result()
        assert (result.commits, result.changed_files) == (1, ("mine.txt",))


def test_work_that_was_pushed_onto_the_base_itself_still_counts(tmp_path: Path, root: Path) -> None:
    repo, _ = with_remote(tmp_path)
    with made(repo, root, default_branch="main") as worktree:
        commit(worktree.path, "mine.txt")
        git(worktree.path, "push", "--quiet", "origin", "HEAD:main")
        assert worktree.result().commits == 1


def test_a_worktree_that_the_agent_removed_is_one_line(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    with made(repo, root) as worktree:
        git(repo, "worktree", "remove", str(worktree.path))
        with pytest.raises(WorkerError, match="is gone"):
            worktree.result()
        assert worktree.finish(shipped=True) is not None


def test_what_the_agent_left_uncommitted_can_be_committed(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = repository(tmp_path / "shop")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # a machine on which nobody told Git a name
    with made(repo, root) as worktree:
        assert not worktree.commit_all("Nothing")
        (worktree.path / "new.txt").write_text("new\n", "utf-8")
        assert worktree.commit_all("Totals in the API")
        assert git(worktree.path, "log", "-1", "--format=%s") == "Totals in the API"
        result = worktree.result()
        assert (result.commits, result.dirty) == (1, False)


# --- staying and going --------------------------------------------------------------------------------------------


def test_a_clean_worktree_goes_when_the_lane_is_shipped_and_its_branch_stays(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    worktree = made(repo, root)
    done = commit(worktree.path)
    assert worktree.finish(shipped=True) is None
    assert not worktree.path.exists()
    assert list(worktree.path.parent.iterdir()) == []
    assert git(repo, "rev-parse", BRANCH) == done


def test_a_branch_with_nothing_on_it_goes_too(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    assert made(repo, root).finish(shipped=True) is None
    assert git(repo, "branch", "--list", "heartlane/*") == ""


def test_the_worktree_of_a_lane_that_is_not_shipped_stays(tmp_path: Path, root: Path) -> None:
    worktree = made(repository(tmp_path / "shop"), root)
    assert worktree.finish(shipped=False) == f"kept {worktree.path}: the lane is not shipped"
    assert worktree.path.exists()


@pytest.mark.parametrize("how", ["changed", "staged", "untracked"])
def test_a_worktree_with_uncommitted_changes_stays(how: str, tmp_path: Path, root: Path) -> None:
    worktree = made(repository(tmp_path / "shop"), root)
    name = "new.txt" if how == "untracked" else "README.md"
    (worktree.path / name).write_text("mine\n", "utf-8")
    if how == "staged":
        git(worktree.path, "add", "--all")
    assert worktree.finish(shipped=True) == f"kept {worktree.path}: it has uncommitted changes"
    assert (worktree.path / name).read_text("utf-8") == "mine\n"


def test_a_worktree_whose_last_commit_is_on_no_branch_stays(tmp_path: Path, root: Path) -> None:
    worktree = made(repository(tmp_path / "shop"), root)
    git(worktree.path, "switch", "--quiet", "--detach")
    commit(worktree.path)
    assert worktree.finish(shipped=True) == f"kept {worktree.path}: its last commit is on no branch"


def test_a_detached_head_that_is_on_a_branch_too_may_go(tmp_path: Path, root: Path) -> None:
    worktree = made(repository(tmp_path / "shop"), root)
    commit(worktree.path)
    git(worktree.path, "switch", "--quiet", "--detach")
    assert worktree.finish(shipped=True) is None


def test_a_worktree_with_a_rebase_under_way_stays(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    worktree = made(repo, root)
    commit(worktree.path)
    git(worktree.path, "-c", "sequence.editor=sed -i s/pick/edit/", "rebase", "--quiet", "-i", "HEAD~1")
    assert worktree.finish(shipped=True) == f"kept {worktree.path}: a rebase is under way in it"


def test_a_locked_worktree_stays(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    worktree = made(repo, root)
    git(repo, "worktree", "lock", str(worktree.path))
    assert "it is locked" in str(worktree.finish(shipped=True))
    assert worktree.path.exists()


def test_commits_in_a_submodule_that_were_not_pushed_are_not_lost(tmp_path: Path, root: Path) -> None:
    library = repository(tmp_path / "library")
    repo = repository(tmp_path / "shop")
    git(repo, "submodule", "--quiet", "add", str(library), "vendor/library")
    commit(repo)
    worktree = made(repo, root)
    commit(worktree.path / "vendor" / "library", "new.txt")
    commit(worktree.path, "use.txt")
    assert "its submodule vendor/library has commits" in str(worktree.finish(shipped=True))
    assert (worktree.path / "vendor" / "library" / "new.txt").exists()


def test_leftovers_of_ended_lanes_go_and_nothing_else(tmp_path: Path, root: Path) -> None:
    repo = repository(tmp_path / "shop")
    runs = {key: run_of(key, number) for number, key in enumerate(["clean", "dirty", "open", "used", "gone"], start=1)}
    paths = {}
    for key, run in runs.items():
        with made(repo, root, run) as worktree:
            paths[key] = worktree.path
    (paths["dirty"] / "new.txt").write_text("mine\n", "utf-8")
    git(repo, "worktree", "add", "--quiet", "-b", "theirs", str(paths["clean"].parent / "theirs"))
    for name in sorted(paths["gone"].rglob("*"), reverse=True):
        name.unlink()
    paths["gone"].rmdir()
    with made(repo, root, runs["used"]):
        swept = prune(Repository.open(repo), root, {runs["open"]["id"]})
    assert sorted(swept) == sorted(
        [
            Swept(paths["clean"], None),
            Swept(paths["dirty"], "it has uncommitted changes"),
            Swept(paths["used"], "a worker is in it"),
            Swept(paths["gone"], None),
        ],
        key=lambda one: one.path,
    )
    left = git(repo, "worktree", "list")
    assert [key for key, path in paths.items() if str(path) in left] == ["dirty", "open", "used"]
    assert "theirs" in left


# --- push and pull request ----------------------------------------------------------------------------------------


def test_commits_are_pushed_to_the_lanes_branch(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    with made(repo, root) as worktree:
        assert push(worktree) is None, "there was nothing to push"
        done = commit(worktree.path)
        assert push(worktree) == BRANCH
        assert git(origin, "rev-parse", BRANCH) == done
        assert push(worktree) == BRANCH


def test_a_lane_that_was_rebased_is_pushed_over_its_own_branch(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    with made(repo, root) as worktree:
        commit(worktree.path)
        push(worktree)
        git(worktree.path, "commit", "--quiet", "--amend", "--message", "Better")
        assert push(worktree) == BRANCH
        assert git(origin, "log", "-1", "--format=%s", BRANCH) == "Better"


def test_what_somebody_else_pushed_is_never_pushed_over(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    elsewhere = clone(origin, tmp_path / "elsewhere")
    with made(repo, root) as worktree:
        commit(worktree.path)
        push(worktree)
        git(elsewhere, "fetch", "--quiet")
        git(elsewhere, "switch", "--quiet", BRANCH)
        theirs = commit(elsewhere, "theirs.txt")
        git(elsewhere, "push", "--quiet")
        git(worktree.path, "fetch", "--quiet")
        git(worktree.path, "commit", "--quiet", "--amend", "--message", "Better")
        with pytest.raises(WorkerError, match="can't be pushed"):
            push(worktree)
    assert git(origin, "rev-parse", BRANCH) == theirs


def test_without_a_remote_a_push_is_one_line(tmp_path: Path, root: Path) -> None:
    with made(repository(tmp_path / "shop"), root) as worktree:
        commit(worktree.path)
        with pytest.raises(WorkerError, match="has no remote to push to"):
            push(worktree)


def test_the_base_itself_is_never_pushed(tmp_path: Path, root: Path) -> None:
    repo, origin = with_remote(tmp_path)
    git(repo, "switch", "--quiet", "--create", "other")
    before = git(origin, "rev-parse", "main")
    with made(repo, root, default_branch="main") as worktree:
        git(worktree.path, "switch", "--quiet", "main")
        commit(worktree.path)
        with pytest.raises(WorkerError, match="is on main itself"):
            push(worktree)
    assert git(origin, "rev-parse", "main") == before


class FakeGh:
    """A `gh` that answers from files, and writes down how it was called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls_file = folder / "gh-calls"
        self.answers_file = folder / "gh-answers"
        programs = folder / "programs"
        programs.mkdir()
        write_program(
            programs / "gh",
            "import json, os, sys\n"
            f"call = {{'arguments': sys.argv[1:], 'given': sys.stdin.read(), 'folder': os.getcwd(),\n"
            "        'secrets': [name for name in os.environ if name in ('HEARTLANE_TOKEN', 'GIT_DIR')]}\n"
            f"open({str(self.calls_file)!r}, 'a').write(json.dumps(call) + '\\n')\n"
            f"answer = json.load(open({str(self.answers_file)!r})).get(' '.join(sys.argv[1:3]), ['', 'no answer', 1])\n"
            "print(answer[0])\n"
            "print(answer[1], file=sys.stderr)\n"
            "sys.exit(answer[2])\n",
        )
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("HEARTLANE_TOKEN", "hlt_secret")

    def answers(self, **answers: tuple[str, str, int]) -> None:
        """What it answers from now on to `gh pr NAME`: stdout, stderr, exit code."""
        named = {f"pr {name}": answer for name, answer in answers.items()}
        self.answers_file.write_text(json.dumps(named), "utf-8")

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.calls_file.read_text("utf-8").splitlines()]


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGh:
    return FakeGh(tmp_path, monkeypatch)


PULL = "https://github.com/me/shop/pull/7"


def test_a_pull_request_is_made_once(tmp_path: Path, root: Path, gh: FakeGh) -> None:
    repo, _ = with_remote(tmp_path)
    with made(repo, root, default_branch="main") as worktree:
        gh.answers(list=("[]", "", 0), create=(f"Creating…\n{PULL}", "warning", 0))
        assert open_pull_request(worktree, BRANCH, title="Totals\nin the API", body="Why") == PULL
        listed, created = gh.calls()
        assert listed["arguments"] == [
            "pr",
            "list",
            "--head",
            BRANCH,
            "--state",
            "open",
            "--json",
            "url",
            "--limit",
            "1",
        ]
        assert created["arguments"] == [
            *("pr", "create", "--head", BRANCH, "--base", "main"),
            *("--title", "Totals in the API", "--body-file", "-"),
        ]
        assert created["given"] == "Why"
        assert created["folder"] == str(worktree.path)
        assert created["secrets"] == []
        gh.answers(list=(json.dumps([{"url": PULL}]), "", 0))
        assert open_pull_request(worktree, BRANCH, title="Totals", body="") == PULL


@pytest.mark.parametrize(("state", "made_anew"), [("OPEN", False), ("CLOSED", True), ("MERGED", True)])
def test_one_that_an_earlier_attempt_left_is_taken_while_it_is_open(
    state: str, made_anew: bool, tmp_path: Path, root: Path, gh: FakeGh
) -> None:
    known = "https://github.com/me/shop/pull/3"
    with made(repository(tmp_path / "shop"), root) as worktree:
        gh.answers(view=(json.dumps({"state": state}), "", 0), list=("[]", "", 0), create=(PULL, "", 0))
        found = open_pull_request(worktree, BRANCH, title="Totals", body="", known=known)
    assert found == (PULL if made_anew else known)
    assert gh.calls()[0]["arguments"] == ["pr", "view", known, "--json", "state"]


def test_a_gh_that_fails_is_one_line(tmp_path: Path, root: Path, gh: FakeGh) -> None:
    with made(repository(tmp_path / "shop"), root) as worktree:
        gh.answers(list=("", "To get started with GitHub CLI, please run:  gh auth login", 4))
        with pytest.raises(WorkerError, match=r"^gh pr list failed: .*gh auth login$"):
            open_pull_request(worktree, BRANCH, title="Totals", body="")
        gh.answers(list=("<html>", "", 0))
        with pytest.raises(WorkerError, match="something else than JSON"):
            open_pull_request(worktree, BRANCH, title="Totals", body="")


def test_without_gh_a_pull_request_is_one_line(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(repository(tmp_path / "shop"), root) as worktree:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(WorkerError, match="gh is not installed"):
            open_pull_request(worktree, BRANCH, title="Totals", body="")
