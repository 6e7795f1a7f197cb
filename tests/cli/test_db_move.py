"""`heartlane db move`: everything arrives as it was, and a move that can't be whole has done nothing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, make_url

from heartlane.store import move as moving
from heartlane.store.migrations import runner
from heartlane.store.move import NotMoved, move_async
from heartlane.store.tables import all_tables
from heartlane.store.upgrade import HEAD
from tests.cli.command import assert_one_line, here
from tests.conftest import run_sql
from tests.e2e.database import opened
from tests.store.fleet import Fleet
from tests.upgrade.database import fetch, fill, read
from tests.upgrade.rows import rows_at

ROWS = rows_at(HEAD, runner.revisions())


@pytest.fixture
def empty_postgres(postgres_url: str) -> Iterator[str]:
    """A PostgreSQL database without a schema."""
    name = f"moved_{os.getpid()}"
    run_sql(postgres_url, f"CREATE DATABASE {name}")
    yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    run_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def full_sqlite(sqlite_template: Path, tmp_path: Path) -> str:
    """A SQLite database with rows in every table."""
    path = tmp_path / "heartlane.db"
    path.write_bytes(sqlite_template.read_bytes())
    url = f"sqlite:///{path}"
    asyncio.run(fill(url, ROWS))
    return url


def by_items(row: dict[str, Any]) -> list[str]:
    return sorted(map(str, row.items()))


def test_there_and_back_again_everything_is_as_it_was(full_sqlite: str, empty_postgres: str, tmp_path: Path) -> None:
    done = here("db", "move", full_sqlite, empty_postgres, "--json")
    assert done.code == 0, done
    there = json.loads(done.out)["tables"]
    assert {each["table"] for each in there} == {table.name for table in all_tables()}
    for name, rows in ROWS.items():
        assert next(each["rows"] for each in there if each["table"] == name) == len(rows)
        on_postgres = [{k: v for k, v in row.items() if k != "xid"} for row in asyncio.run(read(empty_postgres, name))]
        on_sqlite = asyncio.run(read(full_sqlite, name))
        assert sorted(on_postgres, key=by_items) == sorted(on_sqlite, key=by_items), name

    back = here("db", "move", empty_postgres, f"sqlite:///{tmp_path}/back.db", "--json")
    assert back.code == 0, back
    assert json.loads(back.out)["tables"] == there
    assert (tmp_path / "back.db").stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.part*"))


def test_the_new_database_can_be_worked_on(full_sqlite: str, empty_postgres: str) -> None:
    assert here("db", "move", full_sqlite, empty_postgres).code == 0

    async def work() -> None:
        async with opened(empty_postgres) as store:
            fleet = await Fleet.found(store)
            (run,) = await fleet.lanes(1)
            assert run.number > max(row["number"] for row in ROWS["runs"])
            strays = await fetch(empty_postgres, "SELECT count(*) AS count FROM events_rest")
            assert strays[0]["count"] == 0

    asyncio.run(work())


def test_what_a_move_refuses(full_sqlite: str, empty_postgres: str, postgres_database_url: str, tmp_path: Path) -> None:
    assert_one_line(here("db", "move", full_sqlite, full_sqlite), 2)
    assert "empty" in assert_one_line(here("db", "move", full_sqlite, postgres_database_url), 1)
    assert "there already" in assert_one_line(here("db", "move", postgres_database_url, full_sqlite), 1)
    assert "upgrade" in assert_one_line(here("db", "move", f"sqlite:///{tmp_path}/none.db", empty_postgres), 1)

    async def beside_a_server() -> None:
        async with opened(postgres_database_url):
            target = f"sqlite:///{tmp_path}/beside.db"
            assert_one_line(await asyncio.to_thread(here, "db", "move", postgres_database_url, target), 51)

    asyncio.run(beside_a_server())
    assert not (tmp_path / "beside.db").exists()


async def test_a_difference_undoes_the_whole_move(
    full_sqlite: str, empty_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove = moving._prove

    async def after_a_change(new: object, moved: object) -> None:
        table = next(each for each in all_tables() if each.name == "accounts")
        row = {
            "id": "019ac000-0000-7000-8000-000000009999",
            "name": "x",
            "created_at": ROWS["accounts"][0]["created_at"],
        }
        await new.execute(insert(table), [row])  # type: ignore[attr-defined]
        await prove(new, moved)  # type: ignore[arg-type]

    monkeypatch.setattr(moving, "_prove", after_a_change)
    with pytest.raises(NotMoved, match="accounts"):
        await move_async(full_sqlite, empty_postgres)
    assert await fetch(empty_postgres, "SELECT relname FROM pg_class WHERE relname = 'runs'") == []
    monkeypatch.setattr(moving, "_prove", prove)
    assert await move_async(full_sqlite, empty_postgres)
