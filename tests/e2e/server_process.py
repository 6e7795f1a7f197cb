"""A server as people run it: `python -m heartlane serve` as a child process, with its own database, home and log.

server = ServerProcess(database_url, folder)
server.start()                      # returns when /readyz answers 200
token = server.make_token()         # through the command line
server.kill()                       # SIGKILL: nothing is finished
server.start()                      # the same port again
assert server.stop() == 0           # SIGTERM
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
HOST: Final = "127.0.0.1"
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0
LAST_LINES: Final = 20


class ServerFailed(AssertionError):
    """A server didn't become ready, or didn't end; the text holds its log."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def environment(home: Path, root: Path = ROOT) -> dict[str, str]:
    """This process's environment without any setting of Heartlane's, and with a home folder of its own."""
    home.mkdir(exist_ok=True)
    kept = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(("HEARTLANE_", "XDG_", "PG"))
    }
    path = os.pathsep.join(filter(None, [str(root), kept.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": path, "HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}


def command(*arguments: str, home: Path, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run `heartlane ARGUMENTS…` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "heartlane", *arguments],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class ServerProcess:
    """One server. `settings` become flags, as `rate_limits="off"` becomes `--rate-limits off`.

    program         the module and its first arguments; root: the checkout that it runs from
    folder          where its log and its home folder are; several servers may share it
    file_size_max   bytes that any file it writes may reach, as a full disk would have it; change it with `set_room`
    variables       what its environment has besides, from the next start on
    """

    def __init__(
        self,
        database: str,
        folder: Path,
        *,
        name: str = "server",
        file_size_max: int | None = None,
        program: Sequence[str] = ("heartlane", "serve"),
        root: Path = ROOT,
        **settings: Any,
    ) -> None:
        self.root = root
        self._program = program
        self.database = database
        self.port = int(settings.pop("port", 0)) or free_port()
        self.log_path = folder / f"{name}.log"
        self.home = folder / "home"
        self._settings = {"rate_limits": "off", **settings}
        self.variables: dict[str, str] = {}
        self._file_size_max = file_size_max
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, running or ended."""
        assert self._process is not None, "the server was never started"
        return self._process

    # --- life and death -------------------------------------------------------------------------------------------

    def spawn(self) -> None:
        """Start it, without waiting for anything."""
        arguments = {"database": self.database, "host": HOST, "port": self.port, **self._settings}
        flags = [part for name, value in arguments.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._program, *flags],
                env={**environment(self.home, self.root), **self.variables},
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self._file_size_max is not None:
            self.set_room(self._file_size_max)

    def start(self) -> None:
        """Start it, and wait until it is ready. Raises ServerFailed."""
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it can work. Raises ServerFailed."""
        self.wait_until(lambda: self.status("/readyz") == 200, "ready", READY_SECONDS)

    async def start_beside(self) -> None:
        """`start` while the event loop goes on."""
        await asyncio.to_thread(self.start)

    def set_room(self, file_size_max: int | None) -> None:
        """Let no file that it writes grow past so many bytes from now on; None: any size."""
        self._file_size_max = file_size_max
        limit = resource.RLIM_INFINITY if file_size_max is None else file_size_max
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Wait until it has ended; its exit code. Raises ServerFailed."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"still running after {timeout} s\n{self.log()}") from None

    def stop(self) -> int:
        """SIGTERM, and wait until it has ended; its exit code."""
        self.terminate()
        return self.wait()

    def close(self) -> None:
        """Make sure that nothing of it goes on."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    # --- what it says ---------------------------------------------------------------------------------------------

    def status(self, path: str) -> int | None:
        """The status of GET `path`; None when nobody answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
            try:
                connection.request("GET", path)
                return connection.getresponse().status
            finally:
                connection.close()
        return None

    def wait_until(self, holds: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
        """Wait until the condition holds. Raises ServerFailed when it doesn't, or the process ends before."""
        deadline = time.monotonic() + timeout
        while not holds():
            if self.process.poll() is not None:
                raise ServerFailed(f"ended with code {self.process.returncode}, not {what}\n{self.log()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"not {what} after {timeout} s\n{self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        """All that it has printed so far, over all its lives, where that is a file."""
        return self.log_path.read_text("utf-8", errors="replace") if self.log_path.is_file() else ""

    def last_words(self) -> str:
        """Whether it runs, and the end of its log."""
        if self._process is None:
            return "never started\n"
        code = self._process.poll()
        state = "running" if code is None else f"ended with code {code}"
        return "\n".join([f"{self.log_path.name}: {state}", *self.log().splitlines()[-LAST_LINES:], ""])

    def log_lines(self, message: str | None = None) -> list[dict[str, Any]]:
        """The lines of its log; with `message`, those alone."""
        lines = [json.loads(line) for line in self.log().splitlines()]
        return [line for line in lines if message is None or line["message"] == message]

    def make_token(self, name: str = "e2e", scope: str = "admin", *flags: str) -> str:
        """A new token, made through the command line beside the running server."""
        return make_token(self.database, self.home, name, scope, *flags)


def make_token(database: str, home: Path, name: str = "e2e", scope: str = "admin", *flags: str) -> str:
    """A new token in a database, made through the command line."""
    made = command("token", "create", name, "--scope", scope, "--database", database, *flags, home=home)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@contextlib.contextmanager
def closing(*servers: ServerProcess) -> Iterator[None]:
    """Whatever happens inside, no server is left behind. What each said last is shown with a test that fails."""
    try:
        yield
    finally:
        for server in servers:
            sys.stderr.write(server.last_words())
            server.close()


async def until(holds: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """Wait until a condition (or the awaitable that it returns) holds; what it gave then. Raises AssertionError."""
    deadline = time.monotonic() + timeout
    while True:
        value = holds()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.02)
