"""The whole suite, in two processes at once: `make test`.

Most of the suite's time passes in waiting, for children, servers and disks, and leaves a core idle. Tests that start
real processes and look at the time stay one after the other, in the first process; all others, which only need the
processor, run beside them in the second, whose output is kept and shown when both are done. A test directory that
nobody has put into either list runs in the second.

With arguments it is one plain run of pytest with these.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROCESSES = ("e2e", "worker", "board", "cli")
"""Directories whose tests start processes and look at the time."""


def command(paths: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", *paths]


def halves() -> tuple[list[str], list[str]]:
    """The test directories and files of both processes, relative to the checkout."""
    found = sorted(
        f"tests/{path.name}"
        for path in HERE.iterdir()
        if (path.is_dir() and (path / "__init__.py").exists()) or path.match("test_*.py")
    )
    first = [f"tests/{name}" for name in PROCESSES if f"tests/{name}" in found]
    return first, [path for path in found if path not in first]


def main(arguments: list[str]) -> int:
    """0 when all passed, else the exit code of a half that failed."""
    if arguments:
        return subprocess.run(command(arguments), check=False).returncode
    began = time.monotonic()
    first, second = halves()
    with tempfile.TemporaryFile("w+") as kept:
        beside = subprocess.Popen(command(second), stdout=kept, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            code = subprocess.run(command(first), check=False).returncode
            code_beside = beside.wait()
        finally:
            beside.kill()
            beside.wait()
        kept.seek(0)
        sys.stdout.write(kept.read())
    sys.stdout.write(f"both halves together took {time.monotonic() - began:.0f} s\n")
    return code or code_beside


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
