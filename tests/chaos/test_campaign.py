"""The campaign itself, a small one: `make chaos` has the large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import embedded
from tests.chaos.campaign import Plan, run

SECONDS = 20.0


@pytest.mark.slow
async def test_a_short_campaign_on_postgresql_finds_nothing(tmp_path: Path) -> None:
    outcome = await run(Plan(SECONDS, workers=40, sidecars=2, seed=1), tmp_path, lambda text: None)
    assert outcome.found.violations == []
    assert outcome.lanes["shipped"] > 0
    assert sum(outcome.faults.values()) > 0


@pytest.mark.slow
async def test_a_short_campaign_on_sqlite_finds_nothing(tmp_path: Path) -> None:
    outcome = await embedded.run(Plan(SECONDS, workers=20, sidecars=0, seed=1), tmp_path, lambda text: None)
    assert outcome.found.violations == []
    assert outcome.lanes["shipped"] > 0
    assert sum(outcome.faults.values()) > 0
