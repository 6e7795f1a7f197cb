"""Whether a report's cost depends on how much the database holds: the same load at several sizes, taking turns.

The first size is the measure: in each round every other size's rate is compared to the first's of the same round, and
the median over the rounds is shown.
"""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from bench import processes
from bench.bodies import Case
from bench.databases import Engine
from bench.figures import Report
from bench.fleet import Fleet, gather
from bench.processes import Server
from bench.rounds import TITLES, Pace, Progress, load
from bench.seeding import Size, prepare

SIZES: Final = (Size(100, 0), Size(10_000, 0), Size(100_000, 0), Size(100_000, 1_000_000), Size(100_000, 5_000_000))
PERCENT_MAX: Final = 10.0


async def measure(
    engine: Engine, folder: Path, sizes: tuple[Size, ...], *, pace: Pace, report: Report, progress: Progress
) -> None:
    """Heartbeats and 10-event reports at each size, each relative to the first."""
    rates: dict[tuple[Case, Size], list[float]] = {}
    async with AsyncExitStack() as stack:
        places: list[tuple[Size, Server, Fleet]] = []
        for size in sizes:
            url = await engine.create()
            token = await prepare(url, folder, size, progress)
            server = await stack.enter_async_context(processes.heartlane(url, folder))
            places.append((size, server, await gather(server, token, pace.connections)))
        for number in range(1, pace.rounds + 1):
            row: dict[str, Any] = {"engine": engine.name, "round": number}
            for case in TITLES:
                # There and back again: whoever comes first in one round comes last in the next.
                for size, server, fleet in places if number % 2 else reversed(places):
                    result = await load(server, fleet, case, pace)
                    rates.setdefault((case, size), []).append(result["rate"])
                    row[f"{case}, {size}"] = {key: value for key, value in result.items() if key != "seqs"}
                    progress(f"{engine.title}, round {number}, {size}: {result['rate']:,.0f} {TITLES[case]}/s")
            report.rounds.append(row)
    for case, title in TITLES.items():
        base = rates[case, sizes[0]]
        report.add(engine.title, f"{title} at {sizes[0]}", statistics.median(base), "/s", note="the measure")
        for size in sizes[1:]:
            here = rates[case, size]
            change = statistics.median(mine / its for mine, its in zip(here, base, strict=True)) * 100 - 100
            report.add_flat(
                engine.title, f"flat: {title} at {size}", change, PERCENT_MAX, f"{statistics.median(here):,.0f}/s"
            )
