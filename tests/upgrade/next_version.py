"""Heartlane as the version after this one would be: with one revision more, that adds a column and writes into rows.

Run as a program, it upgrades a database in a process of its own, to be watched, raced and killed:

    python -m tests.upgrade.next_version URL FOLDER [stop]
    python -m tests.upgrade.next_version URL FOLDER serve FLAGS…

The second one serves as the next version would. With `stop` it stands still in the middle of its revision, when
everything is written and nothing committed, having said so on its standard output.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection

from heartlane.cli.main import run as run_command
from heartlane.store import upgrade
from heartlane.store.migrations import runner

REVISION = "0999"
IN_THE_MIDDLE = "in the middle"

SCRIPT = """
import sqlalchemy as sa
from alembic import context, op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("colour", sa.Text(), server_default="red", nullable=False))
    op.execute("UPDATE runs SET colour = 'blue', title = 'changed'")
    op.create_table("colours", sa.Column("name", sa.Text(), primary_key=True))
"""


def pretend(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Be the next version from now on; `folder` takes its migrations."""
    scripts = folder / "migrations"
    if not scripts.exists():
        shutil.copytree(Path(runner.__file__).parent, scripts, ignore=shutil.ignore_patterns("__pycache__"))
        text = SCRIPT.format(revision=REVISION, before=upgrade.HEAD)
        (scripts / "versions" / f"v{REVISION}_next.py").write_text(text)
    configured = runner.config

    def config() -> object:
        settings = configured()
        settings.set_main_option("script_location", str(scripts).replace("%", "%%"))
        return settings

    patch.setattr(runner, "config", config)
    patch.setattr(upgrade, "HEAD", REVISION)


def main(url: str, folder: str, *words: str) -> None:
    """Upgrade, and say from where to where."""
    patch = pytest.MonkeyPatch()
    pretend(Path(folder), patch)
    if "stop" in words:
        run = runner.run

        def run_and_stop(conn: Connection, target: str = "head") -> None:
            run(conn, target)
            say(IN_THE_MIDDLE)
            time.sleep(300)

        patch.setattr(runner, "run", run_and_stop)
    if "serve" in words:
        sys.exit(run_command(["serve", *words[words.index("serve") + 1 :]]))
    before = upgrade.upgrade(url)
    say(f"{before.current} -> {', '.join(before.pending) or 'nothing'}")


def say(line: str) -> None:
    """To whoever started this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
