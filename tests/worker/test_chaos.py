"""Workers in chaos: every lane is shipped exactly once, no event is lost or doubled, no lane has two running agents.

Every choice comes from a seed, which a failing test prints; HEARTLANE_CHAOS_SEED=… makes the same choices again (what
the machine's scheduler does in between stays its own affair).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.server_process import closing as closing_servers
from tests.worker.chaos import SEED_VARIABLE, Chaos, seed


def _chaos(database: str, folder: Path, *, workers: int, lanes: int, marks: int, seconds: float, settle: float) -> None:
    chance = seed()
    print(f"{SEED_VARIABLE}={chance}")  # noqa: T201 - pytest shows it when the test fails
    server = ServerProcess(database, folder)
    with closing_servers(server):
        server.start()
        chaos = Chaos(server, folder, workers=workers, lease_seconds=4, chance=chance)
        chaos.run(lanes=lanes, marks=marks, seconds=seconds, settle_seconds=settle)
        print(dict(sorted(chaos.did.items())))  # noqa: T201


def test_a_few_workers_in_chaos_ship_every_lane_once(tmp_path: Path) -> None:
    _chaos(f"sqlite:///{tmp_path / 'db'}", tmp_path, workers=4, lanes=6, marks=15, seconds=8, settle=90)


@pytest.mark.slow
def test_twenty_workers_in_chaos_ship_every_lane_once(database_url: str, tmp_path: Path) -> None:
    _chaos(database_url, tmp_path, workers=20, lanes=200, marks=50, seconds=120, settle=300)
