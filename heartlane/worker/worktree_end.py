"""What a lane's worktree holds in the end, and whether it may go.

A worktree is removed only where nothing is lost by it: no uncommitted or untracked file, no merge or rebase under way,
no commit that only it knows. Files that Git ignores (dependencies, builds) go with it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

from heartlane.worker.errors import WorkerError
from heartlane.worker.file_lock import FileLock
from heartlane.worker.git import Git
from heartlane.worker.repository import BRANCH_PREFIX, Base, Entry, Repository

MARK_FILE: Final = "heartlane.json"
"""In Git's own folder of a worktree: which run it is for."""
FILES_MAX: Final = 200
"""Changed files that are named."""
FILE_NAME_MAX: Final = 500

_UNDER_WAY: Final = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
}


class Result(NamedTuple):
    """What a lane's worktree holds beyond where it began.

    branch          the branch it is on; None: HEAD is detached
    commit          its last commit
    base            the branch it began from; None: a detached HEAD
    commits         commits beyond the base
    dirty           whether something is not committed
    files           how many files differ from the base, committed or not, untracked ones included
    insertions, deletions   changed lines of those that Git tracks and takes for text
    changed_files   their names, at most FILES_MAX
    """

    branch: str | None
    commit: str
    base: str | None
    commits: int
    dirty: bool
    files: int
    insertions: int
    deletions: int
    changed_files: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether there is a commit or a difference."""
        return self.commits > 0 or self.files > 0

    def payload(self) -> dict[str, Any]:
        """For the payload of `ship_complete`; without what there is none of."""
        values = {
            "branch": self.branch,
            "commit": self.commit,
            "base": self.base,
            "commits": self.commits,
            "uncommitted": self.dirty,
            "files": self.files,
            "insertions": self.insertions,
            "deletions": self.deletions,
            "changed_files": list(self.changed_files),
        }
        return {name: value for name, value in values.items() if value is not None}


class Swept(NamedTuple):
    """What became of a leftover worktree: removed, or kept and why."""

    path: Path
    kept: str | None


def mark_of(path: Path) -> str | None:
    """Id of the run that a worktree is for; None where it isn't one of ours."""
    try:
        place = (path / ".git").read_text("utf-8").partition("gitdir:")[2].strip()
        mark = json.loads((path / place / MARK_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    run_id = mark.get("run_id") if isinstance(mark, dict) else None
    return run_id if isinstance(run_id, str) else None


def same_folder(one: Path, other: Path) -> bool:
    """Whether both paths lead to one place."""
    return one == other or one.resolve() == other.resolve()


def measure(repository: Repository, git: Git, base: Base) -> Result:
    """The result in a worktree. Raises WorkerError, also where the worktree is gone."""
    if not (git.folder / ".git").exists():
        raise WorkerError(f"the worktree {git.folder} is gone", "git_failed")
    head = git.commit_of("HEAD")
    if head is None:
        raise WorkerError(f"the worktree {git.folder} has no commit at its HEAD", "git_failed")
    beyond = [head, f"^{base.commit}"]
    began = base.commit
    tip = git.commit_of(repository.remote_ref(base.name)) if repository.remote and base.name else None
    if tip is not None and not repository.is_ancestor(head, tip):
        # The agent may have rebased onto, or merged, what the base has become meanwhile; that is not its own work.
        beyond.append(f"^{tip}")
        began = tip
    fork = git.maybe("merge-base", began, head) or base.commit
    untracked = _untracked(git)
    names, insertions, deletions = _difference(git, fork)
    names += untracked
    return Result(
        branch=git.maybe("symbolic-ref", "--quiet", "--short", "HEAD"),
        commit=head,
        base=base.name,
        commits=int(git.text("rev-list", "--count", *beyond)),
        dirty=bool(untracked) or not git.holds("diff", "--quiet", "HEAD"),
        files=len(names),
        insertions=insertions,
        deletions=deletions,
        changed_files=tuple(name[:FILE_NAME_MAX] for name in names[:FILES_MAX]),
    )


def _untracked(git: Git) -> list[str]:
    listed = git.must("ls-files", "--others", "--exclude-standard", "-z", "--directory", "--no-empty-directory").out
    return [_name(name) for name in listed.split(b"\0") if name]


def _difference(git: Git, since: str) -> tuple[list[str], int, int]:
    """Files of the working tree that differ from a commit, and how many lines came and went."""
    printed = git.must("diff", "--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", since).out
    names, insertions, deletions = [], 0, 0
    for record in printed.split(b"\0"):
        added, tab, rest = record.partition(b"\t")
        if not tab:
            continue
        removed, _, name = rest.partition(b"\t")
        insertions += int(added) if added.isdigit() else 0  # "-" for what is no text
        deletions += int(removed) if removed.isdigit() else 0
        names.append(_name(name))
    return names, insertions, deletions


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def under_way(git: Git) -> str | None:
    """The operation that a worktree is in the midst of, such as `rebase`; None for none."""
    for name, operation in _UNDER_WAY.items():
        place = git.maybe("rev-parse", "--git-path", name)
        if place and (git.folder / place).exists():
            return operation
    return None


def why_keep(git: Git) -> str | None:
    """Why a worktree must not be removed; None where nothing would be lost. Raises WorkerError."""
    if git.text("status", "--porcelain", "--ignore-submodules=none"):
        return "it has uncommitted changes"
    operation = under_way(git)
    if operation:
        return f"a {operation} is under way in it"
    if not git.holds("symbolic-ref", "--quiet", "HEAD") and not git.text(
        "for-each-ref", "--count=1", "--contains", "HEAD", "refs/heads", "refs/remotes", "refs/tags"
    ):
        return "its last commit is on no branch"
    if (git.folder / ".gitmodules").exists():
        # A submodule's clone belongs to the worktree and goes with it.
        lost = git.text(
            "submodule",
            "foreach",
            "--quiet",
            "--recursive",
            'test -n "$(git for-each-ref --count=1 --contains HEAD refs/remotes refs/tags)" || echo "$displaypath"',
        )
        if lost:
            return f"its submodule {lost.splitlines()[0]} has commits that were not pushed"
    return None


def remove(repository: Repository, path: Path, base: Base | None = None) -> str | None:
    """Remove a worktree, and its branch where nothing is on it; else why not. Within `repository.alone()`.

    Raises WorkerError.
    """
    git = Git(path)
    why = why_keep(git)
    if why is None and any(entry.locked and same_folder(entry.path, path) for entry in repository.entries()):
        why = "it is locked (git worktree unlock)"
    if why is not None:
        return why
    branch = git.maybe("symbolic-ref", "--quiet", "--short", "HEAD")
    # Git itself refuses to remove any worktree with submodules unless forced; all that matters was asked above.
    force = ["--force"] if (path / ".gitmodules").exists() else []
    repository.git.must("worktree", "remove", *force, str(path), what=f"the worktree {path} can't be removed")
    if branch and branch.startswith(BRANCH_PREFIX) and base is not None:
        tip = repository.git.commit_of(f"refs/heads/{branch}")
        if tip is not None and repository.is_ancestor(tip, base.commit):
            repository.git.run("branch", "--quiet", "-D", branch)
    return None


def prune(repository: Repository, root: Path, unfinished: Collection[str]) -> list[Swept]:
    """Remove what lanes that have ended left below `root`: their worktrees, unless something would be lost.

    unfinished      ids of the runs whose worktrees are still wanted: all that are not shipped or failed
    Returns what became of each. Raises WorkerError. Worktrees that others made are never touched.
    """
    folder = repository.folder_for(root).resolve()
    swept = []
    with repository.alone():
        for entry in repository.entries()[1:]:
            if entry.path.resolve().parent != folder:
                continue
            run_id = mark_of(entry.path)
            if entry.missing or (run_id is not None and run_id not in unfinished):
                swept.append(_sweep(repository, entry, folder / f"{entry.path.name}.lock"))
    return swept


def _sweep(repository: Repository, entry: Entry, lock_file: Path) -> Swept:
    lock = FileLock.acquire(lock_file)
    if lock is None:
        return Swept(entry.path, "a worker is in it")
    try:
        if not entry.missing:
            kept = remove(repository, entry.path)
        elif entry.locked:
            kept = "its folder is away, and it is locked"
        else:
            repository.git.must("worktree", "remove", "--force", str(entry.path))
            kept = None
    except WorkerError as error:
        kept = str(error)
    lock.release(remove=kept is None)
    return Swept(entry.path, kept)
