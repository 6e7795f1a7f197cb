"""A desk to bring tickets to, and trackers to bring them from."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.harness import Harness
from tests.sources.desk import Desk, make_desk
from tests.sources.queried import FakeJira, FakeLinear
from tests.sources.tracker import FakeGitHub, FakeGitLab, speaking


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated database of its own. A source doesn't see which engine it is; what is written is tried on both."""
    path = tmp_path / "heartlane.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
async def desk(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """A project."""
    desk = await make_desk(harness, monkeypatch)
    yield desk
    await desk.close()


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    """A tracker like GitHub."""
    tracker = FakeGitHub()
    with speaking(tracker):
        yield tracker


@pytest.fixture
def gitlab() -> Iterator[FakeGitLab]:
    """A tracker like GitLab."""
    tracker = FakeGitLab()
    with speaking(tracker):
        yield tracker


@pytest.fixture
def linear() -> Iterator[FakeLinear]:
    """A tracker like Linear."""
    tracker = FakeLinear()
    with speaking(tracker):
        yield tracker


@pytest.fixture
def jira() -> Iterator[FakeJira]:
    """A tracker like Jira."""
    tracker = FakeJira()
    with speaking(tracker):
        yield tracker
