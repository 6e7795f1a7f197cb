"""`heartlane token` as a process of its own, on a database of each engine."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heartlane.cli.errors import CommandError
from heartlane.cli.token import parse_lifetime
from heartlane.server.auth import Authenticator
from heartlane.server.errors import ApiError
from heartlane.store.ids import new_id
from heartlane.store.schema import projects
from heartlane.store.store import Store
from heartlane.store.tokens import account_named, is_well_formed
from tests.cli.command import Ended, assert_one_line, heartlane, here


def make(database: str, *arguments: str) -> str:
    """The secret of a new token, which stands alone on stdout."""
    return secret_of(heartlane("token", *arguments, HEARTLANE_DATABASE=database))


def secret_of(ended: Ended) -> str:
    assert ended.code == 0, ended
    (line,) = ended.out.splitlines()
    assert is_well_formed(line)
    assert line not in ended.err
    return line


def listed(database: str, *arguments: str) -> list[dict[str, Any]]:
    ended = here("token", "list", "--json", *arguments, HEARTLANE_DATABASE=database)
    assert ended.code == 0, ended
    rows: list[dict[str, Any]] = json.loads(ended.out)["tokens"]
    return rows


def verdict(database: str, secret: str) -> str:
    """The scope of the token, or the code of its refusal, as a server on the database sees it."""

    async def ask() -> str:
        store = await Store.open(database)
        authenticator = Authenticator(store)
        try:
            return (await authenticator.authenticate(f"Bearer {secret}".encode(), "192.0.2.1")).scope
        except ApiError as error:
            return error.code
        finally:
            await authenticator.close()
            await store.close()

    return asyncio.run(ask())


def project_of(database: str, account: str) -> str:
    """A new project of the account."""

    async def insert() -> str:
        store = await Store.open(database)
        try:
            account_id = await account_named(store, account)
            async with store.writing() as tx:
                row = {"id": new_id(), "billing_account_id": account_id, "name": "P", "max_failures": 5}
                row |= {"stalled_after_seconds": 900, "created_at": tx.now, "updated_at": tx.now}
                await tx.conn.execute(projects.insert().values(row))
            return str(row["id"])
        finally:
            await store.close()

    return asyncio.run(insert())


def test_the_life_of_a_token(database_url: str) -> None:
    first = make(database_url, "create", "ci runner", "--scope", "worker", "--expires", "90d")
    assert verdict(database_url, first) == "worker"
    (row,) = listed(database_url)
    assert {"name": "ci runner", "scope": "worker", "account": "default", "state": "active"}.items() <= row.items()
    assert first.startswith(row["hint"])
    assert first not in json.dumps(row)
    expires = datetime.fromisoformat(row["expires_at"])
    assert abs(expires - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=2)

    second = secret_of(heartlane("token", "rotate", "ci runner", "--database", database_url))
    assert second != first
    assert (verdict(database_url, first), verdict(database_url, second)) == ("TOKEN_REVOKED", "worker")

    (row,) = listed(database_url)
    ended = heartlane("token", "revoke", row["id"], HEARTLANE_DATABASE=database_url)
    assert (ended.code, ended.out) == (0, "")
    assert verdict(database_url, second) == "TOKEN_REVOKED"
    assert listed(database_url) == []
    assert [row["state"] for row in listed(database_url, "--all")] == ["revoked", "revoked"]

    for verb in ("revoke", "rotate"):
        again = here("token", verb, "ci runner", HEARTLANE_DATABASE=database_url)
        assert "revoked already" in assert_one_line(again, 2)


def test_programs_get_a_token_as_json(database_url: str) -> None:
    def ask(*arguments: str) -> dict[str, Any]:
        ended = here("token", *arguments, "--json", HEARTLANE_DATABASE=database_url)
        assert (ended.code, ended.err) == (0, "")
        token: dict[str, Any] = json.loads(ended.out)["token"]
        return token

    made = ask("create", "ci", "--scope", "worker")
    assert (made["name"], made["state"]) == ("ci", "active")
    assert verdict(database_url, made["secret"]) == "worker"
    again = ask("rotate", "ci")
    assert again["id"] != made["id"]
    assert verdict(database_url, again["secret"]) == "worker"
    revoked = ask("revoke", "ci")
    assert (revoked["id"], revoked["state"], "secret" in revoked) == (again["id"], "revoked", False)


def test_a_token_of_one_project_and_its_account(database_url: str) -> None:
    project = project_of(database_url, "acme")
    make(database_url, "create", "lane", "--scope", "viewer", "--project", project)
    (row,) = listed(database_url)
    assert (row["project_id"], row["account"], row["expires_at"]) == (project, "acme", None)
    arguments = ["token", "create", "x", "--scope", "viewer", "--project", project, "--account", "other"]
    assert "no project" in assert_one_line(here(*arguments, HEARTLANE_DATABASE=database_url), 2)
    table = here("token", "list", "--account", "acme", HEARTLANE_DATABASE=database_url)
    assert table.code == 0
    header, line = table.out.splitlines()
    assert header.split()[:3] == ["id", "name", "scope"]
    assert project in line
    assert listed(database_url, "--account", "other") == []


def test_the_first_token_sets_up_an_empty_database(empty_database_url: str) -> None:
    before = here("token", "list", HEARTLANE_DATABASE=empty_database_url)
    assert "no token" in assert_one_line(before, 1)
    secret = make(empty_database_url, "create", "first", "--scope", "admin", "--account", "acme")
    assert verdict(empty_database_url, secret) == "admin"


@pytest.mark.skipif(sys.platform == "darwin", reason="the data folder follows XDG_DATA_HOME on other systems")
def test_without_a_database_it_is_a_file_of_this_user_alone(tmp_path: Path) -> None:
    ended = heartlane("token", "create", "first", "--scope", "admin", XDG_DATA_HOME=str(tmp_path / "data"))
    secret_of(ended)
    assert stat.S_IMODE((tmp_path / "data" / "heartlane").stat().st_mode) == 0o700
    assert (tmp_path / "data" / "heartlane" / "heartlane.sqlite3").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "x", "--scope", "root"], "viewer, worker, operator, admin"),
        (["create", "x", "--scope", "worker", "--expires", "soon"], "such as 15m or 90d"),
        (["create", "x", "--scope", "worker", "--expires", "0s"], "at least 1 second"),
        (["create", "x", "--scope", "worker", "--expires", "999999999w"], "at most"),
        (["create", "", "--scope", "worker"], "name of a token"),
        (["create", "x", "--scope", "worker", "--project", "nope"], "no project 'nope'"),
        (["create", "x", "--scope", "worker", "--database", "mysql://me:s3cret@h/x"], "--database must begin"),
    ],
)
def test_wrong_input_is_one_line_and_prints_no_token(
    arguments: list[str],
    said: str,
    tmp_path: Path,
) -> None:
    line = assert_one_line(here("token", *arguments, HEARTLANE_DATABASE=f"sqlite:///{tmp_path}/x.db"), 2)
    assert said in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    "database",
    ["postgresql://me:s3cret-word@127.0.0.1:1/x", "postgresql:///x?host=/nowhere&password=s3cret-word&user=me"],
)
def test_a_database_that_is_away_is_one_line(database: str) -> None:
    ended = heartlane("token", "list", HEARTLANE_DATABASE=database)
    assert "s3cret" not in assert_one_line(ended, 1)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is no database, though it is long enough to be looked at as one " * 20)
    ended = here("token", "list", HEARTLANE_DATABASE=f"sqlite:///{tmp_path}/x.db")
    assert "damaged" in assert_one_line(ended, 50)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("never", None),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("12h", timedelta(hours=12)),
        ("90d", timedelta(days=90)),
        (" 4W ", timedelta(weeks=4)),
    ],
)
def test_lifetimes_are_read(text: str | None, expected: timedelta | None) -> None:
    assert parse_lifetime(text) == expected


@pytest.mark.parametrize("text", ["", "90", "d", "1.5d", "-1d", "90 days", "1y", "9" * 30 + "d", "٣d"])
def test_what_is_no_lifetime_is_refused(text: str) -> None:
    with pytest.raises(CommandError):
        parse_lifetime(text)
