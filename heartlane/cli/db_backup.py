"""`heartlane db backup` and `heartlane db restore`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from heartlane.cli.db_options import Database
from heartlane.cli.errors import UNUSABLE, WRONG_INPUT, CommandError
from heartlane.cli.output import AsJson

Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the backup goes.", show_default=False)],
    database: Database = None,
    *,
    force: Force = False,
    with_key: Annotated[
        bool,
        typer.Option("--with-key", help="Also copy the key that webhooks' secrets are sealed with, to FILE.key."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a copy of the database while it is served, check it whole, and only then give it its name.

    SQLite: one file that only this user may read, taken out of one snapshot without holding up anybody. PostgreSQL:
    runs pg_dump where it is installed, and says what to run where it isn't.

    The key that webhooks' secrets are sealed with stands in a file of its own beside a SQLite database, so that a
    backup alone tells nothing; keep a copy of it elsewhere, or add --with-key.
    """
    from heartlane.server.settings import load_database
    from heartlane.store.backup import BackupRefused, back_up

    url = load_database(database)
    path = file.absolute()
    if not path.parent.is_dir():
        raise CommandError(f"There is no folder {path.parent}.")
    if url.path is None:
        _dump(url.reveal(), path, force=force, as_json=as_json)
        return
    try:
        taken = back_up(url.path, path, force=force, with_key=with_key)
    except BackupRefused as error:
        raise CommandError(str(error), WRONG_INPUT) from error
    key = url.path.with_name(f"{url.path.name}.key")
    said = {"file": str(path), "bytes": taken.size, "seconds": round(taken.seconds, 3), "schema": taken.checked.schema}
    checked = {"runs": taken.checked.runs, "events": taken.checked.events}
    if as_json:
        print(json.dumps({**said, "checked": checked, "key": None if taken.key is None else str(taken.key)}))
    else:
        print(f"Backed up to {path} ({_size(taken.size)}) in {taken.seconds:.1f} s.")
        print(f"Checked: no problem in {checked['runs']} runs and {checked['events']} events.")
    if taken.key is not None:
        _note(f"The key to its sealed secrets is in {taken.key}: keep it as safe as a password.")
    elif key.exists():
        _note(f"The key to its sealed secrets is not in it: keep a copy of {key}, or add --with-key.")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    database: Database = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of the database. Refused while a server runs on it.

    The backup is copied and checked before anything is touched, and the database that was there is kept beside it as
    `<database>.before-restore-<time>`. A key in FILE.key is put in place, too. PostgreSQL: runs pg_restore into the
    database, which has to be empty.
    """
    from heartlane.server.settings import load_database
    from heartlane.store.backup import BackupRefused
    from heartlane.store.backup import restore as restore_file

    url = load_database(database)
    if url.path is None:
        _restore_dump(url.reveal(), file, as_json=as_json)
        return
    url.prepare_folder()
    try:
        done = restore_file(url.path, file.absolute())
    except BackupRefused as error:
        raise CommandError(str(error), WRONG_INPUT) from error
    if as_json:
        files = {"aside": done.aside, "key": done.key, "key_aside": done.key_aside}
        shown = {name: None if each is None else str(each) for name, each in files.items()}
        checked = {"runs": done.checked.runs, "events": done.checked.events}
        print(json.dumps({"database": str(url), "schema": done.checked.schema, "checked": checked, **shown}))
        return
    print(f"Restored {url} from {file} (schema {done.checked.schema}).")
    if done.aside is not None:
        print(f"The database that was there is {done.aside}.")
    if done.key is not None:
        aside = "" if done.key_aside is None else f" The one that was there is {done.key_aside}."
        print(f"The key to its sealed secrets is in {done.key}.{aside}")


def _dump(url: str, path: Path, *, force: bool, as_json: bool) -> None:
    from heartlane.store.check import check
    from heartlane.store.pg_tools import ToolFailed, dump_command, prove_dump, run_tool

    if path.exists() and not force:
        raise CommandError(f"{path} is there already. Name another file, or add --force to replace it.")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        checked = check(url, quick=True)
        if checked.problems:
            raise CommandError(f"The database is not in order: {checked.problems[0]}", UNUSABLE)
        part.touch(mode=0o600)
        run_tool(url, dump_command(url, part))
        tables = prove_dump(url, part)
        size = part.stat().st_size
        part.replace(path)
    except ToolFailed as error:
        said = str(error).replace(str(part), str(path))
        raise CommandError(said, UNUSABLE) from error
    finally:
        part.unlink(missing_ok=True)
    if as_json:
        print(json.dumps({"file": str(path), "bytes": size, "schema": checked.schema, "tables": tables}))
    else:
        print(f"Backed up to {path} ({_size(size)}) with pg_dump: data of {tables} tables.")
    _note("Secrets of webhooks are sealed with the setting secret_key, which is not in it.")


def _restore_dump(url: str, file: Path, *, as_json: bool) -> None:
    from heartlane.store.check import check
    from heartlane.store.pg_tools import ToolFailed, prove_dump, restore_command, run_tool

    if not file.is_file():
        raise CommandError(f"There is no file {file}.")
    try:
        prove_dump(url, file)
        asyncio.run(_refuse_filled(url))
        run_tool(url, restore_command(url, file))
    except ToolFailed as error:
        raise CommandError(str(error), UNUSABLE) from error
    checked = check(url)
    if checked.damaged:
        raise CommandError(f"Restored, but not in order: {checked.problems[0]}", UNUSABLE)
    counts: dict[str, Any] = {"runs": checked.runs, "events": checked.events}
    if as_json:
        print(json.dumps({"schema": checked.schema, "checked": counts}))
    else:
        print(f"Restored from {file} with pg_restore (schema {checked.schema}).")
        print(f"Checked: no problem in {counts['runs']} runs and {counts['events']} events.")


async def _refuse_filled(url: str) -> None:
    from heartlane.store.connection import connection
    from heartlane.store.exclusive import refuse_served
    from heartlane.store.upgrade import status_async

    async with connection(url) as conn:
        await refuse_served(conn, "restore")
    if (await status_async(url)).current is not None:
        raise CommandError(
            "The database holds Heartlane's tables already. Restore into an empty one (createdb), and set "
            "HEARTLANE_DATABASE to it: so the old one is kept until you drop it."
        )


def _size(size: int) -> str:
    """Bytes in words: 12.3 MB."""
    return f"{size / 1_000_000:.1f} MB"


def _note(text: str) -> None:
    print(text, file=sys.stderr)
