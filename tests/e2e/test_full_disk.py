"""A disk that is full: changes are refused with 503, reads go on, nothing is half done, and room is enough to go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from heartlane.store.check import check
from tests.e2e.database import new_token
from tests.e2e.fleet import (
    all_go_on,
    assert_all_there,
    assert_unavailable,
    claim,
    client_of,
    expired,
    get,
    make_reporters,
    make_runs,
    read_run,
)
from tests.e2e.server_process import ServerProcess, closing, until

ROOM: Final = 64 * 1024
"""Bytes that are left when the work begins: some dozens of reports."""
DISK: Final = 48 * 1024 * 1024
"""Room for the database and for as much of its log as it keeps."""


class Disk:
    """A place for a database, and a way to leave it hardly any room. This one limits how large its files may grow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, server: ServerProcess) -> None:
        """Leave ROOM."""
        largest = max(path.stat().st_size for path in self.folder.glob("heartlane.db*"))
        server.set_room(largest + ROOM)

    def leave_nothing(self, server: ServerProcess) -> None:
        """Take what is left, in which a small change may find room."""
        server.set_room(0)

    def make_room(self, server: ServerProcess) -> None:
        """Give back all that was taken."""
        server.set_room(None)


class SmallDisk(Disk):
    """A disk of its own, which is filled with something else."""

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self, server: ServerProcess) -> None:
        free = os.statvfs(self.folder)
        with contextlib.suppress(OSError):  # the server takes room at the same time
            self._ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - ROOM)))

    def leave_nothing(self, server: ServerProcess) -> None:
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(512))

    def make_room(self, server: ServerProcess) -> None:
        self._ballast.unlink()


@contextlib.contextmanager
def limited_files(folder: Path) -> Iterator[Disk]:
    """Files that can't grow. Anybody may do this to a process of theirs."""
    yield Disk(folder)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk in memory, where this process may mount one."""
    mounted = folder / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", mounted], check=True, capture_output=True)
    try:
        yield SmallDisk(mounted)
    finally:
        subprocess.run(["umount", "--lazy", mounted], check=True, capture_output=True)


def may_mount() -> bool:
    """Whether this process may mount a disk."""
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


Place = Callable[[Path], AbstractContextManager[Disk]]
PLACES: Final = [
    pytest.param(limited_files),
    *([pytest.param(small_disk, marks=pytest.mark.slow)] if may_mount() else []),
]
"""By default no file may grow; `make slow` fills a real disk, which takes its time on a busy machine."""


@pytest.mark.parametrize("place", PLACES)
async def test_a_full_disk_refuses_changes_until_there_is_room_again(
    place: Place, sqlite_template: Path, tmp_path: Path
) -> None:
    with place(tmp_path) as disk:
        path = disk.folder / "heartlane.db"
        shutil.copyfile(sqlite_template, path)
        server = ServerProcess(f"sqlite:///{path}", tmp_path)
        with closing(server):
            await server.start_beside()
            async with client_of(server.url, await new_token(server.database)) as client:
                silent, queued = await make_runs(client, 2)
                workers = await make_reporters(client, 8, random.Random(13))
                stopping = asyncio.Event()
                async with asyncio.TaskGroup() as group:
                    for worker in workers:
                        group.create_task(worker.report_until(stopping))
                    await claim(client, silent, "silent", lease_seconds=1)
                    disk.fill(server)
                    await until(lambda: all(worker.refusals for worker in workers), "refusals")
                    disk.leave_nothing(server)
                    assert_unavailable(await client.post("/api/projects", json={"name": "Refused"}))
                    claimed = await client.post(f"/api/agents/runs/{queued}/claim", json={"worker_id": "refused"})
                    assert_unavailable(claimed)
                    assert (await client.get("/healthz")).status_code == 200
                    assert (await read_run(client, silent))["worker_id"] == "silent"
                    assert (await read_run(client, queued))["state"] == "queued"
                    await get(client, "/api/agents/runs")

                    disk.make_room(server)
                    await all_go_on(workers)
                    await until(lambda: expired(client, silent), "the lease that ran out is taken back", 20)
                    stopping.set()
                await assert_all_there(client, workers)
                names = [project["name"] for project in (await get(client, "/api/projects"))["projects"]]
                assert "Refused" not in names
            assert server.stop() == 0
            assert (await asyncio.to_thread(check, server.database)).problems == []
            assert not [line for line in server.log_lines() if line["level"] == "error"]


async def test_a_server_whose_log_has_no_room_goes_on(sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / "heartlane.db"
    shutil.copyfile(sqlite_template, path)
    server = ServerProcess(f"sqlite:///{path}", tmp_path)
    server.log_path = Path("/dev/full")
    with closing(server):
        await server.start_beside()
        async with client_of(server.url, await new_token(server.database)) as client:
            (run_id,) = await make_runs(client, 1)
            await claim(client, run_id, "worker")
            assert (await client.get("/api/agents/runs/nonsense")).status_code == 400
        assert server.stop() == 0
