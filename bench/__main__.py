"""`python -m bench`: measure a Heartlane server on this machine. See `docs/performance.md`."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import adapters, claims, flat, idle, lines, rounds, scale, streams, waking, worker
from bench.databases import Engine, NotDurable, open_engine, work_folder
from bench.figures import Report
from bench.processes import ServerFailed
from bench.rounds import LoadFailed, Pace
from bench.seeding import Size

ENGINES: Final = ("sqlite", "postgresql")
PARTS: Final = ("reports", "idle", "claims", "waking", "adapters", "worker")
WHEN_ASKED: Final = ("lines", "streams", "scale", "takeback", "processes")
"""Parts that are measured only where they are named: they want the machine for themselves, for minutes."""
WITHOUT_A_DATABASE: Final = frozenset({"adapters", "worker"})
PROCESSES: Final = (1, 2)
CONNECTIONS_MAX: Final = 10_000
PLAIN_WIDTH: Final = 150
"""Columns of what is printed where there is no terminal to ask for its width."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line, with the figures that `--quick` changes filled in."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures durable reports per second against the floor of the same server program, on both "
        "engines; memory and processor time; claims from a long queue; how soon a waiting worker has its lane; how "
        "fast agents' output is read; and what a worker's guard, reader and spool cost. With --only lines: how soon "
        "what an agent prints can be seen, with 200 real workers on one server. With --only streams: what 2,000 open "
        "event streams cost. With --only scale: 100,000 live lanes for ten minutes; takeback: 50,000 leases that run "
        "out at once; processes: heartbeats of a server of one process and of two.",
    )
    parser.add_argument("--quick", action="store_true", help="short rounds and small sizes: under 90 s, rough figures")
    parser.add_argument("--flat", action="store_true", help="only: the same load on databases of several sizes")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this engine; may be given twice")
    parser.add_argument(
        "--only", choices=(*PARTS, *WHEN_ASKED), action="append", help="only this part; may be repeated"
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds of which the median counts (5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="seconds that one load is held (3)")
    parser.add_argument("--connections", type=_positive, metavar="N", default=64, help="connections (64)")
    parser.add_argument("--runs", type=int, metavar="N", help="runs in the database before the reports (10000)")
    parser.add_argument("--events", type=int, metavar="N", help="stored events before the reports (0)")
    parser.add_argument(
        "--queued", type=_positive, metavar="N", help="lanes in the queue that claims look at (1000000)"
    )
    parser.add_argument("--idle-seconds", type=float, metavar="S", help="how long idleness is watched (30)")
    parser.add_argument("--turns", type=_positive, metavar="N", help="hand-overs to a waiting worker (200)")
    parser.add_argument("--workers", type=_positive, metavar="N", help="workers whose lines are watched (200)")
    parser.add_argument("--streams", type=_positive, metavar="N", help="event streams that are held open (2000)")
    parser.add_argument("--lanes", type=_positive, metavar="N", help="live lanes; half of them run out (100000)")
    parser.add_argument("--live-seconds", type=float, metavar="S", help="how long they are renewed (600)")
    parser.add_argument("--watch-seconds", type=float, metavar="S", help="how long they are watched (60)")
    parser.add_argument(
        "--sizes",
        type=_sizes,
        metavar="R:E,…",
        default=flat.SIZES,
        help="sizes for --flat, as runs:events, the first being the measure (100:0,10000:0,100000:0,100000:1000000,"
        "100000:5000000)",
    )
    parser.add_argument("--folder", type=Path, help="where to put the databases: a folder on a disk (/var/tmp)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to a file")
    options = parser.parse_args(arguments)
    full = {"rounds": 5, "seconds": 3.0, "runs": 10_000, "events": 0}
    full |= {"queued": 1_000_000, "idle_seconds": 30.0, "turns": 200}
    full |= {"lanes": scale.LANES, "live_seconds": scale.LIVE_SECONDS}
    full |= {"workers": 200, "watch_seconds": 60.0, "streams": streams.STREAMS}
    quick = {"rounds": 3, "seconds": 1.0, "runs": 100, "events": 0, "queued": 20_000, "idle_seconds": 10.0, "turns": 50}
    quick |= {"lanes": 2_000, "live_seconds": 10.0}
    quick |= {"workers": 20, "watch_seconds": 20.0, "streams": 200}
    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.events and not options.runs:
        parser.error("--events needs --runs: events belong to runs")
    if options.connections > CONNECTIONS_MAX:
        parser.error(f"--connections: at most {CONNECTIONS_MAX}")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _sizes(text: str) -> tuple[Size, ...]:
    try:
        sizes = tuple(Size(*map(int, part.split(":"))) for part in text.split(","))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError("must be such as 100:0,10000:1000000") from None
    if any(size.events and not size.runs for size in sizes):
        raise argparse.ArgumentTypeError("events belong to runs")
    return sizes


async def measure(options: argparse.Namespace, folder: Path, report: Report, console: Console) -> None:
    """Everything that was asked for, engine by engine."""
    started = time.monotonic()

    def progress(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {line}", highlight=False)

    engines: list[Engine] = []
    pace = Pace(options.connections, options.rounds, options.seconds, min(0.7, options.seconds / 2))
    parts = ["flat"] if options.flat else [part for part in (*PARTS, *WHEN_ASKED) if part in (options.only or PARTS)]
    try:
        if "adapters" in parts:
            adapters.measure(report, progress)
        if "worker" in parts:
            await asyncio.to_thread(worker.measure, folder, options.rounds, report, progress)
        wanted = (options.engine or ENGINES) if set(parts) - WITHOUT_A_DATABASE else ()
        for name in wanted:
            engine = open_engine(name, folder)
            engines.append(engine)
            report.engines[engine.title] = await engine.facts()
            if "flat" in parts:
                await flat.measure(engine, folder, options.sizes, pace=pace, report=report, progress=progress)
            if "reports" in parts:
                size = Size(options.runs, options.events)
                await rounds.measure(engine, folder, size, pace=pace, report=report, progress=progress)
            if "waking" in parts:
                await waking.measure(engine, folder, options.turns, report, progress)
            if "claims" in parts:
                await claims.measure(engine, folder, options.queued, report, progress)
            if "streams" in parts:
                await streams.measure(engine, folder, options.streams, pace=pace, report=report, progress=progress)
            if "scale" in parts:
                await scale.live(engine, folder, options.lanes, options.live_seconds, report=report, progress=progress)
            if "takeback" in parts:
                await scale.takeback(engine, folder, options.lanes // 2, report, progress)
            if "processes" in parts and engine.name == "postgresql":
                await scale.several(engine, folder, PROCESSES, pace=pace, report=report, progress=progress)
            if "lines" in parts:
                await lines.measure(
                    engine, folder, options.workers, options.watch_seconds, report=report, progress=progress
                )
        if "idle" in parts:
            await idle.measure(engines, folder, options.idle_seconds, report, progress)
    finally:
        for engine in engines:
            engine.close()


async def until_signalled(options: argparse.Namespace, folder: Path, report: Report, console: Console) -> None:
    """`measure`, cancelled in good order by SIGTERM as by SIGINT, so that no process is left behind."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await measure(options, folder, report, console)


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    report = Report("python -m bench " + " ".join(sys.argv[1:]))
    try:
        folder = work_folder(options.folder)
    except (NotDurable, OSError) as error:
        console.print(f"[red]{error}[/red]")
        return 1
    try:
        asyncio.run(until_signalled(options, folder, report, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Stopped.")
        return 130
    except (ServerFailed, LoadFailed, NotDurable) as error:
        console.print(f"The bench can't go on: {error}", style="red", markup=False, highlight=False)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.show(console)
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
