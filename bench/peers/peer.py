"""What takes part: a server with one or two calls that are measured, and how to see that they were written."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.bodies import Case
from bench.load import Job, LaneJob, Result
from bench.processes import HOST, Server, ServerFailed
from bench.rounds import TITLES, LoadFailed, Pace, generate

WRITTEN_SECONDS: Final = 30.0
"""How long PostgreSQL's sessions may sit on their statistics, by which some writes are counted, after the load."""
PREPARE_SECONDS: Final = 600.0
ERROR_CHARACTERS: Final = 2_000
READY_SECONDS: Final = 240.0
"""How long a peer's server may take to start: some make their tables then."""


class NotWritten(Exception):
    """A peer answered that it had taken what can't be found in its database; the text says how much is missing."""


@dataclass
class Call:
    """One call of one server: what is sent, the status that says it was taken, and where it has to be found after.

    `count_sql` counts what is written; each call adds `per_call` to it. `fresh` is a table and its column of the last
    heartbeat, which has to be later than the start of the load for as many rows as there are lanes.
    """

    shown: str
    lanes: list[LaneJob]
    count_sql: str
    per_call: int
    fresh: tuple[str, str] | None = None
    status: int = 200
    check_every: int = 0
    sent: int = 0
    before: int = 0
    started: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Written:
    """How many calls of one kind were answered in all, and how much of them the database holds."""

    calls: int
    found: int
    expected: int


class Contestant(ABC):
    """One that is measured: a server that runs on a database of its own, and its calls by case."""

    name: str
    """As people know it."""
    settings: tuple[str, ...]
    """How it is set up, beyond its own defaults, a line each; for the reader of the figures."""
    not_comparable: tuple[str, ...] = ()
    """What to keep in mind before its figures are laid beside others."""

    def __init__(self) -> None:
        self.calls: dict[Case, Call] = {}
        self.version = ""

    @abstractmethod
    def running(self, database_url: str, folder: Path, connections: int) -> AbstractAsyncContextManager[Server | None]:
        """Its server, ready, with `connections` workers at work; fills `calls`. Raises ServerFailed, CannotInstall."""

    async def load(self, server: Server | None, case: Case, pace: Pace) -> Result:
        """Hold the load of one case. Raises LoadFailed."""
        call = self.calls[case]
        assert server is not None
        job = Job(
            host=HOST,
            port=server.port,
            token="",
            connections=pace.connections,
            warmup_seconds=pace.warmup_seconds,
            seconds=pace.seconds,
            check_every=call.check_every,
            lanes=call.lanes,
            status=call.status,
        )
        call.started = datetime.now(UTC)
        result = await generate(job, f"{self.name}, {TITLES[case]}")
        for lane, seq in zip(call.lanes, result["seqs"], strict=True):
            call.sent += seq - lane["seq"]
            lane["seq"] = seq
        if not result["requests"]:
            raise LoadFailed(f"no call was answered within {pace.seconds:g} s")
        return result

    async def written(self, database_url: str, case: Case) -> Written:
        """Find in its database what it answered for, all rounds together. Raises NotWritten."""
        call = self.calls[case]
        expected = call.sent * call.per_call
        deadline = time.monotonic() + WRITTEN_SECONDS
        while (found := await count(database_url, call.count_sql) - call.before) < expected:
            if time.monotonic() > deadline:
                raise NotWritten(
                    f"{self.name} answered {call.sent:,} calls of {call.shown}, so {expected:,} should be found in "
                    f"its database, where {found:,} are."
                )
            await asyncio.sleep(0.5)
        if call.fresh is not None:
            table, column = call.fresh
            # Names of ours; the moment is this machine's and the database's alike.
            sql = f"SELECT count(*) FROM {table} WHERE {column} >= '{call.started.isoformat()}'"
            if (fresh := await count(database_url, sql)) < len(call.lanes):
                raise NotWritten(f"{self.name} has a fresh heartbeat of {fresh} of {len(call.lanes)} workers.")
        return Written(call.sent, found, expected)


async def run_inside(*command: str, settings: Mapping[str, str]) -> str:
    """Run one of a peer's programs to its end; what it printed on standard output. Raises ServerFailed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=settings,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), PREPARE_SECONDS)
    except TimeoutError:
        raise ServerFailed(f"{' '.join(command)} takes longer than {PREPARE_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        tail = errors.decode(errors="replace").strip()[-ERROR_CHARACTERS:]
        raise ServerFailed(f"{' '.join(command)} ended with code {process.returncode}: {tail}")
    return output.decode()


async def count(database_url: str, sql: str) -> int:
    """The one number that a query asks for; 0 for none."""
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval(sql) or 0)
    finally:
        await connection.close()


def writes_sql(table: str) -> str:
    """How many rows of a table were written since it was made, old and new ones, as PostgreSQL counts them."""
    return f"SELECT n_tup_upd + n_tup_ins FROM pg_stat_user_tables WHERE relname = '{table}'"


@dataclass
class Outcome:
    """What one contestant came to: its rounds by case, what was written, or why it took no part."""

    name: str
    version: str
    settings: tuple[str, ...]
    not_comparable: tuple[str, ...]
    calls: dict[Case, str] = field(default_factory=dict)
    rounds: dict[Case, list[Mapping[str, Any]]] = field(default_factory=dict)
    written: dict[Case, Written] = field(default_factory=dict)
    absent: str = ""
