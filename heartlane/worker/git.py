"""Runs Git on somebody's repository, without whatever of this process's environment would lead it elsewhere.

Git never asks anything: there is no terminal, no askpass window, and what takes too long is ended with all that it
started. Its messages come in English, so that the last of them can stand in ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from heartlane.worker.errors import Kind, WorkerError

LOCAL_SECONDS: Final = 600.0
"""For what works on the disk alone: the checkout of a large repository takes minutes."""
NETWORK_SECONDS: Final = 300.0
"""For what talks to a remote."""
SAID_MAX: Final = 300
"""Characters of a program's own words in our messages."""
VERSION_MIN: Final = (2, 30)
"""December 2020: `git worktree repair`, `git push --force-if-includes`."""

_KEPT: Final = frozenset(
    {
        "GIT_ASKPASS",
        "GIT_AUTHOR_EMAIL",
        "GIT_AUTHOR_NAME",
        "GIT_COMMITTER_EMAIL",
        "GIT_COMMITTER_NAME",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CONFIG_SYSTEM",
        "GIT_EXEC_PATH",
        "GIT_PROXY_COMMAND",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_SSH_VARIANT",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "GIT_SSL_CERT",
        "GIT_SSL_KEY",
    }
)
"""What says who the user is and how to reach remotes. Everything else of GIT_* names a repository, or how to print."""

_SETTINGS: Final = [
    part for setting in ("core.quotePath=false", "gc.auto=0", "maintenance.auto=false") for part in ("-c", setting)
]
"""Names as they are; and no tidying up behind our back, which several at once would get in each other's way with."""


class Ran(NamedTuple):
    """How a program ended, and what it printed."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """What it printed to stdout, without the line's end."""
        return self.out.decode("utf-8", "surrogateescape").rstrip("\n")

    @property
    def said(self) -> str:
        """Its last words on stderr, in one short line."""
        lines = [line.strip() for line in self.err.decode("utf-8", "replace").splitlines() if line.strip()]
        telling = [line for line in lines if line.lower().startswith(("fatal:", "error:", "remote: error"))]
        return "; ".join(telling or lines[-1:])[:SAID_MAX] or f"exit code {self.code}"


def git_environment(own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for Git: this process's, without what names another repository, and with nobody to ask."""
    kept = {name: value for name, value in own.items() if not name.startswith("GIT_") or name in _KEPT}
    return {
        **{name: value for name, value in kept.items() if name not in ("LANGUAGE", "HEARTLANE_TOKEN")},
        "LC_ALL": "C.UTF-8",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PAGER": "cat",
        "SSH_ASKPASS_REQUIRE": "never",
        "GCM_INTERACTIVE": "never",
        "GH_PROMPT_DISABLED": "1",
        "GH_NO_UPDATE_NOTIFIER": "1",
        "NO_COLOR": "1",
    }


def run_program(
    arguments: list[str], *, cwd: Path, timeout: float, given: bytes | None = None, kind: Kind = "git_failed"
) -> Ran:
    """Run a program to its end, in a session of its own. Raises WorkerError where it can't run, or takes too long.

    timeout     seconds; past them it is killed with all that it started
    given       what it reads on stdin; None: nothing
    """
    name = arguments[0]
    program = shutil.which(name)
    if program is None:
        raise WorkerError(f"{name} is not installed, or not in PATH", kind)
    try:
        process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            [program, *arguments[1:]],
            cwd=cwd,
            env=git_environment(),
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise WorkerError(f"{name} can't be run in {cwd}: {error.strerror}", kind) from None
    with process:
        try:
            out, err = process.communicate(given, timeout)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                doing = " ".join(arguments[:2])
                raise WorkerError(f"{doing} did not end within {timeout:.0f} s, and was ended", kind) from None
            raise
    return Ran(process.returncode, out, err)


class Git:
    """Git in one folder.

    git = Git(folder)
    git.text("rev-parse", "HEAD")       # stdout; WorkerError where Git fails
    git.run("merge-base", …).code       # whatever happens
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, timeout: float = LOCAL_SECONDS) -> Ran:
        """Run it, however it ends."""
        return run_program(["git", *_SETTINGS, *arguments], cwd=self.folder, timeout=timeout)

    def must(self, *arguments: str, what: str = "", timeout: float = LOCAL_SECONDS, kind: Kind = "git_failed") -> Ran:
        """Run it, and raise WorkerError when it fails: what couldn't be done, and Git's words."""
        ran = self.run(*arguments, timeout=timeout)
        if ran.code != 0:
            raise WorkerError(f"{what or f'git {arguments[0]} failed in {self.folder}'}: {ran.said}", kind)
        return ran

    def text(self, *arguments: str, what: str = "") -> str:
        """What it prints. Raises WorkerError."""
        return self.must(*arguments, what=what).text

    def maybe(self, *arguments: str) -> str | None:
        """What it prints, or None when it fails."""
        ran = self.run(*arguments)
        return ran.text if ran.code == 0 else None

    def as_somebody(self) -> list[str]:
        """Options for a command that commits, on a machine where nobody told Git a name."""
        if self.maybe("config", "user.email") is not None or "GIT_COMMITTER_EMAIL" in os.environ:
            return []
        return ["-c", "user.name=Heartlane", "-c", "user.email=heartlane@localhost"]

    def holds(self, *arguments: str) -> bool:
        """Whether it ends with 0."""
        return self.run(*arguments).code == 0

    def commit_of(self, ref: str) -> str | None:
        """The commit that a full name, such as refs/heads/main, stands for; None where it stands for none."""
        return self.maybe("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")


def git_version() -> tuple[int, ...] | None:
    """Git's version, such as (2, 39, 5); None where there is no Git, or one that doesn't say."""
    try:
        words = run_program(["git", "--version"], cwd=Path("/"), timeout=10).text.split()
    except WorkerError:
        return None
    numbers = [part for part in words[2].split(".") if part.isdigit()] if len(words) > 2 else []
    return tuple(int(part) for part in numbers) or None
