"""Backups and restores as people do them: through the command line, beside a server that is busy."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextlib import closing as ended
from pathlib import Path

import pytest

from heartlane.server.vault import Vault
from heartlane.store.store import sqlite_path
from tests.e2e.database import new_token, read_without_server
from tests.e2e.fleet import Reporter, assert_unavailable, client_of, make_reporters, make_runs, read_events, read_run
from tests.e2e.server_process import ServerProcess, closing, command, until


@pytest.fixture
async def served(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server on a SQLite file of its own."""
    path = tmp_path / "heartlane.db"
    await asyncio.to_thread(path.write_bytes, await asyncio.to_thread(sqlite_template.read_bytes))
    server = ServerProcess(f"sqlite:///{path}", tmp_path)
    with closing(server):
        await server.start_beside()
        yield server


@asynccontextmanager
async def busy(server: ServerProcess, workers: int = 8) -> AsyncIterator[list[Reporter]]:
    """Workers that report one after the other, until the block ends."""
    async with client_of(server.url, await new_token(server.database)) as client:
        reporters = await make_reporters(client, workers, random.Random(7))
        stopping = asyncio.Event()
        tasks = [asyncio.create_task(reporter.report_until(stopping)) for reporter in reporters]
        yield reporters
        stopping.set()
        await asyncio.gather(*tasks)


async def db(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`heartlane db ARGUMENTS…` on the server's database."""
    verb, *rest = arguments
    return await asyncio.to_thread(
        command, "db", verb, *rest, "--database", server.database, home=server.home, timeout=120
    )


def files_in(folder: Path) -> set[str]:
    """Names of what stands in a folder."""
    return {each.name for each in folder.iterdir()}


async def test_a_backup_under_load_holds_all_that_was_answered_before(served: ServerProcess, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "one.db"
    await asyncio.to_thread(target.parent.mkdir)
    async with busy(served) as reporters:
        await until(lambda: all(len(each.acknowledged) > 20 for each in reporters), "events of everybody", 60)
        before = [(each.run_id, list(each.acknowledged)) for each in reporters]
        made = await db(served, "backup", str(target), "--json")
        assert made.returncode == 0, made.stderr
        said = json.loads(made.stdout)
        after = [len(each.acknowledged) for each in reporters]
        assert all(count > len(marks) for count, (_, marks) in zip(after, before, strict=True)), "nobody was held up"
        assert not any(each.refusals for each in reporters)
    assert said["checked"]["runs"] == len(reporters)
    assert await asyncio.to_thread(files_in, target.parent) == {"one.db"}
    assert (await asyncio.to_thread(target.stat)).st_mode & 0o777 == 0o600
    async with read_without_server(f"sqlite:///{target}") as reader:
        for run_id, marks in before:
            there = [each["payload"]["mark"] for each in await read_events(reader, run_id, type="action")]
            assert there[: len(marks)] == marks
            assert (await read_run(reader, run_id))["state"] == "running"

    again = await db(served, "backup", str(target))
    assert (again.returncode, again.stdout) == (2, "")
    assert "--force" in again.stderr
    assert (await db(served, "backup", str(target), "--force")).returncode == 0


async def test_a_restore_brings_the_backup_back_and_keeps_what_was_there(served: ServerProcess, tmp_path: Path) -> None:
    path, target = sqlite_path(served.database), tmp_path / "copy.db"
    key = path.with_name(f"{path.name}.key")
    sealed = Vault((), key).seal("a secret")
    async with client_of(served.url, await new_token(served.database)) as client:
        early = await make_runs(client, 3)
        made = await db(served, "backup", str(target), "--with-key")
        assert made.returncode == 0, made.stderr
        late = await make_runs(client, 2)
    refused = await db(served, "restore", str(target))
    assert (refused.returncode, refused.stdout) == (51, "")
    assert "Stop it" in refused.stderr
    assert await asyncio.to_thread(served.stop) == 0

    await asyncio.to_thread(key.unlink)
    done = await db(served, "restore", str(target), "--json")
    assert done.returncode == 0, done.stderr
    aside = json.loads(done.stdout)["aside"]
    async with read_without_server(served.database) as reader:
        assert (await read_run(reader, early[0]))["state"] == "queued"
        assert (await reader.get(f"/api/agents/runs/{late[0]}")).status_code == 404
    async with read_without_server(f"sqlite:///{aside}") as reader:
        assert (await read_run(reader, late[0]))["state"] == "queued"
    assert Vault((), key).open(sealed) == "a secret"
    await served.start_beside()


def spoil(path: Path, table: str) -> None:
    """Overwrite the first page of a table, as a failing disk does."""
    with ended(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\x5a" * size)


async def test_a_damaged_page_is_never_served(served: ServerProcess, tmp_path: Path) -> None:
    path, target = sqlite_path(served.database), tmp_path / "copy.db"
    token = await new_token(served.database)
    async with client_of(served.url, token) as client:
        (run_id,) = await make_runs(client, 1)
        assert (await db(served, "backup", str(target))).returncode == 0
    assert await asyncio.to_thread(served.stop) == 0
    await asyncio.to_thread(spoil, path, "plans")

    await served.start_beside()
    async with client_of(served.url, token) as client:
        assert (await client.get("/readyz")).status_code == 200
        plan_id = (await read_run(client, run_id))["plan_id"]
        answer = await client.get(f"/api/agents/plans/{plan_id}")
        assert_unavailable(answer)
        assert "damaged" in answer.json()["error"]
        # From then on nothing that the file says is relied on.
        for later in (
            await client.get(f"/api/agents/runs/{run_id}"),
            await client.post(f"/api/agents/runs/{run_id}/claim", json={"worker_id": "w"}),
            await client.get("/readyz"),
        ):
            assert_unavailable(later)
        assert (await client.get("/healthz")).status_code == 200
    (line,) = served.log_lines("database_damaged")
    assert line["level"] == "error"
    assert not served.log_lines("request_failed")

    found = await db(served, "check", "--json")
    assert found.returncode == 50, found
    assert {each["kind"] for each in json.loads(found.stdout)["problems"]} == {"page"}
    kept = await db(served, "backup", str(tmp_path / "bad.db"))
    assert kept.returncode == 50, kept
    assert not await asyncio.to_thread((tmp_path / "bad.db").exists)

    assert await asyncio.to_thread(served.stop) == 0
    assert (await db(served, "restore", str(target))).returncode == 0
    await served.start_beside()
    async with client_of(served.url, token) as client:
        assert (await client.get(f"/api/agents/plans/{plan_id}")).status_code == 200
        assert (await db(served, "check")).returncode == 0
