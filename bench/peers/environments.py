"""A virtual environment for each peer: of pinned versions, kept in one folder, made anew when they change."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).parent / "requirements"
CACHE: Final = Path(__file__).parents[2] / ".peers"
"""Where the environments are kept: git ignores it, `make clean` removes it."""
INSTALL_SECONDS: Final = 1_200.0
ERROR_LINES: Final = 4
ERROR_LINE_CHARACTERS: Final = 400
_PIN: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+!_-]*)")


class CannotInstall(Exception):
    """A peer's packages can't be installed here; the text says why."""


class NotPinned(ValueError):
    """A line of a requirements file that isn't `name==version`."""


def parse_pins(text: str) -> dict[str, str]:
    """The versions by package name (lower case, with `-`) of a file of `name==version` lines.

    Empty lines and lines that begin with `#` count for nothing. Raises NotPinned for any other line, and for a package
    that is named twice.

    >>> parse_pins("# tested with\\nPrefect==3.9.1\\nmlflow_skinny==3.17.2\\n")
    {'prefect': '3.9.1', 'mlflow-skinny': '3.17.2'}
    """
    pins: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        found = _PIN.fullmatch(line)
        if found is None:
            raise NotPinned(f"line {number}: {line!r} isn't name==version")
        name = re.sub(r"[-_.]+", "-", found[1]).lower()
        if name in pins:
            raise NotPinned(f"line {number}: {name} is pinned twice")
        pins[name] = found[2]
    return pins


class Environment:
    """One peer's virtual environment, with exactly the packages of `requirements/NAME.txt`."""

    def __init__(self, name: str, cache: Path = CACHE) -> None:
        self.requirements = REQUIREMENTS / f"{name}.txt"
        self.pins = parse_pins(self.requirements.read_text())
        self.folder = cache / name

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.program("python")

    def program(self, name: str) -> Path:
        """One of the programs that its packages install."""
        return self.folder / "bin" / name

    @property
    def packages(self) -> Path:
        """Where its packages are."""
        return self.folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"

    async def make(self, progress: Callable[[str], None]) -> None:
        """Make the environment unless it is there and up to date. Raises CannotInstall."""
        made_of = f"{sys.version}\n{hashlib.sha256(self.requirements.read_bytes()).hexdigest()}\n"
        stamp = self.folder / ".made-of"
        if stamp.is_file() and stamp.read_text() == made_of:
            return
        progress(f"installing {self.requirements.stem}: {len(self.pins)} packages into {self.folder}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        await _run(sys.executable, "-m", "venv", str(self.folder))
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--retries", "2")
        await _run(str(self.python), *pip, "--requirement", str(self.requirements))
        stamp.write_text(made_of)


async def _run(*command: str) -> None:
    """Run a program to its end. Raises CannotInstall with the last of what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), INSTALL_SECONDS)
    except TimeoutError:
        raise CannotInstall(f"it took longer than {INSTALL_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise CannotInstall(last_errors(output.decode(errors="replace")))


def last_errors(output: str) -> str:
    """What a person should read of pip's output: its last errors, else its last lines, each cut to a bound.

    >>> last_errors("WARNING: slow\\nERROR: No matching distribution found for prefect==0\\n")
    'ERROR: No matching distribution found for prefect==0'
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"]
    return "\n".join(line[:ERROR_LINE_CHARACTERS] for line in errors[-ERROR_LINES:])
