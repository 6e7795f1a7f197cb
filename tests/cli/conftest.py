"""One server for all tests of a module that speak to one; each makes a project of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.people import People, people


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with people(tmp_path_factory.mktemp("server")) as someone:
        yield someone
