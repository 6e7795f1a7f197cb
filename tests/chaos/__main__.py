"""`python -m tests.chaos`: the campaign and its figures. Exit code 1 where something that is promised doesn't hold."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.chaos import embedded
from tests.chaos.campaign import Outcome, Plan, Say, run

SHOWN_MAX = 20


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long PostgreSQL's part has faults (10)")
    parser.add_argument("--sqlite-minutes", type=float, help="how long SQLite's part has (a fifth of the other's)")
    parser.add_argument("--workers", type=int, default=200, help="light workers; a fifth of them on SQLite (200)")
    parser.add_argument("--sidecars", type=int, default=6, help="real `heartlane work` processes on PostgreSQL (6)")
    parser.add_argument("--seed", type=int, help="brings a campaign's choices back; left out: a new one")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the histories and all logs in this folder")
    options = parser.parse_args()
    logging.getLogger("heartlane.client").setLevel(logging.CRITICAL)  # that lanes are lost is what this is about
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    sqlite_minutes = options.minutes / 5 if options.sqlite_minutes is None else options.sqlite_minutes
    violations = 0
    if options.minutes:
        plan = Plan(options.minutes * 60, options.workers, options.sidecars, seed)
        violations += _part("PostgreSQL", lambda folder, say: run(plan, folder, say), options.keep, plan)
    if sqlite_minutes:
        few = Plan(sqlite_minutes * 60, max(1, options.workers // 5), 0, seed)
        violations += _part("SQLite", lambda folder, say: embedded.run(few, folder, say), options.keep, few)
    return 1 if violations else 0


def _part(name: str, do: Callable[[Path, Say], Coroutine[Any, Any, Outcome]], keep: Path | None, plan: Plan) -> int:
    """One part of the campaign, with its figures; how many violations it found."""
    folder = Path(tempfile.mkdtemp(prefix="heartlane-chaos-", dir="/var/tmp"))
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    say(f"{name}: seed {plan.seed}, {plan.seconds / 60:g} minutes")
    try:
        outcome = asyncio.run(do(folder, say))
    finally:
        if keep is not None:
            ignored = shutil.ignore_patterns("disk", "copies", "state")
            shutil.copytree(folder, keep / name, ignore=ignored, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(figures(outcome)), flush=True)
    return len(outcome.found.violations)


def figures(outcome: Outcome) -> list[str]:
    """What a campaign did and found, to read."""
    found = outcome.found
    lines = ["", "operations"]
    lines += [f"  {name:<32}{count:>10,}" for name, count in sorted(outcome.operations.items())]
    lines += [f"  {'in all':<32}{sum(outcome.operations.values()):>10,}", "faults"]
    lines += [f"  {name:<32}{count:>10,}" for name, count in sorted(outcome.faults.items())]
    lines += [f"  {'in all':<32}{sum(outcome.faults.values()):>10,}", "lanes"]
    lines += [f"  {name:<32}{count:>10,}" for name, count in sorted(outcome.lanes.items())]
    lines += [
        f"  {'events in their logs':<32}{outcome.events:>10,}",
        "availability",
        f"  longest without a granted call  {outcome.longest_seconds:>10.1f} s  ({outcome.longest_during})",
        f"  … while the database was well   {outcome.undisturbed_seconds:>10.1f} s",
        f"  leases that ran out             {found.take_backs:>10,}",
        f"  … taken back after, at most     {found.latest_seconds:>10.1f} s",
        f"violations                        {len(found.violations):>10,}",
    ]
    lines += [f"  {said}" for said in outcome.says]
    lines += [f"  {one.kind}: run {one.run}: {one.says}" for one in found.violations[:SHOWN_MAX]]
    return lines


if __name__ == "__main__":
    sys.exit(main())
