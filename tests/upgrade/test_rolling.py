"""Two versions at once on one PostgreSQL: servers of the one before go on while, and after, the next one upgrades."""

from __future__ import annotations

import asyncio
import io
import random
import subprocess
import tarfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from heartlane.store.check import check_async
from heartlane.store.upgrade import HEAD, status_async, upgrade_async
from tests.e2e.database import new_token
from tests.e2e.fleet import all_go_on, assert_all_there, claim, client_of, make_reporters, make_runs, post
from tests.e2e.server_process import ROOT, ServerProcess, closing
from tests.upgrade.database import fetch
from tests.upgrade.next_version import REVISION


def version_before() -> str | None:
    """The commit before the one that brought the newest schema; None where the history isn't here."""
    found = subprocess.run(
        ["git", "log", "--format=%H", f'-SHEAD: Final = "{HEAD}"', "--", "heartlane/store/upgrade.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    commits = found.stdout.split()
    return f"{commits[-1]}~1" if found.returncode == 0 and commits else None


async def work_through_an_upgrade(old: ServerProcess, new: ServerProcess, revision: str) -> None:
    """Workers report to the old version's server without a break while the new one upgrades and starts; then both take
    part, and then the new one alone."""
    stopping = asyncio.Event()
    async with AsyncExitStack() as stack:
        token = await new_token(old.database)  # not by the command line, which is of one version alone
        client = await stack.enter_async_context(client_of(old.url, token))
        workers = await make_reporters(client, 6, random.Random(3))
        (early,) = await make_runs(client, 1)
        work = [asyncio.create_task(worker.report_until(stopping)) for worker in workers]
        await all_go_on(workers)
        await new.start_beside()
        (row,) = await fetch(new.database, "SELECT version_num FROM alembic_version")
        assert row["version_num"] == revision
        await all_go_on(workers)

        # Both do everything: each takes what the other made, and each tells of it.
        other = await stack.enter_async_context(client_of(new.url, token))
        (late,) = await make_runs(other, 1)
        assert (await claim(other, early, "of the new one"))["attempt"] == 1
        assert (await claim(client, late, "of the old one"))["attempt"] == 1
        await post(client, f"/api/agents/runs/{early}/events", worker_id="of the new one", events=[{"type": "action"}])
        await post(other, f"/api/agents/runs/{late}/events", worker_id="of the old one", events=[{"type": "action"}])
        assert (await client.get("/readyz")).status_code == 200

        # The old one ends; its workers go on at the new one.
        for worker in workers:
            worker.client = other
        await all_go_on(workers)
        assert await asyncio.to_thread(old.stop) == 0
        await all_go_on(workers)
        stopping.set()
        await asyncio.gather(*work)
        assert not [refusal.text for worker in workers for refusal in worker.refusals]
        await assert_all_there(other, workers)
    assert not old.log_lines("request_failed")
    assert not old.log_lines("batch_split")


async def test_this_version_goes_on_while_the_next_one_upgrades(postgres_database_url: str, tmp_path: Path) -> None:
    url = postgres_database_url
    old = ServerProcess(url, tmp_path, name="old")
    program = ("tests.upgrade.next_version", url, str(tmp_path), "serve")
    new = ServerProcess(url, tmp_path, name="new", program=program)
    with closing(old, new):
        await old.start_beside()
        await work_through_an_upgrade(old, new, REVISION)
        # One of this version that is started again meanwhile says what it sees, and works.
        assert (await status_async(url)).newer
        await old.start_beside()
        assert old.log_lines("schema_newer")
        assert (await upgrade_async(url)).newer


BEFORE = version_before()


@pytest.mark.slow
@pytest.mark.parametrize("commit", [] if BEFORE is None else [BEFORE])
async def test_the_version_before_goes_on_while_this_one_upgrades(
    commit: str, empty_database_url: str, tmp_path: Path
) -> None:
    if empty_database_url.startswith("sqlite:"):
        return  # one server at a time
    archive = await asyncio.to_thread(subprocess.check_output, ["git", "archive", commit], cwd=ROOT)
    root = tmp_path / "before"
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(root, filter="data")
    old = ServerProcess(empty_database_url, tmp_path, name="old", root=root)
    new = ServerProcess(empty_database_url, tmp_path, name="new")
    with closing(old, new):
        await old.start_beside()
        (row,) = await fetch(empty_database_url, "SELECT version_num FROM alembic_version")
        assert row["version_num"] < HEAD
        await work_through_an_upgrade(old, new, HEAD)
    assert [str(problem) for problem in (await check_async(empty_database_url)).problems] == []
