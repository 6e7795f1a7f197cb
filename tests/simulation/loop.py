"""An event loop whose time is a number, and the processes that live on it and can be killed.

The loop is asyncio's own, so that everything written with `await` runs on it as it is. Only what it waits by differs:
nothing is ever waited for, the time jumps to the next timer. What runs when is so decided by the timers alone, and
those by the seed.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TICK_SECONDS = 1e-6
"""What one turn of the loop takes at least: with a time that can stand still, code that waits for a moment that a
rounding error keeps away would do so for ever."""

_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("simulated_process", default=None)


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class _Selector:
    """Where asyncio's loop waits for the world: here the time passes at once."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck
        self._loop.now += max(TICK_SECONDS, timeout)
        return []

    def close(self) -> None:
        """Nothing is open."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """asyncio's loop in simulated time.

    now         seconds since the begin of the world
    in_thread   what to do in place of running a function in a thread (as the SQLite engine asks for)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.in_thread: Callable[[Process, Callable[..., Any], tuple[Any, ...]], asyncio.Future[Any]]
        self._selector = _Selector(self)
        self.set_task_factory(_make_task)  # type: ignore[arg-type]

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        return self.in_thread(here(), func, args)

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody else has to be woken."""


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], context: contextvars.Context | None = None
) -> asyncio.Task[T]:
    task = asyncio.Task(work, loop=loop, context=context)
    process = _current.get() if context is None else context.get(_current)
    if process is not None:
        process.adopt(task)
    return task


class Process:
    """One process of the world: a server or a worker, as the tasks that run in it.

    alive   until it is killed; what it has under way then never reaches anybody
    """

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self._context = contextvars.copy_context()
        self._context.run(_current.set, self)
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have the process do something beside all else."""
        return self.loop.create_task(work, context=self._context)

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function as a part of the process: the tasks it starts belong to it."""
        return self._context.run(function, *args)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task was started in the process; what its clean-up starts after its end doesn't get far."""
        if not self.alive:
            self.loop.call_soon(task.cancel)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    def look(self) -> None:
        """Raises CancelledError in a process that was killed: nothing that it still does gets out of it."""
        if not self.alive:
            raise asyncio.CancelledError

    def kill(self) -> None:
        """End it at once. Its clean-up code runs, as Python must, but reaches nothing any more."""
        self.alive = False
        for task in list(self._tasks):
            task.cancel()


def here() -> Process:
    """The process whose code runs now."""
    process = _current.get()
    if process is None:
        raise RuntimeError("this is done by no simulated process")
    return process
