"""Runs a server: opens the database, starts Granian in this process's own event loop, and shuts down in order.

Granian is embedded so that the process is one, and so that the order of a shutdown is ours: refuse new work, finish
what was accepted, commit it, then stop listening. The event loop is uvloop by name: what a server picks by itself
changes with what happens to be installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from fastapi import APIRouter
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from heartlane.server import tls
from heartlane.server.app import create_app
from heartlane.server.auth import Authenticator
from heartlane.server.context import Context
from heartlane.server.courier import Courier
from heartlane.server.gate import Gate
from heartlane.server.gateway import Gateway
from heartlane.server.importer import Importer
from heartlane.server.limits import RateLimiter
from heartlane.server.logs import configure
from heartlane.server.metrics import Metrics
from heartlane.server.presence import Presence
from heartlane.server.processes import Seat, supervise
from heartlane.server.sender import Sender
from heartlane.server.sessions import Sessions, limits_of
from heartlane.server.settings import Settings
from heartlane.server.streams import Bounds, Streams
from heartlane.server.takeback import TakeBackLoop
from heartlane.server.waiters import Waiters
from heartlane.server.watch import Watch
from heartlane.store.errors import InUse, SchemaMismatch, StoreError, StoreUnavailable
from heartlane.store.exclusive import only_user
from heartlane.store.store import Store, sqlite_path
from heartlane.store.upgrade import upgrade_async

log = structlog.get_logger(__name__)

BACKLOG: Final = 4_096
NOTE_SECONDS: Final = 1.0
"""How old what one process tells of another in /metrics may be."""
CONNECTIONS_MAX: Final = 65_536
"""Requests that Granian hands over at once: far more than any fleet's long polls, which hold their place."""
HEADER_SECONDS: Final = 15
"""How long a client may take to send a request's head."""
STOP_SECONDS: Final = 1
"""How long Granian gets to close what is left when everything has been answered."""
CLOSE_SECONDS: Final = 0.4
"""How long each of these parts gets to bring to the database what is left. With `shutdown_seconds` as it is by default,
and with what interrupted requests and Granian get, a server ends within 10 s of SIGTERM whatever holds it up."""


class CannotStart(Exception):
    """The server can't start; the text is one line that says why and what to do."""


def run(settings: Settings, pages: APIRouter | None = None) -> None:
    """Serve until SIGTERM or SIGINT, with the board's `pages` beside the API. Raises CannotStart.

    With several `processes` this one looks after them: see `heartlane.server.processes`.
    """
    configure(settings)
    # What is loaded by now stays loaded: left out of every later collection, whose pauses would stand in the way of
    # reports. A report leaves no cycles behind, so that rarer collections cost no memory.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    seat = None
    if settings.processes > 1:
        if settings.database.dialect == "sqlite":
            raise CannotStart("A SQLite database takes one process; processes needs PostgreSQL.")
        seat = supervise(settings, _hold_port)
        if seat is None:
            return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if not runner.run(_serve(settings, pages, seat)):
            # What still hangs on the database, in tasks and threads that can't be interrupted, was promised to nobody:
            # the process ends without it, as it might at any moment.
            os._exit(0)


async def _serve(settings: Settings, pages: APIRouter | None, seat: Seat | None) -> bool:
    """Serve; whether everything has ended by then."""
    certificate = settings.certificate()
    if certificate is not None:
        try:
            tls.check(certificate)
        except tls.BadCertificate as error:
            raise CannotStart(str(error)) from None
    url = settings.database.reveal()
    with _only_server(url):
        try:
            before = await upgrade_async(url)
            if before.pending:
                log.info("schema_upgraded", before=before.current, now=before.head)
            if before.newer:
                log.warning("schema_newer", schema=before.current, own=before.head)
            store = await Store.open(url, queue_limit=settings.ledger_queue_limit, pool_size=settings.pool_size)
        except (StoreError, SchemaMismatch) as error:
            raise CannotStart(str(error)) from error
        context = make_context(settings, store, None if seat is None else seat.figures)
        figures = None if seat is None else asyncio.create_task(_note_figures(context))
        take_back = TakeBackLoop(store, context.metrics, settings.take_back_seconds)
        courier = Courier(store, Sender(context.vault, settings.webhooks_allow, board_url=settings.public_url))
        watch = Watch(store)
        try:
            take_back.start()
            courier.start()
            watch.start()
            context.importer.start()
            context.presence.start()
            await serve_app(make_app(context, pages), settings, context.gate, seat)
        finally:
            if figures is not None:
                figures.cancel()
            ended = await _close((take_back, watch, courier, context.presence), context)
            log.info("stopped")
    return ended


async def _note_figures(context: Context) -> None:
    """Keep what this process has at work where the others, asked for figures, find it."""
    while True:
        context.metrics.note(context.store.ledger.waiting, len(context.waiters), len(context.streams))
        await asyncio.sleep(NOTE_SECONDS)


async def _close(loops: Sequence[TakeBackLoop | Watch | Courier | Presence], context: Context) -> bool:
    """End everything in order; whether it has ended. What a database that doesn't answer holds up is given up."""
    ended = True

    async def end_loops() -> None:
        await asyncio.gather(*(loop.close() for loop in loops))

    for close in (
        end_loops,
        context.importer.close,
        context.streams.close,
        context.auth.close,
        context.store.close,
    ):
        closing = asyncio.create_task(close())
        await asyncio.wait((closing,), timeout=CLOSE_SECONDS)
        if closing.done():
            closing.result()
        else:
            log.warning("stopping_without_the_database", after_seconds=CLOSE_SECONDS)
            closing.cancel()
            ended = False
    return ended


def make_context(settings: Settings, store: Store, figures: Path | None = None) -> Context:
    """The parts of a server around an open store, wired together. `figures` as for `Metrics`."""
    auth = Authenticator(store, session_idle=limits_of(settings).idle)
    waiters, metrics, gate = Waiters(), Metrics(figures), Gate()
    streams = Streams(store, auth, gate, Bounds(settings.streams_max, settings.streams_each_max))
    store.feed.subscribe(waiters.hear)
    store.feed.subscribe(streams.hear)
    store.ledger.on_batch = metrics.batch
    limiter = RateLimiter(settings.rate_limits)
    sessions = Sessions(settings, store, auth)
    importer = Importer(store, settings)
    presence = Presence(store)
    return Context(
        settings, store, auth, limiter, metrics, gate, waiters, streams, sessions, settings.vault(), importer, presence
    )


def make_app(context: Context, pages: APIRouter | None = None) -> Gateway:
    """The ASGI application of a server, with the board's `pages` where there are any."""
    return Gateway(context, create_app(context, pages))


async def serve_app(
    app: Callable[..., Awaitable[None]], settings: Settings, gate: Gate, seat: Seat | None = None
) -> None:
    """Serve any ASGI application as Heartlane is served, until SIGTERM or SIGINT, in a `seat` among other processes
    where there is one. Raises CannotStart.

    Also the benchmark's floor: the same program, interface, event loop and flags around a constant answer.
    """
    certificate = settings.certificate()
    listening = _free_port(settings) if seat is None else seat.port
    server = Server(
        app,
        address=settings.host,
        port=listening,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000),
        websockets=False,
        runtime_threads=1,
        backlog=BACKLOG,
        backpressure=CONNECTIONS_MAX,
        log_enabled=False,
        ssl_cert=None if certificate is None else certificate.cert,
        ssl_key=None if certificate is None else certificate.key,
    )
    server.workers_kill_timeout = STOP_SECONDS
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if seat is not None:
        seat.watch_supervisor(loop.add_reader, stopping.set)
    serving = loop.create_task(server.serve())
    stop = loop.create_task(stopping.wait())
    try:
        await asyncio.wait((serving, stop), timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            log.info(
                "listening",
                address=settings.host,
                port=listening,
                scheme="http" if certificate is None else "https",
                **({} if seat is None else {"process": seat.number}),
            )
            if seat is not None:
                seat.say_ready()
            await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
            raise CannotStart("The server stopped by itself.")
        log.info("stopping", inside=gate.inside)
        gate.close()
        if not await gate.emptied(settings.shutdown_seconds):
            log.warning("stopping_with_requests_unanswered", inside=gate.inside)
            await gate.give_up()
    except OSError as error:
        raise CannotStart(
            f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}."
        ) from error
    finally:
        if seat is not None:
            loop.remove_reader(seat.supervisor)
        server.stop()  # type: ignore[no-untyped-call]
        stop.cancel()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await asyncio.wait_for(serving, STOP_SECONDS + 0.5)


def _free_port(settings: Settings) -> int:
    """The port to listen on, which must be free now: Granian itself shares a port that another server listens on."""
    with _bound(settings.host, settings.port, settings.port) as probe:
        port: int = probe.getsockname()[1]
    return port


def _hold_port(settings: Settings) -> socket.socket:
    """A socket that keeps the port for the processes that will share it, which must be free now. Raises CannotStart."""
    return _bound(settings.host, _free_port(settings), settings.port, shared=True)


def _bound(host: str, port: int, shown: int, *, shared: bool = False) -> socket.socket:
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        held.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CannotStart(f"Can't listen on {host} port {shown}: {reason}.") from error
    return held


@contextlib.contextmanager
def _only_server(url: str) -> Any:
    """Holds a SQLite database's lock file: a second server on it would have a second writer, and a second memory."""
    with contextlib.ExitStack() as stack:
        if url.startswith("sqlite:"):
            path = sqlite_path(url)
            refusal = f"Another server runs on {path}. A SQLite database takes one; use PostgreSQL for several."
            try:
                stack.enter_context(only_user(path, refusal))
            except (InUse, StoreUnavailable) as error:
                raise CannotStart(str(error)) from error
        yield
