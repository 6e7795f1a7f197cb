"""PostgreSQL's own tools for copies of a database: `pg_dump` and `pg_restore`, run here where they are found.

A password goes to them in the environment and never on the command line, where every user of the machine sees it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

TABLES: Final = ("runs", "events", "tokens", "plans", "projects", "audit")
"""A dump without the data of one of these is none of Heartlane's."""


class ToolFailed(Exception):
    """A tool is missing or failed; the text says what to run, or what it said."""


def dump_command(url: str, target: Path) -> list[str]:
    """What makes a dump of a database, without its password."""
    return ["pg_dump", "--format=custom", "--no-owner", f"--file={target}", f"--dbname={_shown(url)}"]


def restore_command(url: str, dump: Path) -> list[str]:
    """What fills an empty database from a dump, all of it or nothing."""
    options = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"]
    return ["pg_restore", *options, f"--dbname={_shown(url)}", str(dump)]


def run_tool(url: str, command: list[str]) -> str:
    """Run one of them; what it printed. Raises ToolFailed."""
    found = shutil.which(command[0])
    if found is None:
        raise ToolFailed(
            f"{command[0]} is not installed here (it comes with PostgreSQL's client programs). Where it is, run: "
            f"{shlex.join(command)}"
        )
    parsed = make_url(url)
    password = parsed.password or parsed.query.get("password")
    environment = dict(os.environ) | ({} if password is None else {"PGPASSWORD": str(password)})
    ended = subprocess.run(  # noqa: S603 - the program by its name, and nothing that a shell would read
        [found, *command[1:]], env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if ended.returncode != 0:
        said = " ".join(ended.stderr.split()) or f"exit code {ended.returncode}"
        raise ToolFailed(f"{command[0]} failed: {said}")
    return ended.stdout


def prove_dump(url: str, dump: Path) -> int:
    """How many tables a dump has data of. Raises ToolFailed where one of Heartlane's is missing."""
    listed = run_tool(url, ["pg_restore", "--list", str(dump)])
    names = {line.split()[-2] for line in listed.splitlines() if " TABLE DATA " in line}
    # The log's own rows are in its partitions.
    missing = [name for name in TABLES if name not in names and not any(each.startswith(f"{name}_") for each in names)]
    if missing:
        raise ToolFailed(f"The dump has no data of {', '.join(missing)}.")
    return len(names)


def _shown(url: str) -> str:
    parsed = make_url(url).set(password=None).difference_update_query(["password"])
    return parsed.render_as_string(hide_password=False)
