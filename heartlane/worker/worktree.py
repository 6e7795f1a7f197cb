"""A worktree and a branch for each lane: `heartlane/<lane>-<end of the run's id>`.

A lane that is taken over goes on in the worktree that the last attempt left, uncommitted changes and all; on another
machine, on the branch that it pushed. Nothing that anybody has done is ever thrown away on the way: uncommitted changes
that stand against later work go onto Git's stash, commits onto a branch of their own, and a note says so.

    with prepare(repository, run, root=…) as worktree:
        …                                       # the agent works in worktree.cwd
        result = worktree.result()
        worktree.finish(shipped=True)

A worktree is one worker's at a time (a lock, which goes with the process), and those of one repository are made one
after another, for Git itself doesn't take many at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from heartlane.worker.errors import WorkerError
from heartlane.worker.file_lock import FileLock
from heartlane.worker.git import NETWORK_SECONDS, Git
from heartlane.worker.repository import BRANCH_PREFIX, Base, Entry, Repository, lane_name
from heartlane.worker.worktree_end import MARK_FILE, Result, mark_of, measure, remove, same_folder, under_way

IN_USE_SECONDS: Final = 30.0
"""How long a worktree is waited for whose last worker is just ending."""


class Worktree:
    """A lane's worktree, ready to work in; `prepare` makes it. A context manager that lets go of it.

    path        its top
    cwd         where the agent works: the folder within it that --worktree named within the repository
    branch      the lane's branch
    base        where the branch begins
    reused      whether an earlier attempt's work is in it
    notes       what a person may want to know, a sentence each
    """

    def __init__(self, repository: Repository, path: Path, branch: str, base: Base, lock: FileLock) -> None:
        self.repository = repository
        self.path = path
        self.branch = branch
        self.base = base
        self.git = Git(path)
        self.reused = False
        self.notes: list[str] = []
        self.cwd = path
        self._lock = lock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it. Safe to repeat."""
        self._lock.release()

    def result(self) -> Result:
        """What there is in it beyond its base. Raises WorkerError."""
        return measure(self.repository, self.git, self.base)

    def commit_all(self, message: str) -> bool:
        """Commit whatever is uncommitted; whether there was anything. Raises WorkerError."""
        if not self.git.text("status", "--porcelain"):
            return False
        what = "the agent's changes can't be committed"
        self.git.must("add", "--all", what=what)
        self.git.must(*self.git.as_somebody(), "commit", "--quiet", "--message", message, what=what)
        return True

    def finish(self, *, shipped: bool) -> str | None:
        """Let go of it, and remove it when the lane is shipped and nothing would be lost; else why it was kept."""
        try:
            if not shipped:
                return f"kept {self.path}: the lane is not shipped"
            with self.repository.alone():
                why = remove(self.repository, self.path, self.base)
            if why is not None:
                return f"kept {self.path}: {why}"
            self._lock.release(remove=True)
            return None
        except WorkerError as error:
            return f"kept {self.path}: {error}"
        finally:
            self.close()


def prepare(
    repository: Repository,
    run: Mapping[str, Any],
    *,
    root: Path,
    default_branch: str | None = None,
    earlier_branch: str | None = None,
    fetch: bool = True,
    wait_seconds: float = IN_USE_SECONDS,
) -> Worktree:
    """Make the lane's worktree, or take the one that an earlier attempt left. Raises WorkerError.

    run             the run object: its `id` and `lane_key` name the branch
    root            folder for worktrees, of any repository
    default_branch  the project's, where lanes begin; None: at the repository's HEAD
    earlier_branch  a branch that an earlier attempt said it works on
    fetch           ask the remote for newer commits first; where it can't be reached, a note says so
    wait_seconds    how long to wait for a worker that is still in it
    """
    name = lane_name(str(run["lane_key"]), str(run["id"]))
    folder = repository.folder_for(root)
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock.acquire(folder / f"{name}.lock", wait_seconds)
    except OSError as error:
        raise WorkerError(f"worktrees can't be made in {folder}: {error.strerror}", "unusable") from None
    if lock is None:
        raise WorkerError(f"another worker still works in {path}; try again later", "worktree_busy")
    try:
        with repository.alone():
            maker = _Maker(repository, str(run["id"]), path, lock)
            return maker.make(BRANCH_PREFIX + name, default_branch, earlier_branch, fetch=fetch)
    except BaseException:
        lock.release()
        raise


class _Maker:
    """Makes one worktree, alone in its repository."""

    def __init__(self, repository: Repository, run_id: str, path: Path, lock: FileLock) -> None:
        self._repository = repository
        self._git = repository.git
        self._run_id = run_id
        self._path = path
        self._lock = lock
        self._notes: list[str] = []

    def make(self, branch: str, default_branch: str | None, earlier_branch: str | None, *, fetch: bool) -> Worktree:
        repository = self._repository
        earlier = [earlier_branch] if earlier_branch and repository.is_branch_name(earlier_branch) else []
        if fetch:
            self._fetch([branch, *earlier], default_branch)
        base = repository.base(default_branch)
        entries = repository.entries()
        branch = self._branch_to_work_on(branch, earlier, base, entries)
        there = self._there(branch, entries)
        worktree = Worktree(repository, there or self._path, branch, base, self._lock)
        worktree.reused = there is not None or self._exists(branch)
        if there is None:
            self._add(branch, base)
        self._catch_up(worktree)
        self._submodules(worktree)
        self._mark(worktree)
        inner = worktree.path / repository.inner
        worktree.cwd = inner if inner.is_dir() else worktree.path
        worktree.notes += self._notes
        return worktree

    def _fetch(self, branches: Sequence[str], default_branch: str | None) -> None:
        repository = self._repository
        failed = repository.fetch(*branches, *([default_branch] if default_branch else []))
        if failed is None:
            return
        if len(branches) > 1 and not any(self._exists(branch) for branch in branches):
            # An earlier attempt's branch may be there; beginning anew would do its work twice.
            raise WorkerError(f"the last branch can't be fetched from {repository.remote}: {failed}", "git_failed")
        self._notes.append(f"{repository.remote} could not be asked for newer commits: {failed}")

    def _exists(self, branch: str) -> bool:
        """Whether the branch is here, or known of the remote."""
        repository = self._repository
        names = [f"refs/heads/{branch}", *([repository.remote_ref(branch)] if repository.remote else [])]
        return any(self._git.commit_of(name) for name in names)

    def _branch_to_work_on(self, branch: str, earlier: Sequence[str], base: Base, entries: Sequence[Entry]) -> str:
        """The lane's own branch; or the one that an earlier attempt made itself, where that is all there is."""
        if self._exists(branch):
            return branch
        elsewhere = {entry.branch for entry in entries}
        for name in earlier:
            if name not in (branch, base.name) and self._exists(name) and f"refs/heads/{name}" not in elsewhere:
                return name
        in_the_way = BRANCH_PREFIX.rstrip("/")
        if self._git.commit_of(f"refs/heads/{in_the_way}"):
            raise WorkerError(
                f"a branch called {in_the_way} is in the way of all branches {BRANCH_PREFIX}…: rename it "
                f"(git branch -m {in_the_way} another-name)",
                "worktree_in_the_way",
            )
        return branch

    def _there(self, branch: str, entries: Sequence[Entry]) -> Path | None:
        """The worktree that is there for this lane already; a registration whose folder is gone is removed."""
        for entry in entries[1:]:
            ours = same_folder(entry.path, self._path)
            if not ours and entry.branch != f"refs/heads/{branch}":
                continue
            if entry.missing:
                self._forget(entry)
                continue
            if not ours and mark_of(entry.path) is None:  # the repository was moved, and the worktree doesn't find it
                self._git.run("worktree", "repair")
            if ours or mark_of(entry.path) == self._run_id:
                return entry.path
        for entry in self._repository.entries():
            if entry.branch == f"refs/heads/{branch}":
                raise WorkerError(
                    f"branch {branch} is checked out in {entry.path}: switch that one to another branch first",
                    "worktree_in_the_way",
                )
        if self._path.exists() and (not self._path.is_dir() or any(self._path.iterdir())):
            raise WorkerError(
                f"{self._path} is in the way: it is not a worktree of {self._repository.path}; move it, or remove it",
                "worktree_in_the_way",
            )
        return None

    def _forget(self, entry: Entry) -> None:
        """Take a worktree whose folder is gone out of Git's list (by `prune`, other people's would go too)."""
        if entry.locked:
            raise WorkerError(
                f"the worktree {entry.path} is gone, and locked in {self._repository.path}: if it will not come back, "
                f"run git worktree unlock {entry.path}",
                "worktree_in_the_way",
            )
        self._git.must("worktree", "remove", "--force", str(entry.path))
        self._notes.append(f"the folder {entry.path} had vanished; its uncommitted changes went with it")

    def _add(self, branch: str, base: Base) -> None:
        repository = self._repository
        what = f"the worktree {self._path} can't be made"
        if self._git.commit_of(f"refs/heads/{branch}"):
            self._git.must("worktree", "add", "--quiet", str(self._path), branch, what=what)
            return
        start = base.commit
        if repository.remote and self._git.commit_of(repository.remote_ref(branch)):
            start = repository.remote_ref(branch)
        self._git.must("worktree", "add", "--quiet", "--no-track", "-b", branch, str(self._path), start, what=what)

    def _catch_up(self, worktree: Worktree) -> None:
        """Go on from what another machine pushed, where that is further than what is here."""
        git = worktree.git
        busy = under_way(git)
        if busy:
            self._notes.append(f"the last attempt stopped in the midst of a {busy}")
        on = git.maybe("symbolic-ref", "--quiet", "--short", "HEAD")
        if on != worktree.branch:
            self._notes.append(f"the last attempt left HEAD {f'on branch {on}' if on else 'detached'}")
            return
        repository = self._repository
        there = git.commit_of(repository.remote_ref(worktree.branch)) if repository.remote else None
        here = git.commit_of("HEAD")
        if there is None or here is None or repository.is_ancestor(there, here):
            return
        if busy:
            raise WorkerError(
                f"{worktree.path} is in the midst of a {busy}, and {worktree.branch} has gone on at the remote: finish "
                "or abort it there",
                "worktree_busy",
            )
        if git.text("status", "--porcelain"):
            message = f"heartlane: left by an earlier attempt at {worktree.branch}"
            git.must(*git.as_somebody(), "stash", "push", "--quiet", "--include-untracked", "--message", message)
            self._notes.append("uncommitted changes of an earlier attempt on this machine are kept in git stash")
        if not repository.is_ancestor(here, there):
            kept = f"{worktree.branch}-kept-{here[:8]}"
            git.must("branch", "--force", "--no-track", kept, here)
            self._notes.append(f"commits of an earlier attempt on this machine are kept on branch {kept}")
        git.must("reset", "--quiet", "--hard", there, what=f"{worktree.path} can't be brought up to date")

    def _submodules(self, worktree: Worktree) -> None:
        if (worktree.path / ".gitmodules").exists():
            worktree.git.must(
                "submodule",
                "update",
                "--init",
                "--recursive",
                "--quiet",
                what=f"the submodules of {worktree.path} can't be fetched",
                timeout=NETWORK_SECONDS,
            )

    def _mark(self, worktree: Worktree) -> None:
        place = Path(worktree.git.text("rev-parse", "--absolute-git-dir")) / MARK_FILE
        try:
            place.write_text(json.dumps({"run_id": self._run_id}) + "\n", "utf-8")
        except OSError as error:
            raise WorkerError(f"{place} can't be written: {error.strerror}", "git_failed") from None
