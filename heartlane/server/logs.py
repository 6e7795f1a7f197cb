"""Structured logs: lines for a person on a terminal, JSON otherwise, the request's id in each, no secret in any.

Everything that is logged, by us through structlog or by a library through `logging`, takes the same way to stderr and
is masked to its very end, as finished text: tokens of ours, `Authorization` values and passwords in URLs, wherever
they come from, exception texts included.

A request has one line when it ends, at `info`; the routes that machines call all day have theirs at `debug`, and pay
for nothing where that isn't asked for.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor

from heartlane.server.settings import DatabaseUrl, Settings
from heartlane.wire.secrets import HIDDEN_KEYS, MASK, Redactor

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PASSWORD_MIN: Final = 6
"""A shorter password is not looked for by itself: masking every "a" would leave no log."""

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}
redactor: Final = Redactor()


def database_secrets(url: DatabaseUrl) -> list[str]:
    """The password of a database as it may stand in a text. None that is short, or a name one meets everywhere."""
    password = url.password
    common = {"heartlane", "postgres", "postgresql", "password"}
    if password is None or len(password) < PASSWORD_MIN or password.lower() in common:
        return []
    raw = re.search(r"://[^:@/]*:([^@]*)@", url.reveal())
    return [password] if raw is None or raw[1] == password else [password, raw[1]]


# --- the request's id ---------------------------------------------------------------------------------------------

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
_request_id: ContextVar[str | None] = ContextVar("heartlane_request_id", default=None)
_prefix = ""
_numbers = itertools.count(1)


def _new_prefix() -> None:
    global _prefix  # noqa: PLW0603 - processes that were forked from one another number their requests each from 1
    _prefix = os.urandom(6).hex()


_new_prefix()
os.register_at_fork(after_in_child=_new_prefix)


def begin_request(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Give the request under way an id: the sender's `X-Request-Id` if it is sane, else a new one.

    Every line logged by this task and those it starts carries it. Returns it for the answer's `x-request-id` header.
    """
    for name, value in headers:
        if name == b"x-request-id":
            if _SANE_ID.fullmatch(value) and not value.startswith((b"hlt_", b"hls_", b"hll_")):
                _request_id.set(value.decode("ascii"))
                return value
            break
    new = f"{_prefix}-{next(_numbers):x}"
    _request_id.set(new)
    return new.encode("ascii")


def request_id() -> str | None:
    """The id of the request under way, or None outside of one."""
    return _request_id.get()


# --- set-up -------------------------------------------------------------------------------------------------------


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Send every log line of the process to `stream` (stderr), in the format and from the level that are set."""
    global _hot_lines  # noqa: PLW0603 - a report asks for it before it does anything that costs
    stream = sys.stderr if stream is None else stream
    _hot_lines = settings.log_level == "debug"
    redactor.forget()
    redactor.add(database_secrets(settings.database))
    if settings.secret_key is not None:
        redactor.add(part.strip() for part in settings.secret_key.get_secret_value().split(","))
    redactor.add(settings.own_secrets())
    human = settings.log_format == "human" or (settings.log_format == "auto" and stream.isatty())
    level = getattr(logging, settings.log_level.upper())
    first: list[Processor] = [
        _add_request_id,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.PositionalArgumentsFormatter(),
        _hide_keys,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=first,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_human(stream.isatty()) if human else _json()),
                _redact,
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for noisy in ("alembic", "asyncio", "aiosqlite", "granian", "_granian", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*first, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        _redact_values,
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(sort_keys=False, default=repr),
    ]


def _human(colors: bool) -> list[Processor]:
    # The plain traceback: the prettier ones print local variables, and with them what a request carried.
    return [
        structlog.processors.format_exc_info,
        _redact_values,
        _escape_controls,
        structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=30
        ),
    ]


def _add_request_id(logger: Any, method: str, event: EventDict) -> EventDict:
    current = _request_id.get()
    if current is not None:
        event.setdefault("request_id", current)
    return event


def _hide_keys(logger: Any, method: str, event: EventDict) -> EventDict:
    hidden = _hide(event)
    return hidden if isinstance(hidden, dict) else event


def _hide(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: MASK if _is_hidden(key) and item else _hide(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        if len(value) == 2 and _is_hidden(value[0]):  # a header as ASGI has them
            return [value[0], MASK]
        return [_hide(item) for item in value]
    return value


def _is_hidden(key: Any) -> bool:
    name = key.decode("latin-1") if isinstance(key, bytes) else key
    return isinstance(name, str) and name.lower() in HIDDEN_KEYS


def _escape_controls(logger: Any, method: str, event: EventDict) -> EventDict:
    """A client's text must not steer the operator's terminal, nor start a line of its own."""
    for key, value in event.items():
        if isinstance(value, str):
            plain = value.translate(_CONTROLS)
            event[key] = plain if key == "exception" else plain.replace("\n", "\\n")
    return event


def _redact_values(logger: Any, method: str, event: EventDict) -> EventDict:
    """Mask each text by itself first: what hides the rest of a line then ends with its own text."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redactor.text(value)
    return event


def _redact(logger: Any, method: str, line: Any) -> str:
    return redactor.text(line if isinstance(line, str) else str(line))


# --- one line a request -------------------------------------------------------------------------------------------

QUIET_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""What machines ask every few seconds: logged at `debug`, unless it went wrong."""
_access = structlog.get_logger("heartlane.access")
_hot_lines = False


def logs_hot_routes() -> bool:
    """Whether the routes that machines call all day log their requests: ask before calling `log_hot_request`."""
    return _hot_lines


def log_hot_request(scope: Scope, status: int, started: float, client: str) -> None:
    """The line of one report or claim, at `debug`; `started` is the `time.perf_counter()` of its begin."""
    _access.debug("request", **_line(scope, status, started, client))


def _line(scope: Scope, status: int, started: float, client: str) -> dict[str, Any]:
    return {
        "method": scope["method"],
        "path": scope["path"],
        "status": status or None,
        "milliseconds": round((time.perf_counter() - started) * 1000, 2),
        "client": client,
    }


class AccessLog:
    """ASGI middleware around the routes that people use: the request's id, and one line when the answer is complete.

    The line has the path without its query. `client` reads the caller's address from the scope.
    """

    def __init__(self, app: App, client: Callable[[Scope], str]) -> None:
        self._app = app
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = begin_request(scope["headers"])
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            note = _access.debug if scope["path"] in QUIET_PATHS and 0 < status < 500 else _access.info
            note("request", **_line(scope, status, started, self._client(scope)))
