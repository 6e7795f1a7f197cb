"""Pushing a lane's branch, and its pull request through the `gh` program: one a lane, however many attempts.

`gh` is asked whether the branch has an open one before any is made, and one that an earlier attempt left isn't doubled.
"""

from __future__ import annotations

import json
import re
from typing import Final

from heartlane.lanes import bounds
from heartlane.worker.errors import WorkerError
from heartlane.worker.git import NETWORK_SECONDS, Ran, run_program
from heartlane.worker.repository import BRANCH_PREFIX
from heartlane.worker.worktree import Worktree

TITLE_MAX: Final = 200
BODY_MAX: Final = 60_000
"""Characters; GitHub takes 65,536."""
_ADDRESS: Final = re.compile(r"https?://\S+")


def push(worktree: Worktree) -> str | None:
    """Push the commits of a lane; the branch they were pushed to, or None where there is none. Raises WorkerError.

    Only the lane's own branch (`heartlane/…`) is ever pushed over what is there, after a rebase say, and only over what
    this worktree has had in its own branch, never over what somebody else has pushed.
    """
    repository, git = worktree.repository, worktree.git
    if repository.remote is None:
        raise WorkerError(f"{repository.path} has no remote to push to: add one, or leave --push out", "git_failed")
    if worktree.result().commits == 0:
        return None
    on = git.maybe("symbolic-ref", "--quiet", "--short", "HEAD")
    branch = on or worktree.branch
    if branch == worktree.base.name:
        raise WorkerError(f"the lane's work is on {branch} itself, which is never pushed by itself", "git_failed")
    refspec = f"HEAD:refs/heads/{branch}"
    upstream = ["--set-upstream"] if on else []
    pushed = git.run("push", "--quiet", *upstream, repository.remote, refspec, timeout=NETWORK_SECONDS)
    said = pushed.err.decode("utf-8", "replace")
    refused = "[rejected]" in said and ("non-fast-forward" in said or "fetch first" in said)
    if pushed.code != 0 and refused and branch.startswith(BRANCH_PREFIX):
        force = [f"--force-with-lease=refs/heads/{branch}", "--force-if-includes"]
        pushed = git.run("push", "--quiet", *force, *upstream, repository.remote, refspec, timeout=NETWORK_SECONDS)
    if pushed.code != 0:
        raise WorkerError(f"{branch} can't be pushed to {repository.remote}: {pushed.said}", "git_failed")
    return branch


def open_pull_request(worktree: Worktree, branch: str, *, title: str, body: str, known: str | None = None) -> str:
    """Address of the pull request for a branch that was pushed: the one there is, or a new one. Raises WorkerError.

    known   address that an earlier attempt left; taken as long as that one is not closed
    """
    if known and _is_open(worktree, known):
        return known
    listed = _gh(worktree, "pr", "list", "--head", branch, "--state", "open", "--json", "url", "--limit", "1")
    found = _first_address(listed)
    if found is not None:
        return found
    base = ["--base", worktree.base.name] if worktree.base.name else []
    short = " ".join(title.split())[:TITLE_MAX] or branch
    made = _gh(
        worktree,
        *("pr", "create", "--head", branch, *base, "--title", short, "--body-file", "-"),
        given=body[:BODY_MAX].encode("utf-8", "replace"),
    )
    addresses = _ADDRESS.findall(made.text)
    if not addresses:
        raise WorkerError(f"gh made a pull request for {branch}, but did not say where it is", "git_failed")
    return str(addresses[-1])[: bounds.PR_URL_MAX]


def _is_open(worktree: Worktree, address: str) -> bool:
    """Whether a pull request is open, or can't be told to be anything else."""
    if not _ADDRESS.fullmatch(address):
        return False
    try:
        state = json.loads(_gh(worktree, "pr", "view", address, "--json", "state").text).get("state")
    except (ValueError, AttributeError, WorkerError):
        return True
    return state not in ("CLOSED", "MERGED")


def _first_address(listed: Ran) -> str | None:
    try:
        found = json.loads(listed.text or "[]")
        return str(found[0]["url"]) if found else None
    except (ValueError, LookupError, TypeError):
        raise WorkerError("gh pr list answered something else than JSON: is that GitHub's gh?", "git_failed") from None


def _gh(worktree: Worktree, *arguments: str, given: bytes | None = None) -> Ran:
    try:
        ran = run_program(["gh", *arguments], cwd=worktree.path, timeout=NETWORK_SECONDS, given=given)
    except WorkerError as error:
        if "not installed" in str(error):
            raise WorkerError(
                "gh is not installed, or not in PATH: --pr needs GitHub's command line", "git_failed"
            ) from None
        raise
    if ran.code != 0:
        login = "; run gh auth login" if "auth" in ran.said.lower() and "gh auth login" not in ran.said else ""
        raise WorkerError(f"gh {' '.join(arguments[:2])} failed: {ran.said}{login}", "git_failed")
    return ran
