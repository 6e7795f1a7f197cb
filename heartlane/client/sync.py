"""The client for programs without asyncio: the asynchronous one, on an event loop in a thread of its own.

That thread is also what keeps leases alive, whatever the program's own threads do meanwhile. It starts with the first
call. After a fork the child starts a thread and connections of its own; the lanes stay the parent's.

Nothing is written twice: a method here is made of the asynchronous one, with its parameters and its documentation.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from heartlane.client.aio import AsyncClient
from heartlane.client.call import Call, Page
from heartlane.client.errors import NoLane
from heartlane.client.lane import AsyncLane, LaneView, PendingLane
from heartlane.client.routes import Routes

P = ParamSpec("P")
T = TypeVar("T")

STOP_SECONDS: Final = 5.0


class LoopThread:
    """An event loop in a daemon thread; `call` runs a coroutine there and waits for it.

    last    what the thread does before it ends
    """

    def __init__(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.pid = os.getpid()
        self._last = last
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. An interrupt (Ctrl-C) while it waits cancels the coroutine.

        Raises RuntimeError once the thread was stopped, and in any other process than its own.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._running())
        except RuntimeError:
            work.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread."""
        with self._lock:
            loop, thread, self._stopped = self._loop, self._thread, True
            self._loop = self._thread = None
        if loop is None or thread is None or self.pid != os.getpid():
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(STOP_SECONDS)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self.pid != os.getpid():
            raise RuntimeError("This lane belongs to the process that claimed it.")
        with self._lock:
            if self._stopped:
                raise RuntimeError("The client is closed.")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop, self._last), name="heartlane-client", daemon=True
                )
                self._thread.start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(last())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


class Blocking(Generic[P, T]):
    """A method of a lane that waits for the asynchronous lane's method of that name."""

    def __init__(self, method: Callable[Concatenate[AsyncLane, P], Coroutine[Any, Any, T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, lane: Lane, owner: type) -> Callable[P, T]:
        method = self._method

        def blocking(*args: P.args, **kwargs: P.kwargs) -> T:
            return lane.wait_for(lambda held: method(held, *args, **kwargs))

        blocking.__doc__ = method.__doc__
        return blocking


class Lane(LaneView):
    """One claimed lane. All its methods raise LaneLost once it isn't ours, or has ended.

    lost_event, stop_event, pause_event     threading Events beside `lost`, `should_stop` and `paused`
    """

    def __init__(self, thread: LoopThread, lane: AsyncLane) -> None:
        super().__init__(lane._keeper)  # noqa: SLF001 - the same lane, seen from another thread
        self.lost_event = threading.Event()
        self.stop_event = threading.Event()
        self.pause_event = threading.Event()
        self._thread = thread
        self._lane = lane
        lane.on_change = self._changed
        self._changed()

    checkpoint = Blocking(AsyncLane.checkpoint)
    phase = Blocking(AsyncLane.phase)
    log = Blocking(AsyncLane.log)
    action = Blocking(AsyncLane.action)
    error = Blocking(AsyncLane.error)
    flush = Blocking(AsyncLane.flush)
    ship = Blocking(AsyncLane.ship)
    fail = Blocking(AsyncLane.fail)
    release = Blocking(AsyncLane.release)

    def wait_for(self, work: Callable[[AsyncLane], Coroutine[Any, Any, T]]) -> T:
        """The result of something that is done with the asynchronous lane, on its own thread."""
        return self._thread.call(work(self._lane))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.leave(error=error)

    def leave(self, reason: str | None = None, *, error: BaseException | None = None) -> None:
        """Let go of the lane, as the end of the block does; more than once is the same as once."""
        with suppress(RuntimeError):  # the client was closed, or this is a fork: the lane is let go of elsewhere
            self._thread.call(self._lane.leave(reason, error=error))

    def _changed(self) -> None:
        for event, holds in (
            (self.lost_event, self.lost),
            (self.stop_event, self.should_stop),
            (self.pause_event, self.paused),
        ):
            if holds:
                event.set()
            else:
                event.clear()


class Claim(Generic[P]):
    """`Client.claim`: takes what `AsyncClient.claim` takes, and returns the lane itself."""

    def __init__(self, claim: Callable[Concatenate[AsyncClient, P], PendingLane]) -> None:
        self._claim = claim
        self.__doc__ = claim.__doc__

    def __get__(self, client: Client, owner: type) -> Callable[P, Lane]:
        pending = self._claim

        @wraps(pending)
        def claim(*args: P.args, **kwargs: P.kwargs) -> Lane:
            async def claimed(asynchronous: AsyncClient) -> AsyncLane:
                return await pending(asynchronous, *args, **kwargs)

            return client.hold(claimed)

        return claim


class Claims(Generic[P]):
    """`Client.claims`: takes what `claim` takes."""

    def __init__(self, claim: Callable[Concatenate[AsyncClient, P], PendingLane]) -> None:
        self._claim: Claim[P] = Claim(claim)

    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[Lane]]:
        claim = self._claim.__get__(client, owner)

        def claims(*args: P.args, **kwargs: P.kwargs) -> Iterator[Lane]:
            """One lane after another, for a worker's loop: `for lane in client.claims(role="backend"): …`.

            Takes what `claim` takes; left out, `wait_seconds` is None, and it goes on for ever. Otherwise it ends when
            there was no lane for so long. Enter each lane (`with lane:`): then an exception of the work is told as
            such. A lane that is still held when the next is asked for is released.
            """
            kwargs.setdefault("wait_seconds", None)
            while True:
                try:
                    lane = claim(*args, **kwargs)
                except NoLane:
                    return
                try:
                    yield lane
                finally:
                    lane.leave()

        return claims


class Iterating(Generic[P, T]):
    """A method that goes through what an asynchronous generator of the client yields."""

    def __init__(self, method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[T]]:
        method = self._method

        @wraps(method)
        def iterating(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            return client.iterate(lambda asynchronous: method(asynchronous, *args, **kwargs))

        return iterating


class Client(Routes):
    """Talks to one Heartlane server: `with Client() as client:`. Takes what `AsyncClient` takes. Raises NotConfigured.

    It may be used from several threads.
    """

    def __init__(self, url: str | None = None, token: str | None = None, **options: Any) -> None:
        self._make: Callable[[], AsyncClient] = lambda: AsyncClient(url, token, **options)
        self._begin()

    claim = Claim(AsyncClient.claim)
    claims = Claims(AsyncClient.claim)
    stream = Iterating(AsyncClient.stream)
    follow = Iterating(AsyncClient.follow)

    def __repr__(self) -> str:
        return f"Client({self._client.url!r})"

    @property
    def url(self) -> str:
        """The server's address."""
        return self._client.url

    @property
    def worker_id(self) -> str:
        """Who claims. A second lane that is held at the same time has a `/2` behind it, and so on."""
        return self._client.worker_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lanes that are still held, close the connections, and end the thread."""
        with suppress(RuntimeError):  # closed already, or in a fork that has used nothing
            self._thread.call(self._client.aclose())
        self._finalizer()

    def send(self, call: Call[T]) -> T:
        """The answer to a call, made again where that is safe. Raises HeartlaneError."""
        return self.wait_for(lambda client: client.send(call))

    def pages(self, call: Call[Page[T]]) -> Iterator[T]:
        """The items of a list, page by page. Raises HeartlaneError."""
        return self.iterate(lambda client: client.pages(call))

    def _begin(self) -> None:
        self._client = self._make()
        self._thread = LoopThread(self._client.disconnect)
        self._finalizer = weakref.finalize(self, self._thread.stop)

    def wait_for(self, work: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        """The result of something that is done with the asynchronous client, on its own thread."""
        if self._thread.pid != os.getpid():
            self._begin()
        return self._thread.call(work(self._client))

    def hold(self, claim: Callable[[AsyncClient], Coroutine[Any, Any, AsyncLane]]) -> Lane:
        """The lane that was claimed."""
        return Lane(self._thread, self.wait_for(claim))

    def iterate(self, begin: Callable[[AsyncClient], AsyncGenerator[T, None]]) -> Iterator[T]:
        """What an asynchronous generator yields, which runs on the client's own thread."""
        items: AsyncGenerator[T, None] | None = None

        async def following(client: AsyncClient) -> T:
            nonlocal items
            if items is None:
                items = begin(client)
            return await anext(items)

        try:
            while True:
                try:
                    item = self.wait_for(following)
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if items is not None:
                closing = items.aclose()
                with suppress(RuntimeError):  # the client was closed meanwhile
                    self._thread.call(closing)
