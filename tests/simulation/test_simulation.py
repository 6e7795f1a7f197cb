"""The simulated world, shortly: promises are kept, a run is the same every time, and planted mistakes are noticed.

`make simulate` lives longer ones. A failure here names the seed; the command that it prints lives that world again.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.__main__ import replay
from tests.simulation.mutants import MUTANTS
from tests.simulation.world import SMALL, TROUBLED, USUAL, Faults, Scale, World

MANY = Scale(servers=3, workers=300, lanes=600)
STEPS_MAX = 8_000
SEEDS = range(1, 13)
RARE = frozenset({"attempt-not-compared", "lease-from-receipt", "release-unfenced", "stale-row-in-batch"})
"""Mistakes that only show when several rare things come together: these worlds live longer."""


@pytest.mark.parametrize(
    ("scale", "faults", "steps"), [(MANY, USUAL, 4_000), (SMALL, TROUBLED, 4_000)], ids=["many", "troubled"]
)
def test_every_promise_is_kept(scale: Scale, faults: Faults, steps: int) -> None:
    world = World(1, scale, faults)
    failure = world.run(steps)
    assert failure is None, f"{failure}\n{replay(world, steps)}"
    assert world.checker.events > 500
    assert {"server-crash", "worker-crash", "link-cut", "person", "batch", "answer"} <= world.kinds.keys()


def test_a_seed_gives_the_same_run_in_another_process() -> None:
    world = World(7, SMALL, TROUBLED)
    assert world.run(1_500) is None
    asked = [
        "--seed",
        "7",
        "--steps",
        "1500",
        "--workers",
        "30",
        "--lanes",
        "40",
        "--servers",
        "1",
        "--day",
        "troubled",
    ]
    printed = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *asked],
        env={**os.environ, "PYTHONHASHSEED": "4711"},  # the order of sets of strings is another one
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"trace {world.trace}\n" in printed
    other = World(8, SMALL, TROUBLED)
    assert other.run(1_500) is None
    assert other.trace != world.trace


@pytest.mark.parametrize("name", sorted(MUTANTS.keys() - RARE))
def test_a_planted_mistake_is_noticed(name: str) -> None:
    _is_noticed(name, SEEDS[:4])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RARE))
def test_a_planted_mistake_that_seldom_shows_is_noticed(name: str) -> None:
    _is_noticed(name, SEEDS)


def _is_noticed(name: str, seeds: range) -> None:
    mutant = MUTANTS[name]
    for seed in seeds:
        with mutant.plant():
            failure = World(seed, SMALL, TROUBLED).run(STEPS_MAX)
        if failure is not None:
            assert failure.check in mutant.caught_by, failure
            return
    raise AssertionError(f"nobody noticed: {mutant.what}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_worlds_without_a_mistake(seed: int) -> None:
    world = World(seed, SMALL, TROUBLED)
    failure = world.run(STEPS_MAX)
    assert failure is None, f"{failure}\n{replay(world, STEPS_MAX)}"
