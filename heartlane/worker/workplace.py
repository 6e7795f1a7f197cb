"""Where a lane's agent works: the folder that the worker was started in, or a worktree of the lane's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from heartlane.worker.earlier import Earlier
from heartlane.worker.options import WorkOptions
from heartlane.worker.places import Places
from heartlane.worker.pull_request import open_pull_request, push
from heartlane.worker.repository import Repository
from heartlane.worker.worktree import Worktree, prepare


class Workplace:
    """A context manager that lets go of the place.

    cwd     where the agent runs
    branch  the lane's branch; None without a worktree
    """

    def __init__(self, worktree: Worktree | None, options: WorkOptions, note: Callable[[str], None]) -> None:
        self._worktree = worktree
        self._options = options
        self._note = note
        self.cwd = Path.cwd() if worktree is None else worktree.cwd
        self.branch = None if worktree is None else worktree.branch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worktree is not None:
            self._worktree.close()

    def settle(self, title: str) -> tuple[bool, dict[str, Any]]:
        """Commit what the agent left uncommitted; whether the lane changed anything, and what to say of it.

        Without a worktree nobody can tell: that counts as changed. Raises WorkerError.
        """
        if self._worktree is None:
            return True, {}
        self._worktree.commit_all(title)
        result = self._worktree.result()
        return result.changed, result.payload()

    def publish(self, title: str, summary: str, known: str | None) -> dict[str, Any]:
        """Push the branch and open the pull request, as far as either was asked for. Raises WorkerError."""
        if self._worktree is None or not (self._options.push or self._options.pull_request):
            return {}
        branch = push(self._worktree)
        if branch is None:
            return {}
        if not self._options.pull_request:
            return {"branch": branch}
        return {
            "branch": branch,
            "pr_url": open_pull_request(self._worktree, branch, title=title, body=summary, known=known),
        }

    def finish(self, *, shipped: bool) -> None:
        """Remove the worktree of a lane that has shipped, unless something would be lost."""
        if self._worktree is not None:
            kept = self._worktree.finish(shipped=shipped)
            if kept is not None:
                self._note(kept)


def open_workplace(
    options: WorkOptions,
    run: Mapping[str, Any],
    earlier: Earlier,
    places: Places,
    *,
    default_branch: str | None,
    note: Callable[[str], None],
) -> Workplace:
    """The place for this attempt. `default_branch` is the project's; `note` is called with what a person may want to
    know. Raises WorkerError."""
    if options.worktree is None:
        return Workplace(None, options, note)
    worktree = prepare(
        Repository.open(options.worktree),
        run,
        root=places.worktrees,
        default_branch=default_branch,
        earlier_branch=earlier.branch,
    )
    for said in worktree.notes:
        note(said)
    return Workplace(worktree, options, note)
