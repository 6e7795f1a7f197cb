"""Children under a guard, ended with the test, whatever it did to them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import psutil
import pytest

from heartlane.worker.child import Child
from heartlane.worker.reader import OnLines, Reader, Stream
from heartlane.worker.tree import marked, sweep
from tests.worker.work_server import lanes, worker

__all__ = ["lanes", "worker"]

ZOO: Final = Path(__file__).with_name("children.py")
PARENT: Final = Path(__file__).with_name("parent.py")
ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE: Final = 60.0
"""Seconds after which a thing that should have happened is taken never to happen."""


class Start(Protocol):
    """Starts one of the zoo."""

    def __call__(self, kind: str, *arguments: object, **options: Any) -> Child: ...


_read: set[int] = set()


def read(child: Child, on_lines: OnLines) -> Reader:
    """A reader of what a child prints, begun."""
    _read.add(id(child))
    return Reader(child.stdout, child.stderr, on_lines).start()


class Printed:
    """What a child prints, collected while it runs. Lines by stream; `said` waits for one."""

    def __init__(self, child: Child) -> None:
        self.lines: dict[Stream, list[str]] = {"stdout": [], "stderr": []}
        self.reader = read(child, lambda stream, lines: self.lines[stream].extend(lines))

    def said(self, line: str) -> None:
        """Wait until standard output had this line."""
        until(lambda: line in self.lines["stdout"])


def zoo(kind: str, *arguments: object) -> list[str]:
    """The command line of one of the zoo. Without site-packages: it starts in milliseconds."""
    return [sys.executable, "-I", "-S", str(ZOO), kind, *map(str, arguments)]


def until(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether there is such a process and it isn't a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def noted(path: Path, count: int = 1) -> list[str]:
    """The lines of a shared file, once there are so many."""
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= count)
    return path.read_text().splitlines()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start children of the zoo; at the end of the test nothing of any is left."""
    children: list[Child] = []

    def start(kind: str, *arguments: object, **options: Any) -> Child:
        child = Child.start(zoo(kind, *arguments), **{"env": dict(os.environ), "cwd": tmp_path, **options})
        children.append(child)
        return child

    yield start
    for child in children:
        assert child.close()
        assert marked(child.mark) == []
        if id(child) not in _read:
            os.close(child.stdout)
            os.close(child.stderr)
        _read.discard(id(child))


class Parent:
    """A sidecar as a process of its own, which starts one child and then does nothing more than it is told."""

    def __init__(self, command: list[str], *options: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, str(PARENT), *options, "--", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        child, guard, self.mark = self.process.stdout.readline().split()
        self.child, self.guard = int(child), int(guard)

    def end(self) -> None:
        """Whatever is left."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        assert sweep(self.mark, PATIENCE) == 0


@pytest.fixture
def parent() -> Iterator[Callable[..., Parent]]:
    """Start sidecars of their own."""
    parents: list[Parent] = []

    def start(command: list[str], *options: str) -> Parent:
        parents.append(Parent(command, *options))
        return parents[-1]

    yield start
    for started in parents:
        started.end()
