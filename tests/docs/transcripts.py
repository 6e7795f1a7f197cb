"""Runs the commands of a page and compares what they print with what the page shows.

A page's ```sh blocks are run in order, in one shell, against a server of their own. The ```text or ```json block that
follows one directly is what it printed. Ids, times, tokens and the like differ from run to run: both sides are brought
to the same names first, so that an id still has to be the same wherever it stands. A line `…` stands for lines that
were left out. A ```console block is only shown.

`python -m tests.docs.transcripts PAGE…` writes what the commands print now into the pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from tests.cli.command import environment, served

TOOLS: Final = ("bash", "curl", "jq")
PORT: Final = "8484"
BLOCK: Final = re.compile(
    r"^```sh\n(?P<commands>.*?)^```\n(?:\s*^```(?:text|json)\n(?P<printed>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
LEFT_OUT: Final = "…"

_CHANGING: Final = re.compile(
    r"(?P<id>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
    r"|(?P<time>\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)"
    r"|(?P<day>\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b)"
    r"|(?P<token>\bhlt_[A-Za-z0-9_-]{8,})"
    r"|(?P<request>\b[0-9a-f]{12}-[0-9a-f]+\b)"
    r"|(?P<date>\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} GMT)"
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


def run_page(page: str, *flags: str) -> list[Ran]:
    """Run a page's blocks against a new server; what each did, in the same order."""
    steps = steps_of(page)
    with tempfile.TemporaryDirectory(prefix="heartlane-docs-") as name:
        folder = Path(name)
        database = f"sqlite:///{folder / 'heartlane.sqlite3'}"
        command = folder / ".venv" / "bin" / "heartlane"
        command.parent.mkdir(parents=True)
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m heartlane "$@"\n', "utf-8")
        command.chmod(0o755)
        with served(database, folder, *flags) as server:
            port = server.url.rpartition(":")[2]
            script = []
            for place, step in enumerate(steps):
                (folder / f"{place}.sh").write_text(step.commands.replace(f":{PORT}", f":{port}"), "utf-8")
                script.append(f"{{ . ./{place}.sh; }} >{place}.out 2>&1; echo $? >{place}.code")
            subprocess.run(
                ["bash", "-c", "\n".join(script)],
                cwd=folder,
                env=environment(HEARTLANE_DATABASE=database),
                stdin=subprocess.DEVNULL,
                timeout=120,
                check=True,
            )
        return [
            Ran(
                int((folder / f"{place}.code").read_text("utf-8")),
                _tidy((folder / f"{place}.out").read_text("utf-8").replace(f":{port}", f":{PORT}")),
            )
            for place in range(len(steps))
        ]


def _tidy(printed: str) -> str:
    """With plain line ends, one of them at the end: an answer of `curl` has none."""
    plain = printed.replace("\r\n", "\n")
    return plain if not plain or plain.endswith("\n") else plain + "\n"


def missing_tools() -> list[str]:
    """The programs that the pages use and this machine lacks."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


class Names:
    """Gives whatever changes from run to run a name by its kind and its first appearance."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def plain(self, text: str) -> str:
        """The text with names in place of what changes."""
        return _CHANGING.sub(self._name, text)

    def _name(self, found: re.Match[str]) -> str:
        kind = found.lastgroup or ""
        if kind not in ("id", "token"):
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


def rewrite(path: Path, *flags: str) -> None:
    """Put what its commands print now into a page, except where the page leaves lines out and still agrees."""
    page = path.read_text("utf-8")
    ran = iter(run_page(page, *flags))

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
