"""SQLite's part of the campaign: one server on one file that is killed, stopped, starved of disk, copied and damaged.

Workers, history and checker are those of PostgreSQL's part. While they work the file is copied under the server's
hands, as people do it, and backed up as it should be; afterwards `heartlane db check` looks at all of that. At the end
pages of copies are overwritten: the check has to find it, and what a server still answers from such a file has to be
true.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from tests.chaos.campaign import (
    LEASE_SECONDS,
    Outcome,
    Plan,
    Say,
    availability,
    feed,
    read_all,
    until_settled,
    write_down,
)
from tests.chaos.checker import Run, check
from tests.chaos.history import FaultSpan, History
from tests.chaos.link import Link
from tests.chaos.workers import Crew
from tests.e2e.fleet import client_of, make_project
from tests.e2e.server_process import HOST, ServerProcess, command
from tests.e2e.test_full_disk import Disk, limited_files, may_mount, small_disk

PAUSE_SECONDS: Final = (1.0, 5.0)
RECOVERY_SECONDS: Final = 5.0
PAGE_BYTES: Final = 4096
DAMAGES: Final = 6
"""Copies that are damaged, each in a page of its own."""
CLEAN, DAMAGED = 0, 50
"""What `heartlane db check` ends with."""
CHECK_SECONDS: Final = 120.0
REFUSED: Final = frozenset({500, 503})


class Embedded:
    """The server, its file, and what is done to both."""

    def __init__(self, disk: Disk, folder: Path, history: History, chance: random.Random) -> None:
        self.did: Counter[str] = Counter()
        self.server = ServerProcess(f"sqlite:///{disk.folder / 'heartlane.db'}", folder, name="embedded")
        self.copies = folder / "copies"
        self.copies.mkdir()
        self._disk = disk
        self._history = history
        self._chance = chance

    async def disturb(self, seconds: float) -> None:
        """One fault after the other, for so long."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        kinds: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "server killed": self._kill,
            "file copied while in use": self._copy,
            "disk full": self._fill_disk,
            "backup while in use": self._back_up,
            "server stopped": self._stop,
        }
        for kind in itertools.cycle(kinds):
            if loop.time() >= ends_at:
                return
            self.did[kind] += 1
            with self._history.fault(kind):
                await kinds[kind]()
            await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))

    async def _kill(self) -> None:
        await asyncio.to_thread(self.server.kill)
        await asyncio.sleep(self._chance.uniform(0.0, LEASE_SECONDS))
        await asyncio.to_thread(self.server.start)

    async def _stop(self) -> None:
        self.server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(1.0, 2.0) * LEASE_SECONDS)
        self.server.process.send_signal(signal.SIGCONT)

    async def _fill_disk(self) -> None:
        await asyncio.to_thread(self._disk.fill, self.server)
        await asyncio.sleep(self._chance.uniform(1.0, LEASE_SECONDS))
        await asyncio.to_thread(self._disk.leave_nothing, self.server)
        await asyncio.sleep(self._chance.uniform(1.0, LEASE_SECONDS))
        await asyncio.to_thread(self._disk.make_room, self.server)

    async def _copy(self) -> None:
        """The wrong way: file by file, while each changes."""
        name = self.copies / f"copy-{self.did['file copied while in use']}.db"
        await asyncio.to_thread(shutil.copyfile, self._disk.folder / "heartlane.db", name)
        if self._chance.random() < 0.5:
            with contextlib.suppress(FileNotFoundError):
                log = self._disk.folder / "heartlane.db-wal"
                await asyncio.to_thread(shutil.copyfile, log, name.with_name(f"{name.name}-wal"))

    async def _back_up(self) -> None:
        name = self.copies / f"backup-{self.did['backup while in use']}.db"
        done = await asyncio.to_thread(
            command, "db", "backup", str(name), "--database", self.server.database, home=self.server.home, timeout=120
        )
        assert done.returncode == 0, done.stderr


async def run(plan: Plan, folder: Path, say: Say) -> Outcome:
    """All of it. What was found wrong is in the outcome; what fails by itself is raised."""
    chance = random.Random(plan.seed)
    place = small_disk if may_mount() else limited_files
    with place(folder) as disk, History(folder / "history.jsonl") as history:
        embedded = Embedded(disk, folder, history, chance)
        link = Link(embedded.server.port)
        try:
            await asyncio.to_thread(embedded.server.start)
            await link.open()
            return await _on(embedded, link, plan, history, chance=chance, say=say)
        finally:
            embedded.server.close()
            await link.close()


async def _on(
    embedded: Embedded, link: Link, plan: Plan, history: History, *, chance: random.Random, say: Say
) -> Outcome:
    server = embedded.server
    admin = await asyncio.to_thread(server.make_token)
    token = await asyncio.to_thread(server.make_token, "worker", "worker")
    url = f"http://{HOST}:{link.port}"
    async with client_of(url, admin, timeout=20.0) as operator:
        project = await make_project(operator)
        (await operator.patch(f"/api/projects/{project}", json={"max_failures": 100})).raise_for_status()
        crew = Crew(history, [url], token, project, lease_seconds=LEASE_SECONDS, chance=chance)
        began = time.time()
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(feed(operator, {project: plan.workers}))
            for number in range(plan.workers):
                group.create_task(crew.work(number))
            say(f"one server on SQLite, {plan.workers} light workers")
            await embedded.disturb(plan.seconds)
            ended = time.time()
            feeding.cancel()
            crew.stopping.set()
        await crew.end()
        await until_settled(operator, [project])
        await asyncio.sleep(LEASE_SECONDS + 3)
        read_at = time.time()
        runs = await read_all(operator, [project])
    write_down(runs, history.path.with_name("runs.jsonl"))
    server.stop()
    troubled = [
        FaultSpan(span.kind, span.began, span.ended + RECOVERY_SECONDS + LEASE_SECONDS)
        for span in history.faults
        if span.kind in ("server killed", "server stopped", "disk full")
    ]
    found = check(history.ops, runs, troubled, read_at=read_at)
    says = [*await _check_copies(embedded), *await _damage(embedded, admin, runs, chance)]
    longest, during, undisturbed = availability(history.ops, history.faults, troubled, began, ended)
    return Outcome(
        found,
        Counter(f"{op.does} {op.outcome}" for op in history.ops),
        embedded.did + Counter(span.kind for span in history.faults if span.kind == "worker stopped"),
        Counter(run.row["state"] for run in runs.values()) + Counter(crew.did),
        sum(len(run.events) for run in runs.values()),
        longest,
        during,
        undisturbed,
        says,
    )


async def _db_check(embedded: Embedded, path: Path) -> int:
    """What `heartlane db check` ends with; it always says why in plain words, and never breaks down."""
    done = await asyncio.to_thread(
        command, "db", "check", "--database", f"sqlite:///{path}", home=embedded.server.home, timeout=CHECK_SECONDS
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == CLEAN or (done.stdout + done.stderr).strip(), "it says nothing"
    return done.returncode


async def _check_copies(embedded: Embedded) -> list[str]:
    """The file itself and its backups have to be in order; of plain copies it is said which are."""
    whole = Counter[bool]()
    own = Path(embedded.server.database.removeprefix("sqlite:///"))
    for path in [own, *sorted(embedded.copies.glob("backup-*.db"))]:
        assert await _db_check(embedded, path) == CLEAN, f"{path.name} isn't in order"
    for path in sorted(embedded.copies.glob("copy-*.db")):
        whole[await _db_check(embedded, path) == CLEAN] += 1
    backups = len(list(embedded.copies.glob("backup-*.db")))
    return [
        f"the file after all that, and {backups} backups of it while in use: in order",
        f"plain copies while in use: {whole[True]} happened to be in order, {whole[False]} are found damaged",
    ]


async def _damage(embedded: Embedded, token: str, runs: Mapping[str, Run], chance: random.Random) -> list[str]:
    """Overwrite pages of copies that are in order, and have them served."""
    source = Path(embedded.server.database.removeprefix("sqlite:///"))
    pages = (await asyncio.to_thread(source.stat)).st_size // PAGE_BYTES
    told: Counter[str] = Counter()
    for number in range(DAMAGES):
        path = embedded.copies / f"damaged-{number}.db"
        _copy_damaged(source, path, chance.randrange(1, pages), chance.randbytes(PAGE_BYTES))
        found = await _db_check(embedded, path)
        told["found by `heartlane db check`"] += found == DAMAGED
        server = ServerProcess(f"sqlite:///{path}", embedded.copies, name=f"damaged-{number}")
        try:
            told[await _serve_damaged(server, token, runs)] += 1
        finally:
            server.close()
        if found != DAMAGED:
            told["in a page that holds nothing"] += 1
    return [f"{DAMAGES} files with an overwritten page:", *(f"  {count} {what}" for what, count in told.items())]


def _copy_damaged(source: Path, path: Path, page: int, content: bytes) -> None:
    shutil.copyfile(source, path)
    with path.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(content)


async def _serve_damaged(server: ServerProcess, token: str, runs: Mapping[str, Run]) -> str:
    """What comes of serving a damaged file: refused, or told the truth alone."""
    await asyncio.to_thread(server.spawn)
    for _ in range(300):
        if server.process.poll() is not None:
            assert "Traceback" not in server.log(), server.log()
            return "not served at all"
        if await asyncio.to_thread(server.status, "/healthz") == 200:
            break
        await asyncio.sleep(0.1)
    refused = 0
    async with client_of(server.url, token) as client:
        for run_id, run in runs.items():
            try:
                answer = await client.get(f"/api/agents/runs/{run_id}/events", params={"limit": 200})
            except httpx.TransportError:
                return "served until the damage was met"
            if answer.status_code in REFUSED:
                refused += 1
                assert json.loads(answer.content)["code"] in ("UNAVAILABLE", "INTERNAL_ERROR")
                continue
            if answer.status_code in (401, 404):  # the damage is in what says who may see it
                refused += 1
                continue
            assert answer.status_code == 200, answer.text
            assert answer.json()["events"] == list(run.events)[:200], f"{run_id} is told otherwise than it was"
    return "served, with what is damaged refused" if refused else "served, and the damage not met"
