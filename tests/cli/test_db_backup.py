"""What `heartlane db backup` and `heartlane db restore` refuse, and that they leave nothing behind then."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url

from heartlane.store import tokens
from tests.cli.command import Ended, assert_one_line, here
from tests.conftest import run_sql
from tests.docs.transcripts import programs_of_postgresql
from tests.e2e.database import new_token, opened


def test_what_is_no_sound_backup_replaces_nothing(sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / "heartlane.db"
    before = sqlite_template.read_bytes()
    path.write_bytes(before)
    damaged, foreign, text = (tmp_path / name for name in ("damaged.db", "foreign.db", "text.db"))
    damaged.write_bytes(before[: len(before) // 2] + bytes(len(before) // 2))
    text.write_text("hello\n" * 1000)
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
    for file, code in ((damaged, 50), (text, 50), (foreign, 2), (tmp_path / "none.db", 2), (path, 2)):
        assert_one_line(here("db", "restore", str(file), HEARTLANE_DATABASE=f"sqlite:///{path}"), code)
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} - {"heartlane.db", "heartlane.db.lock"} == {
        *("damaged.db", "foreign.db", "text.db")
    }


def test_a_backup_goes_nowhere_that_is_wrong(sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / "heartlane.db"
    path.write_bytes(sqlite_template.read_bytes())
    there = tmp_path / "there.db"
    there.write_text("mine")
    database = f"sqlite:///{path}"
    assert "--force" in assert_one_line(here("db", "backup", str(there), HEARTLANE_DATABASE=database), 2)
    assert there.read_text() == "mine"
    for target in (path, tmp_path / "no" / "such.db"):
        assert_one_line(here("db", "backup", str(target), "--force", HEARTLANE_DATABASE=database), 2)
    none = f"sqlite:///{tmp_path}/none.db"
    assert_one_line(here("db", "backup", str(tmp_path / "copy.db"), HEARTLANE_DATABASE=none), 2)
    assert not (tmp_path / "copy.db").exists()


def test_the_key_to_its_secrets_comes_along_only_where_that_is_asked_for(sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / "heartlane.db"
    path.write_bytes(sqlite_template.read_bytes())
    key = tmp_path / "heartlane.db.key"
    key.write_text("the key")
    database = f"sqlite:///{path}"
    without = here("db", "backup", str(tmp_path / "one.db"), HEARTLANE_DATABASE=database)
    assert (without.code, "--with-key" in without.err) == (0, True)
    assert not (tmp_path / "one.db.key").exists()
    with_it = here("db", "backup", str(tmp_path / "two.db"), "--with-key", HEARTLANE_DATABASE=database)
    assert with_it.code == 0
    copied = tmp_path / "two.db.key"
    assert (copied.read_text(), copied.stat().st_mode & 0o777) == ("the key", 0o600)

    # Another key that is in use by then is kept when the backup's own is put in its place.
    key.write_text("another key")
    done = here("db", "restore", str(tmp_path / "two.db"), HEARTLANE_DATABASE=database)
    assert done.code == 0, done
    assert key.read_text() == "the key"
    (aside,) = tmp_path.glob("heartlane.db.key.before-restore-*")
    assert aside.read_text() == "another key"


def test_postgresql_without_its_tools_says_what_to_run(postgres_database_url: str, tmp_path: Path) -> None:
    database = postgres_database_url.replace("postgres:@", "postgres:s3cret-word@")
    line = assert_one_line(
        here("db", "backup", str(tmp_path / "x.dump"), HEARTLANE_DATABASE=database, PATH=str(tmp_path)), 1
    )
    assert "pg_dump --format=custom" in line
    assert str(tmp_path / "x.dump") in line
    assert "s3cret" not in line
    assert list(tmp_path.iterdir()) == []


async def test_postgresql_is_dumped_and_restored_by_its_own_tools(
    postgres_database_url: str, postgres_url: str, tmp_path: Path
) -> None:
    name, dump = f"restored_{os.getpid()}", str(tmp_path / "copy.dump")
    restored = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    path = os.pathsep.join(filter(None, [str(programs_of_postgresql()), os.environ["PATH"]]))

    async def db(verb: str, database: str) -> Ended:
        return await asyncio.to_thread(here, "db", verb, dump, HEARTLANE_DATABASE=database, PATH=path)

    token = await new_token(postgres_database_url)
    made = await db("backup", postgres_database_url)
    assert made.code == 0, made
    assert (await asyncio.to_thread(Path(dump).stat)).st_mode & 0o777 == 0o600
    # Beside a server nothing is put in place; nor where there is something already.
    async with opened(postgres_database_url):
        assert_one_line(await db("restore", postgres_database_url), 51)
    assert_one_line(await db("restore", postgres_database_url), 2)

    await asyncio.to_thread(run_sql, postgres_url, f"CREATE DATABASE {name}")
    try:
        done = await db("restore", restored)
        assert done.code == 0, done
        async with opened(restored) as store:
            assert await tokens.find_by_secret(store, token) is not None
    finally:
        await asyncio.to_thread(run_sql, postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
