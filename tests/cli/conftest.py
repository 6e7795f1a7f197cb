"""One server for all tests that speak to one as people do; each makes a project and lanes of names of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.people import People, people


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with people(tmp_path_factory.mktemp("server")) as someone:
        yield someone
