"""`heartlane db` as a process of its own, on a database of each engine."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from heartlane.store.upgrade import HEAD
from tests.cli.command import assert_one_line, heartlane, here


def test_from_nothing_to_the_newest_schema(empty_database_url: str) -> None:
    status = here("db", "status", HEARTLANE_DATABASE=empty_database_url)
    assert status.code == 0, status
    assert "schema:   none" in status.out
    check = here("db", "check", HEARTLANE_DATABASE=empty_database_url)
    assert (check.code, check.err) == (1, "")
    assert "heartlane db upgrade" in check.out

    upgrade = heartlane("db", "upgrade", "--database", empty_database_url)
    assert upgrade.code == 0, upgrade
    assert f"to {HEAD}" in upgrade.out
    assert "already" in here("db", "upgrade", HEARTLANE_DATABASE=empty_database_url).out

    status = here("db", "status", HEARTLANE_DATABASE=empty_database_url)
    assert f"schema:   {HEAD}" in status.out
    assert "pending:  nothing" in status.out
    assert here("db", "check", HEARTLANE_DATABASE=empty_database_url).code == 0


def test_looking_at_a_database_that_isnt_there_makes_none(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/none.db"
    assert here("db", "status", HEARTLANE_DATABASE=database).code == 0
    assert here("db", "check", HEARTLANE_DATABASE=database).code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_schema_is_found(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/x.db"
    assert here("db", "upgrade", HEARTLANE_DATABASE=database).code == 0
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("DROP TABLE run_blockers")
    connection.close()
    check = here("db", "check", HEARTLANE_DATABASE=database)
    assert check.code == 50
    assert "run_blockers" in check.out


def test_a_foreign_or_newer_database_is_left_alone(tmp_path: Path) -> None:
    for name, statements in {
        "foreign": ["CREATE TABLE runs (id INTEGER)"],
        "newer": [
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('9999')",
        ],
    }.items():
        path = tmp_path / f"{name}.db"
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        before = path.read_bytes()
        assert_one_line(here("db", "upgrade", HEARTLANE_DATABASE=f"sqlite:///{path}"), 1)
        assert path.read_bytes() == before


def test_a_folder_that_isnt_there_is_one_line(tmp_path: Path) -> None:
    line = assert_one_line(here("db", "upgrade", "--database", f"sqlite:///{tmp_path}/none/x.db"), 2)
    assert "does not exist" in line


def test_the_password_is_in_nothing_that_is_said() -> None:
    database = "postgresql://me:s3cret-word@127.0.0.1:1/x"
    for verb in ("status", "check", "upgrade"):
        assert "s3cret" not in assert_one_line(heartlane("db", verb, HEARTLANE_DATABASE=database), 1)
