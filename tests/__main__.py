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
WORKERS = ("worker/", "lanes/", "simulation/", "store/")
SERVERS = ("e2e/", "upgrade/", "docs/")
"""How the paths begin of the tests in the first two processes, where those stand that look at the time."""
BESIDE = ("board/", "cli/", "client/", "sources/", *(f"server/test_{letter}" for letter in "tuvwxyz"))
"""The same for the third process; the fourth has the rest. About as much time is spent in each of the four."""


def command(paths: list[str], *, steps_back: bool = False) -> list[str]:
    """A run of pytest over these paths."""
    nice = ["nice", "-n", "5"] if steps_back and shutil.which("nice") else []
    return [*nice, sys.executable, "-m", "pytest", *paths]


def parts() -> list[list[str]]:
    """The test files of each process, relative to the checkout."""
    found = sorted(path.relative_to(HERE).as_posix() for path in HERE.rglob("test_*.py"))
    lists = [[path for path in found if path.startswith(begins)] for begins in (WORKERS, SERVERS, BESIDE)]
    lists.append([path for path in found if not path.startswith((*WORKERS, *SERVERS, *BESIDE))])
    return [[f"tests/{path}" for path in paths] for paths in lists]


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
