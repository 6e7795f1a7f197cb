"""`python -m bench.peers`: Heartlane beside Airflow, Prefect, MLflow and Procrastinate. See `docs/peers.md`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from bench.__main__ import PLAIN_WIDTH
from bench.databases import NotDurable, work_folder
from bench.figures import machine, versions
from bench.peers.chart import chart
from bench.peers.measure import PEERS, measure
from bench.peers.peer import NotWritten
from bench.peers.tables import tables
from bench.processes import ServerFailed
from bench.rounds import LoadFailed, Pace


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description="Measures a worker's heartbeat, and a report of ten lines or events, on Heartlane, Apache Airflow, "
        "Prefect, MLflow and Procrastinate: each in a virtual environment of its own, all on one PostgreSQL, in turns.",
    )
    parser.add_argument("--only", choices=PEERS, action="append", help="only this peer; may be repeated")
    parser.add_argument("--quick", action="store_true", help="one round of a second each: rough figures")
    parser.add_argument("--rounds", type=int, metavar="N", default=5, help="rounds of which the median counts (5)")
    parser.add_argument("--seconds", type=float, metavar="S", default=5.0, help="seconds that one load is held (5)")
    parser.add_argument("--connections", type=int, metavar="N", default=64, help="connections (64)")
    parser.add_argument("--folder", type=Path, help="where to put the databases: a folder on a disk (/var/tmp)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to a file")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="write the tables, as Markdown, to a file")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write the chart, as SVG, to a file")
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="earlier", help="measure nothing: show what --json wrote"
    )
    options = parser.parse_args(arguments)
    for name, most in (("rounds", 100), ("connections", 256), ("seconds", 600)):
        if not 1 <= getattr(options, name) <= most:
            parser.error(f"--{name}: must be 1 to {most}")
    return options


async def run(options: argparse.Namespace, folder: Path, console: Console) -> dict[str, Any]:
    """Measure; SIGTERM ends it in good order as SIGINT does, so that no server is left behind."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    started = time.monotonic()

    def progress(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {line}", highlight=False)

    pace = Pace(options.connections, options.rounds, options.seconds, min(1.0, options.seconds / 2))
    if options.quick:
        pace = Pace(options.connections, 1, 1.0, 0.5)
    load_before = os.getloadavg()[0]
    found = await measure(options.only or PEERS, folder, pace, progress)
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "pace": asdict(pace),
        "load_before": load_before,
        "postgresql": found["postgresql"],
        "contestants": [asdict(outcome) for outcome in found["contestants"]],
    }


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    if options.earlier is not None:
        found = json.loads(options.earlier.read_text())
    else:
        try:
            folder = work_folder(options.folder)
        except (NotDurable, OSError) as error:
            console.print(str(error), style="red", markup=False)
            return 1
        try:
            found = asyncio.run(run(options, folder, console))
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("Stopped.")
            return 130
        except (ServerFailed, LoadFailed, NotDurable, NotWritten) as error:
            console.print(f"The bench can't go on: {error}", style="red", markup=False, highlight=False)
            return 1
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    text = tables(found)
    console.print(escape(text), highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.tables is not None:
        options.tables.write_text(text)
    if options.chart is not None:
        options.chart.write_text(chart(found))
    return 1 if any(one["absent"] for one in found["contestants"]) else 0


if __name__ == "__main__":
    sys.exit(main())
