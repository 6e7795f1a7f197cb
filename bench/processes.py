"""Servers as child processes: started, found ready, weighed, and stopped, whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil

HOST: Final = "127.0.0.1"
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0
LOG_TAIL_LINES: Final = 25
LIMITS_ON: Final = ",".join(
    f"{route}=1000000000/minute" for route in ("report", "plan", "approve", "reject", "claim", "default")
)
"""Rate limits that count every request and refuse none."""
MIB: Final = 1024 * 1024


class ServerFailed(Exception):
    """A server didn't start or ended by itself; the text holds the end of its log."""


class Server:
    """One server program and its child processes."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, port: int, log_path: Path) -> None:
        self.name = name
        self.port = port
        self._process = process
        self._log_path = log_path
        self._root = psutil.Process(process.pid)

    def processes(self) -> list[psutil.Process]:
        """The server's process and all below it."""
        return [self._root, *self._root.children(recursive=True)]

    def rss_mib(self) -> float:
        """Resident memory of all its processes in MiB, shared pages counted in each."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / MIB

    def unique_mib(self) -> float:
        """The same with pages that its processes share counted once, in MiB."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / MIB

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far, user and system."""
        return cpu_seconds(self.processes())

    async def wait_ready(self, path: str, within_seconds: float = READY_SECONDS) -> None:
        """Wait until GET `path` is answered 200. Raises ServerFailed."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                raise ServerFailed(f"{self.name} ended with code {self._process.returncode}.\n{self.log_tail()}")
            if await asyncio.to_thread(_answers, f"http://{HOST}:{self.port}{path}"):
                return
            await asyncio.sleep(0.05)
        raise ServerFailed(f"{self.name} isn't ready after {within_seconds:.0f} s.\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of what the server printed."""
        lines = self._log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for whatever is left after a while."""
        if self._process.returncode is not None:
            return
        below = self._root.children(recursive=True)
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Processor time of these processes so far, user and system; those that are gone count nothing."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def environment_without(prefix: str) -> dict[str, str]:
    """This process's environment but for the settings of a program, whose names begin so (in capitals)."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(prefix)}


def environment(database_url: str, port: int) -> dict[str, str]:
    """This process's environment with Heartlane's settings replaced by the bench's."""
    return {
        **environment_without("HEARTLANE_"),
        "HEARTLANE_DATABASE": database_url,
        "HEARTLANE_HOST": HOST,
        "HEARTLANE_PORT": str(port),
        "HEARTLANE_RATE_LIMITS": LIMITS_ON,
        "HEARTLANE_LOG_FORMAT": "json",
    }


@asynccontextmanager
async def running(
    name: str, module: Sequence[str], database_url: str, folder: Path, ready_path: str = "/readyz"
) -> AsyncIterator[Server]:
    """A server started as `python -m module…`, ready; stopped at the end. Raises ServerFailed."""
    port = free_port()
    started = (sys.executable, "-m", *module)
    async with serving(name, started, environment(database_url, port), port, folder, ready_path=ready_path) as server:
        yield server


@asynccontextmanager
async def serving(
    name: str,
    arguments: Sequence[str],
    settings: Mapping[str, str],
    port: int,
    folder: Path,
    *,
    ready_path: str,
    ready_seconds: float = READY_SECONDS,
) -> AsyncIterator[Server]:
    """Any server program with this environment, on a port of this machine; stopped at the end. Raises ServerFailed."""
    log_path = folder / f"{name.replace(' ', '-')}-{port}.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env=settings,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(name, process, port, log_path)
    try:
        await server.wait_ready(ready_path, ready_seconds)
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def heartlane(database_url: str, folder: Path, count: int = 1) -> AsyncIterator[Server]:
    """`heartlane serve` on the database, as so many processes."""
    module = ["heartlane", "serve", *(["--processes", str(count)] if count > 1 else [])]
    async with running("heartlane", module, database_url, folder) as server:
        yield server


@asynccontextmanager
async def floor(folder: Path) -> AsyncIterator[Server]:
    """The constant answer, served as Heartlane is."""
    url = f"sqlite:///{folder / 'unused.sqlite3'}"
    async with running("floor", ["bench.floor"], url, folder, "/") as server:
        yield server


async def command(*arguments: str, database_url: str) -> str:
    """Run `heartlane …` to its end; what it printed on standard output. Raises ServerFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "heartlane",
        *arguments,
        env=environment(database_url, free_port()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        shown = " ".join(arguments)
        raise ServerFailed(f"heartlane {shown} ended with code {process.returncode}: {errors.decode(errors='replace')}")
    return output.decode().strip()
