"""The whole suite, in four processes at once: `make test`.

Most of the suite's time passes in waiting, for children, servers, browsers and disks, and leaves cores idle. Tests of
workers and of real servers, which look at the time, have a process each. All others run beside them in two more, which
step back where the first two want the processor (`nice`). What the first prints is seen at once; the others' output is
kept and shown at the end. A test directory that nobody has put into a list runs in the last one.

With arguments it is one plain run of pytest with these.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
WORKERS = ("worker",)
SERVERS = ("e2e",)
"""Directories whose tests look at the time, in the first two processes."""
BESIDE = ("board", "cli", "client", "docs", "lanes", "sources")
"""Directories of the third process; the fourth has the rest."""


def command(paths: list[str], *, steps_back: bool = False) -> list[str]:
    """A run of pytest over these paths."""
    nice = ["nice", "-n", "5"] if steps_back and shutil.which("nice") else []
    return [*nice, sys.executable, "-m", "pytest", *paths]


def parts() -> list[list[str]]:
    """The test directories and files of each process, relative to the checkout."""
    found = sorted(
        f"tests/{path.name}"
        for path in HERE.iterdir()
        if (path.is_dir() and (path / "__init__.py").exists()) or path.match("test_*.py")
    )
    listed = [[f"tests/{name}" for name in names if f"tests/{name}" in found] for names in (WORKERS, SERVERS, BESIDE)]
    return [*listed, [path for path in found if not any(path in names for names in listed)]]


def main(arguments: list[str]) -> int:
    """0 when all passed, else the exit code of a part that failed."""
    if arguments:
        return subprocess.run(command(arguments), check=False).returncode
    began = time.monotonic()
    workers, servers, *others = parts()
    with ExitStack() as stack:
        beside: list[tuple[subprocess.Popen[str], IO[str]]] = []
        for paths in (servers, *others):
            kept = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                command(paths, steps_back=paths is not servers),
                stdout=kept,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
            )
            stack.callback(process.kill)
            beside.append((process, kept))
        codes = [subprocess.run(command(workers), check=False).returncode]
        for process, printed in beside:
            codes.append(process.wait())
            printed.seek(0)
            sys.stdout.write(printed.read())
    sys.stdout.write(f"all parts together took {time.monotonic() - began:.0f} s\n")
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
