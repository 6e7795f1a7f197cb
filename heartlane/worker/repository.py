"""The repository that `--worktree` names: opening it, its remote, where lanes begin, and which worktrees it has."""

from __future__ import annotations

import contextlib
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from heartlane.worker.errors import WorkerError
from heartlane.worker.file_lock import held
from heartlane.worker.git import NETWORK_SECONDS, VERSION_MIN, Git, git_version

LOCK_FILE: Final = "heartlane.lock"
LOCK_SECONDS: Final = 900.0
"""Longest wait for others that make worktrees of the same repository: ten, each with a checkout of a minute."""
BRANCH_PREFIX: Final = "heartlane/"
SLUG_MAX: Final = 40


class Entry(NamedTuple):
    """One worktree of the repository, as `git worktree list` has it. `branch` is a full name, or None (detached)."""

    path: Path
    branch: str | None
    locked: bool

    @property
    def missing(self) -> bool:
        """Whether its folder is gone."""
        return not (self.path / ".git").exists()


class Base(NamedTuple):
    """Where a lane's branch begins: a commit, and the branch that it is of (None for a detached HEAD)."""

    name: str | None
    commit: str


class Repository:
    """A Git repository with at least one commit. Make it with `Repository.open`.

    path        the folder that was named
    git         Git in it
    common      its .git folder, which all its worktrees share
    inner       the named folder within the working tree ("" at its top, or in a bare one)
    remote      the remote that branches are fetched from and pushed to, or None
    """

    def __init__(self, path: Path, git: Git, common: Path, inner: str, remote: str | None) -> None:
        self.path = path
        self.git = git
        self.common = common
        self.inner = inner
        self.remote = remote

    @classmethod
    def open(cls, path: Path) -> Repository:
        """Open it. Raises WorkerError (`not_a_repository`, `git_failed`)."""
        version = git_version()
        if version is None:
            raise WorkerError("git is not installed, or not in PATH: --worktree needs it", "git_failed")
        if version < VERSION_MIN:
            needed = ".".join(map(str, VERSION_MIN))
            raise WorkerError(f"git {'.'.join(map(str, version))} is too old: --worktree needs {needed}", "git_failed")
        path = path.expanduser().absolute()
        if not path.is_dir():
            what = "is not a folder" if path.exists() else "does not exist"
            raise WorkerError(
                f"{path} {what}: --worktree names a clone of the project's repository", "not_a_repository"
            )
        git = Git(path)
        found = git.run("rev-parse", "--git-common-dir")
        if found.code != 0:
            raise _not_a_repository(path, found.said)
        common = (path / found.text).resolve()
        if git.commit_of("HEAD") is None and not git.text("for-each-ref", "--count=1"):
            raise WorkerError(f"{path} has no commit yet: make one for lanes to begin from", "not_a_repository")
        remotes = git.text("remote").split("\n")
        remote = "origin" if "origin" in remotes else remotes[0] if len(remotes) == 1 and remotes[0] else None
        return cls(path, git, common, git.maybe("rev-parse", "--show-prefix") or "", remote)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else makes or removes worktrees of this repository within the block. Raises WorkerError."""
        try:
            with held(self.common / LOCK_FILE, LOCK_SECONDS) as mine:
                if not mine:
                    raise WorkerError(
                        f"others have been making worktrees of {self.path} for {LOCK_SECONDS:.0f} s", "git_failed"
                    )
                yield
        except OSError as error:
            raise WorkerError(f"{self.common} can't be written: {error.strerror}", "git_failed") from None

    def entries(self) -> list[Entry]:
        """Its worktrees, the main one first."""
        found = []
        for block in self.git.text("worktree", "list", "--porcelain").split("\n\n"):
            lines = dict.fromkeys(block.splitlines())
            named = {name: value for name, _, value in (line.partition(" ") for line in lines)}
            if "worktree" in named:
                found.append(Entry(Path(named["worktree"]), named.get("branch"), "locked" in named))
        return found

    def base(self, default_branch: str | None) -> Base:
        """Where lanes begin: the newer of the default branch here and at the remote, or the present HEAD.

        Where the two went different ways the remote's counts, which pull requests are compared with.
        """
        if default_branch and not self.is_branch_name(default_branch):
            raise WorkerError(f"the project's default branch {default_branch!r} is no name of a branch", "wrong_input")
        if not default_branch:
            commit = self.git.commit_of("HEAD")
            if commit is None:
                raise WorkerError(f"HEAD of {self.path} has no commit yet: switch to a branch", "not_a_repository")
            return Base(self.git.maybe("symbolic-ref", "--quiet", "--short", "HEAD"), commit)
        here = self.git.commit_of(f"refs/heads/{default_branch}")
        there = self.git.commit_of(self.remote_ref(default_branch)) if self.remote else None
        if here is None and there is None:
            raise WorkerError(
                f"the project's default branch {default_branch!r} is not in {self.path}, nor at its remote: correct "
                "default_branch of the project, or name another clone",
                "not_a_repository",
            )
        if here is None or there is None:
            return Base(default_branch, here or there or "")
        return Base(default_branch, here if self.is_ancestor(there, here) else there)

    def is_branch_name(self, name: str) -> bool:
        """Whether a branch can be called that."""
        return self.git.holds("check-ref-format", f"refs/heads/{name}")

    def remote_ref(self, branch: str) -> str:
        """Full name under which a branch of the remote is known here."""
        return f"refs/remotes/{self.remote}/{branch}"

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether `newer` holds all of `older`."""
        return self.git.holds("merge-base", "--is-ancestor", older, newer)

    def fetch(self, *branches: str) -> str | None:
        """Fetch those of the branches that the remote has; None, or why that wasn't possible, in Git's words.

        A branch that the remote doesn't have (any more) is not known of it afterwards.
        """
        if self.remote is None:
            return None
        wanted = list(dict.fromkeys(branches))
        try:
            listed = self.git.run(
                "ls-remote", self.remote, *(f"refs/heads/{name}" for name in wanted), timeout=NETWORK_SECONDS
            )
            if listed.code != 0:
                return listed.said
            there = {line.partition("\trefs/heads/")[2] for line in listed.text.splitlines()}
            for name in wanted:
                if name not in there and self.git.commit_of(self.remote_ref(name)):
                    self.git.run("update-ref", "-d", self.remote_ref(name))
            refs = [f"+refs/heads/{name}:{self.remote_ref(name)}" for name in wanted if name in there]
            if refs:
                got = self.git.run("fetch", "--no-tags", "--quiet", self.remote, *refs, timeout=NETWORK_SECONDS)
                return None if got.code == 0 else got.said
        except WorkerError as error:
            return str(error)
        return None

    def folder_for(self, root: Path) -> Path:
        """The folder below `root` for this repository's worktrees: its name, and a mark of where it is."""
        place = self.common.parent if self.common.name == ".git" else self.common
        name = slug(place.name.removesuffix(".git")) or "repository"
        return root / f"{name}-{hashlib.sha256(str(self.common).encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def slug(text: str) -> str:
    """A text as part of a branch's and a folder's name: plain letters, digits, dots and dashes, not too many.

    >>> slug("API: Größe & Totals!"), slug("../..//x.lock"), slug("合計")
    ('API-Grosse-Totals', 'x-lock', 'lane')
    """
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9.]+|\.{2,}|\.lock\b", lambda found: "-lock" if found[0] == ".lock" else "-", plain)
    return words[:SLUG_MAX].strip("-.") or "lane"


def lane_name(lane_key: str, run_id: str) -> str:
    """What a lane's folder and branch are called: its key, and the end of its run's id, which is the random part.

    >>> lane_name("api", "018F0000-0000-7000-8000-0000DEADBEEF")
    'api-deadbeef'
    """
    return f"{slug(lane_key)}-{re.sub(r'[^0-9a-f]', '', run_id.lower())[-8:] or 'lane'}"


def _not_a_repository(path: Path, said: str) -> WorkerError:
    if "dubious ownership" in said:
        return WorkerError(
            f"{path} belongs to another user, so Git won't use it: run the worker as its owner, or allow it with "
            f"git config --global --add safe.directory {path}",
            "not_a_repository",
        )
    return WorkerError(
        f"{path} is not in a Git repository: --worktree names a clone of the project ({said})",
        "not_a_repository",
    )
