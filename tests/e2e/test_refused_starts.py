"""Servers that can't start say so in one clear line, end with a code, and leave everything as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from tests.e2e.server_process import ServerProcess, closing, command, free_port


def refused(database: str, folder: Path, *flags: str, code: int) -> str:
    """The one line of a server that doesn't start, without its beginning."""
    ended = command("serve", "--database", database, "--port", str(free_port()), *flags, home=folder / "home")
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("heartlane: ")
    return line.removeprefix("heartlane: ")


def test_a_second_server_on_one_sqlite_file_refuses_to_start(sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / "heartlane.db"
    shutil.copyfile(sqlite_template, path)
    linked = tmp_path / "linked.db"
    linked.symlink_to(path)
    server = ServerProcess(f"sqlite:///{path}", tmp_path)
    with closing(server):
        server.start()
        line = refused(f"sqlite:///{path}", tmp_path, code=1)
        assert line == f"Another server runs on {path}. A SQLite database takes one; use PostgreSQL for several."
        # The same file by another name is the same file.
        assert "Another server runs on" in refused(f"sqlite:///{linked}", tmp_path, code=1)
        assert httpx.get(f"{server.url}/readyz", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("database", "code", "said"),
    [
        ("sqlite:///{folder}/missing/heartlane.db", 2, "the folder of the database, {folder}/missing, does not exist"),
        ("sqlite:///{folder}/notes.txt", 1, "file is not a database"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path, database: str, code: int, said: str) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("Not a database at all.\n" * 100)
    line = refused(database.format(folder=tmp_path), tmp_path, code=code)
    assert said.format(folder=tmp_path) in line
    assert notes.read_text() == "Not a database at all.\n" * 100
    assert not (tmp_path / "missing").exists()
