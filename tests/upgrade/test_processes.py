"""Upgrades that race, break off, or come to a database that isn't theirs: one migrates, and nothing is half done."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from sqlalchemy import make_url

from heartlane.store import upgrade as upgrading
from heartlane.store.errors import SchemaMismatch, StoreUnavailable
from heartlane.store.migrations import runner
from heartlane.store.upgrade import ADVISORY_LOCK, HEAD, Status, upgrade, upgrade_async
from tests.cli.command import ROOT, environment
from tests.store.fleet import eventually
from tests.upgrade import rows as history
from tests.upgrade.database import fetch, fill, is_sqlite, read, tables
from tests.upgrade.next_version import IN_THE_MIDDLE, REVISION, pretend

FILLED = history.rows_at(HEAD, runner.revisions())


def path_of(url: str) -> Path:
    """The file of a SQLite database."""
    return Path(make_url(url).database or "")


def files_beside(url: str) -> set[str]:
    """What stands beside a SQLite file, as far as it isn't SQLite's own."""
    path = path_of(url)
    return {each.name.removeprefix(path.name) for each in path.parent.iterdir() if each.name.startswith(path.name)} - {
        "",
        "-wal",
        "-shm",
    }


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python of its own that runs a module; killed at the end."""
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=30)


async def ended(child: subprocess.Popen[str]) -> str:
    """What a process has printed when it has ended well."""
    out, err = await asyncio.to_thread(child.communicate, None, 60)
    assert child.returncode == 0, err
    return out


async def revision_of(url: str) -> str:
    (row,) = await fetch(url, "SELECT version_num FROM alembic_version")
    version: str = row["version_num"]
    return version


# --- at once ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def lock_held(url: str) -> AsyncIterator[None]:
    """Hold the lock that an upgrade takes first."""
    if is_sqlite(url):
        with closing(sqlite3.connect(path_of(url), isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
        return
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
        yield
    finally:
        await connection.close()


async def wait_for_the_lock(url: str, children: list[subprocess.Popen[str]]) -> None:
    """Wait until every process stands before the lock."""
    path = str(path_of(url))

    async def all_wait() -> bool:
        if is_sqlite(url):
            return all(path in {each.path for each in psutil.Process(child.pid).open_files()} for child in children)
        waiting = "SELECT count(*) AS count FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        count: int = (await fetch(url, waiting))[0]["count"]
        return count >= len(children)

    await eventually(all_wait, 60)
    if is_sqlite(url):
        await asyncio.sleep(0.3)  # the file is open; what follows is a look at its tables, and then the lock


async def test_of_two_that_upgrade_at_once_one_migrates_and_both_succeed(empty_database_url: str) -> None:
    url = empty_database_url
    command = ("heartlane", "db", "upgrade", "--database", url)
    with process(*command) as first, process(*command) as second:
        async with lock_held(url):
            await wait_for_the_lock(url, [first, second])
        said = sorted([await ended(first), await ended(second)])
    assert len([line for line in said if line.startswith("Upgraded ")]) == 1
    assert len([line for line in said if f"has schema {HEAD} already" in line]) == 1
    assert await revision_of(url) == HEAD
    assert len(await read(url, "control")) == 1


async def test_two_at_once_on_a_database_with_data(empty_database_url: str, tmp_path: Path) -> None:
    url = empty_database_url
    await upgrade_async(url)
    await fill(url, FILLED)
    command = ("tests.upgrade.next_version", url, str(tmp_path))
    with process(*command) as first, process(*command) as second:
        async with lock_held(url):
            await wait_for_the_lock(url, [first, second])
        said = sorted([await ended(first), await ended(second)])
    assert said == [f"{HEAD} -> {REVISION}\n", f"{REVISION} -> nothing\n"]
    assert {row["colour"] for row in await read(url, "runs")} == {"blue"}
    if is_sqlite(url):
        await assert_copied(url)


# --- broken off ---------------------------------------------------------------------------------------------------


async def test_an_upgrade_that_is_killed_leaves_nothing_half_done(empty_database_url: str, tmp_path: Path) -> None:
    url = empty_database_url
    await upgrade_async(url)
    await fill(url, FILLED)
    before = {name: await read(url, name) for name in FILLED}
    with process("tests.upgrade.next_version", url, str(tmp_path), "stop") as child:
        assert child.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(child.stdout.readline), 60)
        assert line == f"{IN_THE_MIDDLE}\n"
        child.kill()
        child.wait(30)
    assert await revision_of(url) == HEAD
    assert {name: await read(url, name) for name in FILLED} == before
    assert "colours" not in await tables(url)
    # This version works on with it, and the next one does it all when it is started again.
    assert (await upgrade_async(url)).pending == []
    with process("tests.upgrade.next_version", url, str(tmp_path)) as child:
        assert await ended(child) == f"{HEAD} -> {REVISION}\n"
    assert {row["title"] for row in await read(url, "runs")} == {"changed"}
    if is_sqlite(url):
        await assert_copied(url)


async def test_a_revision_that_fails_is_undone_whole(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database_url
    await upgrade_async(url)
    await fill(url, FILLED)
    pretend(tmp_path, monkeypatch)
    script = next((tmp_path / "migrations" / "versions").glob(f"v{REVISION}*"))
    script.write_text(script.read_text("utf-8") + '    op.execute("INSERT INTO nowhere VALUES (1)")\n', "utf-8")
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await upgrade_async(url)
    assert await revision_of(url) == HEAD
    assert "colour" not in (await read(url, "runs"))[0]
    assert "colours" not in await tables(url)


# --- the copy that SQLite gets ------------------------------------------------------------------------------------


async def assert_copied(url: str) -> None:
    """Beside the file stands one copy of it, whole, as it was before the upgrade."""
    assert files_beside(url) == {f".before-upgrade-from-{HEAD}"}
    copy = f"{url}.before-upgrade-from-{HEAD}"
    assert await revision_of(copy) == HEAD
    for table, rows in FILLED.items():
        assert len(await read(copy, table)) == len(rows)
    assert {row["title"] for row in await read(copy, "runs")} == {row["title"] for row in FILLED["runs"]}
    assert (await fetch(copy, "PRAGMA integrity_check"))[0]["integrity_check"] == "ok"


@pytest.fixture
async def filled(tmp_path: Path) -> str:
    """A SQLite database with rows in it."""
    folder = tmp_path / "database"
    folder.mkdir()
    url = f"sqlite:///{folder / 'heartlane.db'}"
    await upgrade_async(url)
    await fill(url, FILLED)
    return url


async def test_a_file_with_data_is_copied_aside_first(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path_of(filled).chmod(0o640)
    pretend(tmp_path, monkeypatch)
    await upgrade_async(filled)
    await assert_copied(filled)
    # It holds the same secrets as the file.
    assert path_of(f"{filled}.before-upgrade-from-{HEAD}").stat().st_mode & 0o777 == 0o640


async def test_a_new_file_is_not(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'heartlane.db'}"
    await upgrade_async(url)
    assert files_beside(url) == set()


async def test_what_was_written_just_now_is_in_the_copy(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last commits may stand in the write-ahead log alone."""
    with closing(sqlite3.connect(path_of(filled), isolation_level=None)) as open_still:
        open_still.execute("PRAGMA journal_mode = WAL")
        open_still.execute("UPDATE projects SET name = 'late'")
        pretend(tmp_path, monkeypatch)
        await upgrade_async(filled)
    (project,) = await read(f"{filled}.before-upgrade-from-{HEAD}", "projects")
    assert project["name"] == "late"


async def test_a_copy_is_never_made_of_what_another_process_has_upgraded(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch)
    await upgrade_async(filled)
    # A second process had looked before the first one began, and goes on now.
    looked = upgrading.status_async

    async def looked_before(url: str) -> Status:
        return Status(HEAD, REVISION, [REVISION])

    monkeypatch.setattr(upgrading, "status_async", looked_before)
    assert (await upgrade_async(filled)).pending == []
    monkeypatch.setattr(upgrading, "status_async", looked)
    await assert_copied(filled)


async def test_no_copy_no_upgrade(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that can't be made whole isn't left there under its name, and what it was for isn't begun."""
    pretend(tmp_path, monkeypatch)
    in_the_way = path_of(f"{filled}.before-upgrade-from-{HEAD}.part")
    in_the_way.mkdir()
    with pytest.raises(StoreUnavailable, match="could not be copied"):
        await upgrade_async(filled)
    assert await revision_of(filled) == HEAD
    in_the_way.rmdir()
    assert files_beside(filled) == set()
    await upgrade_async(filled)
    await assert_copied(filled)


async def test_the_rest_of_a_copy_that_was_broken_off_is_in_nobodys_way(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch)
    path_of(f"{filled}.before-upgrade-from-{HEAD}.part").write_bytes(os.urandom(5_000))
    await upgrade_async(filled)
    await assert_copied(filled)


# --- not ours -----------------------------------------------------------------------------------------------------


async def test_a_newer_schema_is_refused_and_left_alone(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database_url
    with monkeypatch.context() as next_version:
        pretend(tmp_path, next_version)
        next_version.setattr(upgrading, "OLDEST", REVISION)
        await upgrade_async(url)
    with pytest.raises(SchemaMismatch, match=REVISION):
        await upgrade_async(url)
    assert await revision_of(url) == REVISION
    assert "colours" in await tables(url)


async def test_one_that_a_newer_version_upgrades_meanwhile_is_refused_too(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database_url
    with monkeypatch.context() as next_version:
        pretend(tmp_path, next_version)
        next_version.setattr(upgrading, "OLDEST", REVISION)
        await upgrade_async(url)

    async def looked_before(url: str) -> Status:
        return Status(None, HEAD, [HEAD])

    monkeypatch.setattr(upgrading, "status_async", looked_before)
    with pytest.raises(SchemaMismatch, match=REVISION):
        await upgrade_async(url)
    assert await revision_of(url) == REVISION


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE runs (id INTEGER)"],
        ["CREATE TABLE tokens (id INTEGER)", "CREATE TABLE users (id INTEGER)"],
        ["CREATE TABLE events (id INTEGER)", "CREATE TABLE alembic_version (version_num VARCHAR(32))"],
        ["CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('ab12cd34ef56')"],
    ],
    ids=["a table of that name", "another one", "without a revision", "a revision of its own"],
)
async def test_another_programs_database_is_refused_and_left_alone(
    empty_database_url: str, statements: list[str]
) -> None:
    url = empty_database_url
    for statement in statements:
        await fetch(url, statement)
    before = await tables(url)
    with pytest.raises(SchemaMismatch):
        await upgrade_async(url)
    assert await tables(url) == before


def test_a_database_that_cant_be_reached_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        upgrade("postgresql://nobody@127.0.0.1:1/nothing")
    (tmp_path / "no.db").write_bytes(b"this is no database, but a text that is long enough to be taken for one" * 20)
    with pytest.raises(StoreUnavailable):
        upgrade(f"sqlite:///{tmp_path / 'no.db'}")
