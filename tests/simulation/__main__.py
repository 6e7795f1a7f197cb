"""`make simulate SEED=… STEPS=…`: live worlds, and say how they went.

SEED        a number, or `N..M` for each of several; left out: 1
STEPS       how long each lives; left out: 200,000
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.world import TROUBLED, USUAL, Scale, World


def replay(world: World, steps: int) -> str:
    """The command that lives this world again."""
    scale = world.scale
    return (
        f"make simulate SEED={world.seed} STEPS={steps} SERVERS={scale.servers} WORKERS={scale.workers} "
        f"LANES={scale.lanes}" + (" DAY=troubled" if world.faults == TROUBLED else "")
    )


def seeds(text: str) -> range:
    """`7` or `1..20`, both ends included."""
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """0 when every promise was kept in every world, 1 when one was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Live simulated worlds.")
    parser.add_argument("--seed", type=seeds, default=seeds("1"), help="a number, or N..M")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2_000)
    parser.add_argument("--lanes", type=int, default=4_000)
    parser.add_argument("--day", choices=("usual", "troubled"), default="usual", help="how often things go wrong")
    asked = parser.parse_args(arguments)
    faults = TROUBLED if asked.day == "troubled" else USUAL
    broken = 0
    for seed in asked.seed:
        world = World(seed, Scale(asked.servers, asked.workers, asked.lanes), faults)
        began, used = time.perf_counter(), time.process_time()
        failure = world.run(asked.steps)
        took, used = time.perf_counter() - began, time.process_time() - used
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(world.kinds.items()))
        lived = f"{world.loop.now:,.0f} s of the world"
        say(f"seed {seed}: {world.steps:,} steps, {lived}, {world.checker.events:,} events")
        say(f"  {kinds}")
        say(f"  {world.steps / took * 60:,.0f} steps a minute ({world.steps / used * 60:,.0f} of processor time)")
        say(f"trace {world.trace}")
        if failure is not None:
            broken += 1
            say(f"BROKEN at step {failure.step:,}, second {failure.now:,.3f}: {failure.text}")
            say(f"live it again: {replay(world, asked.steps)}")
    return min(broken, 1)


if __name__ == "__main__":
    sys.exit(main())
