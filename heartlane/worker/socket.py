"""The lane's Unix socket: what the agent says about its lane, heard by the worker beside it.

No token is needed, so nobody else may speak here: the socket stands in a folder that only its user may enter (0700),
and whoever connects is asked for by user id. What may be said is in `heartlane.worker.messages`.

One thread serves all connections, and calls the handler, one message at a time. Connections may stay open and say as
much as they like, one line after another. A connection whose answers aren't read is not read from either.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

from heartlane.worker.errors import Kind, WorkerError
from heartlane.worker.messages import (
    MESSAGE_BYTES_MAX,
    AskLane,
    BadMessage,
    Fail,
    Message,
    Report,
    Ship,
    read_message,
)

PATH_BYTES_MAX: Final = 103
"""What every system's socket address holds: 104 bytes on macOS, 108 on Linux, the last of them a NUL."""
CONNECTIONS_MAX: Final = 128
"""At once; further ones are told to come again."""
READ_BYTES: Final = 65536


class LaneRefused(Exception):
    """A handler's no: the lane is lost, or has shipped already, say. The text goes to the agent as it is."""

    def __init__(self, message: str, kind: Kind = "unusable") -> None:
        super().__init__(message)
        self.kind: Kind = kind


class LaneHandler(Protocol):
    """What the worker does with what it hears. Called from the socket's thread, one call at a time.

    Bounds were checked. A method returns when the worker has taken the message over (spooled it); LaneRefused answers
    the agent with an error.
    """

    def on_report(self, phase: str | None, log: str | None, events: Sequence[dict[str, Any]]) -> None:
        """How it goes; `heartlane.worker.messages.as_events` makes events of all of it."""

    def on_ship(self, fields: dict[str, str]) -> None:
        """The lane is done; any of `pr_url`, `branch`, `commit`, `summary`."""

    def on_fail(self, message: str, fatal: bool) -> None:
        """The lane can't be done; `fatal`: nor by another attempt."""

    def lane(self) -> dict[str, Any]:
        """What the lane is: an object fit for JSON."""


class LaneSocket:
    """The server's side. Listens from its making until `close`; also a context manager.

        with LaneSocket(handler, folder) as lane_socket:
            environment["HEARTLANE_SOCKET"] = str(lane_socket.path)

    folder      a private folder for the socket, where its path isn't too long for one; else one is made in the system's
                folder for such files
    Raises WorkerError where no socket can be made.
    """

    def __init__(self, handler: LaneHandler, folder: Path | None = None) -> None:
        self._handler = handler
        self._listener, self.path, self._made = _listen(folder)
        self._wake_up, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._connections: dict[socket.socket, _Connection] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="lane-socket", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hear nothing any more, and remove the socket. A call of the handler that is under way is waited for."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # busy with a connection just now, it has noticed by itself
            self._wake_up.send(b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._wake_up.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)

    # --- the thread -----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._closed:
                for key, ready in self._selector.select():
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is not self._woken:
                        self._go_on(key.data, ready)
        finally:
            for connection in list(self._connections):
                self._forget(connection)
            self._selector.close()
            self._listener.close()
            self._woken.close()

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:  # gone again; or no descriptor is free, and asking on without a pause would take a whole core
            time.sleep(0.05)
            return
        peer.setblocking(False)
        connection = _Connection(peer)
        refusal = _refusal_of(peer)
        if refusal is None and len(self._connections) >= CONNECTIONS_MAX:
            refusal = f"there are {CONNECTIONS_MAX} connections to this lane's worker already; close one"
        if refusal is not None:
            connection.answer({"error": refusal, "kind": "not_in_a_lane"})
            with contextlib.suppress(OSError):
                peer.send(connection.to_send)
            peer.close()
            return
        self._connections[peer] = connection
        self._selector.register(peer, selectors.EVENT_READ, connection)

    def _go_on(self, connection: _Connection, ready: int) -> None:
        try:
            if ready & selectors.EVENT_READ:
                connection.receive()
            while connection.send() and connection.lines:
                connection.answer(self._answer(connection.lines.popleft()))
        except OSError:
            self._forget(connection.peer)
            return
        if connection.ended and not connection.to_send:
            self._forget(connection.peer)
            return
        interest = selectors.EVENT_WRITE if connection.to_send else selectors.EVENT_READ
        self._selector.modify(connection.peer, interest, connection)

    def _forget(self, peer: socket.socket) -> None:
        self._selector.unregister(peer)
        del self._connections[peer]
        peer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            return self._handle(read_message(line))
        except BadMessage as error:
            issues = [{"path": path, "message": message} for path, message in error.issues]
            return {"error": str(error), "kind": "wrong_input", "issues": issues}
        except LaneRefused as error:
            return {"error": str(error), "kind": error.kind}
        except Exception as error:  # noqa: BLE001 - a fault of the worker's must not leave its agent without an answer
            return {"error": f"the worker failed: {type(error).__name__}", "kind": "unusable"}

    def _handle(self, message: Message) -> dict[str, Any]:
        match message:
            case Report():
                self._handler.on_report(message.phase, message.log, message.events)
            case Ship():
                self._handler.on_ship(message.fields)
            case Fail():
                self._handler.on_fail(message.message, message.fatal)
            case AskLane():
                return {"ok": True, "lane": self._handler.lane()}
        return {"ok": True}


class _Connection:
    """One caller: the lines that came and wait, what has no end yet, and what it hasn't taken of its answers."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.lines: deque[bytes] = deque()
        self.to_send = b""
        self.ended = False
        self._begun = b""

    def receive(self) -> None:
        """Take what has come. A line that doesn't end is answered with an error, and is the last. Raises OSError."""
        part = self.peer.recv(READ_BYTES)
        *lines, self._begun = (self._begun + part).split(b"\n")
        self.lines.extend(line for line in lines if line.strip())
        self.ended = not part
        if len(self._begun) > MESSAGE_BYTES_MAX:
            self._begun = b""
            self.ended = True
            self.answer({"error": f"message is longer than {MESSAGE_BYTES_MAX:,} bytes", "kind": "wrong_input"})

    def answer(self, answer: dict[str, Any]) -> None:
        """Put an answer in line."""
        self.to_send += json.dumps(answer, ensure_ascii=True).encode() + b"\n"

    def send(self) -> bool:
        """Send as much as goes through; whether that was all. Raises OSError when the caller is gone."""
        if self.to_send:
            with contextlib.suppress(BlockingIOError):
                self.to_send = self.to_send[self.peer.send(self.to_send) :]
        return not self.to_send


# --- the socket's place ---------------------------------------------------------------------------------------------


def _listen(folder: Path | None) -> tuple[socket.socket, Path, Path | None]:
    """A listening socket, its path, and the folder that was made for it, if one was."""
    problems = []
    for place in [folder, *_short_places()]:
        made = None
        try:
            if place is folder and place is not None:
                path = place / "socket"
            else:
                made = Path(tempfile.mkdtemp(prefix="hl-", dir=place))  # 0700
                path = made / "socket"
            if len(os.fsencode(path)) > PATH_BYTES_MAX:
                raise OSError(f"{path} is too long for a socket")
            return _bound(path), path, made
        except OSError as error:
            problems.append(str(error))
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
    raise WorkerError(f"no socket can be made for the lane: {'; '.join(problems)}", "unusable")


def _short_places() -> list[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return [place for place in (runtime, tempfile.gettempdir(), "/tmp") if place]  # noqa: S108 - the folder made there is private


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


# --- who is it --------------------------------------------------------------------------------------------------------


def peer_uid(peer: socket.socket) -> int:
    """User id of the process at the other end, as the system says it. Raises OSError where it can't."""
    option: int | None = getattr(socket, "SO_PEERCRED", None)
    if option is not None:
        credentials = struct.Struct("iII")  # process, user, group
        _, user, _ = credentials.unpack(peer.getsockopt(socket.SOL_SOCKET, option, credentials.size))
        return int(user)
    uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
    if ctypes.CDLL(None, use_errno=True).getpeereid(peer.fileno(), ctypes.byref(uid), ctypes.byref(gid)) != 0:
        raise OSError(ctypes.get_errno(), "getpeereid failed")
    return uid.value


def _refusal_of(peer: socket.socket) -> str | None:
    try:
        uid = peer_uid(peer)
    except OSError as error:
        return f"the worker can't tell who calls: {error}"
    if uid != os.geteuid():
        return "this lane's worker belongs to another user"
    return None
