"""After a time without any server, holders get one lease, at most five minutes, to be heard again.

The hour in which no server runs passes at once: while none runs, every time in the database is made an hour older.
"""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import httpx

from tests.e2e.database import let_pass, new_token, resumed_at, take_back_at
from tests.e2e.fleet import claim, client_of, expired, make_runs, post, read_run
from tests.e2e.server_process import ServerProcess, closing, until

HOUR: Final = timedelta(hours=1)
GRACE_MAX: Final = timedelta(minutes=5)
LATE: Final = timedelta(seconds=2 + 1.5)
"""How long after its deadline a lease may be taken back: as promised, and what a busy machine may add."""


async def resumed_after(database: str, before: datetime | None) -> datetime:
    """Since when a server runs, as soon as it has noted that."""

    async def another() -> datetime | None:
        moment = await resumed_at(database)
        return None if moment == before else moment

    moment: datetime = await until(another, "a sign of life")
    return moment


async def assert_grace(client: httpx.AsyncClient, run_id: str, since: datetime, lease: timedelta) -> None:
    """The lease is taken back one lease after the first moment of a server, no sooner and not much later."""
    event = await until(lambda: expired(client, run_id), "a lease taken back", 20)
    taken_back = datetime.fromisoformat(event["recorded_at"])
    assert since + lease <= taken_back < since + lease + LATE
    run = await read_run(client, run_id)
    assert (run["state"], run["worker_id"], run["failures"]) == ("queued", None, 1)


async def test_a_server_that_was_down_for_an_hour_takes_nothing_back_in_its_first_moments(
    sqlite_template: Path, tmp_path: Path
) -> None:
    database = f"sqlite:///{shutil.copyfile(sqlite_template, tmp_path / 'heartlane.db')}"
    server = ServerProcess(database, tmp_path)
    with closing(server):
        await server.start_beside()
        began = await resumed_after(database, None)
        async with client_of(server.url, await new_token(database)) as client:
            silent, back, long = await make_runs(client, 3)
            await claim(client, silent, "silent", lease_seconds=3)
            await claim(client, back, "back", lease_seconds=3)
            await claim(client, long, "long", lease_seconds=1800)
            server.kill()
            await let_pass(database, HOUR)

            await server.start_beside()
            since = await resumed_after(database, began - HOUR)
            for run_id in (silent, back, long):
                run = await read_run(client, run_id)
                assert (run["state"], run["attempt"]) == ("claimed", 1)
                assert datetime.fromisoformat(run["lease_expires_at"]) < since
            # Whoever is heard again goes on as if nothing had been.
            answer = await post(
                client, f"/api/agents/runs/{back}/events", worker_id="back", attempt=1, lease_seconds=60
            )
            assert (answer["run"]["state"], answer["run"]["attempt"]) == ("running", 1)
            await assert_grace(client, silent, since, timedelta(seconds=3))
            assert await expired(client, back) is None
            # Half an hour of lease gives five minutes of grace, and no more.
            assert await take_back_at(database, long) == since + GRACE_MAX
            assert (await read_run(client, long))["state"] == "claimed"


async def test_the_grace_counts_from_the_first_of_several_servers(postgres_database_url: str, tmp_path: Path) -> None:
    first, second = (ServerProcess(postgres_database_url, tmp_path, name=name) for name in ("first", "second"))
    token = await new_token(postgres_database_url)
    with closing(first, second):
        await first.start_beside()
        began = await resumed_after(postgres_database_url, None)
        async with client_of(first.url, token) as client, client_of(second.url, token) as other:
            silent, later = await make_runs(client, 2)
            await claim(client, silent, "silent", lease_seconds=2)
            first.kill()
            await let_pass(postgres_database_url, HOUR)

            await first.start_beside()
            since = await resumed_after(postgres_database_url, began - HOUR)
            await second.start_beside()
            assert await resumed_at(postgres_database_url) == since
            await assert_grace(other, silent, since, timedelta(seconds=2))

            # A server that starts again while another one runs gives nobody more time.
            second.kill()
            run = await claim(client, later, "later", lease_seconds=1)
            await second.start_beside()
            deadline = datetime.fromisoformat(run["lease_expires_at"])
            event = await until(lambda: expired(other, later), "a lease taken back", 20)
            assert deadline <= datetime.fromisoformat(event["recorded_at"]) < deadline + LATE
            assert await resumed_at(postgres_database_url) == since
