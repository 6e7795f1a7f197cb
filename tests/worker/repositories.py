"""Real repositories to make worktrees of, with a Git that reads no settings but the test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

SETTINGS = """\
[user]
    name = Ada
    email = ada@example.com
[init]
    defaultBranch = main
[protocol "file"]
    allow = always
"""


def git(folder: Path, *arguments: str) -> str:
    """Run Git as a person would; what it prints."""
    ended = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, f"git {' '.join(arguments)}: {ended.stderr}"
    return ended.stdout.strip()


def own_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Git, here and in children, read the test's settings alone, and none of the variables of whoever runs it."""
    settings = folder / "gitconfig"
    settings.write_text(SETTINGS, "utf-8")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def commit(folder: Path, name: str = "file.txt", text: str = "text\n", message: str = "Change") -> str:
    """Write a file and commit it; the commit."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def repository(folder: Path) -> Path:
    """A repository with one commit on main."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    commit(folder, "README.md", "# Shop\n", "Begin")
    return folder


def with_remote(folder: Path) -> tuple[Path, Path]:
    """A clone, and the bare repository that is its origin."""
    first = repository(folder / "first")
    origin = folder / "origin.git"
    git(folder, "clone", "--quiet", "--bare", str(first), str(origin))
    return clone(origin, folder / "shop"), origin


def clone(origin: Path, folder: Path) -> Path:
    """One more clone, as on another machine."""
    git(origin.parent, "clone", "--quiet", str(origin), str(folder))
    return folder


def run_of(lane_key: str = "api", number: int = 1, **more: Any) -> dict[str, Any]:
    """A run object, as far as worktrees look at it."""
    return {"id": f"019a0000-0000-7000-8000-0000000000{number:02x}", "lane_key": lane_key, "attempt": 1, **more}
