"""Runs the migrations with Alembic. Imported only when there is something to run."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def config() -> Config:
    """Alembic's configuration: no file, the scripts beside this module."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return settings


def revisions() -> list[str]:
    """Every revision, oldest first."""
    scripts = ScriptDirectory.from_config(config())
    return [script.revision for script in reversed(list(scripts.walk_revisions()))]


def run(conn: Connection, target: str = "head") -> None:
    """Upgrade to `target` inside the connection's transaction, under the lock that the caller holds."""
    settings = config()
    settings.attributes["connection"] = conn
    command.upgrade(settings, target)
